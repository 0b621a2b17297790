"""Opens graphs on a device: from the engine cache where they are there, compiled where not."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk._native import cpu_features
from graftsdk.engines import cuda
from graftsdk.engines import onnxruntime as runtime
from graftsdk.engines.base import Engine, Graph, OpenGraph
from graftsdk.engines.cache import Cache
from graftsdk.engines.feeds import Port, check_feed, on_device
from graftsdk.engines.forks import leak_in_child
from graftsdk.engines.memory import give_back_memory
from graftsdk.engines.providers import providers_for
from graftsdk.engines.threads import check_threads, default_threads, shared_threads
from graftsdk.errors import EngineBuildError, EngineIncompatible, InputError

if TYPE_CHECKING:
    from graftsdk.engines.device_feeds import Intake

__all__ = ["open_engine"]

_log = logging.getLogger("graftsdk")


def open_engine(
    graphs: Sequence[Graph],
    *,
    device: str = "auto",
    threads: int | None = None,
    cache: bool | Cache = True,
    max_batch: int = 8,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
) -> Engine:
    """An engine that runs `graphs`, in this order; a value that one gives may feed a later one.

    What is not in the engine cache is compiled now, with one log line and, on a terminal, a progress bar.

    Args:
        graphs: what to run; see `Graph`.
        device: "cpu", "cuda" (never falls back), or "auto": "cuda" where it works, else "cpu".
        threads: how many threads each graph runs on; None for `default_threads()`.
        cache: the engine cache, this user's by default; False compiles for this process only.
        max_batch: most rows run at once; memory grows with it.
        provider: on device "cuda", which of ONNX Runtime's providers runs the graphs: "cuda" (also None), or
            "tensorrt", which builds its own engines at each start, for minutes, unless `provider_options` name a cache
            (`trt_engine_cache_enable`, `trt_engine_cache_path`): what is in that folder is code.
        provider_options: of that provider, in ONNX Runtime's own words.

    Raises:
        InputError: an argument that cannot be used.
        EngineBuildError: the runtime refuses a graph.
        EngineIncompatible: the device does not work here; says what to install.
        EngineForked: the process was forked from one that shares its threads.
        MissingDependency: onnxruntime is not at hand.
        PlanPathError: the engine cache belongs to someone else, or others may write to it.
    """
    if isinstance(max_batch, bool) or not isinstance(max_batch, int) or not 1 <= max_batch <= 1024:
        raise InputError(f"max_batch: expected an integer from 1 to 1024, found {max_batch!r:.80}")
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device: expected 'auto', 'cpu' or 'cuda', found {device!r:.80}")
    count = check_threads(threads, shared_threads()) or shared_threads() or default_threads()
    store = Cache() if cache is True else cache or None
    found = _device(device, provider, provider_options)
    providers = providers_for(found, provider, provider_options)
    if provider == "tensorrt":
        store = None  # a graph with its engines in it cannot be saved
    return _OnnxRuntimeEngine(graphs, found, count, store, max_batch, providers)


def _device(asked: str, provider: str | None, options: Mapping[str, str] | None) -> str:
    if asked == "cpu":
        return "cpu"
    problem = runtime.cuda_problem(providers_for("cuda", provider, options))
    if problem is not None and (provider is not None or options):
        raise EngineIncompatible(problem)  # who names a provider wants no other
    if problem is not None and asked == "cuda":
        raise EngineIncompatible(problem)
    return "cpu" if problem is not None else "cuda"


class _OnnxRuntimeEngine(Engine):
    def __init__(
        self,
        graphs: Sequence[Graph],
        device: str,
        threads: int,
        cache: Cache | None,
        max_batch: int,
        providers: list[Any],
    ) -> None:
        self._graphs = tuple(graphs)
        self._threads = threads
        self._cache = cache
        self._providers = providers
        self._intake: Intake | None = None  # opened for the first array that lies on the device
        self._intake_lock = threading.Lock()
        self._running = 0  # runs that may still read arrays of the intake
        super().__init__(self._graphs, device=device, max_batch=max_batch)

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        with self._intake_lock:
            self._running += 1
        try:
            return super().run(feeds, outputs)
        finally:
            with self._intake_lock:
                self._running -= 1
            self._let_go()

    def close(self) -> None:
        """See `Engine.close`; the device is let go of when the last run in flight is done."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        with self._intake_lock:
            if not self._closed or self._running or self._intake is None:
                return
            intake, self._intake = self._intake, None
        intake.close()

    def _after_fork_in_child(self) -> None:
        super()._after_fork_in_child()
        self._intake_lock, self._running = threading.Lock(), 0  # the parent's threads are not here
        self._intake = None  # the parent's; leaked, for nothing here may touch its device

    def _open(self) -> tuple[tuple[runtime.Session, ...], bool]:
        found = [self._open_stored(graph) for graph in self._graphs]
        missing = found.count(None)
        if missing:
            # Without a cache it is a check of a part, one of many, and not what somebody waits for.
            level = logging.DEBUG if self._cache is None else logging.INFO
            _log.log(level, "compiling %d of %d graphs for %s", missing, len(found), self.device)
        sessions = []
        with _progress(missing) as step:
            for graph, session in zip(self._graphs, found, strict=True):
                if session is None:
                    session = self._compile(graph)
                    step()
                sessions.append(session)
        if missing:
            give_back_memory()
        return tuple(sessions), missing > 0

    def _run_chunk(
        self, values: dict[str, Any], runners: Sequence[OpenGraph], needed: Sequence[int], asked: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """On a GPU values stay there between graphs; those that were asked for come back."""
        found = super()._run_chunk(values, runners, needed, asked)
        return {name: runtime.on_host(value) for name, value in found.items()}

    def _check_feed(self, name: str, value: Any, port: Port) -> Any:
        if self.device == "cpu" or not on_device(value):
            return check_feed(name, value, port)
        with self._intake_lock:
            if self._intake is None:
                from graftsdk.engines.device_feeds import Intake

                self._intake = Intake(cuda.open_device(), owns=True)
                leak_in_child(self._intake)
            intake = self._intake
        return intake.take(name, value, port)

    def _open_stored(self, graph: Graph) -> runtime.Session | None:
        """The graph from the cache; None where it must be compiled."""
        if self._cache is None:
            return None
        key = self._key(graph)
        try:
            found = self._cache.find(key)
            if found is None:
                why = self._cache.explain(key)
                if why is not None:
                    _log.info("engine cache: graph %s is there, but for another machine or runtime: %s", graph.key, why)
                return None
        except OSError as error:
            self._do_without_cache(error)
            return None
        entry, model = found
        try:
            return runtime.open_compiled(graph, model, entry.path, self.device, self._threads, self._providers)
        except EngineBuildError as error:
            self._cache.discard(entry, str(error))
            return None

    def _compile(self, graph: Graph) -> runtime.Session:
        """The graph, compiled into the cache and opened from there; for this process only where that fails."""
        failure: Exception | None = None
        if self._cache is not None:
            try:
                with self._cache.build(self._key(graph)) as folder:
                    runtime.compile_graph(graph, folder, self.device, self._threads, self._providers)
                stored = self._open_stored(graph)
                if stored is not None:
                    return stored
            except OSError as error:
                failure = error
            except EngineBuildError as error:  # a bad graph, or a full disk, which the runtime does not tell apart
                failure = error
        session = runtime.open_uncompiled(graph, self.device, self._threads, providers=self._providers)
        if failure is not None:
            self._do_without_cache(failure)
        return session

    def _key(self, graph: Graph) -> dict[str, str]:
        key = {
            "graph": graph.key,
            "device": self.device,
            "cpu": " ".join(cpu_features()),
            "precision": graph.precision,
            "runtime": runtime.version(),
        }
        if self._providers != providers_for(self.device):  # the caller's options may change what is compiled
            key["providers"] = json.dumps(self._providers, sort_keys=True)
        return key

    def _do_without_cache(self, error: Exception) -> None:
        if self._cache is not None:
            _log.warning(
                "engine cache: %s cannot be used (%s: %s); graphs are compiled for this process only, each time",
                self._cache.root,
                type(error).__name__,
                error,
            )
            self._cache = None


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    """A step to call for each graph compiled; a bar on stderr where that is a terminal."""
    if total == 0 or sys.stderr is None or not sys.stderr.isatty():
        yield lambda: None  # tqdm starts a thread even for a bar that is not shown
        return
    from tqdm import tqdm

    with tqdm(total=total, desc="compiling", unit="graph") as bar:
        yield bar.update
