"""Plans and checkpoints judged on the sub-datasets of their labels, with the pixels and scores that serving has."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from graftsdk.errors import FingerprintMismatch, InputError
from graftsdk.plan import BranchDocument, CropSpec, open_plan
from graftsdk.predictor import Precision, Predictor
from graftsdk.preprocess import read_crop
from graftsdk.text import listed
from graftsdk.training.evaluation import Judged
from graftsdk.training.labels import LabelledImage, find_labels, open_label
from graftsdk.training.option_checks import check_device

__all__ = ["BATCH", "Evaluated", "evaluate_branches", "evaluate_plan"]

BATCH = 16
_logger = logging.getLogger("graftsdk")

_Path = str | os.PathLike[str]
_Split = Literal["train", "val", "test"]
_Scores = Callable[[npt.NDArray[np.float32]], Mapping[str, npt.NDArray[np.floating]]]  # crops -> label -> [N, C]


@dataclass(frozen=True)
class Evaluated:
    """What was judged.

    Attributes:
        judged: one for each label.
        thresholds: label -> class -> threshold, as the plan or the branch has them.
        images: how many different pictures were looked at; one that stands in several labels counts once.
    """

    judged: tuple[Judged, ...]
    thresholds: dict[str, dict[str, float]]
    images: int


def evaluate_plan(
    plan: _Path,
    root: _Path,
    labels: Sequence[str] | None = None,
    *,
    split: _Split = "test",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    layout: Literal["merged", "split"] = "merged",
    precision: Precision | None = None,
    threads: int | None = None,
    engines: _Path | None = None,
    trust_engines: bool = False,
    progress: bool = False,
) -> Evaluated:
    """A plan's labels on the images of `root`, through the engine that serves it.

    Args:
        root: folder of sub-datasets, see `graftsdk.training.labels`.
        labels: which; None takes those of the plan that have a sub-dataset there.
        split: "train", "val" or "test".
        device, layout, precision, threads, engines, trust_engines: as for `Predictor`. Built engines are those of all
            the plan's labels, unless some are named.

    Raises:
        InputError: no such label or split, or an image that cannot be used. PlanError, EngineError: as `Predictor`.
    """
    chosen = _chosen(labels, root, plan)
    with Predictor(
        plan,
        device=device,
        layout=layout,
        precision=precision,
        threads=threads,
        engines=engines,
        trust_engines=trust_engines,
        labels=chosen if engines is None else labels,  # a merged engine for other labels is another engine
    ) as predictor:
        manifest = predictor.plan.manifest
        documents = {}
        for label in chosen:
            found = manifest.find(label)
            assert found is not None  # the predictor computes it
            documents[label] = found[1].document
        return _evaluate(partial(predictor.run, labels=chosen), manifest.crop, documents, root, split, progress)


def evaluate_branches(
    trunk: _Path,
    branches: Sequence[_Path],
    root: _Path,
    *,
    split: _Split = "test",
    device: str = "cpu",
    progress: bool = False,
) -> Evaluated:
    """Checkpoints of branches on their trunk, in torch. Arguments and errors as `evaluate_plan`.

    Raises:
        FingerprintMismatch: a branch of another trunk. PlanError: a checkpoint that cannot be read.
    """
    from graftsdk.models import Branch, Trunk  # says what is missing where torch is

    import torch  # isort: skip

    check_device(device)
    stem, found = Trunk.load(trunk).to(device), [Branch.load(path).to(device) for path in branches]
    for path, branch in zip(branches, found, strict=True):
        if branch.trunk_fingerprint != stem.fingerprint(branch.tap):
            raise FingerprintMismatch(
                f"{path}: expected a branch of the trunk {trunk}, found one of another trunk; name the trunk that it "
                f"was trained on"
            )
    documents = {branch.label: branch.document() for branch in found}
    if len(documents) < len(found):
        raise InputError(f"branches: expected different labels, found {listed(branch.label for branch in found)}")

    def scores(crops: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.floating]]:
        with torch.inference_mode():
            taps = stem.taps(torch.from_numpy(crops).to(device))
            return {
                branch.label: (branch(taps[branch.tap]).double() / branch.temperature).softmax(1).cpu().numpy()
                for branch in found
            }

    return _evaluate(scores, stem.crop, documents, root, split, progress)


def _chosen(labels: Sequence[str] | None, root: _Path, plan: _Path) -> Sequence[str]:
    """Those asked for; else the plan's that have a sub-dataset."""
    if labels is not None:
        return labels
    there = find_labels(root)
    with open_plan(plan) as opened:
        own = opened.manifest.labels
    chosen = [label for label in own if label in there]
    if not chosen:
        raise InputError(f"{root}: expected sub-datasets of the plan's labels {listed(own)}, found {listed(there)}")
    if left := [label for label in own if label not in there]:
        _logger.info("%s: no sub-dataset of %s there; not judged", root, listed(left))
    return chosen


def _evaluate(
    scores: _Scores,
    spec: CropSpec,
    documents: Mapping[str, BranchDocument],
    root: _Path,
    split: _Split,
    progress: bool,
) -> Evaluated:
    sets: dict[str, tuple[LabelledImage, ...]] = {}
    for label, document in documents.items():
        images = getattr(open_label(root, label, classes=document.classes), split, None)
        if not images:
            raise InputError(f"{Path(root) / label}: expected a folder {split} with images, found none")
        sets[label] = images
    # A picture that stands in several sub-datasets is cut and scored once: the trunk is the greater part of the work.
    keys = {label: [_digest(image.path) for image in images] for label, images in sets.items()}
    paths = {key: image.path for label, images in sets.items() for key, image in zip(keys[label], images, strict=True)}
    rows: dict[str, dict[str, npt.NDArray[np.floating]]] = {label: {} for label in sets}
    wanted = {label: set(own) for label, own in keys.items()}
    order = list(paths)
    with tqdm(total=len(order), unit="image", disable=not progress, leave=False) as bar:
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            crops = np.stack([read_crop(paths[key], spec) for key in some])
            for label, values in scores(crops).items():
                rows[label] |= {key: row for key, row in zip(some, values, strict=True) if key in wanted[label]}
            bar.update(len(some))
    judged = tuple(
        Judged(
            label,
            documents[label].classes,
            np.array([image.target for image in images], np.int64),
            np.stack([rows[label][key] for key in keys[label]]).astype(np.float64),
            tuple(image.identity for image in images),
            tuple(image.camera for image in images),
        )
        for label, images in sets.items()
    )
    return Evaluated(judged, {label: dict(documents[label].thresholds) for label in sets}, len(order))


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: expected a readable image, found: {error.strerror}") from error
