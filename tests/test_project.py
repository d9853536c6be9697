"""The project's own files agree with each other: versions, pins, licence, citation, workflow, documents."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import pcam

ROOT = Path(__file__).resolve().parent.parent
ACTIONS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def _yaml(path: str) -> Any:
    return YAML(typ="safe").load(ROOT / path)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Package → version, of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines if line)}


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")  # type: ignore[index]


def test_one_version_everywhere(project: dict[str, Any]) -> None:
    assert _yaml("CITATION.cff")["version"] == project["version"] == pcam.__version__
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_one_licence_everywhere(project: dict[str, Any]) -> None:
    assert _yaml("CITATION.cff")["license"] == project["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_the_citation_has_what_its_format_needs() -> None:
    citation = _yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= set(citation)
    assert {r["doi"] for r in citation["references"]} == {"10.1007/978-3-030-00934-2_24", "10.1001/jama.2017.14585"}


def test_the_references_hold_what_the_citation_names() -> None:
    bib = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    for reference in _yaml("CITATION.cff")["references"]:
        assert reference["doi"] in bib


def test_every_dependency_is_pinned(project: dict[str, Any], pins: dict[str, str]) -> None:
    needed = {_name(r) for r in project["dependencies"] + project["optional-dependencies"]["dev"]}
    assert not needed - set(pins)


def test_the_cluster_extra_is_there(project: dict[str, Any]) -> None:
    assert [_name(r) for r in project["optional-dependencies"]["slurm"]] == ["snakemake-executor-plugin-slurm"]


def test_conda_installs_the_same_pins() -> None:
    environment = _yaml("environment.yml")
    python, pip = environment["dependencies"][0], environment["dependencies"][-1]["pip"]
    assert python == "python=3.11"
    assert pip == ["-c constraints.txt", "-e .[dev,slurm]"]


def test_hooks_are_pinned_as_everything_else(pins: dict[str, str]) -> None:
    for hook in (hook for repo in _yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]):
        for requirement in hook.get("additional_dependencies", []):
            name, _, version = requirement.partition("==")
            assert version == pins[name], f"{hook['id']} uses {requirement}"


@pytest.mark.parametrize("path", ACTIONS, ids=lambda p: p.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses:\s*(\S+)(.*)", path.read_text(encoding="utf-8"))
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), f"{action}: pin it by its full commit"
        assert re.search(r"# v\d", comment), f"{action}: say which version that is"


def test_the_workflow_has_its_jobs() -> None:
    workflow = _yaml(".github/workflows/ci.yml")
    assert list(workflow["jobs"]) == ["fast", "notebooks", "book", "publish"]
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["publish"]["needs"] == ["fast", "notebooks", "book"]


def test_the_workflow_calls_targets_that_make_has() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    steps = [step.get("run", "") for job in _yaml(".github/workflows/ci.yml")["jobs"].values() for step in job["steps"]]
    targets = {target for run in steps for target in re.findall(r"\bmake (\w+)", run)}
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_workflow_publishes_what_make_book_builds() -> None:
    # Jupyter Book builds beside the _config.yml that it finds: in the project's folder, not in book/.
    steps = _yaml(".github/workflows/ci.yml")["jobs"]["book"]["steps"]
    (upload,) = [step for step in steps if step.get("uses", "").startswith("actions/upload-pages-artifact@")]
    assert upload["with"]["path"] == "_build/html"
    assert (ROOT / "_config.yml").is_file() and not (ROOT / "book" / "_config.yml").exists()


def test_ci_is_a_sound_script() -> None:
    done = subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_contributing_fits_a_screen() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 50


def test_pictures_are_small() -> None:
    pictures = [
        p for folder in ("docs", "book/_static") for p in (ROOT / folder).glob("*") if p.suffix in (".png", ".webp")
    ]
    assert pictures
    assert not [p.name for p in pictures if p.stat().st_size > 300_000]


def test_every_decision_has_context_choice_and_cost() -> None:
    text = (ROOT / "book" / "decisions.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        title = section.splitlines()[0]
        assert all(f"*{word}.*" in section for word in ("Context", "Choice", "Cost")), title
        assert len(section.strip().split("\n\n")) == 2, f"{title}: one paragraph a decision"


def test_the_book_is_one_tree() -> None:
    toc = ROOT / "book" / "_toc.yml"
    assert toc.is_symlink() and toc.resolve() == ROOT / "_toc.yml"
    files = [c["file"] for part in _yaml("_toc.yml")["parts"] for c in part["chapters"]]
    pages = {p.stem for p in (ROOT / "book").glob("*.md")} - {"index"}
    assert pages == {f for f in files if "/" not in f}
