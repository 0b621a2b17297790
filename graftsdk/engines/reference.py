"""Graphs run node by node as they stand, without any optimisation: what compiled engines are compared with."""

from __future__ import annotations

from collections.abc import Sequence

from graftsdk.engines import onnxruntime as runtime
from graftsdk.engines.base import Engine, Graph
from graftsdk.engines.threads import check_threads, default_threads, shared_threads

__all__ = ["open_reference"]


def open_reference(graphs: Sequence[Graph], *, threads: int | None = None, max_batch: int = 8) -> Engine:
    """An engine on the CPU that fuses nothing, lays nothing out anew and uses no cache: slow, and close to the text.

    Arguments and errors as `open_engine`.
    """
    count = check_threads(threads, shared_threads()) or shared_threads() or default_threads()
    return _ReferenceEngine(graphs, count, max_batch)


class _ReferenceEngine(Engine):
    def __init__(self, graphs: Sequence[Graph], threads: int, max_batch: int) -> None:
        self._graphs = tuple(graphs)
        self._threads = threads
        super().__init__(self._graphs, device="cpu", max_batch=max_batch)

    def _open(self) -> tuple[tuple[runtime.Session, ...], bool]:
        sessions = (runtime.open_uncompiled(graph, "cpu", self._threads, optimise=False) for graph in self._graphs)
        return tuple(sessions), True
