"""`graftsdk import`: foreign weights as a checkpoint, annotated sets as labels."""

from __future__ import annotations

import argparse

from graftsdk.cli.import_labels import SOURCES, configure_labels, run_labels
from graftsdk.cli.output import HelpFormatter, print_json
from graftsdk.text import one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Convert what others made: weights (the .pth files of torchvision and of the original YOLACT are the only ones "
        "that are read), and fully annotated sets of pedestrians, which become sub-datasets of one label each."
    )
    parser.epilog = "examples:\n  graftsdk import yolact --help\n  graftsdk import peta --help"
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    _configure_torchvision(sources.add_parser("torchvision", help="a state dict of torchvision (.pth): a trunk"))
    _configure_yolact(sources.add_parser("yolact", help="a state dict of the original YOLACT (.pth): a segmenter"))
    configure_labels(sources)
    parser.set_defaults(run=run)


def _configure_torchvision(command: argparse.ArgumentParser) -> None:
    command.formatter_class = HelpFormatter
    command.description = (
        "Write torchvision's weights as a trunk checkpoint. Only tensors are unpickled (weights_only=True); the "
        "classifier is dropped. Mean and deviation must be those that the weights were trained with: nothing is "
        "guessed."
    )
    command.epilog = (
        "example:\n  graftsdk import torchvision inception_v3_google-0cc3c7bd.pth --arch inception_v3 \\\n"
        "      --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5 -o trunk.safetensors"
    )
    command.add_argument("file", metavar="FILE.pth", help="the weights")
    command.add_argument(
        "--arch",
        required=True,
        help="inception_v3, resnet18, resnet50, resnet101, mobilenet_v3_large or mobilenet_v3_small",
    )
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


def _configure_yolact(command: argparse.ArgumentParser) -> None:
    command.formatter_class = HelpFormatter
    command.description = (
        "Write the original YOLACT's weights (dbolya/yolact, ResNet-50 or ResNet-101) as a segmenter checkpoint. Only "
        "tensors are unpickled (weights_only=True). Backbone and number of classes are read from the weights; size, "
        "scales and shape of the priors stand in the configuration that they were trained with (data/config.py) and "
        "nowhere in the file. YOLACT++ and Darknet-53 are refused."
    )
    command.epilog = (
        "examples:\n"
        "  graftsdk import yolact yolact_resnet50_54_800000.pth -o segmenter.safetensors\n"
        "  graftsdk import yolact yolact_im700_54_800000.pth --size 700 -o segmenter.safetensors\n"
        "  graftsdk import yolact own.pth -o segmenter.safetensors --classes person trolley\n"
        "  graftsdk import yolact pascal.pth -o segmenter.safetensors --scales 32 64 128 256 512 \\\n"
        "      --rectangular-priors --classes aeroplane bicycle ..."
    )
    command.add_argument("file", metavar="FILE.pth", help="the weights")
    command.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="names without the background, in the order of the training; default: COCO's, where there are 80",
    )
    command.add_argument("--size", type=int, default=550, metavar="N", help="side of the input, pixels; default 550")
    command.add_argument(
        "--scales",
        nargs=5,
        type=float,
        metavar="PIXELS",
        help="of the priors of P3 to P7; default 24 48 96 192 384 at 550, those of im700 and im400 at 700 and 400, in "
        "proportion at other sizes",
    )
    command.add_argument(
        "--rectangular-priors",
        action="store_true",
        help="priors have the height of their aspect ratio (use_square_anchors False, Pascal VOC); default: as high "
        "as wide, COCO",
    )
    command.add_argument("-o", "--output", required=True, metavar="SEGMENTER", help="the checkpoint, .safetensors")
    command.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Write what the source that was named becomes; always 0."""
    if args.source in SOURCES:
        return run_labels(args)
    return _run_yolact(args) if args.source == "yolact" else _run_torchvision(args)


def _run_torchvision(args: argparse.Namespace) -> int:
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


def _run_yolact(args: argparse.Namespace) -> int:
    from graftsdk.models import import_yolact

    model = import_yolact(
        args.file,
        args.output,
        classes=args.classes,
        size=args.size,
        scales=args.scales,
        square_priors=not args.rectangular_priors,
    )
    document = model.document()
    if args.json:
        print_json({"path": args.output, **document.to_dict()})
    else:
        count, (height, width) = len(document.classes), document.input_size
        print(
            f"{one_line(args.output)}: segmenter {document.family}, {document.arch}, {count} "
            f"{'class' if count == 1 else 'classes'}, input {height}x{width} (HxW)"
        )
    return 0
