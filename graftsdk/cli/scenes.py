"""`graftsdk scenes`: drawn lift scenes with exact masks and attributes, as a data set in COCO's layout."""

from __future__ import annotations

import argparse
import json
import sys

from graftsdk.cli.output import print_json
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Draw lift scenes, and other places in every third picture: 0 to 5 people each, in front of and behind each "
        "other, with the exact mask, the occlusion and the attributes of each. Equal arguments give equal scenes. "
        "Needs the extra [train]."
    )
    parser.epilog = (
        "DIR holds scenes/000000.jpg... and annotations/instances_scenes.json, which is written last.\n\n"
        "examples:\n"
        "  graftsdk scenes -o scenes/train --count 20000 --workers 2\n"
        "  graftsdk scenes -o scenes/val --count 500 --seed 1\n"
        "  graftsdk train segmenter --data scenes/train --val scenes/val -o segmenter.safetensors"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="scenes; default: 1000")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other scenes; default: 0")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(360, 640), metavar=("H", "W"), help="pixels; default: 360 640"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that draw; default: 1")
    parser.add_argument("--json", action="store_true", help="print what was drawn as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw; exit code 0."""
    from graftsdk.training.synthetic import write_scenes

    height, width = args.size
    path = write_scenes(
        args.output, args.count, args.seed, (height, width), progress=sys.stderr.isatty(), workers=args.workers
    )
    document = json.loads(path.read_bytes())
    persons = document["annotations"]
    hidden = sum(person["iscrowd"] for person in persons)
    if args.json:
        print_json({"annotations": str(path), **document["info"], "persons": len(persons), "crowd": hidden})
    else:
        print(
            f"{counted(args.count, 'scene')} of {width}x{height} with {counted(len(persons), 'person')}, {hidden} of "
            f"them too hidden or too small to ask for (iscrowd)\nannotations: {one_line(str(path))}"
        )
    return 0
