"""`graftsdk-export`: checkpoints or exported parts -> one verified plan."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from graftsdk.errors import GraftError
from graftsdk.text import one_line

__all__ = ["main"]

_DESCRIPTION = """\
Turn a trunk and its branches into one plan: every part becomes an ONNX subgraph, is compared with torch
on generated crops (and on real ones, with --samples), and is written only when all of them agree.
"""

_EPILOG = """\
example:
  graftsdk-export --trunk trunk.safetensors --branches child.safetensors gender.safetensors \\
                  --segmenter segmenter.safetensors --samples persons/ -o engine.plan

Checkpoints (.safetensors) and parts that are exported already (.onnx, from --parts) may be mixed. A table at the
end tells what each label costs, how far it is from torch, and which decisions flip on the samples.

exit status: 0 written; 2 refused, nothing written; 130 interrupted, nothing written.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit status: 0, 2 for a wrong call or anything that graftsdk refuses, 130 after Ctrl-C."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.output is None and (arguments.parts is None or arguments.segmenter is not None):
        parser.error("expected -o PLAN; it may be left out with --parts DIR and without --segmenter only")
    try:
        return _export(arguments)
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except (GraftError, OSError) as error:
        print(f"error: {one_line(' '.join(str(error).split()))}", file=sys.stderr)
        return 2


def _export(arguments: argparse.Namespace) -> int:
    from graftsdk.export import export_parts, export_plan

    progress = not arguments.quiet
    if arguments.output is None:
        report = export_parts(
            arguments.parts, arguments.trunk, arguments.branches, arguments.samples, progress=progress
        )
    else:
        report = export_plan(
            arguments.output,
            arguments.trunk,
            arguments.branches,
            arguments.segmenter,
            arguments.samples,
            parts=arguments.parts,
            segmenter_licence=arguments.segmenter_licence,
            segmenter_author=arguments.segmenter_author,
            person_class=arguments.person_class,
            segmenter_family=arguments.segmenter_family,
            segmenter_size=None if arguments.segmenter_size is None else tuple(arguments.segmenter_size),
            score_threshold=arguments.score_threshold,
            iou_threshold=arguments.iou_threshold,
            nms=arguments.segmenter_nms,
            max_persons=arguments.max_persons,
            progress=progress,
        )
    if arguments.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    elif not arguments.quiet:
        print(report.table())
        where = report.path if report.path is not None else arguments.parts
        print(f"written in {report.seconds:.1f} s: {where}")
    return 0


def _parser() -> argparse.ArgumentParser:
    from graftsdk.plan.manifest import DEFAULT_PERSONS

    parser = argparse.ArgumentParser(
        "graftsdk-export",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--trunk", required=True, metavar="FILE", help="the trunk: .safetensors checkpoint or exported .onnx part")
    add("--branches", required=True, nargs="+", metavar="FILE", help="the branches: checkpoints or exported parts")
    add("-o", "--output", metavar="PLAN", help="the plan to write; may be left out with --parts")
    add("--parts", metavar="DIR", help="write every part there too: trunk.onnx and one <label>.onnx each")
    add("--samples", metavar="DIR", help="images of persons to compare decisions on; a PNG's alpha is the mask")
    add("--segmenter", metavar="FILE", help="the instance segmentation network: a checkpoint, an ONNX file, or demo")
    add("--segmenter-licence", metavar="TEXT", help="its licence (default: what its metadata says)")
    add("--segmenter-author", metavar="TEXT", help="its author (default: what its metadata says)")
    add("--person-class", type=int, metavar="N", help="its class of persons (default: found by the name 'person')")
    add("--segmenter-family", metavar="NAME", help="where its shapes leave that open: yolact, yolo, maskrcnn")
    add("--segmenter-size", type=int, nargs=2, metavar=("H", "W"), help="the sides of its input, where they are free")
    add(
        "--score-threshold", type=float, metavar="X", help="least score of a person (default: its own, or the family's)"
    )
    add(
        "--iou-threshold",
        type=float,
        metavar="X",
        help="overlap of two boxes that are one person (default: the family's)",
    )
    add("--segmenter-nms", choices=("fast", "greedy"), help="how such boxes go; fast: YOLACT's (default: greedy)")
    add(
        "--max-persons",
        type=int,
        metavar="N",
        default=DEFAULT_PERSONS,
        help="most persons of one image, 1..1000; 300",
    )
    add("--json", action="store_true", help="print the report as JSON")
    add("--quiet", action="store_true", help="no progress bar and no table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
