"""A machine with a GPU and TensorRT that there is not: the host device, the stand-in for the library, built engines.

Kernels are the CUDA source compiled for the host (tests/engines/kernels). Used by tests of a predictor on TensorRT.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

ENGINES = Path(__file__).parent / "engines"
sys.path.insert(0, str(ENGINES))

from fake_tensorrt import FakeTensorRT, engine_bytes  # noqa: E402

from graftsdk.engines import Graph, cuda, tensorrt  # noqa: E402
from graftsdk.engines.cuda.host import HostDevice  # noqa: E402
from graftsdk.engines.cuda.kernels import NAMES  # noqa: E402
from graftsdk.engines.feeds import Port  # noqa: E402
from graftsdk.engines.layout import built_groups, graphs_of, segmenter_graph  # noqa: E402
from graftsdk.engines.record import EngineRecord, Profile, engine_name, write_record  # noqa: E402
from graftsdk.engines.tensorrt import Library  # noqa: E402
from graftsdk.engines.trust import remember_built  # noqa: E402
from graftsdk.graft import joints_of  # noqa: E402
from graftsdk.plan import open_plan  # noqa: E402

CAPABILITY = "8.9"
BATCHES = (1, 4, 8)

_spec = importlib.util.spec_from_file_location("kernels_conftest", ENGINES / "kernels" / "conftest.py")
assert _spec is not None and _spec.loader is not None
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)
library = _conftest.library  # a fixture: the kernels, compiled


def kernels_of(compiled: ctypes.CDLL) -> dict[str, Any]:
    """Name -> the kernel on the host."""
    return {name: getattr(compiled, f"host_{name}") for name in NAMES}


class Machine:
    """The GPU.

    Attributes:
        device: where everything happens. fake: the library. copies: (kind, bytes) of every copy.
    """

    def __init__(self, kernels: Mapping[str, Any], patch: pytest.MonkeyPatch, *, name: str = "tensorrt") -> None:
        self._kernels = kernels
        self.copies: list[tuple[str, int]] = []
        self.device = self._new_device()
        self.fake = FakeTensorRT(self.device)
        lines: Any = []
        self.library = Library(name, self.fake.__version__, self.fake, None, lines)
        self.library.logger = tensorrt._make_logger(self.fake, lines)
        patch.setattr(tensorrt, "driver_problem", lambda: None)
        patch.setattr(tensorrt, "find_library", lambda runtime=None: self.library)
        patch.setattr(cuda, "open_device", self.open_device)

    def open_device(self, index: int = 0, kind: str | None = None) -> HostDevice:
        """The device; a new one where it was closed with the predictor that had it."""
        if self.device._closed:
            self.device = self.fake.device = self._new_device()
        return self.device

    def _new_device(self) -> HostDevice:
        device = HostDevice(self._kernels, memory=1 << 30, compute_capability=CAPABILITY)
        enqueue = device._memcpy

        def memcpy(kind: str, dst: int, src: int, nbytes: int, stream: Any, host: object) -> None:
            self.copies.append((kind, nbytes))
            enqueue(kind, dst, src, nbytes, stream, host)

        device._memcpy = memcpy  # type: ignore[method-assign]
        return device

    def build(
        self, plan: Path, folder: Path | None = None, *, layout: str = "merged", labels: Sequence[str] | None = None,
        remember: bool = True, batches: Sequence[int] = BATCHES, version: str | None = None,
    ) -> Path:  # fmt: skip
        """What `graftsdk build` would leave of a plan, for this machine; the folder."""
        folder = folder or plan.with_name(f"{plan.stem}.engines")
        folder.mkdir(mode=0o755, exist_ok=True)
        with open_plan(plan) as opened:
            manifest = opened.manifest
            joints = joints_of(manifest, labels)
            for group, graph in zip(
                groups := built_groups(manifest, joints, layout), graphs_of(opened, groups), strict=True
            ):
                role = "merged" if layout == "merged" else "trunk" if group.trunks else "branch"
                self._store(graph, role, folder, batches, remember, version)
            if manifest.segmenter is not None:
                self._store(segmenter_graph(opened), "segmenter", folder, (1,), remember, version)
        return folder

    def _store(
        self, graph: Graph, role: str, folder: Path, batches: Sequence[int], remember: bool, version: str | None
    ) -> None:
        model = whole(*graph.load())
        fixed = model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")
        profiles = [] if fixed else [(1, each, each) for each in batches]
        content = engine_bytes(model, profiles, version=self.fake.__version__)
        record = EngineRecord(
            role=role, graph=graph.key, plan="a" * 64, labels=(), parts={"part": ("b" * 64, "float32")},
            runtime=self.library.name, version=version or self.fake.__version__, targets=(CAPABILITY,),
            precision="float32", batches=tuple(batches), profiles=tuple(Profile(*each) for each in profiles),
            inputs=_ports(model.graph.input), outputs=_ports(model.graph.output),
            file=f"{engine_name(role, graph.key)}.engine", size=len(content),
            sha256=hashlib.sha256(content).hexdigest(), seconds=1.0, peak_bytes=1, when="2026-11-27T06:00:00Z",
        )  # fmt: skip
        (folder / record.file).write_bytes(content)
        (folder / record.file).chmod(0o644)
        write_record(record, folder).chmod(0o644)
        if remember:
            remember_built(record)


def whole(content: bytes, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A graph with its big initialisers inside."""
    model = onnx.ModelProto.FromString(content)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.DEFAULT
            tensor.raw_data = np.ascontiguousarray(weights[tensor.name]).tobytes()
    return model


def _ports(infos: Any) -> tuple[Port, ...]:
    found = []
    for info in infos:
        sides = info.type.tensor_type.shape.dim
        shape = tuple(side.dim_value if side.HasField("dim_value") else None for side in sides)
        found.append(Port(info.name, np.dtype("float32"), shape))
    return tuple(found)
