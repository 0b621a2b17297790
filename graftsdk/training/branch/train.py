"""A label's branch from its sub-dataset and a trunk: features, candidates, the best epoch of the chosen one, a file."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import FingerprintMismatch, InputError, NonFiniteOutput
from graftsdk.files import check_target
from graftsdk.models import Branch, Trunk
from graftsdk.plan import Provenance
from graftsdk.training.branch.distillation import answers, load_teacher
from graftsdk.training.branch.draws import true_shares
from graftsdk.training.branch.features import Features, LiveFeatures, frozen, store_features
from graftsdk.training.branch.fitting import Data, Fit, branch_logits, fit_branch, share_shift
from graftsdk.training.branch.judging import figures_on_test, settle
from graftsdk.training.branch.options import BranchOptions
from graftsdk.training.branch.report import BranchReport
from graftsdk.training.branch.search import Tried, candidates, chosen, enough, new_branch
from graftsdk.training.branch.views import CropViews
from graftsdk.training.compute import torch_threads
from graftsdk.training.crops.augment import Augmentation
from graftsdk.training.crops.packed import PackedCrops, pack_crops, packed_path
from graftsdk.training.interrupts import stop_asked
from graftsdk.training.labels import LabelSet, check_leaks, open_label
from graftsdk.training.labels.sets import SPLITS
from graftsdk.training.mining.report import read_list

__all__ = ["run_training", "train_branch"]

CACHE = "features"  # beside the output, shared by all labels there: names in it never clash
_logger = logging.getLogger("graftsdk")

_Path = str | os.PathLike[str]


def train_branch(
    root: _Path,
    label: str,
    trunk_path: _Path,
    output: _Path,
    options: BranchOptions | None = None,
    *,
    classes: Sequence[str] | None = None,
    cache: _Path | None = None,
    distil: _Path | None = None,
    negatives: _Path | None = None,
    augmentation: Augmentation | None = None,
    progress: bool = True,
) -> BranchReport:
    """A branch for one label on a frozen trunk, as a checkpoint with thresholds, temperature and figures (paper 3.2).

    The trunk is only read: its blocks run in eval mode, and at the end its fingerprint is computed anew and compared.
    `output` is written once, at the end, whole or not at all; Ctrl-C leaves what was there before, and every file of
    features that was finished.

    Args:
        root: folder of sub-datasets.
        label: the sub-dataset.
        trunk_path: the trunk's checkpoint.
        output: the branch's, .safetensors.
        options: None for the defaults.
        classes: order of the classes, where neither folders nor `graft.toml` say it.
        cache: folder for packed crops and features; by default `features` beside the output. It may be deleted at any
            time, and is never emptied.
        distil: checkpoint of a branch for the same label on the same trunk, at any tap, whose answers are learned too.
        negatives: a list of training images, mining's `keep.txt` (paper 3.4): of the classes that it names, these alone
            are learned from. Validation, and the classes' shares that probabilities are put right for, stay whole.
        augmentation: of the views; None for the default one.
        progress: show bars.

    Raises:
        InputError, DecodeError: data, options or names that cannot be used.
        PlanError: a checkpoint that cannot be read, FingerprintMismatch among them; `output` cannot be written.
        NonFiniteOutput: a loss is infinite or NaN. What was best before it is saved, and the message says so.
        KeyboardInterrupt: asked to stop.
        OSError: the disk is full or fails.
    """
    options = BranchOptions() if options is None else options
    check_target(Path(output))
    labels = open_label(root, label, classes=classes)
    check_leaks(labels)
    learnt = labels if negatives is None else labels.thinned(read_list(negatives))
    more: dict[str, Any] = {"cache": cache, "distil": distil, "augmentation": augmentation, "progress": progress}
    return run_training(learnt, trunk_path, output, options, whole=labels, **more)


def run_training(
    labels: LabelSet,
    trunk_path: _Path,
    output: _Path,
    options: BranchOptions,
    *,
    cache: _Path | None = None,
    distil: _Path | None = None,
    known: npt.NDArray[np.float64] | None = None,
    whole: LabelSet | None = None,
    augmentation: Augmentation | None = None,
    progress: bool = True,
) -> BranchReport:
    """`train_branch` on a sub-dataset that is open already.

    Args:
        labels: it is not looked through for leaks.
        known: float64[N, C], logits for the training images to be learned in place of a branch's.
        whole: the sub-dataset before it was thinned: probabilities are put right for its classes' shares, and the
            branch is said to be of it.
        trunk_path, output, options, cache, distil, augmentation, progress: as `train_branch`, and the same errors.
    """
    target = Path(output)
    check_target(target)
    trunk = frozen(Trunk.load(trunk_path))
    folder = target.parent / CACHE if cache is None else Path(cache)
    how = augmentation or Augmentation()
    with torch_threads(options.threads), stop_asked() as stop:
        run = _Run(trunk, labels, whole or labels, target, options, folder, how, distil, known, stop, progress)
        try:
            run.train()
        except NonFiniteOutput as error:
            if not run.tried:
                raise
            run.finish()
            kept = run.kept
            where = f"epoch {kept.best_epoch} of tap {kept.candidate.tap}, width {kept.candidate.width:g}"
            raise NonFiniteOutput(f"{error}; {target} holds {where}, from before it") from error
        return run.finish()


class _Run:
    """One training, from opened data to a saved branch."""

    def __init__(
        self,
        trunk: Trunk,
        labels: LabelSet,
        whole: LabelSet,
        target: Path,
        options: BranchOptions,
        folder: Path,
        how: Augmentation,
        distil: _Path | None,
        known: npt.NDArray[np.float64] | None,
        stop: threading.Event,
        progress: bool,
    ) -> None:
        self._trunk, self._labels, self._target, self._options = trunk, labels, target, options
        self._folder, self._how, self._stop, self._progress = folder, how, stop, progress
        self._known = known
        targets = np.array([image.target for image in whole.train], np.int64)
        self._shares = true_shares(targets, len(whole.classes))
        self._digests = tuple(dict.fromkeys((whole.digest, labels.digest)))
        self._candidates = candidates(trunk, labels.label, labels.classes, options)
        self._teacher = None if distil is None else load_teacher(distil, trunk, labels.label, labels.classes)
        self._before = {tap: trunk.fingerprint(tap) for tap in {one.tap for one in self._candidates}}
        self._trained: list[tuple[Tried, Branch, Fit]] = []  # those that may still be chosen
        self.tried: list[Tried] = []
        self._seconds = {"features": 0.0, "training": 0.0}

    @property
    def kept(self) -> Tried:
        """The cheapest within the tolerance of the best."""
        return chosen(self.tried, self._options.tolerance)

    def train(self) -> None:
        """Features of every split, then every candidate until enough of them have shown no gain."""
        options, began = self._options, time.monotonic()
        self._crops = self._packed()
        taps = sorted({one.tap for one in self._candidates})
        self._trunk.to(options.device)
        with_teacher = sorted({*taps, *([] if self._teacher is None else [self._teacher.tap])})
        train = self._features("train", with_teacher, options.views)
        self._val = self._features("val", taps, 1)
        self._test = self._features("test", taps, 1) if "test" in self._crops else {}
        targets = self._crops["train"].targets
        wanted = None
        shift = share_shift(targets, len(self._labels.classes), options, self._shares)
        if self._teacher is not None:
            wanted = answers(self._teacher, train[self._teacher.tap], shift, self._stop)
        elif self._known is not None:  # the same of every view
            wanted = np.broadcast_to((self._known - shift).astype(np.float32), (options.views, *self._known.shape))
        self._seconds["features"] = time.monotonic() - began
        for candidate in self._candidates:
            branch = new_branch(
                self._trunk, self._labels.label, self._labels.classes, candidate.tap, candidate.width, options
            )
            fit, began = Fit(), time.monotonic()
            try:
                fit_branch(
                    branch,
                    Data(train[candidate.tap], targets, wanted, self._shares),
                    Data(self._val[candidate.tap], self._crops["val"].targets),
                    options,
                    fit=fit,
                    stop=self._stop,
                    progress=self._progress,
                )
            finally:
                seconds = time.monotonic() - began
                self._seconds["training"] += seconds
                if fit.best_epoch:
                    self._keep(Tried(candidate, fit.auc, fit.best_epoch, fit.epochs, seconds), branch, fit)
            if enough(self.tried, options.tolerance):
                break

    def _keep(self, tried: Tried, branch: Branch, fit: Fit) -> None:
        self.tried.append(tried)
        least = max(one.auc for one in self.tried) - self._options.tolerance
        self._trained = [one for one in (*self._trained, (tried, branch, fit)) if one[0].auc >= least]
        if len(self._candidates) > 1:
            candidate = tried.candidate
            _logger.info(
                "tap %d, width %g: validation AUC %.4f, %.1f MMAC, %.2f M parameters, %.0f s",
                candidate.tap,
                candidate.width,
                tried.auc,
                candidate.macs / 1e6,
                candidate.parameters / 1e6,
                tried.seconds,
            )

    def finish(self) -> BranchReport:
        """The chosen branch, judged and saved, after proving that the trunk is the one that it began with."""
        kept = self.kept
        branch, fit = next((branch, fit) for tried, branch, fit in self._trained if tried is kept)
        self._prove(branch)
        rule = settle(branch, *self._judged(branch, "val", self._val), self._options.threshold)
        if self._test:
            branch.metrics |= figures_on_test(branch, *self._judged(branch, "test", self._test))
        branch.provenance = Provenance(data=self._digests)
        branch.save(self._target)
        return BranchReport(
            self._target,
            branch.label,
            branch.classes,
            branch.tap,
            branch.until,
            branch.pooling,
            branch.width,
            kept.candidate.macs,
            kept.candidate.parameters,
            dict(branch.metrics),
            dict(branch.thresholds),
            branch.temperature,
            rule,
            tuple(self.tried),
            fit.curve,
            self._folder,
            dict(self._seconds),
        )

    def _prove(self, branch: Branch) -> None:
        now = self._trunk.fingerprint(branch.tap)
        if not now == self._before[branch.tap] == branch.trunk_fingerprint:
            raise FingerprintMismatch(
                f"trunk: expected fingerprint {self._before[branch.tap][:16]} at tap {branch.tap} after training as "
                f"before it, found {now[:16]}; the branch is not saved"
            )

    def _packed(self) -> dict[str, PackedCrops]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self._folder}: expected a folder that can be made, found: {error.strerror}") from error
        found = {}
        for split in SPLITS:
            if self._stop.is_set():
                raise KeyboardInterrupt
            if split != "test" or self._labels.test:
                found[split] = pack_crops(self._labels, split, self._trunk.crop, self._folder, progress=self._progress)
        return found

    def _features(self, split: str, taps: Sequence[int], views: int) -> Mapping[int, Features]:
        # The packed file's name knows more than the set's digest: two images of one size by their times of writing.
        data = packed_path(self._labels, split, self._trunk.crop, self._folder).name
        crops = CropViews(self._crops[split], data, self._how, self._options.seed)
        if not self._options.cache:
            return {tap: LiveFeatures(self._trunk, tap, crops, views) for tap in taps}
        return store_features(
            self._trunk,
            taps,
            crops,
            views,
            self._folder,
            precision=self._options.precision,
            stop=self._stop,
            progress=self._progress,
            what=f"{self._labels.label} {split}",
        )

    def _judged(
        self, branch: Branch, split: str, features: Mapping[int, Features]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], tuple[str, ...]]:
        """Logits, classes and identities of a split."""
        crops = self._crops[split]
        return branch_logits(branch, features[branch.tap], self._stop), crops.targets, crops.identities
