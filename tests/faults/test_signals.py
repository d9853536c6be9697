"""A signal to `pcam train`: one line that says how to go on, the shell's exit code, and a run that does go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from pcam.training import list_runs

CONFIG = "model: {name: mlp, hidden: 4}\ntrain: {epochs: 60, batch_size: 8, threads: 1}\n"


def test_usr1_saves_and_resume_completes(tiny: Path, tmp_path: Path) -> None:
    config, runs = tmp_path / "config.yaml", tmp_path / "runs"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "pcam", "train", str(config), "--data", str(tiny), "--runs", str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (list_runs(runs) and list_runs(runs)[0].steps):
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    out, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1
    assert out == ""
    assert "stopped by SIGUSR1 after step" in complaint and "continue it with --resume" in complaint
    assert "Traceback" not in complaint
    (run,) = list_runs(runs)
    assert run.state == "interrupted"
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert "this run was interrupted" in again.stderr
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(run.path)
    assert run.state == "completed"
