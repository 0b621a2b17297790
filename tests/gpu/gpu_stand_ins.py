"""Stand-ins for what only a machine with a GPU has, so that the GPU tests themselves can be tried without one.

    GRAFTSDK_GPU_DRY=1 python -m pytest tests/gpu

Device memory is the host's, kernels are compiled for the host, ONNX Runtime's CPU provider says that it is another, and
engines are those of tests/engines/fake_tensorrt.py. What passes so shows that the tests run, and nothing of a GPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fake_gpu import CAPABILITY, kernels_of, whole
from fake_tensorrt import FakeTensorRT, engine_bytes
from test_providers import Claims

from graftsdk.engines import Graph, cuda, tensorrt
from graftsdk.engines import onnxruntime as runtime
from graftsdk.engines.cuda.host import HostDevice
from graftsdk.engines.cuda.kernels import kernel_source
from graftsdk.engines.feeds import Port
from graftsdk.engines.layout import built_groups, graphs_of, segmenter_graph
from graftsdk.engines.providers import CPU, CUDA, TENSORRT
from graftsdk.engines.record import EngineRecord, Profile, write_record
from graftsdk.engines.tensorrt import Library
from graftsdk.engines.trust import remember_built
from graftsdk.export import build as building
from graftsdk.export import engine_list
from graftsdk.files import atomic_write
from graftsdk.graft import joints_of
from graftsdk.plan import Plan, open_plan

__all__ = ["CAPABILITY", "compiled_kernels", "onnxruntime_on_a_gpu", "tensorrt_on_a_gpu"]

_KERNELS = Path(__file__).parents[1] / "engines" / "kernels"
_VERSION = "11.4.0"  # the stand-in's
_Set = Callable[..., None]  # monkeypatch.setattr


def onnxruntime_on_a_gpu(setattr: _Set) -> None:
    """ONNX Runtime with a CUDA and a TensorRT provider, both the CPU's."""
    original = onnxruntime.InferenceSession

    def session(content: Any, settings: Any, *, providers: list[Any], **options: Any) -> Claims:
        names = [each if isinstance(each, str) else each[0] for each in providers]
        return Claims(original(content, settings, providers=[CPU], **options), names)

    setattr(onnxruntime, "InferenceSession", session)
    setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    setattr(runtime, "_BOUND_ON", "cpu")
    setattr(cuda, "open_device", HostDevice)


def compiled_kernels(folder: Path) -> dict[str, Any]:
    """The package's kernels for the host, outside of pytest; as tests/engines/kernels/conftest.py compiles them."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise RuntimeError("a dry run needs a C++ compiler; install g++")
    (folder / "mask_crop.cu").write_bytes(kernel_source())
    words = [compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-Wno-unknown-pragmas", "-shared", "-fPIC", "-pthread"]
    words += [f"-I{folder}", str(_KERNELS / "host_kernels.cpp"), "-o", str(folder / "kernels.so")]
    subprocess.run(words, check=True, timeout=100)
    return kernels_of(ctypes.CDLL(str(folder / "kernels.so")))


def tensorrt_on_a_gpu(setattr: _Set, name: str, kernels: Mapping[str, Any]) -> Library:
    """The library of that name, with a GPU of `CAPABILITY`; `build_engine` makes engines for it."""
    fake = _Machine(kernels)
    lines: Any = []
    library = Library(name, _VERSION, fake, None, lines)
    library.logger = tensorrt._make_logger(fake, lines)
    for module in (tensorrt, building, engine_list):
        setattr(module, "driver_problem", lambda: None)
    for module in (tensorrt, engine_list):
        setattr(module, "gpu_capabilities", lambda: (CAPABILITY,))
    for module in (tensorrt, building):
        setattr(module, "find_library", lambda runtime=None: library)
    setattr(building, "_build", _build)
    setattr(cuda, "open_device", fake.open_device)
    return library


class _Machine(FakeTensorRT):
    """The stand-in for the library, over all devices that were opened."""

    def __init__(self, kernels: Mapping[str, Any]) -> None:
        super().__init__(HostDevice(memory=1 << 30))
        self.devices: list[HostDevice] = []
        self._kernels = kernels

    def open_device(self, index: int = 0, kind: str | None = None) -> HostDevice:
        self.devices.append(HostDevice(self._kernels, memory=1 << 30, compute_capability=CAPABILITY))
        return self.devices[-1]

    def submit(self, stream: int, work: Callable[[], None]) -> None:
        device = self._of(stream)
        device.queues.put(device._handles[stream].queue, work)

    def capturing(self, stream: int) -> bool:
        return self._of(stream)._handles[stream].queue.recording is not None

    def check(self, address: int, nbytes: int) -> None:
        for device in self.devices:
            device.memory.check(address, nbytes)

    def _of(self, stream: int) -> HostDevice:
        return next(device for device in self.devices if stream in device._handles)


def _build(job: Any, records: Sequence[EngineRecord], folder: Path, progress: bool) -> Iterator[EngineRecord]:
    """In place of the child process: each graph as an engine of the stand-in."""
    with open_plan(job.plan) as plan:
        graphs = {graph.key: graph for graph in _graphs(plan, job)}
        for record in records:
            model = whole(*graphs[record.graph].load())
            fixed = model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")
            least, best, most = job.batches[0], job.batches[len(job.batches) // 2], job.batches[-1]
            profiles = [] if fixed else [(least, best, most)]
            content = engine_bytes(model, profiles, version=_VERSION)
            with atomic_write(folder / record.file) as out:
                out.write(content)
            (folder / record.file).chmod(0o644)
            made = replace(
                record, profiles=tuple(Profile(*each) for each in profiles), inputs=_ports(model.graph.input),
                outputs=_ports(model.graph.output), size=len(content), sha256=hashlib.sha256(content).hexdigest(),
                seconds=0.1, peak_bytes=1, when="2026-01-01T00:00:00Z",
            )  # fmt: skip
            remember_built(made)
            write_record(made, folder).chmod(0o644)
            yield made


def _graphs(plan: Plan, job: Any) -> list[Graph]:
    joints = joints_of(plan.manifest, job.labels)
    forms = None if job.precision == "float32" else plan.manifest.forms(job.precision)
    found = graphs_of(plan, built_groups(plan.manifest, joints, job.layout, forms))
    return found + ([segmenter_graph(plan)] if plan.manifest.segmenter is not None else [])


def _ports(infos: Any) -> tuple[Port, ...]:
    found = []
    for info in infos:
        kind = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        sides = info.type.tensor_type.shape.dim
        shape = tuple(side.dim_value if side.HasField("dim_value") else None for side in sides)
        found.append(Port(info.name, np.dtype(kind), shape))
    return tuple(found)
