"""`graftsdk import`: foreign weights as a trunk checkpoint."""

from __future__ import annotations

import argparse

from graftsdk.cli.output import HelpFormatter, print_json
from graftsdk.text import one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Convert foreign weights. torchvision's .pth files are the only ones that are read."
    parser.epilog = "example:\n  graftsdk import torchvision --help"
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    command = sources.add_parser(
        "torchvision",
        help="a state dict of torchvision (.pth)",
        description=(
            "Write torchvision's weights as a trunk checkpoint. Only tensors are unpickled (weights_only=True); the "
            "classifier is dropped. Mean and deviation must be those that the weights were trained with: nothing is "
            "guessed."
        ),
        epilog=(
            "example:\n  graftsdk import torchvision inception_v3_google-0cc3c7bd.pth --arch inception_v3 \\\n"
            "      --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5 -o trunk.safetensors"
        ),
        formatter_class=HelpFormatter,
    )
    command.add_argument("file", metavar="FILE.pth", help="the weights")
    command.add_argument("--arch", required=True, help="inception_v3, resnet18, resnet50 or mobilenet_v3_large")
    for name, text in (("--mean", "mean"), ("--std", "deviation")):
        command.add_argument(
            name,
            required=True,
            nargs=3,
            type=float,
            metavar=("R", "G", "B"),
            help=f"{text} that pixels in 0..1 were normalised with",
        )
    command.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="of the crops, pixels; default 299 299")
    command.add_argument("-o", "--output", required=True, metavar="TRUNK", help="the checkpoint, .safetensors")
    command.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint; always 0."""
    from graftsdk.models import import_torchvision

    size = None if args.size is None else (args.size[0], args.size[1])
    trunk = import_torchvision(args.file, args.arch, args.output, tuple(args.mean), tuple(args.std), size)
    document = trunk.document()
    height, width = document.crop.size
    if args.json:
        print_json({"path": args.output, **document.to_dict()})
    else:
        print(
            f"{one_line(args.output)}: trunk {document.arch}, {document.blocks} blocks, crops {height}x{width} (HxW), "
            f"fingerprint {document.fingerprints[-1][:16]}"
        )
    return 0
