"""What each verb does: call one function, print its answer, return the exit code.

Every function imports what it needs when it runs, so that `pcam --help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any


def _progress() -> bool:
    return sys.stderr.isatty()


def _log_lines() -> None:
    """Show one quiet line a step or an epoch, on stderr: stdout belongs to the answer."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pcam").setLevel(logging.INFO)


def _show(args: argparse.Namespace, value: Any, text: str) -> None:
    """Print `value` as JSON where a program asked for it, else `text`."""
    if getattr(args, "json", False):
        print(json.dumps(value, default=_plain, ensure_ascii=False))
    elif text:
        print(text)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


# ---------------------------------------------------------------- data


def data_sample(args: argparse.Namespace) -> int:
    from pcam.data.synthetic import write_sample

    counts = {"train": args.train, "valid": args.valid, "test": args.test}
    folder = write_sample(args.dir, **counts, seed=args.seed, defects=args.defect, progress=_progress())
    _show(args, {"directory": folder, **counts, "seed": args.seed, "defects": args.defect}, str(folder))
    return 0


def data_fetch(args: argparse.Namespace) -> int:
    from pcam.data.fetch import fetch

    files = fetch(args.dir, base_url=args.base_url, progress=_progress())
    _show(args, [str(f) for f in files], "\n".join(map(str, files)))
    return 0


def data_verify(args: argparse.Namespace) -> int:
    from pcam.data.manifest import verify

    faults = verify(args.dir)
    _show(args, faults, "\n".join(map(str, faults)) or f"{args.dir}: no fault found")
    return 1 if faults else 0


def data_pack(args: argparse.Namespace) -> int:
    from pcam.data.pack import pack

    report = pack(args.src, args.dst, progress=_progress())
    _show(args, report, str(report))
    return 0


def audit(args: argparse.Namespace) -> int:
    from pcam.audit import audit

    _log_lines()
    report = audit(args.dir, args.out, suspects=args.suspects, progress=_progress())
    _show(args, report.summary, str(report))
    return 1 if report.n_findings else 0


# ---------------------------------------------------------------- runs


def train(args: argparse.Namespace) -> int:
    from pcam.config import load_config

    config = load_config(args.preset, args.overrides)  # before torch: a config error answers at once
    from pcam.training import train
    from pcam.training.runs import check_model

    _log_lines()
    run = train(config, args.data, args.runs, resume=args.resume, progress=_progress())
    if os.environ.get("RANK", "0") == "0":  # of several processes, one answers
        check_model(run)  # a completed run is returned as it is, and its files may have been lost since
        _show(args, {"run": run.path, "id": run.id, "state": run.state, "final": run.final}, str(run.path))
    return 0


def evaluate(args: argparse.Namespace) -> int:
    from pcam.evaluation.predict import evaluate

    metrics = evaluate(args.run_dir, args.data, args.split, args.out)
    _show(args, metrics, str(Path(args.out) / "metrics.json"))
    return 0


def slices(args: argparse.Namespace) -> int:
    from pcam.evaluation.slices import run, weak_slices

    table = run(args.predictions, args.data, args.out, found_on=args.found_on)
    claims = [
        f"{c.slice}: {c.metric} {c.gap:+.3f} against the rest, {c.verdict}" for c in weak_slices(table).itertuples()
    ]
    tried = table[["split", "slice"]].drop_duplicates().groupby("split", sort=False).size()
    counts = ", ".join(f"{n} slices on {split}" for split, n in tried.items())
    summary = f"tried {counts}; weak: {len(claims) or 'none'}" if counts else "tried none: no slice is large enough"
    # Through pandas, since a cell that is empty in the file is null in JSON, not NaN.
    records = json.loads(table.to_json(orient="records", double_precision=15))
    _show(args, records, "\n".join([summary, *claims, str(Path(args.out) / "slices.csv")]))
    return 0


def tune(args: argparse.Namespace) -> int:
    from pcam.config import load_config

    load_config(args.preset)
    from pcam.training.tune import tune

    logging.basicConfig(format="%(message)s")
    logging.getLogger("pcam.training.tune").setLevel(logging.INFO)  # a line a trial, on stderr
    study = tune(args.preset, args.data, trials=args.trials, workers=args.workers, runs_dir=args.runs)
    _show(args, study, str(study))
    return 0


def predict(args: argparse.Namespace) -> int:
    from pcam.evaluation.images import predict_images

    report = predict_images(args.model, args.paths, args.out)
    _show(args, report, str(report))
    return 1 if report.n_refused else 0


def export(args: argparse.Namespace) -> int:
    from pcam.evaluation.export import export_onnx

    done = export_onnx(args.model, args.out)
    _show(args, done, str(done))
    return 0


def track(args: argparse.Namespace) -> int:
    from pcam.training import mirror_run, open_run

    runs = [open_run(path, completed=False) for path in args.runs]
    mirrored = [mirror_run(run) for run in runs]
    _show(args, mirrored, "\n".join(map(str, mirrored)))
    return 0


def bench(args: argparse.Namespace) -> int:
    from pcam.benchmark import bench

    table = bench(args.phase, args.data, args.out)
    _show(args, table.to_dict("records"), str(Path(args.out) / "throughput.csv"))
    return 0


# ---------------------------------------------------------------- journal


def doctor(args: argparse.Namespace) -> int:
    from pcam.journal.doctor import diagnose

    lines = diagnose(args.data)
    _show(args, lines, "\n".join(map(str, lines)))
    return 1 if any(line.level == "FAIL" for line in lines) else 0


def journal_train(args: argparse.Namespace) -> int:
    from pcam.journal.plan import open_plan

    for name in args.names:
        open_plan(args.data, make=False).planned(name)  # a mistyped name is refused before anything is made
    plan = open_plan(args.data)
    for name in args.names:
        print(f"{name} {plan.run(name, progress=_progress()).path}")
    return 0


def journal_run(args: argparse.Namespace) -> int:
    from pcam.journal.notebooks import run_chapters

    for path in run_chapters(args.questions, args.data):
        print(path)
    return 0


def journal_build(args: argparse.Namespace) -> int:
    from pcam.journal.stage import build

    print(build(args.data))
    return 0


def journal_status(args: argparse.Namespace) -> int:
    from pcam.journal.stage import status

    rows = status(args.data)
    _show(args, rows, "\n".join(map(str, rows)))
    return 0


def journal_publish(args: argparse.Namespace) -> int:
    from pcam.journal.publish import publish

    for path in publish(args.data):
        print(path)
    return 0


def check(args: argparse.Namespace) -> int:
    from pcam.journal.check import check

    findings = check(args.data, journal=args.journal, template=args.template)
    _show(args, findings, "\n".join(map(str, findings)) or "every number is bound, every question answered")
    return 1 if findings else 0


def bundle_make(args: argparse.Namespace) -> int:
    from pcam.journal.bundle import make_bundle

    print(make_bundle(args.tar, args.data))
    return 0


def bundle_verify(args: argparse.Namespace) -> int:
    from pcam.journal.bundle import verify_bundle

    faults = verify_bundle(args.tar)
    _show(args, faults, "\n".join(map(str, faults)) or f"{args.tar}: complete and unchanged")
    return 1 if faults else 0
