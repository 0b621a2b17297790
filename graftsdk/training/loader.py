"""Batches in the order of steps, loaded ahead by processes that never answer signals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

__all__ = ["StepOrder", "iterating", "load_steps"]


class StepOrder(Protocol):
    """What every step draws, whoever loads it."""

    def batches(self, first: int, last: int) -> Iterator[Any]:
        """The draws of steps first..last-1."""
        ...


class _Steps:
    """The draws from one step on, as a DataLoader wants them."""

    def __init__(self, order: StepOrder, first: int, last: int) -> None:
        self._order, self._first, self._last = order, first, last

    def __iter__(self) -> Iterator[Any]:
        return self._order.batches(self._first, self._last)

    def __len__(self) -> int:
        return self._last - self._first


class _Loader(DataLoader[Any]):
    """A DataLoader whose workers find OpenCV without threads: a forked child would wait for its parent's for ever."""

    def __iter__(self) -> Any:
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(before)


def load_steps(
    dataset: Dataset[Any],
    order: StepOrder,
    first: int,
    last: int,
    workers: int,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """The batches of steps first..last-1; workers stay at work over the epochs' ends.

    The loader never draws from torch's global generator in a way that weights depend on.

    Args:
        dataset: gives what a draw stands for.
        order: of the draws.
        first, last: steps.
        workers: processes; 0: the caller's own.
        collate: makes a batch of a step's items, where its draws are a list; None: the dataset takes a step's draws
            as one and gives the whole batch.
    """
    steps = _Steps(order, first, last)
    how: dict[str, Any] = {"sampler": steps, "batch_size": None} if collate is None else {"batch_sampler": steps}
    return _Loader(
        dataset,
        **how,
        num_workers=workers,
        collate_fn=_unchanged if collate is None else collate,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator().manual_seed(0),
    )


@contextmanager
def iterating(loader: Iterable[Any]) -> Iterator[Iterator[Any]]:
    """The loader's batches, for a `with` block at whose end the workers end.

    Torch ends them when the iterator goes, and that may be never: an exception that was caught somewhere below keeps
    the caller's frame. The process would then wait at its own end for workers that do not answer SIGTERM.
    """
    batches = iter(loader)
    try:
        yield batches
    finally:
        end = getattr(batches, "_shutdown_workers", None)  # of a loader with workers; torch has no public name for it
        if end is not None:
            end()


def _unchanged(batch: Any) -> Any:
    return batch


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM reach a whole group of processes; the training process alone answers them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
