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
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from graftsdk.errors import EngineError, GraftError, InputError, NonFiniteOutput
from graftsdk.files import check_target
from graftsdk.training.averages import averaged_model
from graftsdk.training.curve import CurveKind, check_plot, curve_path, plot_curve, write_curve
from graftsdk.training.learning_rate import Length, rate
from graftsdk.training.loader import iterating
from graftsdk.training.meter import Meter
from graftsdk.training.ranks import Ranks
from graftsdk.training.run_options import RunOptions
from graftsdk.training.training_state import Progress, read_state, restore, state_path, write_state

__all__ = ["TrainingRun", "check_targets", "spread_rows"]

_NO_END = 10**9
_logger = logging.getLogger("graftsdk")

Folder = str | os.PathLike[str]


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
    from its step alone. Several processes run the loop in step, each on its share of every batch: what a step does next
    follows from the first one's clock and from what all agree on. The first one judges, writes and tells.

    Args:
        target: the checkpoint; beside it lie curve and state.
        options: lengths, rates and times.
        model, optimizer: on their device.
        lasting: what a resumed run must share, JSON types.
        epoch: steps an epoch.
        curve: its columns.
        plot: a picture of the curve, drawn anew at each evaluation.
        ranks: the processes, joined by its `with` block around `train`; None: this one alone.
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
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks(next(model.parameters()).device)
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
        """This process's share of the batches of steps first..last-1; a GraftError where one cannot be loaded."""

    @abstractmethod
    def _losses(self, batch: Any) -> Sequence[torch.Tensor]:
        """The loss of a batch, scalar float32, and its parts, as many as the curve has."""

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
                self._say("%s: no state of a training there; it starts from the beginning", self._state)
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
        self._say("%s: goes on after step %d, %.1f minutes", self._state, progress.step, progress.seconds / 60)

    def train(self, stop: threading.Event, bar: bool) -> None:
        """All steps that are left.

        Args:
            stop: set by a signal: the step that is under way is the last one, and KeyboardInterrupt is raised.
            bar: show one.
        """
        progress, self._stop = self._progress, stop
        last = _NO_END if self._length.steps is None else self._length.steps
        how = self._how
        times = how.eval_minutes, how.eval_epochs, how.save_seconds
        self._ranks.check_same([self._lasting, progress.step, progress.seconds, astuple(self._length), times])
        if self._over():
            return
        self._save()  # a kill at any moment finds a state
        started, before, saved = time.monotonic(), progress.seconds, progress.seconds
        loader = self._load(progress.step, last)
        total = self._length.steps
        with (
            tqdm(total=total, initial=progress.step, unit="step", disable=not bar, dynamic_ncols=True) as line,
            iterating(loader) as batches,
        ):
            while not self._over():
                if self._evaluation_due():  # at the beginning too: it may have been stopped just before one
                    self._ranks.alone(self._judge)
                    self._agreed(before + time.monotonic() - started)
                    progress.evaluated = progress.seconds, progress.step
                    self._save()
                    saved = progress.seconds
                began = time.perf_counter()
                losses = self._step(next(batches))
                stopped = self._agreed(before + time.monotonic() - started)
                self._meter.add(losses, time.perf_counter() - began)
                line.update()
                if progress.step % 10 == 0:
                    line.set_postfix_str(self._told())
                if stopped:
                    self._end()
                if progress.seconds - saved > self._how.save_seconds:
                    self._save()
                    saved = progress.seconds
            line.set_postfix_str(self._told())

    def _agreed(self, seconds: float) -> bool:
        """Set the clock of all processes to the first one's; whether a signal asked one of them for the end."""
        mine = seconds if self._ranks.first else 0.0
        self._progress.seconds, stopped = self._ranks.most([mine, self._stop.is_set()])
        return bool(stopped)

    def _check_stop(self) -> None:
        """In the first process's own work, between two pieces: where a signal asked for the end, end."""
        if self._stop.is_set():
            self._end()

    def _end(self) -> None:
        """Save the state and raise KeyboardInterrupt."""
        self._save()
        self._say("stopped after step %d; %s goes on with resume", self._progress.step, self._state)
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
        losses = () if isinstance(batch, GraftError) else tuple(self._losses(batch))
        *values, missing = self._ranks.mean([*self._values(losses), not losses])
        if missing:  # an image that cannot be used
            self._save()
            raise self._missing(batch)
        if not all(value < float("inf") for value in values):  # NaN fails too
            raise self._diverged(f"loss of step {step}: expected finite values, found {tuple(values)}")
        self._optimizer.zero_grad(set_to_none=True)
        losses[0].backward()  # type: ignore[no-untyped-call]
        self._ranks.average(self._model)
        if not bool(nn.utils.clip_grad_norm_(self._model.parameters(), self._how.clip).isfinite()):
            raise self._diverged(f"gradient of step {step}: expected finite values, found others")
        self._optimizer.step()
        self._ema.update_parameters(self._model)
        self._progress.step += 1
        return tuple(values)

    def _missing(self, batch: Any) -> GraftError:
        if not isinstance(batch, GraftError):
            return EngineError("a batch of another process of the training could not be loaded; it told why")
        if not self._ranks.first:  # whose own error nobody would see
            _logger.error("process %d of the training: %s", self._ranks.rank, batch)
        return batch

    def _values(self, losses: Sequence[torch.Tensor]) -> list[float]:
        """Of the losses; zeros where there are none."""
        if not losses:
            return [0.0] * len(self._curve.losses)
        return torch.stack(tuple(losses)).detach().float().cpu().tolist()

    def _diverged(self, what: str) -> NonFiniteOutput:
        left = self._broken() if self._ranks.first else ""
        return NonFiniteOutput(f"{what}; train with a lower learning rate{left}")

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
        self._ranks.alone(self._write)

    def _write(self) -> None:
        if self._meter.steps:
            self._row({})
        write_state(self._state, self._model, self._ema, self._optimizer, self._progress, self._lasting)

    def _say(self, message: str, *values: Any) -> None:
        if self._ranks.first:
            _logger.info(message, *values)

    def _told(self) -> str:
        done = self._length.done(self._progress.step, self._progress.seconds)
        return f"{100 * done:.0f}%, {self._meter.told()}{self._told_scores()}"
