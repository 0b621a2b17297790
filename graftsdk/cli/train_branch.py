"""`graftsdk train branch LABEL`: one label learned on a frozen trunk."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any

from graftsdk.cli.output import HelpFormatter, print_json, print_table
from graftsdk.errors import InputError
from graftsdk.text import counted, one_line

__all__ = ["add_parser", "run"]

_MORE = """\
the sub-dataset lies in DATA/LABEL/{train,val,test}/CLASS/ with one folder a class: no and yes, or the order that
DATA/graft.toml gives. Beside OUT lies the folder `features` with what the trunk gives for each image: the next branch
of the label, or another tap's, begins where it is; it may be deleted at any time.

--tap auto tries the last tap (head only) first and goes on to dearer branches; the cheapest one whose validation AUC
is within --tolerance of the best is kept.

examples:
  graftsdk train branch backpack --data labels --trunk trunk.safetensors -o backpack.safetensors
  graftsdk train branch backpack --data labels --trunk trunk.safetensors --tap 8 -o full.safetensors
  graftsdk train branch backpack --data labels --trunk trunk.safetensors --tap 8 --width 0.25 \\
      --distil full.safetensors -o backpack.safetensors
  graftsdk train branch backpack --teacher old.onnx --images crops/ --trunk trunk.safetensors \\
      -o backpack.safetensors
  graftsdk mine backpack --data labels --trunk trunk.safetensors -o mined
  graftsdk train branch backpack --data labels --negatives mined/keep.txt --trunk trunk.safetensors \\
      -o backpack.safetensors"""
_OPTIONS = (
    *("tap", "until", "pooling", "width", "init", "tolerance", "views", "precision", "epochs", "batch", "balance"),
    *("learning_rate", "first_rate", "weight_decay", "ema", "patience", "soft_weight", "soft_temperature"),
    *("threshold", "seed", "threads", "device", "search_taps"),
)


def add_parser(kinds: Any) -> None:
    """Add `branch` to the subparsers of `graftsdk train`."""
    command = kinds.add_parser(
        "branch",
        help="one label on a frozen trunk",
        description=(
            "Train one label's branch on a trunk that is only read, and keep the epoch with the best AUC on the "
            "validation images, with thresholds, calibration and figures."
        ),
        epilog=_MORE,
        formatter_class=HelpFormatter,
    )
    command.add_argument("label", metavar="LABEL", help="the folder of the sub-dataset")
    _add_data(command)
    _add_branch(command)
    _add_learning(command)
    _add_teacher(command)
    command.set_defaults(run=run)


def _add_data(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("data and output").add_argument
    add("--data", metavar="DATA", help="folder of sub-datasets; with --teacher it may be left out")
    add("--trunk", required=True, metavar="FILE", help="checkpoint of the trunk")
    add("-o", "--output", required=True, metavar="OUT", help="the branch's checkpoint, .safetensors")
    add("--classes", nargs="+", metavar="CLASS", help="their order, the positive one last; default: as the data says")
    add("--cache", metavar="DIR", help="folder for crops and features; default: features, beside OUT")
    add("--no-cache", action="store_true", help="keep no features: every batch goes through the trunk")
    add("--negatives", metavar="LIST", help="keep.txt of graftsdk mine: other negatives are not learned from")
    add("--views", type=int, metavar="N", help="of each training image, one plain and the others varied; default 4")
    add("--precision", choices=["float16", "float32"], help="of the features on disk; default float16")
    add("--quiet", action="store_true", help="no progress bars")
    add("--json", action="store_true", help="print the result as JSON")


def _add_branch(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("the branch").add_argument
    add("--tap", type=_number_or_auto(int), metavar="K", help="own blocks begin here; default auto")
    add("--search-taps", type=int, nargs="+", metavar="K", help="what --tap auto tries; default: six from the last on")
    add("--until", type=int, metavar="K", help="own blocks end before this one; default: the last is its own")
    add("--width", type=_number_or_auto(float), metavar="X", help="share of the channels, or auto; default 1")
    add("--tolerance", type=float, metavar="X", help="AUC that a cheaper branch may lack; default 0.002")
    add("--pooling", metavar="NAME", help="gap or bilinear; default gap")
    add("--init", choices=["trunk", "random"], help="where own blocks start; default trunk")
    add("--distil", metavar="FILE", help="checkpoint of a wider branch of the label on this trunk, to learn from")
    add("--soft-weight", type=float, metavar="X", help="share of its answers in the loss; default 0.7")
    add("--soft-temperature", type=float, metavar="T", help="of the softened answers; default 2")


def _add_learning(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("learning").add_argument
    add("--epochs", type=int, metavar="N", help="default 20")
    add("--patience", type=int, metavar="N", help="end after so many epochs without a better AUC; default: never")
    add("--batch", type=int, metavar="N", help="images a step; default 64")
    add("--balance", choices=["balanced", "1:3", "natural"], help="classes in a batch; default balanced")
    add("--learning-rate", type=float, metavar="X", help="after warm-up; default 0.001")
    add("--first-rate", type=float, metavar="X", help="times it for the first own block; default 0.3")
    add("--weight-decay", type=float, metavar="X", help="default 0.02")
    add("--ema", type=float, metavar="X", help="greatest decay of the averaged weights; default 0.99, 0: none")
    add("--threshold", metavar="RULE", help="f1 (default), youden, accuracy, 'fpr<=X', 'precision>=X', 'recall>=X'")
    add("--seed", type=int, metavar="N", help="of weights, order and views; default 0")
    add("--threads", type=int, metavar="N", help="of torch; default: torch's choice")
    add("--device", choices=["cpu", "cuda"], help="default cpu")


def _add_teacher(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("in place of annotations: a classifier that is in use today").add_argument
    add("--teacher", metavar="ONNX", help="one image in, scores of this label out; its answers are learned")
    add("--images", metavar="DIR", help="pictures of one person each, which nobody has to annotate")
    add("--keep", choices=["recall", "fpr"], help="on DATA's validation images, as the threshold; default recall")
    add("--teacher-threshold", type=float, metavar="P", dest="old_threshold", help="of its use today; default 0.5")
    add("--teacher-gives", choices=["probabilities", "logits"], dest="old_gives", help="default: told by the values")
    add("--teacher-output", metavar="NAME", dest="old_output", help="where it has several")
    add("--teacher-size", type=int, nargs=2, metavar=("H", "W"), dest="old_size", help="where its input is open")
    add("--teacher-mean", type=float, nargs=3, metavar="X", dest="old_mean", help="of its crops; default ImageNet's")
    add("--teacher-std", type=float, nargs=3, metavar="X", dest="old_std", help="of its crops; default ImageNet's")
    add("--teacher-order", choices=["rgb", "bgr"], dest="old_order", help="of its channels; default rgb")
    add("--teacher-fit", choices=["stretch", "letterbox"], dest="old_fit", help="of its crops; default stretch")


def _number_or_auto(kind: type[int] | type[float]) -> Any:
    def read(text: str) -> int | float | str:
        return text if text == "auto" else kind(text)

    read.__name__ = f"{kind.__name__} or auto"  # argparse names it in its message
    return read


def run(args: argparse.Namespace) -> int:
    """Train; always 0."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported; see `graftsdk train segmenter`
    from graftsdk.training.branch.options import BranchOptions
    from graftsdk.training.branch.train import train_branch

    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    if "search_taps" in given:
        if given.get("tap", "auto") != "auto":
            raise InputError("--search-taps: expected with --tap auto only, found --tap too; leave one out")
        given["search_taps"] = tuple(given["search_taps"])
    if args.teacher is not None:
        return _take_over(args, given)
    if args.data is None or args.images is not None:
        raise InputError("expected --data, or --teacher with --images, found neither whole")
    report = train_branch(
        args.data,
        args.label,
        args.trunk,
        args.output,
        BranchOptions(**given, cache=not args.no_cache),
        classes=args.classes,
        cache=args.cache,
        distil=args.distil,
        negatives=args.negatives,
        progress=not args.quiet,
    )
    if args.json:
        print_json(_json(report))
    else:
        _print_tried(report)
        print(_told(report))
    return 0


_TEACHER = ("threshold", "gives", "output", "size", "mean", "std", "order", "fit")


def _take_over(args: argparse.Namespace, given: dict[str, Any]) -> int:
    from graftsdk.training.branch.old_classifier import ClassifierOptions, OldClassifier
    from graftsdk.training.branch.options import BranchOptions
    from graftsdk.training.branch.takeover import take_over

    if args.images is None or args.distil is not None or args.negatives is not None:
        raise InputError("--teacher: expected --images, no --distil and no --negatives, found another combination")
    if args.keep is not None and args.data is None:
        raise InputError("--keep: expected with --data, whose validation crops it is measured on, found none")
    old = {name: getattr(args, f"old_{name}") for name in _TEACHER}
    old = {name: tuple(value) if isinstance(value, list) else value for name, value in old.items() if value is not None}
    chosen: dict[str, Any] = {"soft_weight": 1.0, "threshold": "accuracy", **given}
    options = BranchOptions(**chosen, cache=not args.no_cache)
    with OldClassifier(args.teacher, ClassifierOptions(**old), threads=args.threads) as classifier:
        found = take_over(
            classifier,
            args.images,
            args.label,
            args.trunk,
            args.output,
            options,
            classes=args.classes or ("no", "yes"),
            root=args.data,
            keep=args.keep or "recall",
            cache=args.cache,
            progress=not args.quiet,
        )
    if args.json:
        told = {**asdict(found), "branch": _json(found.branch), "list": str(found.list)}
        print_json(told)
        return 0
    _print_tried(found.branch)
    print(_told(found.branch, "agreement with the old decisions, validation"))
    last = "" if found.threshold is None else f"; in use from {found.threshold:.4f} ({found.rule})"
    print(
        f"{found.differing} of {counted(found.compared, 'held-out crop')} decided otherwise than before{last}\n"
        f"list: {one_line(str(found.list))}"
    )
    return 0


def _json(report: Any) -> dict[str, Any]:
    return {**asdict(report), "path": str(report.path), "cache": str(report.cache)}


def _print_tried(report: Any) -> None:
    if len(report.tried) < 2:
        return
    rows = [("tap", "width", "MMAC", "M parameters", "validation AUC", "epoch", "seconds")]
    for one in report.tried:
        what = one.candidate
        cost = f"{what.macs / 1e6:.1f}", f"{what.parameters / 1e6:.2f}"
        result = f"{one.auc:.4f}", str(one.best_epoch), f"{one.seconds:.0f}"
        rows.append((str(what.tap), f"{what.width:g}", *cost, *result))
    print_table(rows, right=range(len(rows[0])))


def _told(report: Any, first: str = "validation") -> str:
    shown = []
    for split, before in ((first, ""), ("test", "test.")):
        names = [name for name in report.metrics if name.startswith(before) and name.split(".")[-1] == "auc"]
        names = [name for name in names if before or not name.startswith("test.")]
        for name in names:
            inner = name.removeprefix(before).rpartition(".")[0]
            low, high = (report.metrics.get(f"{name}_{end}") for end in ("low", "high"))
            between = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
            shown.append(f"{split} AUC{f' of {inner}' if inner else ''} {report.metrics[name]:.4f}{between}")
    thresholds = ", ".join(f"{name} from {value:.4f}" for name, value in report.thresholds.items())
    seconds = sum(report.seconds.values())
    return "\n".join(
        (
            f"{one_line(str(report.path))}: {one_line(report.label)}, tap {report.tap}, width {report.width:g}, "
            f"{report.macs / 1e6:.1f} MMAC, {report.parameters / 1e6:.2f} M parameters",
            *(one_line(line) for line in shown),
            f"thresholds ({report.rule}): {one_line(thresholds)}",
            f"{counted(len(report.tried), 'branch', 'branches')} in {seconds / 60:.1f} minutes, "
            f"{report.seconds['features'] / 60:.1f} of them for features",
        )
    )
