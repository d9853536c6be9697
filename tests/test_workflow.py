"""The workflow: which jobs there are, what they depend on, and what happens when it is cut short or started twice."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pcam.journal.plan import open_plan
from pcam.journal.questions import QUESTIONS
from pcam.journal.workflow import CHAPTER_CODE, ablation_digest, code_digest, runs_of
from pcam.storage import claim

ROOT = Path(__file__).resolve().parent.parent


def command(profile: str, *arguments: str) -> list[str]:
    start = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"]
    return [*start, "--profile", f"workflow/profiles/{profile}", *arguments]


def snakemake(work: Path, profile: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PCAM_WORK": str(work)}
    return subprocess.run(
        command(profile, *arguments), cwd=ROOT, env=environment, text=True, capture_output=True, check=False
    )


def jobs(output: str) -> dict[str, int]:
    """Return the counts of the table that a dry run prints; chapters that start first or alone are chapters too."""
    counts = {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", output, re.MULTILINE)}
    kinds = [name for name in counts if name.endswith("chapter")]
    return counts | {"chapter": sum(counts.pop(name) for name in kinds)}


def test_the_jobs_of_a_fresh_clone(tmp_path: Path) -> None:
    done = snakemake(tmp_path, "laptop", "--dry-run", "--config", "data=")
    assert done.returncode == 0, done.stderr
    plan = open_plan(root=tmp_path, make=False)
    named = {run for name in QUESTIONS for run in runs_of(name, plan)}
    expected = {"data": 1, "run": len(named), "chapter": 10, "book": 1}
    found = jobs(done.stdout + done.stderr)
    assert {name: found.get(name) for name in expected} == expected
    assert not (tmp_path / "sample" / "data").exists(), "a dry run must not paint the sample"


def test_a_chapter_depends_on_all_of_the_journal_that_it_calls() -> None:
    imports = [
        node
        for path in (ROOT / "notebooks").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pcam.journal")
    ]
    called = {
        node.module.removeprefix("pcam.journal.") for node in imports if node.module and node.module.count(".") > 1
    }
    called |= {name.name for node in imports if node.module == "pcam.journal" for name in node.names} - {"open_chapter"}
    assert called >= {"gates", "bundle", "history"}
    assert {f"journal/{name}.py" for name in called} <= set(CHAPTER_CODE)


def test_the_chapter_that_shows_the_ablation_depends_on_it(tmp_path: Path) -> None:
    plan = open_plan(root=tmp_path, make=False)
    before = {name: ablation_digest(name, plan) for name in QUESTIONS}
    (plan.work / "ablation").mkdir(parents=True)
    (plan.work / "ablation" / "cnn-0.json").write_text("{}")
    changed = [name for name in QUESTIONS if ablation_digest(name, plan) != before[name]]
    assert changed == ["q4_gradients"]


def test_other_data_need_no_sample(tiny: Path, tmp_path: Path) -> None:
    done = snakemake(tmp_path, "laptop", "--dry-run", "--config", f"data={tiny}")
    found = jobs(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    assert "data" not in found and found["chapter"] == 10


@pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
    reason="the Slurm plugin is an extra: pip install -e '.[slurm]'",
)
def test_the_profile_of_a_cluster(tiny: Path, tmp_path: Path) -> None:
    done = snakemake(tmp_path, "slurm", "--dry-run", "--config", f"data={tiny}")
    assert done.returncode == 0 and jobs(done.stdout + done.stderr)["chapter"] == 10, done.stderr


def test_data_that_are_not_there(tmp_path: Path) -> None:
    done = snakemake(tmp_path, "laptop", "--dry-run", "--config", f"data={tmp_path / 'nowhere'}")
    assert done.returncode != 0
    assert re.search(r"^pcam: error: .*nowhere: no such data folder; make one with", done.stderr, re.MULTILINE)
    assert "Snakefile" not in done.stderr and "Traceback" not in done.stderr


def test_a_second_one_is_told_who_is_at_work(tmp_path: Path) -> None:
    with claim(tmp_path / "sample" / "journal.claim"):
        done = snakemake(tmp_path, "laptop", "--dry-run", "--config", "data=")
    assert done.returncode != 0
    assert re.search(rf"process {os.getpid()} on .* is at work on it; wait for it", done.stdout + done.stderr)


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path) -> None:
    environment = {**os.environ, "PCAM_WORK": str(tmp_path)}
    data = tmp_path / "sample" / "data"
    process = subprocess.Popen(
        command("laptop", "--config", "data=", "--", str(data)),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("sample/.data.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(tmp_path.glob("sample/.data.*")), "the sample was never begun"
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to the whole group
    assert process.wait(timeout=60) != 0
    assert not list((tmp_path / "sample").iterdir())


def test_nbval_leaves_what_executed_chapters_cite(tmp_path: Path) -> None:
    make = ["make", "--dry-run", "--assume-old=.venv/installed", "notebooks", "BIN=true"]
    # As if called by hand: below another make, it would say which folder it enters.
    alone = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(
        make, cwd=ROOT, env={**alone, "PCAM_WORK": str(tmp_path)}, text=True, capture_output=True, check=True
    )
    trained, *prepared, checked = done.stdout.replace("\\\n", "").splitlines()
    assert trained.startswith("true/snakemake") and "PCAM_WORK" not in trained
    assert f"PCAM_WORK={tmp_path}/nbval true/pytest" in checked
    # With the journal's own sample and runs nothing is trained again, and all else lies in another folder.
    (tmp_path / "sample" / "runs").mkdir(parents=True)
    (tmp_path / "sample" / "data").mkdir()
    for _ in range(2):
        subprocess.run(["sh", "-ec", "\n".join(prepared)], check=True)
    own = tmp_path / "nbval" / "sample"
    assert {path.name: path.resolve() for path in own.iterdir()} == {
        name: tmp_path / "sample" / name for name in ("data", "runs")
    }


def test_code_digests_follow_the_code() -> None:
    assert code_digest("journal/stage.py") == code_digest("journal/stag*.py") != code_digest("journal/publish.py")
    assert code_digest("journal") != code_digest("journal/*.py", "cli.py")
