from .chapter import Chapter as Chapter, open_chapter as open_chapter
