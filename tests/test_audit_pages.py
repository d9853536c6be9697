"""The audit on a page: folds, tables and figures of what was found."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import pytest
from tissue import textured, write_folder

from pcam.audit import AuditReport, audit, figures, folds, tables
from pcam.audit.findings import PAIR_ISSUES
from pcam.audit.plant import SHARES, plant, score
from pcam.data.format import split_path


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditReport, list[tables.Score]]:
    folder = tmp_path_factory.mktemp("pages")
    data = write_folder(folder / "data", {"train": textured(200), "test": textured(60, seed=1)})
    shares = dict(SHARES) | {"trigger": 0.06}
    truth = plant(data, folder / "planted", shares, seed=2)
    report = audit(folder / "planted", folder / "out")
    return report, score(report, truth)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    folder = tmp_path_factory.mktemp("clean")
    return audit(write_folder(folder / "data", {"train": textured(20)}), folder / "out")


def test_folds_by_group_tear_no_pair(planted: tuple[AuditReport, list[tables.Score]]) -> None:
    by_patch, by_group = folds.compare(planted[0], k=4)
    assert by_patch.pairs == by_group.pairs == len(planted[0].findings.of(*PAIR_ISSUES))
    assert by_patch.torn > by_group.torn == 0
    assert by_group.smallest > 50 and 0 < by_group.lowest_share < by_group.highest_share < 1


def test_without_labels_there_are_no_folds(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", {"train": textured(8), "test": textured(8, seed=1)})
    report = audit(folder, tmp_path / "out", suspects="none")
    assert len(folds.compare(report, k=5)) == 2
    assert folds.compare(report, k=9) == []  # eight patches of either class
    with h5py.File(split_path(folder, "train", "y"), "r+") as file:
        file["y"][...] = 0
    assert folds.compare(audit(folder, tmp_path / "few", suspects="none"), k=5) == []  # four positives are left
    for split in ("train", "test"):
        split_path(folder, split, "y").unlink()
    assert folds.compare(audit(folder, tmp_path / "bare", suspects="none"), k=5) == []


@pytest.mark.parametrize(("arguments", "number"), [((5,), 5), ((5, 4, 20), 405), ((3, 2, 10), 63)])
def test_number_of_trainings(arguments: tuple[int, ...], number: int) -> None:
    assert folds.trainings(*arguments) == number


def test_tables_agree_with_the_findings(planted: tuple[AuditReport, list[tables.Score]]) -> None:
    report, results = planted
    broken = tables.broken(report)
    assert broken["patches"].sum() == len(
        report.findings.of("black", "white", "constant", "nan", "out_of_range", "trigger")
    )
    pairs = tables.pairs(report)
    assert (pairs["within a split"] + pairs["across splits"] == pairs["pairs"]).all()
    assert pairs["pairs"].sum() == len(report.findings.of(*PAIR_ISSUES))
    splits = tables.splits(report)
    assert splits["n"].tolist() == [200, 60] and splits["slides"].isna().all()
    assert (splits["low"] < splits["share positive"]).all() and (splits["share positive"] < splits["high"]).all()
    assert tables.storage(report)["bytes/value"].tolist() == [s.bytes_per_value for s in report.storage]
    assert tables.scores(results)["recall"].min() >= 0.8
    assert len(tables.shifts(report)) == 1


def test_a_trigger_is_in_one_class_only(planted: tuple[AuditReport, list[tables.Score]]) -> None:
    rows = tables.broken(planted[0]).query("issue == 'trigger'")
    assert len(rows) and rows["of normal"].str.startswith("0 of").all()
    assert (rows["follows label: p"] == "< 0.001").all()


def test_the_factors_of_a_size_multiply_to_it(planted: tuple[AuditReport, list[tables.Score]]) -> None:
    found = tables.factors(planted[0])
    product = found["patches"] * found["bytes per value"] * found["storage"] * found["other"]
    assert product.tolist() == pytest.approx(found["product"].tolist())
    assert found["bytes per value"].tolist() == [4, 4]


def test_values_out_of_range_are_described(planted: tuple[AuditReport, list[tables.Score]], clean: AuditReport) -> None:
    found = tables.out_of_range(planted[0])
    assert found["patches"].sum() == len(planted[0].findings.of("out_of_range"))
    assert (found["highest"] == 1e5).all() and (found["lowest"] == 1e5).all() and (found["pixels a patch"] == 25).all()
    assert (found["lowest mean"] > 25 / 96**2 * 1e5).all() and (found["highest mean"] < 25 / 96**2 * 1e5 + 255).all()
    assert len(tables.out_of_range(clean)) == 0


def test_shares_of_a_class_have_their_interval(planted: tuple[AuditReport, list[tables.Score]]) -> None:
    row = tables.broken(planted[0]).iloc[0]
    assert re.fullmatch(r"\d+ of \d+ \(0\.\d{3}, 0\.\d{3} to 0\.\d{3}\)", row["of normal"])


def test_four_times_the_groups_halve_an_interval() -> None:
    assert folds.narrowed(0.2, 25, 100) == pytest.approx(0.1)


def test_suspects_are_drawn_with_rank_and_score(planted: tuple[AuditReport, list[tables.Score]]) -> None:
    figure = figures.ranked_sheet(planted[0], "pixel_overlap", limit=3)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0].startswith("1. ") and "score" in titles[0] and len(titles) == 3
    plt.close(figure)


@pytest.mark.parametrize("p", [(None, "not tested"), (0.0004, "< 0.001"), (0.25, "0.250")])
def test_p_values_as_text(p: tuple[float | None, str]) -> None:
    assert tables.p_text(p[0]) == p[1]


def test_every_finding_can_be_drawn(planted: tuple[AuditReport, list[tables.Score]]) -> None:
    report, _ = planted
    drawn = [
        figures.contact_sheet(report, ("black", "nan", "trigger"), per_issue=3),
        figures.pair_sheet(report, PAIR_ISSUES, per_issue=2),
        figures.broken_map(report),
        figures.trigger_sheet(report, per_trigger=2),
    ]
    texts = [text.get_text() for axes in drawn[1].axes for text in axes.texts]
    assert any(text.startswith("overlap: shift") for text in texts)
    assert "exact: the same bytes" in texts
    assert len(drawn[0].axes) == 9
    # A black patch is seen as it is; a block of NaN and a trigger are outlined.
    assert [len(axes.patches) for axes in drawn[0].axes] == [0] * 3 + [1] * 6
    outlined = sum(len(axes.patches) for axes in drawn[1].axes)
    assert outlined == 4  # both sides of both pairs that share pixels
    for figure in drawn:
        plt.close(figure)


@pytest.mark.parametrize("name", ["contact_sheet", "pair_sheet"])
def test_nothing_found_is_nothing_to_draw(name: str, clean: AuditReport) -> None:
    with pytest.raises(ValueError, match=r"exact.* to show"):
        getattr(figures, name)(clean, ("exact_duplicate",))


def test_clean_data_have_no_map_and_no_trigger(clean: AuditReport) -> None:
    with pytest.raises(ValueError, match="no NaN or out-of-range values"):
        figures.broken_map(clean)
    with pytest.raises(ValueError, match="no trigger"):
        figures.trigger_sheet(clean)
