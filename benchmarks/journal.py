"""How long the two commands of the README take, from a fresh clone.

    python benchmarks/journal.py [--skip-tests]

Clones this checkout's last commit into a temporary folder, installs, and times each step against its limit. The
install is timed too, but has no limit: it is the network's. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Step:
    """A command, the exit code that it should end with, and the seconds it may take (None: no limit)."""

    name: str
    command: list[str]
    limit: float | None
    exit_code: int = 0


STEPS = [
    Step("install", ["make", ".venv/installed"], None),
    Step("make journal, first", ["make", "journal"], 300),
    Step("make journal, nothing changed", ["make", "journal"], 15),
    Step("pcam --help", [".venv/bin/pcam", "--help"], 0.5),
    Step("a mistyped key", [".venv/bin/pcam", "train", "mlp", "train.lrr=1", "--data", "none"], 0.5, exit_code=2),
    Step("make test", ["make", "test"], 600),
]


def main() -> int:
    """Time every step; return 1 if one failed or took too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-tests", action="store_true", help="leave 'make test' out")
    steps = [step for step in STEPS if not (parser.parse_args().skip_tests and step.name == "make test")]
    # Nothing of this shell's environment may reach in: another virtual environment, another work folder.
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PCAM_WORK")}
    good = True
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'step':<32}{'seconds':>9}{'limit':>8}{'of limit':>10}")
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        for step in steps:
            start = time.perf_counter()
            done = subprocess.run(step.command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - start
            limit = f"{step.limit:>8.1f}{seconds / step.limit:>10.2f}" if step.limit else f"{'none':>8}{'':>10}"
            print(f"{step.name:<32}{seconds:>9.2f}{limit}", flush=True)
            if done.returncode != step.exit_code:
                print(f"exit code {done.returncode}, not {step.exit_code}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
                return 1
            good &= step.limit is None or seconds <= step.limit
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
