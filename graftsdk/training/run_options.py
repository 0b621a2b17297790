"""What every training may be told."""

from __future__ import annotations

from typing import Protocol

from graftsdk.training.learning_rate import Schedule

__all__ = ["RunOptions"]


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
