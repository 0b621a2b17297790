"""One training from its state on: steps, evaluations, rows of the curve, and a state that a kill at any moment leaves.

What is trained and judged is a leaf's: see `TrainingRun`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm

from graftsdk.errors import GraftError, InputError, NonFiniteOutput
from graftsdk.files import check_target
from graftsdk.training.averages import averaged_model
from graftsdk.training.curve import CurveKind, check_plot, curve_path, plot_curve, write_curve
from graftsdk.training.learning_rate import Length, Schedule, rate
from graftsdk.training.loader import iterating
from graftsdk.training.meter import Meter
from graftsdk.training.training_state import Progress, read_state, restore, state_path, write_state

__all__ = ["RunOptions", "TrainingRun", "check_targets", "spread_rows"]

_NO_END = 10**9
_logger = logging.getLogger("graftsdk")

Folder = str | os.PathLike[str]


class RunOptions(Schedule, Protocol):
    """What every training may be told.

    Attributes:
        clip: greatest norm of the gradient.
        ema: greatest decay of the averaged weights.
        eval_minutes, eval_epochs: between evaluations; epochs go first.
        save_seconds: between two writings of the state.
    """

    @property
    def clip(self) -> float: ...
    @property
    def ema(self) -> float: ...
    @property
    def eval_minutes(self) -> float: ...
    @property
    def eval_epochs(self) -> float | None: ...
    @property
    def save_seconds(self) -> float: ...


def spread_rows(count: int, most: int | None) -> list[int]:
    """At most so many of 0..count-1, at equal distances: all classes of a sorted row, all sets, have their share."""
    if most is None or count <= most:
        return list(range(count))
    return [place * count // most for place in range(most)]


def check_targets(output: Path, plot: Folder | None) -> None:
    """Refuse an output beside which curve and state cannot lie, or a curve that cannot be drawn.

    Raises:
        PlanPathError, InputError, MissingDependency.
    """
    for path in (output, state_path(output), curve_path(output)):
        check_target(path)
    if plot is not None:
        check_plot(plot)


class TrainingRun(ABC):
    """The loop. A leaf loads batches, gives their losses, judges the averaged weights and writes the checkpoint.

    The same steps give the same weights, whatever ended and resumed the training between them, where a batch follows
    from its step alone.

    Args:
        target: the checkpoint; beside it lie curve and state.
        options: lengths, rates and times.
        model, optimizer: on their device.
        lasting: what a resumed run must share, JSON types.
        epoch: steps an epoch.
        curve: its columns.
        plot: a picture of the curve, drawn anew at each evaluation.
    """

    def __init__(
        self,
        target: Path,
        options: RunOptions,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        lasting: Mapping[str, Any],
        *,
        epoch: int,
        curve: CurveKind,
        plot: Folder | None = None,
    ) -> None:
        self._target, self._model, self._optimizer = target, model, optimizer
        self._lasting, self._epoch, self._curve, self._plot = lasting, epoch, curve, plot
        self._ema = averaged_model(model, options.ema)
        self._how = options
        self._length = Length.of(options, epoch)
        self._progress = Progress()
        self._meter = Meter(curve.losses)
        self._state = state_path(target)
        self._stop = threading.Event()

    @abstractmethod
    def _load(self, first: int, last: int) -> Iterable[Any]:
        """The batches of steps first..last-1; a GraftError in place of one that cannot be loaded."""

    @abstractmethod
    def _losses(self, batch: Any) -> Sequence[torch.Tensor]:
        """The loss of a batch, scalar float32, and its parts, as the curve has them."""

    @abstractmethod
    def _judge(self) -> None:
        """Judge the averaged weights, write a row of the curve, and the checkpoint where it is worth keeping."""

    def _judges(self) -> bool:
        """Whether there is anything to judge by."""
        return True

    def _prepare(self) -> None:
        """The model before each step."""
        self._model.train()

    def _told_scores(self) -> str:
        """What the last evaluation said, for the bar, with a comma in front."""
        return ""

    def _broken(self) -> str:
        """What is left when a loss was not finite, for the message; the averaged weights are those of before."""
        return ""

    def resume(self, wanted: bool) -> None:
        """Take over the state that lies beside the target, where it is `wanted` and there is one.

        Raises:
            InputError: it is unfinished and not wanted, or of another training.
            PlanError: it cannot be read.
        """
        if not self._state.exists():
            if wanted:
                _logger.info("%s: no state of a training there; it starts from the beginning", self._state)
            return
        if not wanted:
            if not read_state(self._state)[0].finished:
                raise InputError(
                    f"{self._state}: expected none, found the state of an unfinished training; resume it, or delete it"
                )
            return
        progress, lasting, averaged, tensors = read_state(self._state)
        mine = json.loads(json.dumps(self._lasting))  # tuples have become lists in the file
        differing = [name for name in sorted(mine.keys() | lasting.keys()) if mine.get(name) != lasting.get(name)]
        if differing:
            raise InputError(
                f"{self._state}: expected the options and data of the training it is of, found other "
                f"{', '.join(differing)}; give the former ones, or start anew without it"
            )
        restore(self._state, tensors, averaged, self._model, self._ema, self._optimizer)
        self._progress = replace(progress, finished=False)
        _logger.info("%s: goes on after step %d, %.1f minutes", self._state, progress.step, progress.seconds / 60)

    def train(self, stop: threading.Event, bar: bool) -> None:
        """All steps that are left.

        Args:
            stop: set by a signal: the step that is under way is the last one, and KeyboardInterrupt is raised.
            bar: show one.
        """
        progress, self._stop = self._progress, stop
        last = _NO_END if self._length.steps is None else self._length.steps
        if self._over():
            return
        self._save()  # a kill at any moment finds a state
        started, before, saved = time.monotonic(), progress.seconds, time.monotonic()
        loader = self._load(progress.step, last)
        total = self._length.steps
        with (
            tqdm(total=total, initial=progress.step, unit="step", disable=not bar, dynamic_ncols=True) as line,
            iterating(loader) as batches,
        ):
            while not self._over():
                if self._evaluation_due():  # at the beginning too: it may have been stopped just before one
                    self._judge()
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
                self._check_stop()
                if time.monotonic() - saved > self._how.save_seconds:
                    self._save()
                    saved = time.monotonic()
            line.set_postfix_str(self._told())

    def _check_stop(self) -> None:
        """Between two pieces of work: where a signal asked for the end, save the state and raise KeyboardInterrupt."""
        if self._stop.is_set():
            self._save()
            _logger.info("stopped after step %d; %s goes on with resume", self._progress.step, self._state)
            raise KeyboardInterrupt

    def _over(self) -> bool:
        return self._length.done(self._progress.step, self._progress.seconds) >= 1.0

    def _step(self, batch: Any) -> tuple[float, ...]:
        """One step; its losses."""
        step = self._progress.step
        self._prepare()
        done = self._length.done(step, self._progress.seconds)
        for group in self._optimizer.param_groups:
            group["lr"] = rate(self._how, step, done, self._length)
        losses = self._losses(batch)
        values = tuple(torch.stack(tuple(losses)).detach().float().cpu().tolist())
        if not all(value < float("inf") for value in values):  # NaN fails too
            raise NonFiniteOutput(
                f"loss of step {step}: expected finite values, found {values}; train with a lower learning rate"
                f"{self._broken()}"
            )
        self._optimizer.zero_grad(set_to_none=True)
        losses[0].backward()  # type: ignore[no-untyped-call]
        if not bool(nn.utils.clip_grad_norm_(self._model.parameters(), self._how.clip).isfinite()):
            raise NonFiniteOutput(
                f"gradient of step {step}: expected finite values, found others; train with a lower learning rate"
                f"{self._broken()}"
            )
        self._optimizer.step()
        self._ema.update_parameters(self._model)
        self._progress.step += 1
        return values

    def _evaluation_due(self) -> bool:
        if not self._judges():
            return False
        seconds, step = self._progress.evaluated
        if self._how.eval_epochs is not None:
            return self._progress.step - step >= max(1, round(self._how.eval_epochs * self._epoch))
        return self._progress.seconds - seconds >= 60 * self._how.eval_minutes

    def _row(self, scores: Mapping[str, float]) -> None:
        """A row of the curve, drawn where there are scores or not."""
        progress = self._progress
        row = {
            "step": float(progress.step),
            "epoch": progress.step / self._epoch,
            "minutes": progress.seconds / 60,
            "learning_rate": float(self._optimizer.param_groups[0]["lr"]),
            **self._meter.taken(),
            **scores,
        }
        progress.curve.append(row)
        write_curve(curve_path(self._target), progress.curve, self._curve)
        if self._plot is not None:
            plot_curve(self._plot, progress.curve, self._curve, self._target.name)

    def _save(self) -> None:
        if self._meter.steps:
            self._row({})
        write_state(self._state, self._model, self._ema, self._optimizer, self._progress, self._lasting)

    def _told(self) -> str:
        done = self._length.done(self._progress.step, self._progress.seconds)
        return f"{100 * done:.0f}%, {self._meter.told()}{self._told_scores()}"
