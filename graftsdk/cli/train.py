"""`graftsdk train`: networks learn from annotated images."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import Any

from graftsdk.cli.output import HelpFormatter, print_json
from graftsdk.cli.train_branch import add_parser as add_branch
from graftsdk.cli.train_trunk import add_parser as add_trunk
from graftsdk.text import one_line

__all__ = ["configure", "run"]

_DATA = """\
data sets: a folder in COCO's layout (annotations/instances_X.json beside X/ or images/), one such JSON file, or
Penn-Fudan's folder (PNGImages/ and PedMasks/). FOLDER:0.3 takes 30% of each epoch's images from that one.

beside OUT.safetensors lie OUT.curve.csv and OUT.safetensors.state, from which --resume goes on after Ctrl-C or a kill.

examples:
  graftsdk train segmenter --data scenes/train --val scenes/val --minutes 30 -o segmenter.safetensors
  graftsdk train segmenter --data PennFudanPed --val-split 0.25 --init demo --minutes 20 \\
      -o mine.safetensors"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Train a network on annotated images. Needs the extra [train]."
    parser.epilog = "examples:\n" + "\n".join(
        f"  graftsdk train {kind} --help" for kind in ("segmenter", "trunk", "branch")
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    command = kinds.add_parser(
        "segmenter",
        help="YOLACT: persons, cut out at their pixels",
        description=(
            "Train a YOLACT segmenter and keep the checkpoint with the best mask AP on the validation images. Without "
            "options of the network it is a small one for CPUs: ResNet-18 of width 0.35, 64 channels, 192x320."
        ),
        epilog=_DATA,
        formatter_class=HelpFormatter,
    )
    _add_data(command)
    _add_length(command)
    _add_network(command)
    _add_learning(command)
    command.set_defaults(run=run)
    add_trunk(kinds)
    add_branch(kinds)


def _add_data(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("data and output").add_argument
    add("--data", required=True, nargs="+", metavar="FOLDER", help="what it learns from; several are mixed")
    add("--val", nargs="+", default=[], metavar="FOLDER", help="what it is evaluated on")
    add("--val-split", type=float, metavar="SHARE", help="instead: hold out this share of the data, chosen by name")
    add("-o", "--output", required=True, metavar="OUT", help="the checkpoint, .safetensors")
    add("--resume", action="store_true", help="go on from the state of the same training, where there is one")
    add("--plot", metavar="PICTURE", help="draw the curve (.png, .svg, .pdf), anew at each evaluation")
    add("--quiet", action="store_true", help="no progress bar")
    add("--json", action="store_true", help="print the result as JSON")


def _add_length(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("length; what comes first ends it, rates follow it")
    group.add_argument("--minutes", type=float, metavar="M", help="of training and evaluation, over all resumed runs")
    group.add_argument("--epochs", type=float, metavar="N", help="times all images")
    group.add_argument("--steps", type=int, metavar="N", help="batches")
    group.add_argument("--eval-minutes", type=float, metavar="M", help="between evaluations; default 5")
    group.add_argument("--eval-every", type=float, metavar="N", dest="eval_epochs", help="epochs between them, instead")
    group.add_argument("--eval-images", type=int, metavar="N", help="at most, on the way; default 200. All at the end")


def _add_network(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("network; by default that of --init where it is given")
    add = group.add_argument
    add("--init", metavar="FILE", help="a segmenter's checkpoint to start from, or demo")
    add("--backbone-weights", metavar="FILE", help="of the backbone, torchvision's layout, .safetensors")
    add("--preset", choices=["small", "yolact"], help="yolact: the original's ResNet-50, 550x550, square priors")
    add("--arch", help="resnet18, resnet50, resnet101, mobilenet_v3_large ...")
    add("--width", type=float, metavar="X", help="share of the backbone's channels, above 0, at most 1")
    add("--channels", type=int, metavar="N", help="of FPN, protonet and head")
    add("--prototypes", type=int, metavar="N", help="masks that are combined")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="of the input, pixels; images are stretched to it")
    add("--classes", nargs="+", metavar="NAME", help="categories of the data, without background; default: person")
    add("--scales", type=float, nargs=5, metavar="S", help="of the priors of P3..P7, pixels of the input")
    add("--aspect-ratios", type=float, nargs="+", metavar="R", help="of the priors, width : height")
    add(
        "--square-priors",
        action=argparse.BooleanOptionalAction,
        help="as high as wide whatever the ratio, as in the original",
    )
    add("--norm", action=argparse.BooleanOptionalAction, help="BatchNorm in FPN and protonet too; the original: none")


def _add_learning(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("learning")
    add = group.add_argument
    add("--batch", type=int, metavar="N", help="images a step; default 16")
    add("--optimizer", choices=["sgd", "adamw"], help="default adamw; of --preset yolact sgd")
    add("--learning-rate", type=float, metavar="X", help="after warm-up; default 0.001, with sgd alone 0.01")
    add("--schedule", choices=["cosine", "step"], help="default cosine; step: the paper's")
    add("--confidence", choices=["ohem", "focal"], help="loss of the classes; default focal, of --preset yolact ohem")
    add("--warmup", type=int, metavar="N", help="steps; default 300")
    add("--weight-decay", type=float, metavar="X", help="default 0.02, with sgd 5e-4")
    add("--ema", type=float, metavar="X", help="greatest decay of the averaged weights; default 0.998, 0: none")
    add("--copy-paste", type=float, metavar="P", help="probability of persons from another image; default 0.3")
    add(
        "--mixed-sizes", action=argparse.BooleanOptionalAction, help="batches of sizes around the input's; default: yes"
    )
    add(
        "--freeze-norm",
        action=argparse.BooleanOptionalAction,
        help="default: where weights are given, below 6 images a batch",
    )
    add(
        "--precision",
        choices=["float32", "bfloat16"],
        help="of the forward pass; default: bfloat16 where the CPU has AMX, and on a GPU",
    )
    add("--seed", type=int, metavar="N", help="of weights, order and augmentation; default 0")
    add("--save-seconds", type=float, metavar="S", help="between two writings of the state; default 120")
    add("--workers", type=int, metavar="N", help="processes that load images; default 1")
    add("--threads", type=int, metavar="N", help="of torch; default: torch's choice")
    add("--device", choices=["cpu", "cuda"], help="default cpu")


_NETWORK = ("arch", "width", "channels", "prototypes", "aspect_ratios", "square_priors", "norm", "classes", "scales")
_LEARNING = (
    "optimizer",
    *(
        "batch",
        "steps",
        "epochs",
        "minutes",
        "learning_rate",
        "schedule",
        "confidence",
        "warmup",
        "weight_decay",
        "ema",
        "copy_paste",
    ),
    *("mixed_sizes", "freeze_norm", "precision", "seed", "eval_minutes", "eval_epochs", "eval_images", "save_seconds"),
    *("workers", "threads", "device"),
)


def run(args: argparse.Namespace) -> int:
    """Train; always 0."""
    # Threads that wait for one another by spinning stand in the way of the processes that load images, and of all
    # others: next to one busy process a step took five times as long. The runtime reads it when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from graftsdk.training import SegmenterOptions, train_segmenter

    report = train_segmenter(
        args.data,
        args.output,
        SegmenterOptions(_network(args), **_learning(args)),
        val=args.val,
        val_split=args.val_split,
        init=args.init,
        weights=args.backbone_weights,
        resume=args.resume,
        plot=args.plot,
        progress=not args.quiet,
    )
    ap = report.ap
    if args.json:
        scores = None if ap is None else {"ap": ap.ap, "ap50": ap.ap50, "ap75": ap.ap75, "images": ap.images}
        print_json({"path": str(report.path), "steps": report.steps, "seconds": report.seconds, "mask_ap": scores})
    else:
        judged = "" if ap is None else f"; mask AP {ap.ap:.3f}, AP50 {ap.ap50:.3f} on {ap.images} images"
        print(f"{one_line(str(report.path))}: {report.steps} steps, {report.seconds / 60:.1f} minutes{judged}")
    return 0


def _learning(args: argparse.Namespace) -> dict[str, Any]:
    """What was given, with what follows from it."""
    given = {name: getattr(args, name) for name in _LEARNING if getattr(args, name) is not None}
    if args.preset == "yolact":
        given = {"confidence": "ohem", "optimizer": "sgd", "learning_rate": 0.001} | given
    if given.get("optimizer") == "sgd":
        given = {"learning_rate": 0.01, "weight_decay": 5e-4} | given
    return given


def _network(args: argparse.Namespace) -> Any:
    """Of the preset or of the checkpoint to start from, with what was given in its place."""
    from graftsdk.training import NetworkOptions
    from graftsdk.training.segmenter.options import YOLACT_PRESET

    base = YOLACT_PRESET if args.preset == "yolact" else NetworkOptions()
    if args.init is not None and args.preset is None:
        from graftsdk.models import Yolact
        from graftsdk.segment.demo import named_segmenter

        document = Yolact.load(named_segmenter(args.init)).document()
        base = NetworkOptions(**{name: getattr(document, name) for name in NetworkOptions.__dataclass_fields__})
    given: dict[str, Any] = {name: getattr(args, name) for name in _NETWORK if getattr(args, name) is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if args.size is not None:
        given["input_size"] = tuple(args.size)
        share = min(args.size) / min(base.input_size)  # the scales follow the size
        given.setdefault("scales", base.scales and tuple(share * scale for scale in base.scales))
    return replace(base, **given)
