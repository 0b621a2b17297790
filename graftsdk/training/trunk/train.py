"""Training of a trunk: the dynamic graph's steps, then BatchNorm measured anew, the heads judged and dropped."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import update_bn

from graftsdk.errors import InputError
from graftsdk.models import Branch, Trunk
from graftsdk.plan import Provenance
from graftsdk.text import file_names, listed
from graftsdk.training.compute import low_precision, torch_threads
from graftsdk.training.crops.packed import PackedCrops, normalised
from graftsdk.training.curve import CurveKind
from graftsdk.training.evaluation import prior_shift
from graftsdk.training.interrupts import stop_asked
from graftsdk.training.labels import LabelSet, check_leaks, find_labels, open_label
from graftsdk.training.loader import load_steps
from graftsdk.training.ranks import Ranks, open_ranks
from graftsdk.training.run import TrainingRun, check_targets
from graftsdk.training.trunk.batches import JoinedBatch, TrainingCrops, mixed_batches
from graftsdk.training.trunk.judge import LabelAUC, judge, mean_auc
from graftsdk.training.trunk.network import (
    DynamicGraph,
    dynamic_loss,
    low_precision_blocks,
    new_optimizer,
    set_momentum,
)
from graftsdk.training.trunk.options import TrunkNetwork, TrunkOptions
from graftsdk.training.trunk.sampling import TaskOrder, class_quotas, mixed_draws
from graftsdk.training.trunk.start import new_trunk, packed_splits

__all__ = ["TrunkReport", "train_trunk"]

CURVE = CurveKind(("loss",), {"auc": "mean AUC of the labels"}, "AUC")
_logger = logging.getLogger("graftsdk")

Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class TrunkReport:
    """What came out.

    Attributes:
        path: of the trunk's checkpoint.
        steps: taken, over all runs.
        seconds: of training and evaluation, over all runs.
        auc: label -> class -> AUC on its validation crops, by the heads that are dropped; one class of two, the
            positive one. NaN where positives or negatives are missing. Empty where no label has validation crops.
    """

    path: Path
    steps: int
    seconds: float
    auc: dict[str, LabelAUC]

    @property
    def mean_auc(self) -> float | None:
        """Over the labels."""
        return mean_auc(self.auc)


def train_trunk(
    root: Folder,
    labels: Sequence[str] | None,
    output: Folder,
    options: TrunkOptions,
    *,
    trunk: TrunkNetwork | Folder | None = None,
    weights: Folder | None = None,
    cache: Folder | None = None,
    heads: Folder | None = None,
    resume: bool = False,
    plot: Folder | None = None,
    progress: bool = True,
) -> TrunkReport:
    """A trunk trained by the dynamic graph on sub-datasets of one label each, as a checkpoint. Paper 3.3.

    Every sub-dataset has a head. A step draws some sub-datasets, joins a sub-batch of each for one forward pass of the
    trunk, and only their heads are in the graph. At the end the averaged weights get BatchNorm statistics measured on
    crops of all sub-datasets, each head is judged on its label's validation crops, and the trunk is saved without them.

    Beside `output` lie its curve (`OUT.curve.csv`) and its state (`OUT.safetensors.state`). Everything is read and
    checked before the first step. Ctrl-C and SIGTERM end the step, save the state and raise KeyboardInterrupt. On one
    machine and with the same number of threads a resumed run gives the weights of an uninterrupted one, bit by bit,
    where `steps` or `epochs` end it. A loss that is not finite leaves at `output` the averaged weights of the last
    evaluation, or of the step before where there was none.

    With several `devices` or `nodes` each process trains on its share of every batch, and gradients and statistics of
    BatchNorm are averaged in each step. On each machine the command that called this function is run again for all its
    processes but the first; under torchrun or SLURM, which start them all, it is not. Only the first process of all
    comes back from here: the others end in it, by SystemExit(0). Under torchrun and SLURM Ctrl-C and SIGTERM may
    come to any of them, else to the first. Tested are processes on CPUs of one machine, not several GPUs or machines.

    Args:
        root: folder of the sub-datasets.
        labels: which of them; None: all.
        output: the checkpoint, .safetensors.
        options: how it is trained.
        trunk: the network; or a trunk's checkpoint to start from. None: the paper's InceptionV3 at 299 x 299.
        weights: torchvision's, for a network of width 1 (safetensors).
        cache: folder of the decoded crops; None: `crops` beside `output`. They may be deleted at any time.
        heads: a folder in which the heads are kept, each as a branch of the finished trunk that has nothing but its
            last layer, named as `file_names` does; None: they are dropped.
        resume: go on from the state, where there is one.
        plot: a picture of the curve, drawn anew at each evaluation.
        progress: show bars.

    Raises:
        InputError: data or options that cannot be used; the same person or image in training and validation.
        ImageTooSmall: crops that the backbone cannot take.
        PlanError: `trunk`, `weights` or the state cannot be read, or `output` cannot be written.
        MissingDependency: matplotlib for `plot`, scikit-learn; lightning-fabric for several processes.
        NonFiniteOutput: the loss is infinite or NaN; names the step.
        EngineError: one of several processes has ended before the others.
        OSError: the disk is full.
    """
    target = Path(output)
    check_targets(target, plot)
    ranks = open_ranks(options.devices, options.nodes, options.device, options.threads)
    progress = progress and ranks.first
    kept = None if heads is None else Path(heads)
    if kept is not None and not kept.is_dir():
        raise InputError(f"heads: expected an existing folder, found none at {kept}; create it first")
    names = find_labels(root) if labels is None else tuple(labels)
    if not names or len(set(names)) != len(names):
        raise InputError(f"labels: expected one or more different ones, found {listed(names)}")
    sets = [open_label(root, name) for name in names]
    check_leaks(*sets)
    network = new_trunk(trunk, weights, options.seed)
    folder = target.with_name("crops") if cache is None else Path(cache)
    crops = packed_splits(sets, network.crop, folder, options.threads or torch.get_num_threads(), progress)
    with torch_threads(options.threads), stop_asked() as stop:
        run = _Run(target, options, sets, network, *crops, ranks, plot)
        run.resume(resume)
        with ranks:
            run.train(stop, progress)
        return run.finish(kept)


class _Run(TrainingRun):
    """One training from its state on."""

    def __init__(
        self,
        target: Path,
        options: TrunkOptions,
        sets: Sequence[LabelSet],
        trunk: Trunk,
        train: Sequence[PackedCrops],
        val: Sequence[PackedCrops | None],
        ranks: Ranks,
        plot: Folder | None,
    ) -> None:
        self._options, self._train, self._val = options, train, val
        targets, shares = [crops.targets for crops in train], (options.alpha, options.least_share)
        self._order = TaskOrder(targets, options.batch, options.tasks, *shares, options.seed, ranks.world)
        self._device = ranks.device
        self._low = -1  # blocks that run in bfloat16
        if low_precision(options.precision, self._device):
            self._low = low_precision_blocks(trunk) if self._device.type == "cpu" else len(trunk.backbone.blocks)
        self._digests = tuple(dict.fromkeys(each.digest for each in sets))
        self._auc: dict[str, LabelAUC] = {}
        lasting = {
            **options.lasting(),
            "trunk": [trunk.arch, trunk.width, trunk.crop.to_dict()],
            "start": hashlib.sha256("".join(trunk.document().fingerprints).encode()).hexdigest(),
            "labels": [each.label for each in sets],
            "data": [[each.digest, *each.classes] for each in sets],
        }
        self._graph = DynamicGraph(trunk, [len(each.classes) for each in sets], options.seed)
        self._graph.requires_grad_(True)
        set_momentum(self._graph, options.momentum(self._order.tasks))
        self._graph.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = new_optimizer(self._graph, options)
        how: dict[str, Any] = {"epoch": self._order.steps, "curve": CURVE, "plot": plot, "ranks": ranks}
        super().__init__(target, options, self._graph, optimizer, lasting, **how)

    def _load(self, first: int, last: int) -> Iterable[Any]:
        share = self._ranks.rank, self._ranks.world
        crops = TrainingCrops(self._train, self._options.augmentation, self._options.seed, *share)
        return load_steps(crops, self._order, first, last, self._options.workers)

    def _losses(self, batch: JoinedBatch) -> Sequence[torch.Tensor]:
        crops = normalised(batch.pixels.to(self._device), self._train[0].spec)
        logits = self._graph.answers(self._graph.features(crops, self._low), batch.parts)
        targets = [each.to(self._device) for each in batch.targets]
        return (dynamic_loss(logits, targets, self._options.label_smoothing),)

    def _judges(self) -> bool:
        return any(crops is not None for crops in self._val)

    def _judge(self) -> None:
        """The averaged weights with their averaged statistics, on some crops; they are the checkpoint until the end."""
        graph = self._averaged()
        self._auc = judge(graph, self._val, self._options.eval_images, self._device, self._check_stop)
        self._save_trunk(graph.trunk)
        mean = mean_auc(self._auc)
        self._row({} if mean is None else {"auc": mean})

    def _told_scores(self) -> str:
        mean = mean_auc(self._auc)
        return "" if mean is None else f", AUC {mean:.3f}"

    def _broken(self) -> str:
        """Keep the last good weights: those of the last evaluation, or the average of all steps before this one."""
        if not self._progress.step:
            return ""
        if not self._progress.evaluated[1]:
            try:
                self._save_trunk(self._averaged().trunk)
            except InputError:  # a statistic has overflowed already
                return ""
        return f", from {self._target.name}, which holds the last good weights, or anew"

    def _averaged(self) -> DynamicGraph:
        averaged = self._ema.module
        assert isinstance(averaged, DynamicGraph)
        averaged.eval()
        return averaged

    def _save_trunk(self, trunk: Trunk) -> None:
        data = dict.fromkeys((*trunk.provenance.data, *self._digests))
        trunk.provenance = Provenance(trunk.provenance.licence, trunk.provenance.author, tuple(data)[:256])
        trunk.save(self._target)

    def finish(self, heads: Path | None) -> TrunkReport:
        """Precise BatchNorm, the last evaluation, the checkpoint, the state marked as finished.

        The first process does it alone: the others ended with the last step.

        Statistics that were averaged while weights moved follow the last batches; 10^3 to 10^4 crops are near the best
        (Wu and Johnson 2021, 2105.07576). They are measured on a copy: a longer training goes on from the averages.
        """
        graph, options = copy.deepcopy(self._averaged()), self._options
        counts = [len(crops) for crops in self._train]
        draws = mixed_draws(counts, self._order.probabilities.tolist(), options.norm_images, options.seed)

        def batches() -> Iterable[torch.Tensor]:
            for batch in mixed_batches(self._train, draws, options.batch, self._device):
                self._check_stop()
                yield batch

        began = time.monotonic()
        update_bn(batches(), graph.trunk)
        self._auc = judge(graph, self._val, None, self._device, self._check_stop)
        for label, classes in self._auc.items():
            if any(math.isnan(value) for value in classes.values()):
                _logger.warning("%r: a class is missing in its validation crops: it has no AUC", label)
        self._save_trunk(graph.trunk)
        if heads is not None:
            _save_heads(graph, self._train, heads, options.least_share)
        progress, mean = self._progress, mean_auc(self._auc)
        progress.seconds += time.monotonic() - began
        if progress.curve and progress.curve[-1]["step"] == progress.step and "auc" in progress.curve[-1]:
            progress.curve.pop()  # of the same weights with the averaged statistics, or of this end in a former run
        self._row({} if mean is None else {"auc": mean})
        progress.finished = True
        self._save()
        return TrunkReport(self._target, self._progress.step, self._progress.seconds, self._auc)


def _save_heads(graph: DynamicGraph, train: Sequence[PackedCrops], folder: Path, least: float) -> None:
    """Each as a branch that has nothing but its last layer, with the classes' true shares put back into its bias."""
    trunk = graph.trunk
    names = file_names(crops.label for crops in train)
    for crops, name, head in zip(train, names, graph.heads, strict=True):
        branch = Branch.create(trunk, crops.label, crops.classes, tap=len(trunk.backbone.blocks))
        branch.classifier.load_state_dict(head.state_dict())
        counts = np.bincount(crops.targets, minlength=len(crops.classes))
        with torch.no_grad():
            branch.classifier.bias.add_(torch.from_numpy(prior_shift(class_quotas(counts, least), counts)).float())
        branch.provenance = trunk.provenance
        branch.save(folder / f"{name}.safetensors")
