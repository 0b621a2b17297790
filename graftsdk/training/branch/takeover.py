"""From a classifier in use to a branch: its answers on unlabelled crops are learned, and what differs is listed."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.files import atomic_write, check_target
from graftsdk.models import Branch, Trunk
from graftsdk.preprocess import list_images
from graftsdk.training.branch.features import LiveFeatures, frozen
from graftsdk.training.branch.fitting import branch_logits
from graftsdk.training.branch.old_classifier import OldClassifier
from graftsdk.training.branch.options import BranchOptions
from graftsdk.training.branch.report import BranchReport
from graftsdk.training.branch.train import run_training
from graftsdk.training.branch.views import CropViews
from graftsdk.training.crops.augment import NO_AUGMENTATION
from graftsdk.training.crops.packed import pack_crops
from graftsdk.training.evaluation import choose_threshold, softmax
from graftsdk.training.labels import LabelledImage, LabelSet, open_label

__all__ = ["Takeover", "differences_path", "take_over"]

HELD = 0.2  # of the unlabelled crops: they choose epoch and threshold, and are what the report compares on
_AT_A_THRESHOLD = ("accuracy", "precision", "recall", "fpr", "f1")  # figures of a branch that move with it

_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Takeover:
    """What came out.

    Attributes:
        branch: the training's report; its metrics take the old classifier's decisions for the truth.
        compared: crops that were held out. differing: of them, decided otherwise than before.
        list: CSV with one line for each of those: file, both scores of the last class, both decisions.
        rule: what the threshold follows: "accuracy" of the old decisions, or the old recall or FPR on labelled crops.
        threshold: of the last class; None of more than two classes.
    """

    branch: BranchReport
    compared: int
    differing: int
    list: Path
    rule: str
    threshold: float | None


def differences_path(output: Path) -> Path:
    """Where the list of the branch at `output` lies: OUT.differences.csv for OUT.safetensors."""
    return output.with_name(output.name.removesuffix(".safetensors") + ".differences.csv")


def take_over(
    classifier: OldClassifier,
    images: _Path,
    label: str,
    trunk_path: _Path,
    output: _Path,
    options: BranchOptions | None = None,
    *,
    classes: Sequence[str] = ("no", "yes"),
    root: _Path | None = None,
    keep: Literal["recall", "fpr"] = "recall",
    cache: _Path | None = None,
    progress: bool = True,
) -> Takeover:
    """A branch that answers as `classifier` does, as a checkpoint.

    It learns the classifier's probabilities (distillation with `soft_weight` 1 unless the options say another) on
    crops that nobody annotated. Without annotated ones its threshold is the one at which the fewest decisions differ
    on held-out crops; with `root` it is the one that keeps the old recall or FPR on the sub-dataset's validation crops.

    Args:
        classifier: opened; it sees the same pictures through its own crop specification.
        images: folder of pictures of one person each.
        label: the question. classes: its answers in the order of the classifier's outputs, the positive one last.
        trunk_path, output, options, cache, progress: as `train_branch`.
        root: folder with the sub-dataset `label`, or None.
        keep: which of the old figures the threshold is set to.

    Raises:
        InputError: images or classes that do not fit; a class that the classifier never decides on; else as
            `train_branch`.
    """
    options = BranchOptions(soft_weight=1.0, threshold="accuracy") if options is None else options
    target = Path(output)
    for path in (target, differences_path(target)):
        check_target(path)
    paths = sorted(list_images(images))
    if not paths:
        raise InputError(f"{images}: expected a folder with images, found none in it")
    logits = classifier.logits(paths)
    if logits.shape[1] != len(classes):
        raise InputError(f"classes: expected {logits.shape[1]} as {classifier.where} gives, found {list(classes)}")
    decided = classifier.decided(logits)
    held = np.array([_held(path) for path in paths])
    for side, rows in (("training", ~held), ("held-out", held)):
        missing = sorted(set(range(len(classes))) - set(decided[rows].tolist()))
        if missing:
            raise InputError(
                f"{images}: expected {side} crops that {classifier.where} decides as {classes[missing[0]]!r}, found "
                f"none of {int(rows.sum())}; add some, or say its threshold"
            )
    labelled = [LabelledImage(path, int(value), str(path), "") for path, value in zip(paths, decided, strict=True)]
    digest = _digest(paths, logits, classifier.digest)
    sets = LabelSet(
        label,
        tuple(classes),
        tuple(one for one, out in zip(labelled, held, strict=True) if not out),
        tuple(one for one, out in zip(labelled, held, strict=True) if out),
        (),
        digest,
    )
    # Before the training: what is wrong with the annotated crops is said before hours of it.
    annotated = None if root is None or len(classes) != 2 else open_label(root, label, classes=classes)
    wanted = None if annotated is None else _figure_to_keep(classifier, annotated, keep)
    report = run_training(sets, trunk_path, target, options, cache=cache, known=logits[~held], progress=progress)
    branch, trunk, folder = Branch.load(target), frozen(Trunk.load(trunk_path)), report.cache
    rule = report.rule
    if annotated is not None and wanted is not None:
        truth, rule = wanted
        scores = _scores(branch, trunk, annotated, folder)[:, 1]
        branch.thresholds = {branch.classes[1]: choose_threshold(truth, scores, rule)}
        branch.metrics = {name: value for name, value in branch.metrics.items() if name not in _AT_A_THRESHOLD}
        branch.save(target)
        report = replace(report, rule=rule, thresholds=dict(branch.thresholds), metrics=dict(branch.metrics))
    new = _scores(branch, trunk, sets, folder)
    old = softmax(logits[held])
    differing = _list(differences_path(target), branch, [one.path for one in sets.val], old, new, decided[held])
    threshold = branch.thresholds.get(classes[-1]) if len(classes) == 2 else None
    return Takeover(report, len(sets.val), differing, differences_path(target), rule, threshold)


def _held(path: Path) -> bool:
    """Whether a picture is held out; by its name, so that others that are added later move none."""
    return int.from_bytes(hashlib.sha256(path.name.encode("utf-8", "surrogatepass")).digest()[:4], "big") < HELD * 2**32


def _digest(paths: Sequence[Path], logits: npt.NDArray[np.float64], classifier: str) -> str:
    digest = hashlib.sha256(classifier.encode() + logits.tobytes())
    for path in paths:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _scores(branch: Branch, trunk: Trunk, sets: LabelSet, folder: Path) -> npt.NDArray[np.float64]:
    """Calibrated probabilities float64[N, C] of the set's validation crops."""
    crops = CropViews(pack_crops(sets, "val", trunk.crop, folder), sets.digest, NO_AUGMENTATION, 0)
    return softmax(branch_logits(branch, LiveFeatures(trunk, branch.tap, crops, 1)), branch.temperature)


def _figure_to_keep(classifier: OldClassifier, sets: LabelSet, keep: str) -> tuple[npt.NDArray[np.bool_], str]:
    """Which annotated validation crops are positive, and the rule that keeps the old recall or FPR on them."""
    truth = np.array([one.target for one in sets.val]) == 1
    before = classifier.decided(classifier.logits([one.path for one in sets.val])) == 1
    share = float(before[truth].mean() if keep == "recall" else before[~truth].mean())
    return truth, f"recall>={share:.17g}" if keep == "recall" else f"fpr<={share:.17g}"


def _list(
    path: Path,
    branch: Branch,
    images: Sequence[Path],
    old: npt.NDArray[np.float64],
    new: npt.NDArray[np.float64],
    decided: npt.NDArray[np.int64],
) -> int:
    if len(branch.classes) == 2:
        now = (new[:, 1] >= branch.thresholds[branch.classes[1]]).astype(np.int64)
    else:
        now = new.argmax(1)
    rows = np.flatnonzero(now != decided)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "old_score", "new_score", "old_decision", "new_decision"])
    for row in rows[np.argsort(-np.abs(new[rows, -1] - old[rows, -1]), kind="stable")]:
        names = branch.classes[decided[row]], branch.classes[now[row]]
        writer.writerow([str(images[row]), f"{old[row, -1]:.6f}", f"{new[row, -1]:.6f}", *names])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))
    return len(rows)
