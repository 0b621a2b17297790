"""`graftsdk predict`: people and their attributes in images, videos and live sources."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack

from graftsdk.cli.engine_options import (
    BUILT_USAGE,
    ENGINE_USAGE,
    add_built_options,
    add_engine_options,
    built_options,
    engine_options,
)
from graftsdk.cli.formats import Csv, json_lines, told
from graftsdk.cli.labels import chosen_labels, chosen_thresholds
from graftsdk.cli.saving import Chosen, check_sheet, picture_paths
from graftsdk.cli.sources import find_sources
from graftsdk.cli.work import Work
from graftsdk.errors import InputError
from graftsdk.predictor import Predictor
from graftsdk.sheet import save_contact_sheet

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Find the people in images and videos and say what the plan knows of them: on stdout a line for each image or "
        "frame, JSON lines or CSV; times, progress and what went wrong on stderr. A source that cannot be read is "
        "reported and left out (exit code 1 at the end). Ctrl-C ends at once; what was written until then is whole."
    )
    parser.epilog = _EPILOG
    # Spelled out: argparse would print the options first, where `--labels A B` swallows the sources after it.
    parser.usage = (
        "%(prog)s [-h] PLAN SOURCES... [-o DIR] [--sheet FILE] [--json [--masks] | --csv]\n"
        "         [--stride N] [--live | --no-live] [--reduce {1,2,4,8}]\n"
        "         [--labels LABEL...] [--threshold LABEL=X] [--min-score X]\n" + ENGINE_USAGE + BUILT_USAGE
    )
    parser.add_argument("plan", metavar="PLAN", help="the plan")
    parser.add_argument(
        "sources",
        metavar="SOURCES",
        nargs="+",
        help="images, videos, folders of them, patterns (quoted: 'photos/**/*.jpg'), cameras (0), addresses (rtsp://...)",
    )
    out = parser.add_argument_group("what comes out")
    out.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="save each image, and each video as .mp4, with what was found drawn on it",
    )
    out.add_argument(
        "--sheet",
        metavar="FILE",
        help="save one picture of up to 48 of them, evenly chosen, side by side",
    )
    form = out.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a line of JSON for each image or frame")
    form.add_argument("--csv", action="store_true", help="print a row for each person")
    out.add_argument("--masks", action="store_true", help="with --json: each person's mask, run-length coded (COCO)")
    read = parser.add_argument_group("what is read")
    read.add_argument(
        "--stride", type=int, default=1, metavar="N", help="every N-th frame of videos, but every image; default: 1"
    )
    read.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        help="the newest frame, others are dropped, or every frame; default: live for cameras and addresses",
    )
    read.add_argument(
        "--reduce", type=int, choices=(1, 2, 4, 8), default=1, help="divide the sides first: faster, other scores"
    )
    computed = parser.add_argument_group("what is computed")
    computed.add_argument(
        "--labels", nargs="+", metavar="LABEL", help="after the sources: compute only these; or --labels=child,gender"
    )
    computed.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="LABEL=X",
        help="LABEL=0.7 or LABEL.CLASS=0.6: report from this probability on; may be repeated",
    )
    computed.add_argument("--min-score", type=float, metavar="X", help="least score of a person; default: the plan's")
    add_engine_options(computed)
    add_built_options(computed)
    parser.set_defaults(run=run)


_EPILOG = """\
A folder gives the images and videos in it, not those in folders inside it; what is named twice is
done once. With -o every picture keeps its name; where two share one, the second is saved as NAME-2.
After Ctrl-C, or where a source breaks off, a video is kept as far as it got. In CSV a text that a
spreadsheet would take for a formula has an apostrophe before it.

examples:
  graftsdk predict engine.plan street.jpg photos/ 'more/**/*.png' -o pictures/
  graftsdk predict engine.plan clip.mp4 --stride 5 -o pictures/ --csv > people.csv
  graftsdk predict engine.plan rtsp://camera.local/stream --json | jq .persons
  graftsdk predict engine.plan street.jpg --labels child gender
  graftsdk predict engine.plan street.jpg --threshold child=0.7 --threshold gender.male=0.6"""


def run(args: argparse.Namespace) -> int:
    """0, or 1 where a source could not be read."""
    started = time.perf_counter()
    if args.masks and not args.json:
        raise InputError("--masks: expected --json with it, in whose lines the masks are; found none")
    if args.stride < 1:
        raise InputError(f"--stride: expected a whole number of at least 1, found {args.stride}")
    sources = find_sources(args.sources)
    pictures = picture_paths(sources, args.output)
    sheet = None if args.sheet is None else check_sheet(args.sheet, sources, pictures)
    with ExitStack() as stack:
        predictor = stack.enter_context(
            Predictor(
                args.plan,
                labels=chosen_labels(args.labels, args.plan),
                thresholds=chosen_thresholds(args.threshold, args.plan),
                **engine_options(args),
                **built_options(args),
                min_score=args.min_score,
            )
        )
        ready = time.perf_counter() - started
        form = json_lines(args.masks) if args.json else Csv() if args.csv else told
        chosen = None if sheet is None else Chosen()
        bar = stack.enter_context(_progress(sum(source.kind == "image" for source in sources)))
        work = Work(predictor, form, pictures, chosen, bar, args)
        try:
            work.all(sources)
        finally:
            bar.close()
            if sheet is not None and chosen is not None and chosen.items:
                save_contact_sheet(sheet, chosen.items)
            print(work.times.summary(ready, work.failed), file=sys.stderr)
    return 1 if work.failed else 0


def _progress(total: int):  # type: ignore[no-untyped-def]  # tqdm comes without types
    """A bar on stderr where that is a terminal; its `write` prints above it."""
    from tqdm import tqdm

    return tqdm(total=total, unit="picture", disable=None, leave=False, file=sys.stderr)
