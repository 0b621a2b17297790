"""`graftsdk train trunk`: the shared part of the network, learned from all sub-datasets by the dynamic graph."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import replace
from typing import Any

from graftsdk.cli.output import HelpFormatter, print_json, print_table
from graftsdk.errors import InputError
from graftsdk.text import one_line

__all__ = ["add_parser", "run"]

_MORE = """\
a sub-dataset lies in DATA/LABEL/{train,val,test}/CLASS/ with one folder a class: no and yes, or the order that
DATA/graft.toml gives. Each has a head of its own, of which a step runs only those it draws; the heads are dropped at
the end. Beside OUT lie OUT.curve.csv, OUT.safetensors.state, from which --resume goes on after Ctrl-C or a kill, and
the folder `crops` with what was decoded; it may be deleted at any time.

With --devices N the command is run N times on this machine, with --device cuda once for each GPU. On several machines
torchrun (or SLURM) runs it on each of them; they share the folders of data, cache and output:
  torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --no-python \\
      graftsdk train trunk --nodes 2 --devices 4 --device cuda --data labels --epochs 20 -o trunk.safetensors

examples:
  graftsdk train trunk --data labels --arch resnet18 --width 0.5 --size 160 80 --minutes 60 -o trunk.safetensors
  graftsdk train trunk --data labels --labels backpack hat --size 299 299 --backbone-weights inception.safetensors \\
      --epochs 20 -o trunk.safetensors
  graftsdk train trunk --data labels --init trunk.safetensors --epochs 10 -o next.safetensors"""
_OPTIONS = (
    *("steps", "epochs", "minutes", "batch", "tasks", "alpha", "least_share", "optimizer", "learning_rate", "schedule"),
    *("warmup", "weight_decay", "clip", "ema", "label_smoothing", "norm_momentum", "norm_images", "precision", "seed"),
    *("eval_minutes", "eval_epochs", "eval_images", "save_seconds", "workers", "threads", "device"),
    *("devices", "nodes"),
)


def add_parser(kinds: Any) -> None:
    """Add `trunk` to the subparsers of `graftsdk train`."""
    command = kinds.add_parser(
        "trunk",
        help="what all labels share, from sub-datasets of one label each",
        description=(
            "Train a trunk by the dynamic graph on sub-datasets that were annotated for one label each. Without "
            "options of the network it is the paper's: InceptionV3 at 299x299."
        ),
        epilog=_MORE,
        formatter_class=HelpFormatter,
    )
    _add_data(command)
    _add_length(command)
    _add_network(command)
    _add_learning(command)
    command.set_defaults(run=run)


def _add_data(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("data and output").add_argument
    add("--data", required=True, metavar="DATA", help="folder of sub-datasets")
    add("--labels", nargs="+", metavar="LABEL", help="which of them; default: all")
    add("-o", "--output", required=True, metavar="OUT", help="the trunk's checkpoint, .safetensors")
    add("--resume", action="store_true", help="go on from the state of the same training, where there is one")
    add("--cache", metavar="DIR", help="folder for decoded crops; default: crops, beside OUT")
    add("--keep-heads", metavar="DIR", help="save each head as a branch that is its last layer only, here")
    add("--plot", metavar="PICTURE", help="draw the curve (.png, .svg, .pdf), anew at each evaluation")
    add("--quiet", action="store_true", help="no progress bars")
    add("--json", action="store_true", help="print the result as JSON")


def _add_length(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("length; what comes first ends it, rates follow it").add_argument
    add("--minutes", type=float, metavar="M", help="of training and evaluation, over all resumed runs")
    add("--epochs", type=float, metavar="N", help="times the crops of all sub-datasets together")
    add("--steps", type=int, metavar="N", help="batches")
    add("--eval-minutes", type=float, metavar="M", help="between evaluations; default 5")
    add("--eval-every", type=float, metavar="N", dest="eval_epochs", help="epochs between them, instead")
    add("--eval-images", type=int, metavar="N", help="of each label, on the way; default 500. All at the end")


def _add_network(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("network").add_argument
    add("--arch", help="inception_v3 (default), resnet18, resnet50, mobilenet_v3_large ...")
    add("--width", type=float, metavar="X", help="share of the channels, above 0, at most 1; default 1")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="of the crops, pixels; default 299 299")
    add("--crop", action="append", default=[], metavar="KEY=VALUE", help=_CROP_HELP)
    add("--backbone-weights", metavar="FILE", help="to start from, torchvision's layout, .safetensors; width 1")
    add("--init", metavar="FILE", help="a trunk's checkpoint to start from, in place of all these")


_CROP_HELP = "more of the crop specification: background=keep, fit=letterbox, box=mask, order=bgr, fill=114, pad=0.1"


def _add_learning(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("learning").add_argument
    add("--batch", type=int, metavar="N", help="crops a step, of all sub-datasets and processes; default 64")
    add("--tasks", type=int, metavar="M", help="sub-datasets a step; default 4, the paper's is 1")
    add("--alpha", type=float, metavar="X", help="a sub-dataset of N crops is drawn with p ~ N**X; default 0.5")
    add("--least-share", type=float, metavar="X", help="of each class in what is drawn; default 0.25, 0: as it comes")
    add("--optimizer", choices=["adamw", "sgd"], help="default adamw")
    add("--learning-rate", type=float, metavar="X", help="after warm-up; default 0.001, with sgd 0.03")
    add("--schedule", choices=["cosine", "step"], help="default cosine")
    add("--warmup", type=int, metavar="N", help="steps; default 300, at most a tenth of the length")
    add("--weight-decay", type=float, metavar="X", help="not of BatchNorm and biases; default 0.02, with sgd 5e-4")
    add("--clip", type=float, metavar="X", help="greatest norm of the gradient; default 5")
    add("--ema", type=float, metavar="X", help="greatest decay of the averaged weights; default 0.998, 0: none")
    add("--label-smoothing", type=float, metavar="X", help="default 0.05")
    add("--norm-momentum", type=float, metavar="X", help="of BatchNorm; default 0.1, with --tasks 1 0.01")
    add("--norm-images", type=int, metavar="N", help="crops that BatchNorm is measured on at the end; default 5000")
    add("--no-augmentation", action="store_true", help="crops as they are")
    add("--shift", type=float, metavar="X", help="crops move by up to this share of their height; default 0.04")
    add("--flip", type=float, metavar="P", help="probability of a mirror image; default 0.5")
    add("--colour", type=float, metavar="X", help="brightness, contrast, saturation change by up to it; default 0.2")
    add("--erase", type=float, metavar="P", help="probability of an erased rectangle; default 0.25")
    add(
        "--precision",
        choices=["float32", "bfloat16"],
        help="of the forward pass; default: bfloat16 where the CPU has AMX, and on a GPU",
    )
    add("--seed", type=int, metavar="N", help="of weights, order and augmentation; default 0")
    add("--save-seconds", type=float, metavar="S", help="between two writings of the state; default 120")
    add("--workers", type=int, metavar="N", help="processes that vary crops, for each that trains; default 1")
    add("--threads", type=int, metavar="N", help="of torch, and that decode; default: torch's choice")
    add("--device", choices=["cpu", "cuda"], help="default cpu")
    add("--devices", type=int, metavar="N", help="processes on each machine, which share the batch; default 1")
    add("--nodes", type=int, metavar="N", help="machines; default 1")


def run(args: argparse.Namespace) -> int:
    """Train; always 0."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported; see `graftsdk train segmenter`
    from graftsdk.training.trunk.train import train_trunk

    report = train_trunk(
        args.data,
        args.labels,
        args.output,
        _options(args),
        trunk=_network(args),
        weights=args.backbone_weights,
        cache=args.cache,
        heads=args.keep_heads,
        resume=args.resume,
        plot=args.plot,
        progress=not args.quiet,
    )
    scores = {
        label: {name: None if math.isnan(value) else value for name, value in classes.items()}
        for label, classes in report.auc.items()
    }
    if args.json:
        result = {"path": str(report.path), "steps": report.steps, "seconds": report.seconds}
        print_json({**result, "mean_auc": report.mean_auc, "auc": scores})
        return 0
    if scores:
        shown = [
            (label, name, "no pair" if value is None else f"{value:.4f}")
            for label, classes in scores.items()
            for name, value in classes.items()
        ]
        print_table([("label", "class", "validation AUC"), *shown], right=[2])
    judged = "" if report.mean_auc is None else f"; mean AUC of its heads {report.mean_auc:.4f}"
    print(f"{one_line(str(report.path))}: {report.steps} steps, {report.seconds / 60:.1f} minutes{judged}")
    return 0


def _options(args: argparse.Namespace) -> Any:
    """What was given, with what follows from it."""
    from graftsdk.training.crops.augment import NO_AUGMENTATION, Augmentation
    from graftsdk.training.trunk.options import SGD, TrunkOptions

    given: dict[str, Any] = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    if given.get("optimizer") == "sgd":
        given = SGD | given
    strengths = ("shift", "flip", "colour", "erase")
    how = {name: getattr(args, name) for name in strengths if getattr(args, name) is not None}
    base = NO_AUGMENTATION if args.no_augmentation else Augmentation()
    return TrunkOptions(**given, augmentation=replace(base, **how))


def _network(args: argparse.Namespace) -> Any:
    """A network, or the checkpoint to start from."""
    from graftsdk.training.trunk.options import TrunkNetwork

    named = [f"--{name}" for name in ("arch", "width", "size", "crop") if getattr(args, name)]
    if args.init is not None:
        if named:
            raise InputError(f"--init: expected without options of the network, found {named[0]}; its own are kept")
        return args.init
    given = {name: getattr(args, name) for name in ("arch", "width") if getattr(args, name) is not None}
    return TrunkNetwork(**given, crop=_crop(args))


def _crop(args: argparse.Namespace) -> Any:
    """None where nothing was said of it: the network's own default."""
    if args.size is None and not args.crop:
        return None
    from graftsdk.plan import CropSpec

    readers: dict[str, Any] = {"fill": int, "pad": float, "antialias": {"true": True, "false": False}.__getitem__}
    given: dict[str, Any] = {}
    for word in args.crop:
        name, mark, value = word.partition("=")
        if not mark or name not in ("background", "fit", "box", "order", *readers):
            raise InputError(f"--crop: expected KEY=VALUE, {_CROP_HELP.partition(': ')[2]}, found {word!r:.80}")
        try:
            given[name] = readers.get(name, str)(value)
        except (KeyError, ValueError) as error:
            raise InputError(f"--crop: expected a value for {name}, found {word!r:.80}") from error
    if args.backbone_weights is not None and args.arch in (None, "inception_v3"):
        given |= {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # what torchvision's weights of it were trained with
    return CropSpec(tuple(args.size or (299, 299)), **given)
