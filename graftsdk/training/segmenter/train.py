"""Training of a segmenter: steps, averaged weights, evaluations, the best checkpoint, a state to go on from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from graftsdk.errors import GraftError, InputError, NonFiniteOutput
from graftsdk.files import check_target
from graftsdk.models import Yolact
from graftsdk.models.yolact_layers import level_sizes
from graftsdk.plan import Provenance
from graftsdk.training.curve import check_plot, curve_path, plot_curve, write_curve
from graftsdk.training.interrupts import stop_asked
from graftsdk.training.learning_rate import Length, rate
from graftsdk.training.meter import Meter
from graftsdk.training.segmenter.batches import Batch, EpochOrder, TrainingImages, load_batches
from graftsdk.training.segmenter.datasets import AnnotatedImage, ImageSet, open_training_sets
from graftsdk.training.segmenter.evaluation import evaluate
from graftsdk.training.segmenter.losses import Losses, segmenter_losses
from graftsdk.training.segmenter.mask_ap import MaskAP
from graftsdk.training.segmenter.options import SegmenterOptions
from graftsdk.training.segmenter.start import (
    averaged_model,
    freeze_norm,
    new_optimizer,
    new_segmenter,
    normalised,
    quick_bfloat16,
)
from graftsdk.training.training_state import Progress, read_state, restore, state_path, write_state

__all__ = ["TrainingReport", "train_segmenter"]

FEW = 6  # images a batch; below it BatchNorm's statistics are too poor to change what was learned from many
# oneDNN's weight gradient of a 3x3 convolution with stride 2 over a map of 1x1 is uninitialised memory in bfloat16
# (torch 2.14); from this side on, P6 has two rows and columns.
LEAST_LOW = 65
_NO_END = 10**9
_logger = logging.getLogger("graftsdk")

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
    for path in (target, state_path(target), curve_path(target)):
        check_target(path)
    if plot is not None:
        check_plot(plot)
    sets, shares, held_out = open_training_sets(data, val, val_split, options.network.classes)
    order = EpochOrder(
        [(len(images), share) for images, share in zip(sets, shares, strict=True)],
        options.batch,
        options.sizes(),
        options.copy_paste,
        options.seed,
    )
    with _threads(options.threads), stop_asked() as stop:
        run = _Run(target, options, sets, shares, held_out, order, init, weights, resume, plot)
        run.train(stop, progress)
        return run.finish()


class _Run:
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
        self._target, self._options, self._order, self._plot = target, options, order, plot
        self._images, self._held_out = TrainingImages(sets), held_out
        self._digests = tuple(dict.fromkeys(images.digest for images in sets))
        self._lasting = {
            **options.lasting(),
            "data": [[images.digest, len(images), share] for images, share in zip(sets, shares, strict=True)],
            # The best AP so far is of these images; another one's would not compare.
            "val": hashlib.sha256("\n".join(image.path.name for image in held_out).encode()).hexdigest(),
        }
        self._device = torch.device(options.device)
        self._low = options.precision == "bfloat16" or (options.precision is None and quick_bfloat16(self._device))
        self._model = new_segmenter(options.network, init, weights, options.seed, focal=options.confidence == "focal")
        pretrained = init is not None or weights is not None
        frozen = options.freeze_norm
        self._frozen = pretrained and options.batch < FEW if frozen is None else frozen
        _check_norm(options, self._frozen)
        self._model.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._ema = averaged_model(self._model, options.ema)
        self._optimizer = new_optimizer(self._model, options)
        self._length = Length.of(options, order.steps)
        self._progress = Progress()
        self._meter = Meter()
        self._priors: dict[tuple[int, int], torch.Tensor] = {}
        self._ap: MaskAP | None = None  # of the last evaluation
        self._best: MaskAP | None = None  # of the checkpoint, where this run saved it
        self._state = state_path(target)
        self._resume(resume)

    def _resume(self, resume: bool) -> None:
        if not self._state.exists():
            if resume:
                _logger.info("%s: no state of a training there; it starts from the beginning", self._state)
            return
        if not resume:
            if not read_state(self._state)[0].finished:
                raise InputError(
                    f"{self._state}: expected none, found the state of an unfinished training; resume it, or delete it"
                )
            return
        progress, lasting, averaged, tensors = read_state(self._state)
        wanted = json.loads(json.dumps(self._lasting))  # tuples have become lists in the file
        differing = [name for name in sorted(wanted.keys() | lasting.keys()) if wanted.get(name) != lasting.get(name)]
        if differing:
            raise InputError(
                f"{self._state}: expected the options and data of the training it is of, found other "
                f"{', '.join(differing)}; give the former ones, or start anew without it"
            )
        restore(self._state, tensors, averaged, self._model, self._ema, self._optimizer)
        self._progress = replace(progress, finished=False)
        _logger.info("%s: goes on after step %d, %.1f minutes", self._state, progress.step, progress.seconds / 60)

    def train(self, stop: threading.Event, bar: bool) -> None:
        """All steps that are left."""
        progress, options = self._progress, self._options
        last = _NO_END if self._length.steps is None else self._length.steps
        if self._over():
            return
        self._save()  # a kill at any moment finds a state
        started, before, saved = time.monotonic(), progress.seconds, time.monotonic()
        loader = load_batches(self._images, self._order, progress.step, last, options.workers)
        total = self._length.steps
        with tqdm(total=total, initial=progress.step, unit="step", disable=not bar, dynamic_ncols=True) as line:
            batches = iter(loader)
            while not self._over():
                if self._evaluation_due():  # at the beginning too: it may have been stopped just before one
                    self._evaluate(self._held_out[: options.eval_images])
                    progress.seconds = before + time.monotonic() - started
                    progress.evaluated = progress.seconds, progress.step
                    self._save()
                    saved = time.monotonic()
                began = time.perf_counter()
                batch = next(batches)
                if isinstance(batch, GraftError):  # an image that cannot be used
                    self._save()
                    raise batch
                losses = self._step(batch)
                progress.seconds = before + time.monotonic() - started
                self._meter.add(losses, time.perf_counter() - began)
                line.update()
                if progress.step % 10 == 0:
                    line.set_postfix_str(self._told())
                if stop.is_set():
                    self._save()
                    _logger.info("stopped after step %d; %s goes on with resume", progress.step, self._state)
                    raise KeyboardInterrupt
                if time.monotonic() - saved > options.save_seconds:
                    self._save()
                    saved = time.monotonic()
            line.set_postfix_str(self._told())

    def _over(self) -> bool:
        return self._length.done(self._progress.step, self._progress.seconds) >= 1.0

    def _step(self, batch: Batch) -> tuple[float, ...]:
        """One step; its losses: all, box, confidence, mask, semantic."""
        options, step = self._options, self._progress.step
        self._model.train()
        if self._frozen:
            freeze_norm(self._model)
        done = self._length.done(step, self._progress.seconds)
        for group in self._optimizer.param_groups:
            group["lr"] = rate(options, step, done, self._length)
        images = normalised(batch.images.to(self._device))
        size = (images.shape[2], images.shape[3])
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._low and min(size) >= LEAST_LOW):
            outputs = self._model(images)
        generator = torch.Generator().manual_seed(options.seed * 2**31 + step)
        if size not in self._priors:
            self._priors[size] = self._model.priors(size)
        losses = segmenter_losses(
            outputs, self._priors[size], batch.truths, generator, focal=options.confidence == "focal"
        )
        total = losses.total()
        values = _values(losses, total)
        if not all(value < float("inf") for value in values):  # NaN fails too
            raise NonFiniteOutput(
                f"loss of step {step}: expected finite values, found {values}; train with a lower learning rate"
            )
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if not bool(nn.utils.clip_grad_norm_(self._model.parameters(), options.clip).isfinite()):
            raise NonFiniteOutput(
                f"gradient of step {step}: expected finite values, found others; train with a lower learning rate"
            )
        self._optimizer.step()
        self._ema.update_parameters(self._model)
        self._progress.step += 1
        return values

    def _evaluation_due(self) -> bool:
        options, progress = self._options, self._progress
        if not self._held_out:
            return False
        seconds, step = progress.evaluated
        if options.eval_epochs is not None:
            return progress.step - step >= max(1, round(options.eval_epochs * self._order.steps))
        return progress.seconds - seconds >= 60 * options.eval_minutes

    def _evaluate(self, images: Sequence[AnnotatedImage]) -> None:
        """Judge the averaged weights, and keep them where they are the best so far."""
        averaged = self._averaged()
        self._ap = evaluate(averaged, images)
        if self._ap.ap > self._progress.best:
            self._progress.best, self._best = self._ap.ap, self._ap
            self._save_checkpoint(averaged, self._ap)
        self._row(self._ap)

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

    def _row(self, ap: MaskAP | None) -> None:
        progress = self._progress
        row = {
            "step": float(progress.step),
            "epoch": progress.step / self._order.steps,
            "minutes": progress.seconds / 60,
            "learning_rate": float(self._optimizer.param_groups[0]["lr"]),
            **self._meter.taken(),
        }
        if ap is not None:
            row |= {"ap": ap.ap, "ap50": ap.ap50, "ap75": ap.ap75}
        progress.curve.append(row)
        write_curve(curve_path(self._target), progress.curve)
        if self._plot is not None:
            plot_curve(self._plot, progress.curve, self._target.name)

    def _save(self) -> None:
        if self._meter.steps:
            self._row(None)
        write_state(self._state, self._model, self._ema, self._optimizer, self._progress, self._lasting)

    def _told(self) -> str:
        done = self._length.done(self._progress.step, self._progress.seconds)
        ap = "" if self._ap is None else f", AP {self._ap.ap:.3f}, AP50 {self._ap.ap50:.3f}"
        return f"{100 * done:.0f}%, {self._meter.told()}{ap}"

    def finish(self) -> TrainingReport:
        """The last evaluation, the checkpoint, the state marked as finished."""
        progress, some = self._progress, self._held_out[: self._options.eval_images]
        ap: MaskAP | None = None
        if not self._held_out:
            self._save_checkpoint(self._averaged(), None)
        else:
            if progress.evaluated[1] != progress.step or progress.best < 0:
                self._evaluate(some)
                progress.evaluated = progress.seconds, progress.step
            ap = self._best
            if ap is None or len(some) < len(self._held_out):  # judged in a former run, or on some of the images
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
    return {"mask_ap": ap.ap, "mask_ap50": ap.ap50, "mask_ap75": ap.ap75, "images": float(ap.images)}


def _values(losses: Losses, total: torch.Tensor) -> tuple[float, ...]:
    return tuple(torch.stack((total, *losses)).detach().float().cpu().tolist())


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
