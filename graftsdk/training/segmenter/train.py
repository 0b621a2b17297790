"""Training of a segmenter: steps, averaged weights, evaluations, the best checkpoint, a state to go on from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graftsdk.errors import InputError
from graftsdk.models import Yolact
from graftsdk.models.yolact_layers import level_sizes
from graftsdk.plan import Provenance
from graftsdk.plan.segmenter_document import SCORE_THRESHOLD
from graftsdk.training.compute import low_precision, torch_threads
from graftsdk.training.curve import CurveKind
from graftsdk.training.interrupts import stop_asked
from graftsdk.training.run import TrainingRun, check_targets, spread_rows
from graftsdk.training.segmenter.batches import Batch, EpochOrder, TrainingImages, load_batches
from graftsdk.training.segmenter.datasets import AnnotatedImage, ImageSet, open_training_sets
from graftsdk.training.segmenter.evaluation import evaluate
from graftsdk.training.segmenter.losses import segmenter_losses
from graftsdk.training.segmenter.mask_ap import MaskAP
from graftsdk.training.segmenter.options import SegmenterOptions
from graftsdk.training.segmenter.start import freeze_norm, new_optimizer, new_segmenter, normalised

__all__ = ["TrainingReport", "train_segmenter"]

FEW = 6  # images a batch; below it BatchNorm's statistics are too poor to change what was learned from many
# oneDNN's weight gradient of a 3x3 convolution with stride 2 over a map of 1x1 is uninitialised memory in bfloat16
# (torch 2.14); from this side on, P6 has two rows and columns.
LEAST_LOW = 65
CURVE = CurveKind(
    ("loss", "box", "confidence", "mask", "semantic"), {"ap": "mask AP", "ap50": "mask AP50", "ap75": ""}, "AP"
)

Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class TrainingReport:
    """What came out.

    Attributes:
        path: of the checkpoint.
        steps: taken, over all runs.
        seconds: of training and evaluation, over all runs.
        ap: of the checkpoint on all validation images; None without any.
    """

    path: Path
    steps: int
    seconds: float
    ap: MaskAP | None


def train_segmenter(
    data: Sequence[Folder],
    output: Folder,
    options: SegmenterOptions,
    *,
    val: Sequence[Folder] = (),
    val_split: float | None = None,
    init: Folder | None = None,
    weights: Folder | None = None,
    resume: bool = False,
    plot: Folder | None = None,
    progress: bool = True,
) -> TrainingReport:
    """A trained segmenter as a checkpoint, the best of the evaluated ones by mask AP, or the last without validation.

    Beside `output` lie its curve (`OUT.curve.csv`) and its state (`OUT.safetensors.state`). Everything is read and
    checked before the first step. Ctrl-C ends the step, saves the state and raises KeyboardInterrupt. On one machine
    and with the same number of threads a resumed run gives the weights of an uninterrupted one, bit by bit, where
    `steps` or `epochs` end it; with `minutes` the clock decides on rates, which differ from run to run.

    Args:
        data: folders of annotated images; "FOLDER:0.3" takes 30% of each epoch's images from that one.
        output: the checkpoint, .safetensors.
        val: folders of images to evaluate on.
        val_split: in place of `val`: this share of `data`'s images is held out, chosen by name.
        init: a segmenter's checkpoint to start from, or "demo"; tensors of other shapes start anew.
        weights: of the backbone, in torchvision's layout (safetensors).
        resume: go on from the state, where there is one.
        plot: a picture of the curve, drawn anew at each evaluation.
        progress: show a bar.

    Raises:
        InputError, DecodeError: data or options that cannot be used.
        PlanError: `init`, `weights` or the state cannot be read, or `output` cannot be written.
        MissingDependency: matplotlib for `plot`.
        NonFiniteOutput: the loss is infinite or NaN.
    """
    target = Path(output)
    check_targets(target, plot)
    sets, shares, held_out = open_training_sets(data, val, val_split, options.network.classes)
    order = EpochOrder(
        [(len(images), share) for images, share in zip(sets, shares, strict=True)],
        options.batch,
        options.sizes(),
        options.copy_paste,
        options.seed,
    )
    with torch_threads(options.threads), stop_asked() as stop:
        run = _Run(target, options, sets, shares, held_out, order, init, weights, resume, plot)
        run.train(stop, progress)
        return run.finish()


class _Run(TrainingRun):
    """One training from its state on."""

    def __init__(
        self,
        target: Path,
        options: SegmenterOptions,
        sets: Sequence[ImageSet],
        shares: Sequence[float | None],
        held_out: Sequence[AnnotatedImage],
        order: EpochOrder,
        init: Folder | None,
        weights: Folder | None,
        resume: bool,
        plot: Folder | None,
    ) -> None:
        self._options, self._order = options, order
        self._images, self._held_out = TrainingImages(sets), held_out
        self._some = [held_out[index] for index in spread_rows(len(held_out), options.eval_images)]  # of all sets
        self._digests = tuple(dict.fromkeys(images.digest for images in sets))
        self._device = torch.device(options.device)
        self._low = low_precision(options.precision, self._device)
        network = new_segmenter(options.network, init, weights, options.seed, focal=options.confidence == "focal")
        pretrained = init is not None or weights is not None
        frozen = options.freeze_norm
        self._frozen = pretrained and options.batch < FEW if frozen is None else frozen
        _check_norm(options, self._frozen)
        self._network = network
        network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._priors: dict[tuple[int, int], torch.Tensor] = {}
        self._ap: MaskAP | None = None  # of the last evaluation
        self._best: MaskAP | None = None  # of the checkpoint, where this run saved it
        lasting = {
            **options.lasting(),
            "data": [[images.digest, len(images), share] for images, share in zip(sets, shares, strict=True)],
            # The best AP so far is of these images; another one's would not compare.
            "val": hashlib.sha256("\n".join(image.path.name for image in self._some).encode()).hexdigest(),
        }
        optimizer = new_optimizer(network, options)
        super().__init__(target, options, network, optimizer, lasting, epoch=order.steps, curve=CURVE, plot=plot)
        self.resume(resume)

    def _load(self, first: int, last: int) -> Iterable[Any]:
        return load_batches(self._images, self._order, first, last, self._options.workers)

    def _prepare(self) -> None:
        super()._prepare()
        if self._frozen:
            freeze_norm(self._network)

    def _losses(self, batch: Batch) -> Sequence[torch.Tensor]:
        """All, box, confidence, mask, semantic."""
        options = self._options
        images = normalised(batch.images.to(self._device))
        size = (images.shape[2], images.shape[3])
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._low and min(size) >= LEAST_LOW):
            outputs = self._network(images)
        generator = torch.Generator().manual_seed(options.seed * 2**31 + self._progress.step)
        if size not in self._priors:
            self._priors[size] = self._network.priors(size)
        losses = segmenter_losses(
            outputs, self._priors[size], batch.truths, generator, focal=options.confidence == "focal"
        )
        return (losses.total(), *losses)

    def _judges(self) -> bool:
        return bool(self._held_out)

    def _judge(self) -> None:
        """By some of the validation images; the checkpoint is kept where it is the best so far."""
        averaged = self._averaged()
        self._ap = evaluate(averaged, self._some)
        if self._ap.ap > self._progress.best:
            self._progress.best, self._best = self._ap.ap, self._ap
            self._save_checkpoint(averaged, self._ap)
        self._row({"ap": self._ap.ap, "ap50": self._ap.ap50, "ap75": self._ap.ap75})

    def _averaged(self) -> Yolact:
        averaged = self._ema.module
        assert isinstance(averaged, Yolact)
        averaged.eval()
        return averaged

    def _save_checkpoint(self, model: Yolact, ap: MaskAP | None) -> None:
        metrics = {"steps": float(self._progress.step)}
        if ap is not None:
            metrics |= _metrics(ap)
        model.metrics = metrics
        data = dict.fromkeys((*model.provenance.data, *self._digests))
        model.provenance = Provenance(model.provenance.licence, model.provenance.author, tuple(data)[:256])
        model.save(self._target)

    def _told_scores(self) -> str:
        return "" if self._ap is None else f", AP {self._ap.ap:.3f}, AP50 {self._ap.ap50:.3f}"

    def finish(self) -> TrainingReport:
        """The last evaluation, the checkpoint, the state marked as finished."""
        progress = self._progress
        ap: MaskAP | None = None
        if not self._held_out:
            self._save_checkpoint(self._averaged(), None)
        else:
            if progress.evaluated[1] != progress.step or progress.best < 0:
                self._judge()
                progress.evaluated = progress.seconds, progress.step
            ap = self._best
            if ap is None or len(self._some) < len(self._held_out):  # judged in a former run, or on some of the images
                best = Yolact.load(self._target)
                ap = evaluate(best, self._held_out)
                best.metrics = {**best.metrics, **_metrics(ap)}
                best.save(self._target)
        progress.finished = True
        self._save()
        return TrainingReport(self._target, progress.step, progress.seconds, ap)


def _check_norm(options: SegmenterOptions, frozen: bool) -> None:
    """Refuse what BatchNorm cannot learn from: one image whose coarsest level is one cell."""
    network = options.network
    for size in options.sizes():
        coarsest = level_sizes(network.arch, network.width, size)[-1]
        if options.batch == 1 and not frozen and coarsest == (1, 1):
            raise InputError(
                f"batch: expected at least 2 images of {size[0]}x{size[1]} (HxW), whose last level is one cell, for "
                f"BatchNorm to learn from, found 1; freeze it (freeze_norm, --freeze-norm) or take larger images"
            )


def _metrics(ap: MaskAP) -> dict[str, float]:
    """What a checkpoint says of itself; export takes its `SCORE_THRESHOLD`."""
    found = {"mask_ap": ap.ap, "mask_ap50": ap.ap50, "mask_ap75": ap.ap75, "images": float(ap.images)}
    return found | ({"f1": ap.f1, SCORE_THRESHOLD: ap.threshold} if ap.f1 > 0 else {})
