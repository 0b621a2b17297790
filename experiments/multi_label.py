"""One multi-label network, the upper reference for labels that are learned one at a time. `--help` shows how to run it.

Its training images are those that the dynamic graph sees, the train images of the chosen sub-datasets of
`graftsdk import peta`, but each carries its targets for all labels, by PETA's own annotation and the same
labels.toml; what is in no class of a label, or in two, is left out of that label's loss. Batches are drawn plainly,
shuffled, without replacement; all heads answer to every image; the loss is the mean over labels of cross entropy /
log C over the known targets. The rest is `graftsdk train trunk`: its loop, optimizer, rates, averaged weights,
augmentation, BatchNorm measured anew at the end.

Written are the trunk, a branch of the last layer alone for each label in HEADS, which `graftsdk evaluate` takes with
the trunk, and a CSV beside the trunk with what was annotated. A finished OUT is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported; see `graftsdk train segmenter`

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from graftsdk.errors import GraftError, InputError
from graftsdk.files import atomic_write
from graftsdk.models import Branch, Trunk
from graftsdk.plan import CropSpec
from graftsdk.text import file_names
from graftsdk.training.compute import torch_threads
from graftsdk.training.crops.packed import PackedCrops, normalised
from graftsdk.training.evaluation import prior_shift
from graftsdk.training.interrupts import stop_asked
from graftsdk.training.labels import LabelSet, check_leaks, open_label
from graftsdk.training.labels.peta import read_peta
from graftsdk.training.labels.questions import read_questions
from graftsdk.training.ranks import Ranks
from graftsdk.training.trunk.batches import JoinedBatch
from graftsdk.training.trunk.options import TrunkNetwork, TrunkOptions
from graftsdk.training.trunk.sampling import TaskOrder
from graftsdk.training.trunk.start import new_trunk, packed_splits
from graftsdk.training.trunk.train import TrunkReport, _Run

Ints = npt.NDArray[np.int64]


def all_targets(peta: str, labels_toml: str, sets: Sequence[LabelSet]) -> tuple[list[str], Ints]:
    """(file names of all training images, each once; int64[N, L] their targets for every label, -1: none)."""
    images = read_peta(peta)
    questions = {question.label: question for question in read_questions(labels_toml)}
    for each in sets:
        if each.label not in questions or questions[each.label].classes != each.classes:
            raise InputError(f"{labels_toml}: expected {each.label!r} with classes {each.classes}, found it otherwise")
    rows = {name: row for row, name in enumerate(images.names)}
    known = np.stack([questions[each.label].targets(images) for each in sets], axis=1)
    names: list[str] = []
    for column, each in enumerate(sets):
        for image in each.train:
            name = image.path.name
            if name not in rows or known[rows[name], column] != image.target:
                raise InputError(f"{image.path}: expected the same class by {labels_toml}, found another or no image")
            names.append(name)
    return names, known[[rows[name] for name in names]]


def joined(train: Sequence[PackedCrops], names: Sequence[str], every: int) -> tuple[PackedCrops, Ints]:
    """(every so many of all sets' crops as one, each image once, targets are their numbers; the rows of `names`)."""
    rows = np.array(sorted({name: row for row, name in reversed(list(enumerate(names)))}.values()), np.int64)[::every]
    pixels = np.concatenate([crops.pixels for crops in train])[rows]
    people = [identity for crops in train for identity in crops.identities]
    cameras = [camera for crops in train for camera in crops.cameras]
    chosen = tuple(people[row] for row in rows), tuple(cameras[row] for row in rows)
    return PackedCrops("all", (), "train", train[0].spec, pixels, np.arange(len(rows)), *chosen), rows


class MultiLabelRun(_Run):
    """A trunk's training in which every head answers to every crop."""

    def __init__(
        self,
        target: Path,
        options: TrunkOptions,
        sets: Sequence[LabelSet],
        trunk: Trunk,
        crops: PackedCrops,
        val: Sequence[PackedCrops | None],
        targets: Ints,
        weights: Sequence[npt.NDArray[np.float64]],
    ) -> None:
        # A batch has crops of all sub-datasets, as with several tasks a step: BatchNorm remembers as long.
        ranks = Ranks(torch.device("cpu"))  # one process
        super().__init__(target, replace(options, norm_momentum=0.1), sets, trunk, [crops], val, ranks, None)
        self._sets, self._targets = sets, torch.from_numpy(targets)
        self._weights = [torch.from_numpy(each).float() for each in weights]
        plain = np.zeros(len(crops), np.int64)  # one task of one class: shuffled, without replacement
        self._order = TaskOrder([plain], options.batch, 1, 0.0, 0.0, options.seed)
        shown = [hashlib.sha256(targets.tobytes()).hexdigest(), *(each.tolist() for each in weights)]
        self._lasting = {**self._lasting, "targets": shown}

    def _losses(self, batch: JoinedBatch) -> Sequence[torch.Tensor]:
        crops = normalised(batch.pixels, self._train[0].spec)
        features, targets, losses = self._graph.features(crops, self._low), self._targets[batch.targets[0]], []
        for task, (head, weights) in enumerate(zip(self._graph.heads, self._weights, strict=True)):
            known = targets[:, task] >= 0
            wanted, logits = targets[known, task], head(features[known])
            if len(wanted):
                smoothing = self._options.label_smoothing
                each = functional.cross_entropy(logits, wanted, label_smoothing=smoothing, reduction="none")
                losses.append((each * weights[wanted]).mean() / math.log(logits.shape[1]))
        return (torch.stack(losses).mean(),)

    def save_heads(self, folder: Path) -> None:
        """Each as a branch that has nothing but its last layer, with what weights did to the classes' shares undone."""
        trunk = Trunk.load(self._target)
        for task, (each, name) in enumerate(
            zip(self._sets, file_names(each.label for each in self._sets), strict=True)
        ):
            branch = Branch.create(trunk, each.label, each.classes, tap=len(trunk.backbone.blocks))
            branch.classifier.load_state_dict(self._averaged().heads[task].state_dict())
            column = self._targets[:, task].numpy()
            counts = np.bincount(column[column >= 0], minlength=len(each.classes))
            shift = prior_shift(counts * self._weights[task].numpy(), counts)
            with torch.no_grad():
                branch.classifier.bias.add_(torch.from_numpy(shift).float())
            branch.provenance = trunk.provenance
            branch.save(folder / f"{name}.safetensors")


def class_weights(kind: str, targets: Ints, sets: Sequence[LabelSet]) -> list[npt.NDArray[np.float64]]:
    """float64[C] for each label; their mean over the known targets is 1."""
    found = []
    for column, each in zip(targets.T, sets, strict=True):
        counts = np.bincount(column[column >= 0], minlength=len(each.classes)).astype(float)
        weights = counts**-0.5 if kind == "sqrt" else np.ones(len(counts))
        found.append(weights * counts.sum() / (weights * counts).sum())
    return found


def annotated(sets: Sequence[LabelSet], targets: Ints, report: TrunkReport) -> list[dict[str, Any]]:
    """A row for each label: answers known to this network and to the dynamic graph, AUC as the mean over classes."""
    rows = []
    for each, column in zip(sets, targets.T, strict=True):
        values = [value for value in report.auc.get(each.label, {}).values() if not math.isnan(value)]
        shares = np.bincount(column[column >= 0], minlength=len(each.classes))
        rows.append(
            {
                "label": each.label,
                "images": len(targets),
                "annotations": int(shares.sum()),
                "by class": " + ".join(map(str, shares.tolist())),
                "one label at a time": len(each.train),
                "validation AUC": f"{sum(values) / len(values):.4f}" if values else "",
            }
        )
    return rows


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """As CSV, and as Markdown on standard output."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
    lines: Iterable[Iterable[Any]] = [rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows)]
    print("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peta", required=True, metavar="DIR", help="PETA, SUBSET/archive/Label.txt")
    add("--questions", required=True, metavar="TOML", help="the labels.toml that `graftsdk import peta` took")
    add("--data", required=True, metavar="DIR", help="the folder that `graftsdk import peta` made")
    add("--labels", required=True, nargs="+", metavar="LABEL", help="which of them")
    add("-o", "--output", required=True, metavar="OUT", help="the trunk, .safetensors")
    add("--heads", required=True, metavar="DIR", help="folder for a branch of each label")
    add("--cache", metavar="DIR", help="folder of decoded crops, as for `graftsdk train trunk`; default: beside OUT")
    add("--size", type=int, nargs=2, default=(160, 80), metavar=("H", "W"), help="of the crops; default 160 80")
    add("--arch", default="inception_v3")
    add("--width", type=float, default=0.25)
    add("--steps", type=int, default=1800)
    add("--batch", type=int, default=64)
    add("--class-weights", choices=["none", "sqrt"], default="none", help="sqrt: of the classes' inverse numbers")
    add("--precision", choices=["float32", "bfloat16"], help="as for `graftsdk train trunk`")
    add("--threads", type=int, default=1)
    add("--workers", type=int, default=1, help="processes that vary crops")
    add("--seed", type=int, default=0)
    add("--every", type=int, default=1, metavar="N", help="learn from every Nth image: 1/N of the annotations")
    add("--eval-minutes", type=float, default=60.0, help="between evaluations; the last one is after the end")
    add("--resume", action="store_true", help="go on from the state of the same training, where there is one")
    add("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    try:
        train(args)
    except GraftError as error:
        sys.exit(f"error: {error}")


def train(args: argparse.Namespace) -> None:
    target, heads = Path(args.output), Path(args.heads)
    table = target.with_suffix(".annotations.csv")
    if target.exists() and table.exists():
        print(f"{target}: is there already")
        return
    heads.mkdir(parents=True, exist_ok=True)
    options = TrunkOptions(
        batch=args.batch,
        steps=args.steps,
        seed=args.seed,
        eval_minutes=args.eval_minutes,
        workers=args.workers,
        threads=args.threads,
        precision=args.precision,
    )
    sets = [open_label(args.data, label) for label in args.labels]
    check_leaks(*sets)
    names, known = all_targets(args.peta, args.questions, sets)
    network = new_trunk(TrunkNetwork(args.arch, args.width, CropSpec(tuple(args.size))), None, args.seed)
    cache = Path(args.cache) if args.cache else target.with_name("crops")
    train_crops, val = packed_splits(sets, network.crop, cache, args.threads, not args.quiet)
    crops, rows = joined(train_crops, names, args.every)
    targets = known[rows]
    weights = class_weights(args.class_weights, targets, sets)
    with torch_threads(args.threads), stop_asked() as stop:
        run = MultiLabelRun(target, options, sets, network, crops, val, targets, weights)
        run.resume(args.resume)
        run.train(stop, not args.quiet)
        report = run.finish(None)
        run.save_heads(heads)
    write_table(table, annotated(sets, targets, report))
    print(f"\n{report.steps} steps, {report.seconds / 60:.1f} minutes; mean validation AUC {report.mean_auc or 0:.4f}")


if __name__ == "__main__":
    main()
