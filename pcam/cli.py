"""The command line, `pcam VERB`. It parses, calls one function, prints; the logic is elsewhere.

Exit codes: 0 success, 1 a check found something, 2 bad input (one line says what, where and the mend),
130 interrupted. Each verb imports what it needs when it runs, so that `pcam --help` and a mistyped
option answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from pcam import __version__, verbs
from pcam.errors import PcamError, clip, did_you_mean


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with a suggestion."""

    def error(self, message: str) -> NoReturn:
        choices = next((a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction)), {})
        if "invalid choice: " in message and choices:
            word = message.split("invalid choice: ")[1].partition(" (choose from")[0][1:-1]
            message = f"unknown verb '{word}'{did_you_mean(word, choices)}"
        self.exit(2, f"{self.prog}: error: {message}; see '{self.prog} --help'\n")


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{clip(text)} is not a positive count of at most nine digits")
    return int(text)


def _one_line(text: str) -> str:
    """Write a line break or a control character, which a file's name may hold, as its escape."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb; `args.handler` is the function of the verb that was named."""
    parser = _Parser(
        prog="pcam", description="Read, audit, train and evaluate on PatchCamelyon, and publish what came out."
    )
    parser.add_argument("--version", action="version", version=f"pcam {__version__}")
    top = parser.add_subparsers(metavar="VERB", required=True)

    def verb(group: Any, name: str, handler: Any, help_: str, example: str, *, json_: bool = True) -> _Parser:
        new: _Parser = group.add_parser(name, help=help_, description=help_, epilog=f"example: {example}")
        new.set_defaults(handler=handler)
        if json_:
            new.add_argument("--json", action="store_true", help="print the answer as JSON")
        return new

    def family(name: str, help_: str) -> Any:
        return top.add_parser(name, help=help_, description=help_).add_subparsers(metavar="VERB", required=True)

    p = verb(top, "doctor", verbs.doctor, "Check Python, torch, GPU, data, disk, git and Slurm.", "pcam doctor")
    p.add_argument("--data", metavar="DIR", help="also check this data folder")

    data = family("data", "Make, fetch, verify and pack data.")
    p = verb(
        data, "sample", verbs.data_sample, "Write synthetic patches in the true file format.", "pcam data sample sample"
    )
    p.add_argument("dir", metavar="DIR")
    for split, n in (("train", 1024), ("valid", 384), ("test", 384)):
        p.add_argument(f"--{split}", type=_count, default=n, metavar="N", help=f"{split} patches (default {n})")
    p.add_argument("--seed", type=int, default=0, metavar="S")
    p.add_argument(
        "--defect",
        action="append",
        default=[],
        metavar="NAME",
        help="plant a defect, such as black, label_flip or course; may be repeated",
    )
    p = verb(data, "fetch", verbs.data_fetch, "Download the public record and verify it.", "pcam data fetch pcam_data")
    p.add_argument("dir", metavar="DIR")
    p.add_argument("--base-url", metavar="URL", help="a mirror of the record's files")
    p = verb(data, "verify", verbs.data_verify, "Check the contract and the manifest.", "pcam data verify pcam_data")
    p.add_argument("dir", metavar="DIR")
    p = verb(
        data, "pack", verbs.data_pack, "Turn any copy into canonical uint8, losslessly.", "pcam data pack copy packed"
    )
    p.add_argument("src", metavar="SRC")
    p.add_argument("dst", metavar="DST")

    p = verb(
        top,
        "audit",
        verbs.audit,
        "Find leakage, corruption, poisoning and doubtful labels in data in PCam's format.",
        "pcam audit DIR --out audit",
    )
    p.add_argument("dir", metavar="DIR")
    p.add_argument(
        "--out",
        required=True,
        metavar="OUT",
        help="folder for findings.csv, overlaps.csv, summary.json and groups.csv (patches that must stay in one split)",
    )
    p.add_argument(
        "--suspects",
        choices=("auto", "colour", "texture", "none"),
        default="auto",
        help="how label suspects are ranked: colour is quick; texture takes about 10 ms a patch and finds more; "
        "auto takes texture up to 6000 patches (default)",
    )

    p = verb(
        top,
        "train",
        verbs.train,
        "Train a preset or a config file; the last line printed is the run folder.",
        "pcam train cnn train.lr=3e-4 seed=1 --data DIR; "
        "with several processes: torchrun --nproc_per_node=N -m pcam train cnn --data DIR",
    )
    p.add_argument("preset", metavar="PRESET|FILE", help="a name in configs/, or a YAML file")
    # A default, or argparse would name it among what is missing.
    p.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="change keys of the config, such as data.block=32"
    )
    p.add_argument("--data", required=True, metavar="DIR")
    p.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are kept (default: runs)")
    p.add_argument("--resume", action="store_true", help="continue an interrupted run")
    p = verb(
        top,
        "evaluate",
        verbs.evaluate,
        "Predict a split and score it, with intervals and baselines.",
        "pcam evaluate runs/ID --data DIR --split test --out scores",
    )
    p.add_argument("run_dir", metavar="RUN", help="the folder of a completed run")
    p.add_argument("--data", required=True, metavar="DIR", help="PCam-format files")
    p.add_argument("--split", required=True, choices=("train", "valid", "test"))
    p.add_argument("--out", required=True, metavar="OUT", help="folder for predictions.csv and metrics.json")
    p = verb(
        top,
        "slices",
        verbs.slices,
        "Find the slices where a model is weak, and show its errors.",
        "pcam slices scores/predictions.csv --data DIR --out slices",
    )
    p.add_argument("predictions", metavar="PREDICTIONS", help="as pcam evaluate wrote them")
    p.add_argument("--data", required=True, metavar="DIR", help="the PCam-format files that were scored")
    p.add_argument("--out", required=True, metavar="OUT", help="folder for slices.csv and gallery.html")
    p.add_argument(
        "--found-on",
        metavar="PREDICTIONS",
        help="search these (of valid) first; PREDICTIONS then confirm what was found",
    )
    p = verb(top, "tune", verbs.tune, "Search hyper-parameters on valid.", "pcam tune mlp --data DIR --trials 20")
    p.add_argument("preset", metavar="PRESET")
    p.add_argument("--data", required=True, metavar="DIR")
    p.add_argument("--trials", type=_count, required=True, metavar="N", help="trials in all, earlier ones included")
    p.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="processes that share the search (default: 1)"
    )
    p.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are kept (default: runs)")
    p = verb(
        top,
        "predict",
        verbs.predict,
        "Score images: PNG, TIFF, JPEG, folders of them, or HDF5.",
        "pcam predict runs/ID patch.png folder --out scores.csv",
    )
    p.add_argument("model", metavar="MODEL", help="a run folder, or a model.safetensors")
    p.add_argument("paths", nargs="+", metavar="PATH", help="a patch has 96x96 pixels, RGB, 8 bits; others are refused")
    p.add_argument("--out", required=True, metavar="FILE", help="CSV: path, index, score, label, verdict")
    p = verb(
        top,
        "export",
        verbs.export,
        "Write a model as ONNX, to score patches without torch (extra 'export').",
        "pcam export runs/ID --out model.onnx",
    )
    p.add_argument("model", metavar="MODEL", help="a run folder, or a model.safetensors")
    p.add_argument("--out", required=True, metavar="FILE", help="uint8 (B, 96, 96, 3) in, scores (B,) out")
    p = verb(
        top,
        "track",
        verbs.track,
        "Copy run records to the MLflow server that MLFLOW_TRACKING_URI names; again: only what is missing.",
        "MLFLOW_TRACKING_URI=http://localhost:5000 pcam track runs/ID",
    )
    p.add_argument("runs", nargs="+", metavar="RUN")
    p = verb(top, "bench", verbs.bench, "Measure throughput.", "pcam bench model --data DIR --out bench")
    p.add_argument("phase", choices=("loader", "model", "train"))
    p.add_argument("--data", required=True, metavar="DIR", help="PCam-format files")
    p.add_argument("--out", required=True, metavar="OUT", help="folder for throughput.csv and machine.json")

    journal = family("journal", "Run, inspect and publish the chapters.")
    p = verb(journal, "run", verbs.journal_run, "Execute chapters.", "pcam journal run q6 --data DIR", json_=False)
    p.add_argument("questions", nargs="*", metavar="Q", help="q1 … q9; all when none is given")
    p.add_argument("--data", metavar="DIR", help="PCam-format files (default: the synthetic sample)")
    p = verb(journal, "train", verbs.journal_train, "Train planned runs.", "pcam journal train cnn-0", json_=False)
    p.add_argument("names", nargs="+", metavar="NAME", help="of a run in configs/journal.yaml")
    p.add_argument("--data", metavar="DIR", help="PCam-format files (default: the synthetic sample)")
    p = verb(journal, "build", verbs.journal_build, "Stage and build the book.", "pcam journal build", json_=False)
    p.add_argument("--data", metavar="DIR", help="PCam-format files (default: the synthetic sample)")
    p = verb(journal, "status", verbs.journal_status, "Say what each chapter stands on.", "pcam journal status")
    p.add_argument("--data", metavar="DIR", help="PCam-format files (default: the synthetic sample)")
    p = verb(
        journal,
        "publish",
        verbs.journal_publish,
        "Copy verified chapters into book/.",
        "pcam journal publish",
        json_=False,
    )
    p.add_argument("--data", metavar="DIR", help="PCam-format files (default: the synthetic sample)")

    p = verb(
        top, "check", verbs.check, "Is every number bound, every question answered, every run complete?", "pcam check"
    )
    p.add_argument("--data", metavar="DIR", help="PCam-format files (default: the synthetic sample)")
    p.add_argument("--journal", metavar="FILE", help="check this journal instead of the project's")
    p.add_argument(
        "--template", metavar="NAME", help="what FILE must answer: a chapter's name, or journal for all nine"
    )

    bundle = family("bundle", "Make and verify the offline hand-over.")
    p = verb(bundle, "make", verbs.bundle_make, "Pack the hand-over.", "pcam bundle make handover.tar", json_=False)
    p.add_argument("tar", metavar="OUT.tar")
    p.add_argument("--data", metavar="DIR", help="PCam-format files (default: the synthetic sample)")
    p = verb(bundle, "verify", verbs.bundle_verify, "Verify a hand-over.", "pcam bundle verify handover.tar")
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
    names = "dir src dst data out runs run_dir predictions found_on model paths journal template tar base_url"
    for name in names.split():
        value = getattr(args, name, None)
        # Else it would mean the folder one is in, the sample or the public record.
        if "" in (value if isinstance(value, list) else [value]):
            parser.error(f"{name} is empty: name a file or folder")
    try:
        code = args.handler(args)
        sys.stdout.flush()
    except PcamError as error:
        print(_one_line(f"pcam: error: {error}"), file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:  # such as `pcam … | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a disk, a permission or a damaged file that nothing nearer could name better
        where = error.filename or "a file that was read or written"
        mend = "check the disk with 'pcam doctor', the data with 'pcam data verify'"
        print(_one_line(f"pcam: error: {where}: {error.strerror or error}; {mend}"), file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("pcam: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
