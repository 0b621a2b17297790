"""What an engine is: graphs in order, fed with arrays, safe to use from many threads and across a fork.

`Engine.run` is here, for every runtime; a runtime's own class opens the graphs.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, cast

import numpy as np

from graftsdk.engines.feeds import Port, batch_of, check_feed, chunk_sizes
from graftsdk.engines.forks import reopen_in_child
from graftsdk.engines.wiring import Wiring
from graftsdk.errors import EngineBuildError, EngineClosed, EngineForked, InputError

__all__ = ["Engine", "Graph", "OpenGraph", "Runner"]


@dataclass(frozen=True)
class Graph:
    """What an engine compiles: one grafted graph, loaded only where no compiled form of it is at hand."""

    key: str  # 64 hex digits: the digests of the parts and outputs in it
    inputs: Mapping[str, str]  # the graph's input name -> name of the value that is fed to it
    outputs: tuple[str, ...]  # the graph's output names, which are also the values' names
    load: Callable[[], tuple[bytes, Mapping[str, np.ndarray]]]  # ONNX whose big initialisers are external, and those
    precision: str = "float32"  # what its parts are computed in, where any is not in float32

    def __post_init__(self) -> None:
        if re.fullmatch("[0-9a-f]{64}", self.key) is None:
            raise InputError(f"Graph.key: expected 64 hex digits, found {self.key!r:.80}")
        if not self.inputs or not self.outputs:
            raise InputError("Graph: expected at least one input and one output")


class OpenGraph(Protocol):
    """One graph, compiled and open: what goes in and what comes out, in the order of its `Graph`."""

    @property
    def inputs(self) -> tuple[Port, ...]: ...

    @property
    def outputs(self) -> tuple[Port, ...]: ...


class Runner(OpenGraph, Protocol):
    """One graph that runs by itself. Many threads may call `run` at once."""

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
        """The named outputs; `feeds` are checked already."""


class Engine(ABC):
    """Compiled graphs, run in order; a value that one gives may feed a later one. Made by `open_engine`.

    Safe to use from many threads. In a forked child it opens its graphs again at the first run and never
    destroys the parent's sessions.
    """

    def __init__(self, graphs: Sequence[Graph], *, device: str, max_batch: int) -> None:
        self.device = device
        self.outputs: tuple[str, ...] = tuple(name for graph in graphs for name in graph.outputs)
        self._wiring = Wiring([(graph.inputs, graph.outputs) for graph in graphs])
        self._max_batch = max_batch
        self._lock = threading.Lock()
        self._runners: tuple[OpenGraph, ...] | None = None
        self._closed = False
        self._forked = False
        self.compiled = False
        self._runners, self.compiled = self._open_checked()
        reopen_in_child(self)

    @abstractmethod
    def _open(self) -> tuple[tuple[OpenGraph, ...], bool]:
        """Every graph, open, and whether one had to be compiled. Called again in a forked child."""

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Value name -> array, in the order asked for (else `self.outputs`); the arrays belong to the caller.

        Only the graphs that the asked outputs need are run, in chunks of powers of two at most `max_batch`
        without padding. No rows in give no rows out.

        Args:
            feeds: value name -> float32[n, ...], all of one batch size, for every value that the outputs need. On a
                GPU also arrays that lie there (DLPack or `__cuda_array_interface__`).
            outputs: names of the values to return; None for all.

        Raises:
            InputError: a name is missing or unknown; its leaves DTypeError, ShapeError: an array that does not fit.
            EngineClosed: `close` was called.
            EngineForked: this is a forked child, and the engine cannot be opened here.
            EngineOutOfMemory: memory ran out; the engine stays usable.
            EngineBuildError: a graph gave another shape than it declares.
        """
        asked = self._asked(outputs)
        runners = self._current()
        if not asked:
            return {}
        needed = self._wiring.needed(asked)
        checked = self._check(feeds, runners, needed)
        batch = batch_of(checked)
        fixed = {size for index in needed for size in [runners[index].inputs[0].shape[0]] if size is not None}
        gather = Gather(asked, [runners[index] for index in needed], batch)
        if batch == 0:
            return gather.empty() or self._run_blank(checked, runners, needed, asked, min(fixed, default=1), gather)
        start = 0
        for size in self._chunks(batch, fixed):
            part = {name: array[start : start + size] for name, array in checked.items()}
            gather.add(self._run_chunk(part, runners, needed, asked), start, size)
            start += size
        return gather.results

    def _chunks(self, batch: int, fixed: set[int]) -> list[int]:
        """How `batch` rows are cut; `fixed` are the batch sizes of those graphs that have one of their own."""
        return chunk_sizes(batch, self._max_batch, fixed)

    def close(self) -> None:
        """Let go of the compiled graphs. Runs in flight finish; later ones raise EngineClosed."""
        with self._lock:
            self._closed = True
            self._runners = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _asked(self, outputs: Sequence[str] | None) -> tuple[str, ...]:
        if outputs is None:
            return self.outputs
        if isinstance(outputs, str):
            raise InputError(f"outputs: expected a list of names, found the text {outputs!r:.80}")
        unknown = [name for name in outputs if name not in self.outputs]
        if unknown:
            raise InputError(f"outputs: expected some of {_listed(self.outputs)}; found {_listed(unknown)}")
        return tuple(dict.fromkeys(outputs))

    def _current(self) -> tuple[OpenGraph, ...]:
        """The open graphs; the caller's hold on them lets its run finish although `close` is called."""
        with self._lock:
            if self._closed:
                raise EngineClosed("expected an open engine or predictor, found one after close(); open another")
            if self._runners is None:
                if self._forked and self.device != "cpu":
                    raise EngineForked(
                        f"an engine on {self.device!r} cannot be used in a forked child; start it with "
                        "multiprocessing's method 'spawn', or open the engine in the child"
                    )
                self._runners, _ = self._open_checked()
            return self._runners

    def _open_checked(self) -> tuple[tuple[OpenGraph, ...], bool]:
        runners, compiled = self._open()
        self._wiring.check([(runner.inputs, runner.outputs) for runner in runners])
        return runners, compiled

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()  # the parent's may be held by a thread that is not here
        self._runners = None
        self._forked = True

    def _check(self, feeds: Mapping[str, Any], runners: Sequence[OpenGraph], needed: Sequence[int]) -> dict[str, Any]:
        wanted = self._wiring.feeds(needed)
        unknown = [name for name in feeds if name not in self._wiring.inputs]
        missing = [name for name in wanted if name not in feeds]
        if unknown or missing:
            found = f"missing {_listed(missing)}" if missing else f"unknown {_listed(unknown)}"
            raise InputError(f"feeds: expected {_listed(wanted)}; {found}")
        checked = {}
        for name, (index, position) in wanted.items():
            checked[name] = self._check_feed(name, feeds[name], runners[index].inputs[position])
        return checked

    def _check_feed(self, name: str, value: Any, port: Port) -> Any:
        """The array that is fed, if it fits; a runtime on a device also takes what lies there.

        What comes back has `shape`, `dtype` and a length, and is cut by slices of its rows.
        """
        return check_feed(name, value, port)

    def _run_chunk(
        self,
        values: dict[str, Any],
        runners: Sequence[OpenGraph],
        needed: Sequence[int],
        asked: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """The asked values of one chunk; what a graph hands on is kept until the last graph that needs it.

        A runtime whose graphs do not run by themselves, each a `Runner`, has its own.
        """
        values = dict(values)
        wanted = self._wiring.wanted(needed, asked)
        for index in needed:
            ports = self._wiring.graphs[index].inputs
            names = wanted[index]
            results = cast("Runner", runners[index]).run({port: values[value] for port, value in ports.items()}, names)
            values.update(zip(names, results, strict=True))
            for value in self._wiring.last_use(index, needed, asked):
                del values[value]
        return {name: values[name] for name in asked}

    def _run_blank(
        self,
        checked: Mapping[str, np.ndarray],
        runners: Sequence[OpenGraph],
        needed: Sequence[int],
        asked: Sequence[str],
        size: int,
        gather: Gather,
    ) -> dict[str, np.ndarray]:
        """Results without rows where the graph does not say the sizes of its outputs: run zeros, keep no row."""
        blank = {name: np.zeros((size, *array.shape[1:]), array.dtype) for name, array in checked.items()}
        values = self._run_chunk(blank, runners, needed, asked)
        return {name: value[:0].copy() if gather.has_rows(name) else value.copy() for name, value in values.items()}


class Gather:
    """Puts the chunks' rows together in arrays of our own: the runtime's results may share its memory."""

    def __init__(self, asked: Sequence[str], runners: Sequence[OpenGraph], batch: int) -> None:
        ports = {port.name: (port, runner.inputs[0].shape[0]) for runner in runners for port in runner.outputs}
        self._asked = {name: ports[name] for name in asked}
        self._batch = batch
        self.results: dict[str, np.ndarray] = {}

    def has_rows(self, name: str) -> bool:
        """Whether the output has a row for each row fed; a segmenter's priors, for one, have not.

        Nor has one whose first side is free although the graph's batch is not: it is as long as detections are many.
        """
        port, own = self._asked[name]
        if port.shape and port.shape[0] is None:
            return own is None or own != self._batch  # in several chunks such an output cannot be put together
        return bool(port.shape) and port.shape[0] == own

    def empty(self) -> dict[str, np.ndarray]:
        """Every asked output without rows; empty where the graph does not say their sizes."""
        found = {}
        for name, (port, _) in self._asked.items():
            if not self.has_rows(name) or None in port.shape[1:]:
                return {}
            found[name] = np.empty((0, *(size or 0 for size in port.shape[1:])), port.dtype)
        return found

    def add(self, values: Mapping[str, np.ndarray], start: int, size: int) -> None:
        for name, value in values.items():
            self._check(name, value, size)
            if not self.has_rows(name):
                self.results.setdefault(name, value.copy())
            elif size == self._batch:
                self.results[name] = value.copy()
            else:
                if start == 0:
                    self.results[name] = np.empty((self._batch, *value.shape[1:]), value.dtype)
                self.results[name][start : start + size] = value

    def _check(self, name: str, value: np.ndarray, size: int) -> None:
        """A graph may compute other shapes than it declares: ONNX Runtime says so in its log and goes on.

        Raises:
            EngineBuildError: it did, and rows would be lost or repeated.
        """
        shape = self._asked[name][0].shape
        declared = ((size, *shape[1:]) if self.has_rows(name) else shape) if shape else (None,) * value.ndim
        fits = len(declared) == value.ndim and all(
            expected in (None, found) for expected, found in zip(declared, value.shape, strict=True)
        )
        if not fits or (not shape and value.ndim and size != self._batch):
            raise EngineBuildError(
                f"output {name!r}: expected {self._asked[name][0]} for {size} rows, found shape {list(value.shape)}; "
                f"export the part that gives it again"
            )


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    shown = [repr(name)[:80] for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
