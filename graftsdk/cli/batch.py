"""`graftsdk batch`: every image of a folder once through a plan, into one Parquet file."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from graftsdk.cli.engine_options import (
    BUILT_USAGE,
    ENGINE_USAGE,
    add_built_options,
    add_engine_options,
    built_options,
    engine_options,
)
from graftsdk.cli.labels import chosen_labels, chosen_thresholds
from graftsdk.cli.output import INTERRUPTED
from graftsdk.cli.sources import find_images
from graftsdk.errors import InputError
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]

_CHUNK = 256  # as graftsdk.offline has it, which is imported when something is run
_TOLD = 20  # images that could not be used: so many are named, the file has them all


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Put every image once through a plan and write a Parquet file with one row for each, in order. An image that "
        "cannot be used has its error in its row, is named at the end, and stops nothing. What is interrupted, even "
        "killed, goes on where it was when the same command is run again."
    )
    parser.epilog = _EPILOG
    parser.usage = (
        "%(prog)s [-h] PLAN IMAGES... -o FILE [--chunk N] [--reduce {1,2,4,8}]\n"
        "         [--ray [--actors N] [--cpus N] [--gpus X]]\n"
        "         [--labels LABEL...] [--threshold LABEL=X] [--min-score X]\n" + ENGINE_USAGE + BUILT_USAGE
    )
    parser.add_argument("plan", metavar="PLAN", help="the plan")
    parser.add_argument(
        "images", metavar="IMAGES", nargs="+", help="images, folders of them, patterns (quoted: 'photos/**/*.jpg')"
    )
    out = parser.add_argument_group("what comes out")
    out.add_argument("-o", "--output", metavar="FILE", required=True, help="the Parquet file; needs graftsdk[batch]")
    out.add_argument(
        "--chunk", type=int, default=_CHUNK, metavar="N", help="images that are kept together; default: 256"
    )
    out.add_argument(
        "--reduce", type=int, choices=(1, 2, 4, 8), default=1, help="divide the sides first: faster, other scores"
    )
    where = parser.add_argument_group("where it is computed")
    where.add_argument(
        "--ray",
        action="store_true",
        help="on Ray: the cluster that RAY_ADDRESS names, else one started here; needs graftsdk[ray]",
    )
    where.add_argument("--actors", type=int, metavar="N", help="with --ray: at most N of them; default: all that fit")
    where.add_argument("--cpus", type=int, default=1, metavar="N", help="with --ray: CPUs an actor; default: 1")
    where.add_argument("--gpus", type=float, default=0.0, metavar="X", help="with --ray: GPUs an actor, as 0.25")
    computed = parser.add_argument_group("what is computed")
    computed.add_argument(
        "--labels", nargs="+", metavar="LABEL", help="after the images: compute only these; or --labels=child,gender"
    )
    computed.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="LABEL=X",
        help="LABEL=0.7 or LABEL.CLASS=0.6: decide from this probability on; may be repeated",
    )
    computed.add_argument("--min-score", type=float, metavar="X", help="least score of a person; default: the plan's")
    add_engine_options(computed)
    add_built_options(computed)
    parser.set_defaults(run=run)


_EPILOG = """\
Columns: image, width, height, persons (a list of box, score, attributes.LABEL.name and .score),
truncated, error. What is done lies in FILE.parts/ until all of it is; to begin anew, delete that
folder. A job that was begun here may go on with --ray, and the other way round. On several machines
plan, images and FILE must be at the same paths on each.

examples:
  graftsdk batch engine.plan photos/ -o photos.parquet
  graftsdk batch engine.plan photos/ -o photos.parquet --ray --actors 8 --gpus 0.25 --device cuda
  graftsdk batch engine.plan 'archive/**/*.jpg' -o archive.parquet --labels child gender"""


def run(args: argparse.Namespace) -> int:
    """0 when the file is there, images that could not be used or not; 130 where interrupted."""
    from tqdm import tqdm

    from graftsdk.offline import run_batch
    from graftsdk.offline.ray_data import Actors

    if not args.ray and (args.actors is not None or args.cpus != 1 or args.gpus):
        raise InputError("--actors, --cpus, --gpus: expected --ray with them, found none")
    if args.ray and (args.cpus < 1 or args.gpus < 0 or (args.actors is not None and args.actors < 1)):
        raise InputError("--actors, --cpus, --gpus: expected at least 1, 1 and 0, found less")
    images = find_images(args.images)
    options: dict[str, Any] = {
        "labels": chosen_labels(args.labels, args.plan),
        "thresholds": chosen_thresholds(args.threshold, args.plan) or None,
        "min_score": args.min_score,
        **engine_options(args),
        **built_options(args),
    }
    bar = tqdm(total=len(images), unit="image", disable=None, file=sys.stderr)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        bar.update(count)

    try:
        found = run_batch(
            args.plan,
            images,
            args.output,
            chunk=args.chunk,
            reduce=args.reduce,
            options=options,
            actors=Actors(args.actors, args.cpus, args.gpus) if args.ray else None,
            progress=progress,
        )
    except KeyboardInterrupt:
        bar.close()
        kept = f"{done} of {counted(len(images), 'image')} are done and kept"
        print(f"interrupted: {kept}; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    finally:
        bar.close()
    for image, error in found.failures[:_TOLD]:
        print(f"{one_line(image)}: {one_line(error)}", file=sys.stderr)
    if found.failed > _TOLD:
        print(f"and {found.failed - _TOLD} more: the rows whose error is not null", file=sys.stderr)
    failed = f", {found.failed} could not be used" if found.failed else ""
    print(
        f"{one_line(args.output)}: {counted(found.images, 'image')}, {counted(found.persons, 'person')}{failed}",
        file=sys.stderr,
    )
    return 0
