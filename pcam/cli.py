"""The one door: `pcam VERB`. It parses, calls one function, prints; the logic is elsewhere.

Exit codes: 0 success, 1 a check found something, 2 bad input (one line says what, where and the mend),
130 interrupted. Each verb imports what it needs when it runs, so that `pcam --help` and a mistyped
option answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pcam import __version__
from pcam.errors import PcamError, did_you_mean


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with a suggestion."""

    def error(self, message: str) -> NoReturn:
        choices = next((a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction)), {})
        if "invalid choice: " in message and choices:
            word = message.split("invalid choice: ")[1].split("'")[1]
            message = f"unknown verb '{word}'{did_you_mean(word, choices)}"
        self.exit(2, f"{self.prog}: error: {message}; see '{self.prog} --help'\n")


def _progress() -> bool:
    return sys.stderr.isatty()


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


def _data_sample(args: argparse.Namespace) -> int:
    from pcam.data.synthetic import write_sample

    counts = {"train": args.train, "valid": args.valid, "test": args.test}
    folder = write_sample(args.dir, **counts, seed=args.seed, defects=args.defect, progress=_progress())
    _show(args, {"directory": folder, **counts, "seed": args.seed, "defects": args.defect}, str(folder))
    return 0


def _data_fetch(args: argparse.Namespace) -> int:
    from pcam.data.fetch import fetch

    files = fetch(args.dir, base_url=args.base_url, progress=_progress())
    _show(args, [str(f) for f in files], "\n".join(map(str, files)))
    return 0


def _data_verify(args: argparse.Namespace) -> int:
    from pcam.data.manifest import verify

    faults = verify(args.dir)
    _show(args, faults, "\n".join(map(str, faults)) or f"{args.dir}: no fault found")
    return 1 if faults else 0


def _data_pack(args: argparse.Namespace) -> int:
    from pcam.data.pack import pack

    report = pack(args.src, args.dst, progress=_progress())
    _show(args, report, str(report))
    return 0


def _audit(args: argparse.Namespace) -> int:
    from pcam.audit import audit

    report = audit(args.dir, args.out)
    _show(args, report.summary, str(report))
    return 1 if report.n_findings else 0


# ---------------------------------------------------------------- runs


def _train(args: argparse.Namespace) -> int:
    from pcam.config import load_config

    config = load_config(args.preset, args.overrides)  # before torch: a config error answers at once
    from pcam.training import train

    run = train(config, args.data, args.runs, resume=args.resume, progress=_progress())
    _show(args, {"run": run.path, "id": run.id, "state": run.state, "final": run.final}, str(run.path))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from pcam.evaluation.predict import evaluate

    metrics = evaluate(args.run_dir, args.data, args.split, args.out)
    _show(args, metrics, str(Path(args.out) / "metrics.json"))
    return 0


def _slices(args: argparse.Namespace) -> int:
    from pcam.evaluation.slices import run

    table = run(args.predictions, args.data, args.out)
    _show(args, table.to_dict("records"), str(Path(args.out) / "slices.csv"))
    return 0


def _tune(args: argparse.Namespace) -> int:
    from pcam.config import load_config

    load_config(args.preset)
    from pcam.training.tune import tune

    study = tune(args.preset, args.data, trials=args.trials, workers=args.workers, runs_dir=args.runs)
    _show(args, study, str(study))
    return 0


def _predict(args: argparse.Namespace) -> int:
    from pcam.evaluation.images import predict_images

    report = predict_images(args.model, args.paths, args.out)
    _show(args, report, str(report))
    return 1 if report.n_refused else 0


def _bench(args: argparse.Namespace) -> int:
    from pcam.benchmark import bench

    table = bench(args.phase, args.data, args.out)
    _show(args, table.to_dict("records"), str(Path(args.out) / "throughput.csv"))
    return 0


# ---------------------------------------------------------------- journal


def _doctor(args: argparse.Namespace) -> int:
    from pcam.journal.doctor import diagnose

    lines = diagnose(args.data)
    _show(args, lines, "\n".join(map(str, lines)))
    return 1 if any(line.level == "FAIL" for line in lines) else 0


def _journal_train(args: argparse.Namespace) -> int:
    from pcam.journal.plan import open_plan

    for name in args.names:
        run = open_plan(args.data).run(name, progress=_progress())
        print(f"{name} {run.path}")
    return 0


def _journal_run(args: argparse.Namespace) -> int:
    from pcam.journal.notebooks import run_chapters

    for path in run_chapters(args.questions, args.data):
        print(path)
    return 0


def _journal_build(args: argparse.Namespace) -> int:
    from pcam.journal.stage import build

    print(build(args.data))
    return 0


def _journal_status(args: argparse.Namespace) -> int:
    from pcam.journal.stage import status

    rows = status(args.data)
    _show(args, rows, "\n".join(map(str, rows)))
    return 0


def _journal_publish(args: argparse.Namespace) -> int:
    from pcam.journal.publish import publish

    for path in publish(args.data):
        print(path)
    return 0


def _check(args: argparse.Namespace) -> int:
    from pcam.journal.check import check

    findings = check(args.data, journal=args.journal, template=args.template)
    _show(args, findings, "\n".join(map(str, findings)) or "every number is bound, every question answered")
    return 1 if findings else 0


def _bundle_make(args: argparse.Namespace) -> int:
    from pcam.journal.bundle import make_bundle

    print(make_bundle(args.tar, args.data))
    return 0


def _bundle_verify(args: argparse.Namespace) -> int:
    from pcam.journal.bundle import verify_bundle

    faults = verify_bundle(args.tar)
    _show(args, faults, "\n".join(map(str, faults)) or f"{args.tar}: complete and unchanged")
    return 1 if faults else 0


# ---------------------------------------------------------------- parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive count")
    return value


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb; each verb's `handler` default is its handler."""
    parser = _Parser(prog="pcam", description="Read, audit, train, evaluate and publish PatchCamelyon honestly.")
    parser.add_argument("--version", action="version", version=f"pcam {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(group: Any, name: str, handler: Any, help_: str, example: str, *, json_: bool = True) -> _Parser:
        new: _Parser = group.add_parser(name, help=help_, description=help_, epilog=f"example: {example}")
        new.set_defaults(handler=handler)
        if json_:
            new.add_argument("--json", action="store_true", help="print the answer as JSON")
        return new

    def family(name: str, help_: str) -> Any:
        return verbs.add_parser(name, help=help_, description=help_).add_subparsers(metavar="VERB", required=True)

    p = verb(verbs, "doctor", _doctor, "Check Python, torch, GPU, data, disk, git and Slurm.", "pcam doctor")
    p.add_argument("--data", metavar="DIR", help="also check this data folder")

    data = family("data", "Make, fetch, verify and pack data.")
    p = verb(
        data, "sample", _data_sample, "Write synthetic patches in the true file format.", "pcam data sample sample"
    )
    p.add_argument("dir", metavar="DIR")
    for split, n in (("train", 1024), ("valid", 384), ("test", 384)):
        p.add_argument(f"--{split}", type=_count, default=n, metavar="N", help=f"{split} patches (default {n})")
    p.add_argument("--seed", type=int, default=0, metavar="S")
    p.add_argument(
        "--defect", action="append", default=[], metavar="NAME", help="plant a named defect; may be repeated"
    )
    p = verb(data, "fetch", _data_fetch, "Download the public record and verify it.", "pcam data fetch pcam_data")
    p.add_argument("dir", metavar="DIR")
    p.add_argument("--base-url", metavar="URL", help="a mirror of the record's files")
    p = verb(data, "verify", _data_verify, "Check the contract and the manifest.", "pcam data verify pcam_data")
    p.add_argument("dir", metavar="DIR")
    p = verb(data, "pack", _data_pack, "Turn any copy into canonical uint8, losslessly.", "pcam data pack copy packed")
    p.add_argument("src", metavar="SRC")
    p.add_argument("dst", metavar="DST")

    p = verb(verbs, "audit", _audit, "Find leakage, corruption and poison in the data.", "pcam audit DIR --out audit")
    p.add_argument("dir", metavar="DIR")
    p.add_argument("--out", required=True, metavar="OUT")

    p = verb(
        verbs,
        "train",
        _train,
        "Train a preset or a config file; the last line printed is the run folder.",
        "pcam train cnn train.lr=3e-4 seed=1 --data DIR",
    )
    p.add_argument("preset", metavar="PRESET|FILE")
    p.add_argument("overrides", nargs="*", metavar="key=value")
    p.add_argument("--data", required=True, metavar="DIR")
    p.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are kept (default: runs)")
    p.add_argument("--resume", action="store_true", help="continue an interrupted run")
    p = verb(
        verbs,
        "evaluate",
        _evaluate,
        "Predict a split and score it, with intervals and baselines.",
        "pcam evaluate runs/ID --data DIR --split test --out scores",
    )
    p.add_argument("run_dir", metavar="RUN")
    p.add_argument("--data", required=True, metavar="DIR")
    p.add_argument("--split", required=True, choices=("train", "valid", "test"))
    p.add_argument("--out", required=True, metavar="OUT")
    p = verb(
        verbs,
        "slices",
        _slices,
        "Find the slices where a model is weak, and show its errors.",
        "pcam slices scores/predictions.csv --data DIR --out slices",
    )
    p.add_argument("predictions", metavar="PREDICTIONS")
    p.add_argument("--data", required=True, metavar="DIR")
    p.add_argument("--out", required=True, metavar="OUT")
    p = verb(verbs, "tune", _tune, "Search hyper-parameters on valid.", "pcam tune mlp --data DIR --trials 20")
    p.add_argument("preset", metavar="PRESET")
    p.add_argument("--data", required=True, metavar="DIR")
    p.add_argument("--trials", type=_count, required=True, metavar="N")
    p.add_argument("--workers", type=_count, default=1, metavar="N")
    p.add_argument("--runs", default="runs", metavar="DIR")
    p = verb(
        verbs,
        "predict",
        _predict,
        "Score images: PNG, TIFF, JPEG, folders of them, or HDF5.",
        "pcam predict runs/ID patch.png folder --out scores.csv",
    )
    p.add_argument("model", metavar="MODEL", help="a run folder")
    p.add_argument("paths", nargs="+", metavar="PATH")
    p.add_argument("--out", required=True, metavar="FILE")
    p = verb(verbs, "bench", _bench, "Measure throughput.", "pcam bench model --data DIR --out bench")
    p.add_argument("phase", choices=("loader", "model", "train"))
    p.add_argument("--data", required=True, metavar="DIR")
    p.add_argument("--out", required=True, metavar="OUT")

    journal = family("journal", "Run, inspect and publish the chapters.")
    p = verb(journal, "run", _journal_run, "Execute chapters.", "pcam journal run q6 --data DIR", json_=False)
    p.add_argument("questions", nargs="*", metavar="Q", help="q1 … q9; all when none is given")
    p.add_argument("--data", metavar="DIR", help="PCam-format files (default: the synthetic sample)")
    p = verb(journal, "train", _journal_train, "Train planned runs.", "pcam journal train cnn-0", json_=False)
    p.add_argument("names", nargs="+", metavar="NAME")
    p.add_argument("--data", metavar="DIR")
    p = verb(journal, "build", _journal_build, "Stage and build the book.", "pcam journal build", json_=False)
    p.add_argument("--data", metavar="DIR")
    p = verb(journal, "status", _journal_status, "Say what each chapter stands on.", "pcam journal status")
    p.add_argument("--data", metavar="DIR")
    p = verb(
        journal, "publish", _journal_publish, "Copy verified chapters into book/.", "pcam journal publish", json_=False
    )
    p.add_argument("--data", metavar="DIR")

    p = verb(
        verbs, "check", _check, "Is every number bound, every question answered, every run complete?", "pcam check"
    )
    p.add_argument("--data", metavar="DIR")
    p.add_argument("--journal", metavar="FILE", help="check this journal instead of the project's")
    p.add_argument("--template", metavar="NAME", help="the questions it must answer")

    bundle = family("bundle", "Make and verify the offline hand-over.")
    p = verb(bundle, "make", _bundle_make, "Pack the hand-over.", "pcam bundle make handover.tar", json_=False)
    p.add_argument("tar", metavar="OUT.tar")
    p.add_argument("--data", metavar="DIR")
    p = verb(bundle, "verify", _bundle_verify, "Verify a hand-over.", "pcam bundle verify handover.tar")
    p.add_argument("tar", metavar="OUT.tar")
    return parser


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit with its code."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    # argparse takes the overrides in one row only; people also write them behind the options.
    if rest and hasattr(args, "overrides") and all("=" in word and not word.startswith("-") for word in rest):
        args.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        code = args.handler(args)
        sys.stdout.flush()
    except PcamError as error:
        print(f"pcam: error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("pcam: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # such as `pcam … | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
