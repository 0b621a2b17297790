"""`graftsdk export-triton`: a plan as a model repository of Triton Inference Server."""

from __future__ import annotations

import argparse

from graftsdk.cli.labels import chosen_labels
from graftsdk.text import one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Write a model repository of Triton Inference Server: one model over crops, which batches persons of all "
        "requests, and a front that takes an encoded image and answers in JSON. A repository that this command wrote "
        "is replaced; any other folder is left alone."
    )
    parser.epilog = _EPILOG
    parser.add_argument("plan", metavar="PLAN", help="the plan")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the repository's folder")
    parser.add_argument("--name", help="name of the front; the other model is NAME_crops; default: the plan's")
    parser.add_argument("--labels", nargs="+", metavar="LABEL", help="only these; default: all of the plan")
    parser.add_argument(
        "--max-delay-us",
        type=int,
        default=2000,
        metavar="N",
        help="microseconds a crop waits for others; default: 2000",
    )
    parser.add_argument(
        "--fronts", type=int, default=2, metavar="N", help="processes that decode and segment; default: 2"
    )
    parser.set_defaults(run=run)


_EPILOG = """\
The server needs its onnxruntime and python backends, and graftsdk installed for the latter.

examples:
  graftsdk export-triton engine.plan -o repository/
  tritonserver --model-repository=repository/"""


def run(args: argparse.Namespace) -> int:
    """0 when the repository is there."""
    from graftsdk.serving.triton import export_repository

    front, crops = export_repository(
        args.plan,
        args.output,
        name=args.name,
        labels=chosen_labels(args.labels, args.plan),
        max_delay_us=args.max_delay_us,
        fronts=args.fronts,
    )
    print(f"{one_line(args.output)}: {front} (an image in, JSON out) and {crops} (crops in, scores out)")
    return 0
