"""`graftsdk build`: the TensorRT engines of a plan, ahead of time, with or without a GPU here."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NoReturn

from graftsdk.cli.labels import chosen_labels
from graftsdk.cli.output import print_json, print_table
from graftsdk.engines.driver import gpu_capabilities
from graftsdk.engines.golden import GoldenChange
from graftsdk.engines.record import EngineRecord
from graftsdk.errors import GraftError
from graftsdk.export import BuildReport, build_engine
from graftsdk.lifecycle.engine_golden import golden_changes
from graftsdk.plan.lowered import PRECISIONS
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]

TERMINATED = 143  # exit code: 128 and the signal's number, as shells have it


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Build a plan's TensorRT engines into a folder, each with a record of what it is (graftsdk info shows it). "
        "tensorrt-rtx builds without a GPU and for other GPUs than this machine's; tensorrt for this machine's only. "
        "What is there already for the same parts and options is kept: with --layout split a new label builds one "
        "engine. Ctrl-C ends it at once; what was finished stays."
    )
    parser.epilog = (
        "examples:\n"
        "  graftsdk build engine.plan --for 8.9 -o engines/\n"
        "  graftsdk build engine.plan --for 8.9 --for 12.0 --runtime tensorrt-rtx --precision fp16\n"
        "  graftsdk build engine.plan --for 8.6 --layout split --batch 1,4 --labels=child,gender\n\n"
        "exit codes: 0 built, or all there; 2 refused or failed; 130 interrupted, 143 terminated"
    )
    parser.add_argument("plan", metavar="PLAN", help="the plan")
    parser.add_argument(
        "--for",
        dest="targets",
        action="append",
        default=[],
        metavar="X.Y",
        help="compute capability, as 8.9; may be repeated: one engine serves all; default: this machine's GPUs",
    )
    parser.add_argument(
        "--runtime",
        choices=("tensorrt", "tensorrt-rtx"),
        help="which library; default: tensorrt where it is installed, else tensorrt-rtx",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the parts that may be computed so; pooling, heads, the segmenter stay in float32; default: float32",
    )
    parser.add_argument(
        "--layout",
        choices=("merged", "split"),
        default="merged",
        help="one engine, or one for the trunk and one for each branch; default: merged",
    )
    parser.add_argument(
        "--batch",
        type=_numbers,
        default=(1, 8, 32),
        metavar="N,N...",
        help="crops that are fed at once; the middle one is tuned for; default: 1,8,32",
    )
    parser.add_argument(
        "--labels", nargs="+", metavar="LABEL", help="after the plan: only these; or --labels=child,gender"
    )
    parser.add_argument("--no-segmenter", action="store_true", help="leave the plan's segmenter out")
    parser.add_argument(
        "--refittable",
        action="store_true",
        help="on this machine's GPU only: engines whose weights can be exchanged, a little slower; a label that was "
        "trained again is then put into a copy of its engine, which takes its place once it gives the plan's scores, "
        "and is built in full where it does not",
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="the folder, made where it is missing; default: PLAN's name + .engines"
    )
    parser.add_argument("--json", action="store_true", help="print the records as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build; 0, or an exception that `main` turns into a code."""
    with _terminated(), _quiet():
        report = build_engine(
            args.plan,
            targets=args.targets,
            runtime=args.runtime,
            precision=args.precision,
            layout=args.layout,
            batches=args.batch,
            labels=chosen_labels(args.labels, args.plan),
            segmenter=not args.no_segmenter,
            output=args.output,
            refittable=args.refittable,
            progress=sys.stderr is not None and sys.stderr.isatty(),
        )
        golden = _golden(args, report)
    if args.json:
        print_json({**report.to_dict(), "golden": [asdict(change) for change in golden]})
    else:
        _print(report)
        _print_golden(golden)
    return 0


def _print_golden(changes: tuple[GoldenChange, ...]) -> None:
    if changes:
        rows = [["label", "golden scores differ by", "decisions that flip"]]
        rows += [[change.label, f"{change.largest:.1e}", f"{change.flips}"] for change in changes]
        print()
        print_table(rows, right=(1, 2))


def _print(report: BuildReport) -> None:
    rows = [["engine", "labels", "MB", "seconds", "peak MB", "SHA-256", ""]]
    for record in report.engines:
        rows.append(
            [
                record.name,
                _shortened(", ".join(record.labels)),
                f"{record.size / 1e6:.1f}",
                f"{record.seconds:.1f}",
                f"{record.peak_bytes / 1e6:.0f}",
                record.sha256[:16],
                "kept" if record.name in report.kept else "refitted" if _refitted(record) else "",
            ]
        )
    print_table(rows, right=(2, 3, 4))
    first = report.engines[0]
    built = counted(len(report.engines) - len(report.kept), "engine")
    print(
        f"\n{built} built in {report.seconds:.1f} s with {first.runtime} {first.version} for "
        f"{', '.join(first.targets)}: {one_line(str(report.folder))}"
    )


def _refitted(record: EngineRecord) -> bool:
    return record.refittable is not None and record.refittable.refitted_from is not None


def _golden(args: argparse.Namespace, report: BuildReport) -> tuple[GoldenChange, ...]:
    """Where the engines can be run here: how far each label is from the scores that the plan was verified with.

    Whatever keeps them from being run is told, and is no failure of the build.
    """
    first = report.engines[0]
    if first.role == "segmenter" or not set(gpu_capabilities()[:1]) & set(first.targets):
        return ()
    try:
        return golden_changes(
            args.plan,
            report.folder,
            runtime=first.runtime,
            precision=args.precision,
            layout=args.layout,
            labels=chosen_labels(args.labels, args.plan),
        )
    except (GraftError, OSError) as error:
        print(f"golden scores are not compared: {one_line(str(error))}", file=sys.stderr)
        return ()


def _shortened(text: str, width: int = 32) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers with commas between them, each once."""
    try:
        return tuple(dict.fromkeys(int(each) for each in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers like 1,8,32, found {text!r:.80}") from None


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends a build as Ctrl-C does: what is half-written goes first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> NoReturn:
        print("terminated", file=sys.stderr)
        raise SystemExit(TERMINATED)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Of the library's own lines only warnings are shown; its errors are told once, by the exception."""

    def below_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    logger = logging.getLogger("graftsdk.tensorrt")
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addFilter(below_error)
    try:
        yield
    finally:
        logger.removeFilter(below_error)
        logger.setLevel(level)
