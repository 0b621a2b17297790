"""Which engine runs a plan's graphs, and what it takes to open it: ONNX Runtime, or TensorRT engines built ahead."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftsdk.engines.base import Engine, Graph
from graftsdk.engines.layout import built_groups, graphs_of, partition
from graftsdk.engines.opening import open_engine
from graftsdk.errors import EngineBuildError, EngineIncompatible, InputError
from graftsdk.graft import Joint
from graftsdk.graft.group import FLOATS
from graftsdk.plan import Manifest, Plan
from graftsdk.text import listed

if TYPE_CHECKING:
    from graftsdk.engines.cuda import Device

__all__ = ["ENGINES", "Opener", "default_folder"]

_log = logging.getLogger("graftsdk")

ENGINES = ("auto", "onnxruntime", "tensorrt")
BUILDS = ("never", "auto")


def default_folder(plan: str | os.PathLike[str]) -> Path:
    """Where `graftsdk build` puts the engines of a plan, and where they are looked for: `<plan's name>.engines`."""
    path = Path(plan)
    return path.with_name(f"{path.stem}.engines")


class Opener:
    """Opens the graphs of one plan, the segmenter's as well, on the engine and device that were asked for.

    Args:
        plan: its path; None for bytes, whose engines must be in a folder that is named.
        device: "auto", "cpu" or "cuda". threads: of ONNX Runtime's engines.
        engine: "onnxruntime"; "tensorrt", engines that `graftsdk build` made; "auto" takes those where a folder of
            them is named, else ONNX Runtime.
        runtime: "tensorrt" or "tensorrt_rtx"; None for the first that is installed.
        engines: the folder; None for `default_folder`.
        build: "never", or "auto": what is missing or does not fit is built now, which takes minutes.
        trust_engines: run engines that this machine did not build. They are code.
        precision, layout, labels: what the engines are for; said in messages, and to what builds.

    Raises:
        InputError: an argument, or two that exclude each other.
    """

    def __init__(
        self,
        plan: str | os.PathLike[str] | None,
        *,
        device: str = "auto",
        threads: int | None = None,
        engine: str = "auto",
        runtime: str | None = None,
        engines: str | os.PathLike[str] | None = None,
        build: str = "never",
        trust_engines: bool = False,
        precision: str = "float32",
        layout: str = "merged",
        labels: tuple[str, ...] | None = None,
    ) -> None:
        for name, value, known in (("engine", engine, ENGINES), ("build", build, BUILDS)):
            if value not in known:
                raise InputError(f"{name}: expected one of {', '.join(known)}, found {value!r:.40}")
        self.engine = engine if engine != "auto" else "onnxruntime" if engines is None else "tensorrt"
        given: dict[str, object] = {"runtime": runtime, "engines": engines, "trust_engines": trust_engines or None}
        given["build"] = build if build != "never" else None
        if self.engine == "onnxruntime":
            for name, said in given.items():
                if said is not None:
                    wanted = "engine='tensorrt'" + (
                        " only" if engine != "auto" else " or with engines= (--engines DIR)"
                    )
                    raise InputError(f"{name}: expected it with {wanted}, found engine={engine!r}")
        elif device == "cpu":
            raise InputError("engine: expected 'onnxruntime' on device 'cpu', found 'tensorrt', which needs a GPU")
        elif engines is None and plan is None:
            raise InputError("engines: expected the folder of the engines with a plan that has no path, found None")
        self._plan = None if plan is None else os.fspath(plan)
        self._folder = Path(engines) if engines is not None else None if plan is None else default_folder(plan)
        self._asked = device
        # "auto" would fall back to a CPU, which computes FP16 and BF16 by way of float32.
        self._device = "cuda" if precision in FLOATS else device
        self._threads, self._runtime = threads, runtime
        self._build, self._trust = build, trust_engines
        self._precision, self._layout, self._labels = precision, layout, labels
        self._gpu: Device | None = None

    def forms(self, manifest: Manifest) -> dict[str, str]:
        """How the plan's parts are computed that are not in float32; see `Manifest.forms`.

        Raises:
            InputError: no such precision.
            EngineIncompatible: the plan has no part that may be computed so, or the CPU has no use for it.
        """
        precision = self._precision
        forms = manifest.forms(precision)
        if precision in FLOATS and self._asked == "cpu":
            raise EngineIncompatible(
                f"precision: expected 'float32' or 'int8' on device 'cpu', found {precision!r}, which no CPU is faster "
                f"in"
            )
        if precision != "float32" and not forms:
            tried = manifest.lowered.get(precision)
            found = "none that passed its label's tolerance (graftsdk info)" if tried else "none"
            raise EngineIncompatible(
                f"precision: expected a plan with parts that may be computed in {precision}, found {found}; try them "
                f"with: graftsdk quantize PLAN --precision {precision} --samples FOLDER"
            )
        return forms

    def graphs(self, plan: Plan, joints: Mapping[str, Joint]) -> list[Graph]:
        """The graphs of these labels, as this engine runs them. Raises as `forms`; InputError: no such layout."""
        forms = self.forms(plan.manifest)
        records = plan.manifest.lowered.get(self._precision, {})
        if unseen := [
            label
            for label, joint in joints.items()
            if self._precision == "int8" and joint.trunk in forms and joint.branch not in records
        ]:
            _log.warning(
                "%s: nobody compared them with float32 since their trunk is computed in INT8; "
                "graftsdk quantize PLAN --samples FOLDER does",
                listed(unseen),
            )
        if self.engine == "tensorrt":
            return graphs_of(plan, built_groups(plan.manifest, joints, self._layout, forms))
        return graphs_of(plan, partition(joints, self._layout, forms))

    def open(self, graphs: Sequence[Graph]) -> Engine:
        """An engine that runs `graphs`, in this order, ready for its first caller where it is TensorRT's.

        Raises:
            MissingDependency, EngineIncompatible, EngineBuildError, PlanError: see `open_engine` and `load_engines`.
        """
        if self.engine == "onnxruntime":
            try:
                return open_engine(graphs, device=self._device, threads=self._threads)
            except EngineIncompatible as error:
                if self._asked == self._device:
                    raise
                raise EngineIncompatible(f"precision {self._precision!r} needs a GPU: {error}") from error
        return self._open_built(graphs)

    @property
    def gpu(self) -> Device | None:
        """The device that TensorRT's engines run on, once one was opened; None with ONNX Runtime."""
        return self._gpu

    def close(self) -> None:
        """Let go of the GPU; after its engines."""
        if self._gpu is not None:
            self._gpu.close()

    def _open_built(self, graphs: Sequence[Graph]) -> Engine:
        from graftsdk.engines.cuda import open_device
        from graftsdk.engines.tensorrt import find_library
        from graftsdk.engines.tensorrt_engine import TensorRTEngine
        from graftsdk.engines.trust import Wanted, load_engines

        folder = self._folder
        assert folder is not None  # looked at when this was made
        library = find_library(self._runtime)
        if self._gpu is None:
            self._gpu = open_device()
        wanted = Wanted(self._plan or "PLAN", self._gpu.compute_capability, self._precision, self._layout, self._labels)
        loaded = load_engines(
            graphs,
            folder,
            library,
            wanted,
            trust_engines=self._trust,
            build=None if self._build == "never" else lambda: self._run(wanted.words(library, folder)),
        )
        engine = TensorRTEngine(
            graphs, loaded.contents, library=library, device=self._gpu, names=loaded.names, buckets=loaded.batches
        )
        try:
            engine.warm_up()
        except BaseException:
            engine.close()
            raise
        return engine

    def _run(self, words: Sequence[str]) -> None:
        """Build by the command, in a process of its own: its crash and its memory are not ours."""
        if self._plan is None:
            raise EngineIncompatible("build='auto': expected a plan with a path to build from, found bytes or a file")
        # -P: a folder named graftsdk in the working directory is not the package.
        command = [sys.executable, "-P", "-m", "graftsdk.cli.main", *words[1:]]
        # Our stdout is the caller's, who may be writing JSON to it.
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=_stderr())
        if done.returncode:
            raise EngineBuildError(
                f"building engines: expected exit status 0, found {done.returncode}; its output above says why"
            )


def _stderr() -> int:
    """Descriptor of this process's stderr, for `subprocess`; the null device's stand-in where there is none."""
    with contextlib.suppress(OSError):
        os.fstat(2)
        if sys.__stderr__ is not None:  # else it was closed before we started, and 2 is some other file
            return 2
    return subprocess.DEVNULL
