"""The error gallery without a browser: its HTML, its choice of patches, its picture and its two-way values."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from pcam.config import ModelConfig
from pcam.data.format import Split, open_split
from pcam.errors import DataError
from pcam.evaluation.features import input_features
from pcam.evaluation.gallery import ErrorGallery
from pcam.evaluation.gallery_patches import EACH, MOST, choose_patches, error_figure, pictures
from pcam.evaluation.predictions import Predictions, write_predictions
from pcam.evaluation.thresholds import Threshold, confusion_matrix, fixed_threshold
from pcam.models import build


def predicted(split: Split, *, labelled: bool = True, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    label = split.labels
    score = 1 / (1 + np.exp(-(2.0 * label - 1 + 2 * rng.normal(size=len(label)))))
    return Predictions(split.name, np.arange(len(label)), label if labelled else None, score)


@pytest.fixture(scope="module")
def split(tiny) -> Split:
    return open_split(tiny, "test")


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.S)[1])


def test_the_same_input_gives_the_same_bytes(split: Split) -> None:
    p = predicted(split)
    first, second = ErrorGallery(p, split).to_page(), ErrorGallery(p, split).to_page()
    assert first == second
    assert ErrorGallery(p, split, 0.3).to_html() != ErrorGallery(p, split, 0.4).to_html()


def test_the_page_names_no_other_address(split: Split) -> None:
    page = ErrorGallery(predicted(split), split).to_page()
    # The one address is a name, not a place: the XML namespace of the histogram.
    assert set(re.findall(r"https?://[^\"'\s)]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|img|link|iframe)[^>]*\s(src|href)=(?!\"data:)", page)
    assert not re.search(r"@import|url\(|import\s*\(|fetch\(|XMLHttpRequest", page)


@pytest.mark.parametrize(
    "name", ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--<script>", 'a"b&c', "\u2028é"]
)
def test_a_slide_name_cannot_leave_its_string(split: Split, name: str) -> None:
    hostile = Split(split.directory, split.name)
    hostile.__dict__["slides"] = np.array([name] * len(split))
    page = ErrorGallery(predicted(split), hostile).to_html()
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    assert "<img" not in page
    assert data_of(page)["content"]["patches"][0]["slide"] == name


def test_no_number_is_written_that_is_not_json(split: Split) -> None:
    state = data_of(ErrorGallery(predicted(split), split).to_html())
    assert state["threshold"] == 0.5
    assert state["selected"] is None
    assert len(state["content"]["patches"]) == len(split)


@pytest.mark.parametrize("exact", [True, False])
def test_all_scores_travel_without_loss(split: Split, exact: bool) -> None:
    p = predicted(split)
    if not exact:
        p = Predictions(p.split, p.index, p.label, p.score.astype(np.float32))
    for packed, label in zip(ErrorGallery(p, split, limit=3).content["scores"], (0, 1), strict=True):
        assert packed["kind"] == ("f8" if exact else "f4")
        found = np.frombuffer(base64.b64decode(packed["data"]), dtype=f"<{packed['kind']}")
        np.testing.assert_array_equal(found, np.sort(p.score[p.label == label]))


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 1.0, 1.1])
def test_counts_follow_the_threshold(split: Split, threshold: float) -> None:
    p = predicted(split)
    gallery = ErrorGallery(p, split)
    gallery.threshold = threshold
    assert gallery.counts == confusion_matrix(p, fixed_threshold(threshold))


def test_what_the_page_sends_reaches_python(split: Split) -> None:
    p = predicted(split)
    gallery = ErrorGallery(p, split)
    heard = []
    gallery.observe(lambda change: heard.append((change["name"], change["new"])), ["threshold", "selected"])
    gallery.set_state({"threshold": 0.25, "selected": 7})
    assert heard == [("threshold", 0.25), ("selected", 7)]
    assert gallery.counts == confusion_matrix(p, fixed_threshold(0.25))
    gallery.set_state({"selected": None})
    assert gallery.selected is None


def test_a_threshold_brings_its_rule_along(split: Split) -> None:
    gallery = ErrorGallery(predicted(split), split, Threshold(0.3, "valid", "cheapest on valid"))
    assert gallery.content["threshold"] == {"value": 0.3, "rule": "cheapest on valid"}
    assert gallery.threshold == 0.3


def test_it_is_a_widget_and_html_at_once(split: Split) -> None:
    data, _ = ErrorGallery(predicted(split), split)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/html"] == ErrorGallery(predicted(split), split).to_html()
    assert data["text/plain"] == "ErrorGallery('test', n=24, on show=24, threshold=0.500)"


def test_files_do_as_well_as_objects(split: Split, tmp_path) -> None:
    path = write_predictions(tmp_path / "p.csv", predicted(split))
    assert ErrorGallery(path, split.directory).to_html() == ErrorGallery(predicted(split), split).to_html()


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 24, 200])
@pytest.mark.parametrize("labelled", [True, False])
def test_any_number_of_patches(split: Split, limit: int, labelled: bool) -> None:
    gallery = ErrorGallery(predicted(split, labelled=labelled), split, limit=limit)
    assert len(gallery.shown) == min(limit, 24)
    assert (gallery.content["pictures"]["sheets"] == []) == (limit == 0)
    assert (gallery.content["patches"] == []) == (limit == 0)


def test_what_does_not_fit_is_refused(split: Split, tiny) -> None:
    with pytest.raises(DataError, match=r"24 predictions of 'test' do not fit .* split 'valid'"):
        ErrorGallery(predicted(split), open_split(tiny, "valid"))
    longer = Predictions("test", np.arange(25), None, np.zeros(25))
    with pytest.raises(DataError, match=r"25 predictions of 'test' do not fit .* with 24 patches"):
        ErrorGallery(longer, split)
    p = predicted(split)
    with pytest.raises(DataError, match="predictions of 'test': 24 of 24 labels differ from those of 'test'"):
        ErrorGallery(Predictions("test", p.index, 1 - p.labels, p.score), split)
    part, features = p.take(np.arange(12, 24)), input_features(split)
    for name, given in {"features": features, "suspects": np.ones(24, bool), "late": np.arange(24) > 11}.items():
        with pytest.raises(DataError, match=rf"a gallery's {name}: 24 rows for 12 predictions; give one each"):
            ErrorGallery(part, split, **({"slices": {name: given}} if name == "late" else {name: given}))
    features.iloc[3, 0] = np.nan
    with pytest.raises(DataError, match="hold a value that is not finite"):
        ErrorGallery(p, split, features=features)
    for quality in (0, 101):
        with pytest.raises(DataError, match=rf"quality is {quality}; it must be in 1\.\.100"):
            ErrorGallery(predicted(split), split, quality=quality)
    with pytest.raises(DataError, match=rf"limit is -1; it must be in 0\.\.{MOST}"):
        ErrorGallery(predicted(split), split, limit=-1)


# ---- which patches


@pytest.mark.parametrize("limit", [1, 8, 50, 96, 399])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_the_gravest_mistakes_come_first(limit: int, share: float) -> None:
    rng = np.random.default_rng(limit)
    label = (rng.random(400) < share).astype(np.uint8)
    p = Predictions("test", np.arange(400), label, rng.random(400))
    chosen = choose_patches(p, 0.4, limit)
    assert len(chosen) == limit
    assert (np.diff(chosen) > 0).all()
    called = p.score >= 0.4
    for kind, gravity in ((called & (label == 0), p.score), (~called & (label == 1), -p.score)):
        shown, left = kind[chosen].nonzero()[0], np.setdiff1d(kind.nonzero()[0], chosen)
        if len(shown) and len(left):
            assert gravity[chosen][shown].min() >= gravity[left].max()


def test_right_calls_span_the_scores() -> None:
    p = Predictions("test", np.arange(400), np.arange(400) >= 200, np.arange(400) / 400)
    chosen = choose_patches(p, 0.5, 40)
    assert chosen[[0, -1]].tolist() == [0, 399]
    assert np.diff(chosen).max() <= 11


# ---- the pixels


def sheet_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


@pytest.mark.parametrize("count", [1, 2, 5, 24])
@pytest.mark.parametrize("quality", [60, 90, 100])
def test_the_sheet_holds_the_files_own_pixels_in_order(split: Split, count: int, quality: int) -> None:
    patches = split.read(slice(0, count))
    carried = pictures(patches, quality)
    sheet = sheet_of(carried["sheets"][0])
    wide = int(np.ceil(np.sqrt(count)))
    assert sheet.shape == (96 * int(np.ceil(count / wide)), 96 * wide, 3)
    found = np.stack([sheet[96 * (p // wide) :, 96 * (p % wide) :][:96, :96] for p in range(count)])
    if quality == 100:
        np.testing.assert_array_equal(found, patches)
        assert carried["error"] is None
        return
    # Compression moves a pixel by a few grey levels, and the page says how many; normalisation moves it by dozens.
    off = np.abs(found.astype(int) - patches)
    assert carried["error"]["mean"] == pytest.approx(off.mean(), rel=0.05)
    assert carried["error"]["most"] >= off.max()
    assert off.mean() < 8


def test_many_patches_come_in_several_sheets(split: Split) -> None:
    patches = split.read(np.zeros(EACH + 3, dtype=int))
    patches[:, 0, 0, 0] = np.arange(EACH + 3) % 256
    patches[:, 0, 1, 0] = np.arange(EACH + 3) // 256
    first, second = map(sheet_of, pictures(patches, 100)["sheets"])
    assert first[0, 96 * 5, 0] == 5
    assert first[96 * 15, 96 * 15, 0] == 255
    assert second[96, 0].tolist()[0] == 2
    assert second.shape == (192, 192, 3)


def test_the_surest_mistakes_lie_first_in_the_pictures(split: Split) -> None:
    p = predicted(split)
    held = ErrorGallery(p, split).content["patches"]
    order = [patch["index"] for patch in sorted(held, key=lambda patch: patch["place"])]
    assert order == np.argsort(-np.abs(p.label - p.score), kind="stable").tolist()


@pytest.mark.real
@pytest.mark.parametrize("limit", [100, 200])
def test_a_gallery_of_real_patches_stays_small(real_data, limit: int) -> None:
    split, train = open_split(real_data, "test"), open_split(real_data, "train")
    model = build(ModelConfig(name="mlp"))
    gallery = ErrorGallery(predicted(split), split, limit=limit, neighbours=train, model=model, attribution=True)
    assert len(gallery.to_html().encode()) <= 3_000_000


# ---- what Python and the page may set


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_threshold_must_be_a_number(split: Split, value: float) -> None:
    gallery = ErrorGallery(predicted(split), split)
    with pytest.raises(DataError, match=rf"threshold is {value}; it must be finite"):
        gallery.threshold = value
    assert gallery.threshold == 0.5


def test_only_a_patch_on_show_is_shown(split: Split) -> None:
    gallery = ErrorGallery(predicted(split), split, limit=3)
    gallery.selected = gallery.shown[0]
    absent = next(index for index in range(24) if index not in gallery.shown)
    with pytest.raises(DataError, match=rf"patch {absent} is not on show; 'shown' holds"):
        gallery.selected = absent
    assert gallery.selected == gallery.shown[0]


# ---- without scripts


def test_a_page_without_scripts_lists_the_surest_mistakes(split: Split) -> None:
    p = predicted(split, seed=2)
    inert = re.search(r"<noscript>(.*?)</noscript>", ErrorGallery(p, split).to_page(), re.S)[1]
    found = confusion_matrix(p, fixed_threshold(0.5))
    for count, of in ((found.fp, found.fp + found.tn), (found.fn, found.fn + found.tp)):
        assert f"({count} of {of})" in inert
    listed = [int(index) for index in re.findall(r'alt="Patch (\d+)"', inert)]
    wrong = (p.score >= 0.5) != (p.label == 1)
    assert sorted(listed) == sorted(np.flatnonzero(wrong))
    first = sheet_of(re.search(r'src="([^"]+)"', inert)[1])
    assert np.abs(first.astype(int) - split.read([listed[0]])[0]).mean() < 6
    assert "<img" not in ErrorGallery(predicted(split, labelled=False), split).to_page()
    assert "<img" not in ErrorGallery(p, split, limit=0).to_page()


# ---- patches and scores at the edge


def test_blank_patches_and_scores_at_the_ends(tiny) -> None:
    blank = Split(tiny, "test")
    blank.__dict__["read"] = lambda rows: np.full((len(np.arange(24)[rows]), 96, 96, 3), 255, dtype=np.uint8)
    score = np.where(np.arange(24) % 3 == 0, 0.0, np.where(np.arange(24) % 3 == 1, 1.0, 0.5))
    for label in (blank.labels, np.ones(24, dtype=np.uint8), np.zeros(24, dtype=np.uint8)):
        blank.__dict__["labels"] = label
        gallery = ErrorGallery(Predictions("test", np.arange(24), label, score), blank)
        assert data_of(gallery.to_page())["content"]["pictures"]["error"] is None
        assert gallery.counts.tp + gallery.counts.fp == 16


# ---- the figure


def test_the_figure_shows_the_most_confident_mistakes(split: Split) -> None:
    p = predicted(split, seed=2)
    figure = error_figure(p, split, 0.5, count=4)
    positive, negative = figure.subfigs
    false_positive = [row for row in np.argsort(-p.score) if p.score[row] >= 0.5 and not p.label[row]][:4]
    texts = [axis.texts[0].get_text() for axis in positive.axes if axis.texts]
    assert texts == [f"#{row}\n{p.score[row]:.3f}" for row in false_positive]
    found = confusion_matrix(p, fixed_threshold(0.5))
    assert found.fp
    assert found.fn
    assert f"({found.fp} of {found.fp + found.tn})" in positive.get_suptitle()
    assert f"({found.fn} of {found.fn + found.tp})" in negative.get_suptitle()


def test_the_figure_of_a_perfect_model_is_empty_and_says_so(split: Split) -> None:
    p = Predictions("test", np.arange(24), split.labels, split.labels.astype(float))
    titles = [band.get_suptitle() for band in error_figure(p, split, 0.5).subfigs]
    assert ["(0 of" in title for title in titles] == [True, True]
