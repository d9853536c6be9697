"""The published book, opened from the disk in a real browser: what a reader meets on each page.

To look at another built book: PCAM_BOOK=_build/html pytest tests/book
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from pcam.journal.questions import QUESTIONS

pytestmark = pytest.mark.browser

DESK, PHONE = {"width": 1400, "height": 900}, {"width": 400, "height": 800}
MODES = ("light", "dark")
LOCAL = ("file:", "data:", "blob:", "about:")


@dataclass
class Visit:
    """What was seen on one page, at a desk and on a phone."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    title: str = ""
    headings: int = 0
    images: list[dict[str, Any]] = field(default_factory=list)
    search_fields: int = 0
    links: list[str] = field(default_factory=list)
    banners: list[str] = field(default_factory=list)
    phone_width: int = 0
    too_wide: list[str] = field(default_factory=list)
    contrast: dict[str, dict[str, float]] = field(default_factory=dict)


_LOOK = """() => ({
    title: document.title,
    headings: [...document.querySelectorAll('main h1')].filter(e => e.offsetParent).length,
    images: [...document.images].map(i => ({
        src: i.getAttribute('src').slice(0, 120), alt: i.getAttribute('alt'), broken: i.complete && !i.naturalWidth})),
    search_fields: [...document.querySelectorAll('.search-button-field, input[type=search]')]
        .filter(e => e.offsetParent).length,
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    banners: [...document.querySelectorAll('main .pcam-banner')].map(b => b.textContent.trim()),
})"""

_WIDTH = """() => ({
    phone_width: document.documentElement.scrollWidth,
    too_wide: [...document.querySelectorAll('article *')]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('pre, .pcam-scroll, .cell_output'))
        .map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 40)}`).slice(0, 3),
})"""


_CONTRAST = """selectors => {
    // WCAG 2.2, relative luminance; a background is the nearest one that is not transparent.
    const parse = c => c.match(/[\\d.]+/g).map(Number);
    const behind = e => {
        for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > 0.99) return c;
        }
        return [255, 255, 255];
    };
    const light = c => c.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ratio = e => {
        const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    };
    return Object.fromEntries(selectors.map(s => [s, [...document.querySelectorAll(s)].slice(0, 3).map(ratio)])
        .filter(([_, ratios]) => ratios.length).map(([s, ratios]) => [s, Math.min(...ratios)]));
}"""
_TEXTS = [
    "main h1",
    "main p",
    "main a.reference",
    "main code .pre",
    ".pcam-banner",
    ".pcam-table th",
    ".pcam-table td",
    ".pcam-table caption",
    ".answer-number p",
    ".answer-question p",
    ".answers .sd-card-footer",
    ".evidence-chain span",
    "figcaption p",
    "div.cell_output > p strong",
    ".bd-sidebar-primary a",
]


@contextmanager
def _listening(page: Any, visit: Visit) -> Iterator[None]:
    """Write the page's requests and errors into `visit` while the block runs."""
    hearers: dict[str, Callable[[Any], None]] = {
        "request": lambda r: visit.requests.append(r.url),
        "requestfailed": lambda r: visit.errors.append(f"failed: {r.url}"),
        "console": lambda m: visit.errors.append(m.text) if m.type == "error" else None,
        "pageerror": lambda e: visit.errors.append(str(e)),
    }
    for event, hear in hearers.items():
        page.on(event, hear)
    yield
    for event, hear in hearers.items():
        page.remove_listener(event, hear)


@pytest.fixture(scope="module")
def visits(browser: Any, html: Path, pages: list[Path]) -> dict[str, Visit]:
    """Every page of the book, visited once."""
    seen = {}
    page = browser.new_page(viewport=DESK, reduced_motion="reduce")
    for path in pages:
        visit = seen[path.relative_to(html).as_posix()] = Visit()
        with _listening(page, visit):
            page.set_viewport_size(DESK)
            page.goto(path.as_uri(), wait_until="load")
            facts = page.evaluate(_LOOK)
            page.set_viewport_size(PHONE)
            facts |= page.evaluate(_WIDTH)
            for mode in MODES:
                page.emulate_media(color_scheme=mode)
                page.wait_for_function(f"document.documentElement.dataset.theme == '{mode}'")
                visit.contrast[mode] = page.evaluate(_CONTRAST, _TEXTS)
        for name, value in facts.items():
            setattr(visit, name, value)
    page.close()
    return seen


def _by_page(visits: dict[str, Visit], fault: Callable[[Visit], Any]) -> dict[str, Any]:
    """Return the fault of each page that has one, so that a failing test names them all."""
    return {name: found for name, visit in visits.items() if (found := fault(visit))}


def test_every_chapter_and_page_is_there(visits: dict[str, Visit]) -> None:
    expected = {f"questions/{name}.html" for name in QUESTIONS}
    expected |= {f"{name}.html" for name in ("index", "how_to_read", "evidence", "runs", "data_card", "model_card")}
    assert expected | {"decisions.html", "references.html", "search.html"} == set(visits)


def test_no_page_asks_a_network(visits: dict[str, Visit]) -> None:
    assert not _by_page(visits, lambda v: [url for url in v.requests if not url.startswith(LOCAL)])


def test_no_page_reports_an_error(visits: dict[str, Visit]) -> None:
    assert not _by_page(visits, lambda v: v.errors)


def test_every_page_has_one_title(visits: dict[str, Visit]) -> None:
    assert not _by_page(visits, lambda v: v.headings != 1 or "PCam Journal" not in v.title)


def test_every_page_has_one_search_field(visits: dict[str, Visit]) -> None:
    # The search page has its own beside the sidebar's button.
    counts = {name: visit.search_fields for name, visit in visits.items()}
    assert counts.pop("search.html") == 2
    assert set(counts.values()) == {1}, counts


def test_every_image_is_there_and_says_what_it_shows(visits: dict[str, Visit]) -> None:
    def fault(visit: Visit) -> list[str]:
        # Without a text of its own an image gets its file's name, which tells a listener nothing.
        bare = [i["src"] for i in visit.images if i["alt"] is None or i["alt"].endswith((".png", ".svg", ".webp"))]
        return bare + [i["src"] for i in visit.images if i["broken"]]

    assert not _by_page(visits, fault)


def test_no_page_is_wider_than_a_phone(visits: dict[str, Visit]) -> None:
    assert not _by_page(visits, lambda v: v.phone_width > PHONE["width"] and v.too_wide)
    assert not _by_page(visits, lambda v: v.phone_width > PHONE["width"])


def test_links_within_the_book_lead_somewhere(visits: dict[str, Visit]) -> None:
    def fault(visit: Visit) -> list[str]:
        local = [unquote(urlparse(link).path) for link in visit.links if link.startswith("file:")]
        return [path for path in local if not Path(path).exists()]

    assert not _by_page(visits, fault)


@pytest.mark.parametrize("chapter", QUESTIONS)
def test_a_chapter_says_which_data_it_stands_on(visits: dict[str, Visit], chapter: str) -> None:
    banners = visits[f"questions/{chapter}.html"].banners
    assert len(banners) == 1
    assert banners[0].startswith(("Synthetic sample.", "Real data"))


def test_the_cover_answers_every_question(browser: Any, html: Path) -> None:
    page = browser.new_page()
    page.goto((html / "index.html").as_uri())
    cards = page.locator(".answers .sd-card")
    assert cards.count() == len(QUESTIONS)
    for card, question in zip(cards.all(), QUESTIONS.values(), strict=True):
        text = card.inner_text()
        assert question.title in text
        assert "answered" in text, f"{question.name}: no status"
        assert card.locator("a").get_attribute("href") == f"questions/{question.name}.html"
    assert page.locator("main .pcam-banner").count() == 1
    page.close()


def test_code_is_folded_and_opens(browser: Any, html: Path) -> None:
    page = browser.new_page(viewport=DESK)
    page.goto((html / "questions" / "q6_slicing.html").as_uri())
    fold, code = page.locator("details.above-input").first, page.locator("details.above-input pre").first
    assert not code.is_visible()
    fold.locator("summary").click()
    assert code.is_visible()
    assert "open_chapter" in code.inner_text()
    page.close()


def test_the_gallery_works_in_the_page_as_built(browser: Any, html: Path) -> None:
    page = browser.new_page(viewport=DESK)
    visit = Visit()
    with _listening(page, visit):
        page.goto((html / "questions" / "q6_slicing.html").as_uri())
        gallery = page.locator(".pcam-gallery").first
        gallery.wait_for()
        before = gallery.inner_text()
        # A threshold above every score: no patch is called tumour any more.
        gallery.locator("input[type=number]").first.fill("1")
        gallery.locator("input[type=number]").first.press("Enter")
        page.wait_for_function("before => document.querySelector('.pcam-gallery').innerText !== before", arg=before)
    assert not visit.errors
    assert not [url for url in visit.requests if not url.startswith(LOCAL)]
    page.close()


@pytest.mark.parametrize("term", ["leakage", "fingerprint"])
def test_search_finds_a_term(browser: Any, html: Path, term: str) -> None:
    page = browser.new_page()
    visit = Visit()
    with _listening(page, visit):
        page.goto((html / "index.html").as_uri())
        page.keyboard.press("Control+k")
        page.locator("dialog input[type=search], .search-button__search-container input").first.fill(term)
        page.keyboard.press("Enter")
        page.wait_for_selector("#search-results li a", timeout=10_000)
    assert page.locator("#search-results li a").count() > 0
    assert not visit.errors
    page.close()


@pytest.mark.parametrize("mode", MODES)
def test_text_is_readable_in_both_modes(visits: dict[str, Visit], mode: str) -> None:
    # WCAG 2.2, level AA, for text of ordinary size
    assert not _by_page(visits, lambda v: {text: ratio for text, ratio in v.contrast[mode].items() if ratio < 4.5})


def test_dark_mode_can_be_chosen_and_stays(browser: Any, html: Path) -> None:
    page = browser.new_page(viewport=DESK, color_scheme="light")
    page.goto((html / "index.html").as_uri())
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    for _ in range(3):  # the button goes round: as the system has it, light, dark
        page.locator("button.theme-switch-button").first.click()
        if page.evaluate(theme) == "dark":
            break
    assert page.evaluate(theme) == "dark"
    for _ in range(20):  # the browser stores the choice a moment later, and a reader is no faster
        page.wait_for_timeout(100)
        page.goto((html / "data_card.html").as_uri())
        if page.evaluate(theme) == "dark":
            break
    assert page.evaluate(theme) == "dark"
    page.close()


def test_paper_shows_the_page_without_its_furniture(browser: Any, html: Path) -> None:
    page = browser.new_page(viewport=DESK)
    page.goto((html / "how_to_read.html").as_uri())
    page.emulate_media(media="print")
    assert [h.inner_text() for h in page.locator("main h1").all() if h.is_visible()] == ["How to read this book"]
    assert not page.locator(".bd-sidebar-primary").is_visible()
    page.close()
