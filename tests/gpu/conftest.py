"""Devices, kernels and runtimes of a GPU; a test whose own is not here is skipped, with why. See gpu_stand_ins.py."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from graftsdk.engines.cuda.kernels import Kernels
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.driver import driver_problem
from graftsdk.errors import EngineError, GraftError, MissingDependency

HERE = Path(__file__).resolve().parent
ENGINES = HERE.parent / "engines"
for folder in (HERE, ENGINES, ENGINES / "kernels", HERE.parent, HERE.parent / "export"):
    sys.path.insert(0, str(folder))

DRY = os.environ.get("GRAFTSDK_GPU_DRY") == "1"

_spec = importlib.util.spec_from_file_location("graft_kernels_conftest", ENGINES / "kernels" / "conftest.py")
assert _spec is not None and _spec.loader is not None
_kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_kernels)
library = _kernels.library  # the kernels compiled for the host; for a dry run only


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without a driver there is one reason for all of them."""
    trouble = driver_problem()
    if item.get_closest_marker("gpu") and HERE in item.path.parents and trouble is not None and not DRY:
        pytest.skip(trouble)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """The first GPU."""
    from graftsdk.engines.cuda import open_device
    from graftsdk.engines.cuda.host import HostDevice

    if DRY:
        from fake_gpu import kernels_of

        with HostDevice(kernels_of(request.getfixturevalue("library"))) as host:
            yield host
        return
    try:
        opened = open_device()
    except (EngineError, MissingDependency) as error:
        pytest.skip(str(error))
    with opened:
        yield opened


@pytest.fixture(scope="session")
def kernels(device: Device) -> Iterator[Kernels]:
    """The package's kernels on it, compiled by NVRTC."""
    try:
        loaded = Kernels(device)
    except MissingDependency as error:
        pytest.skip(str(error))
    with loaded:
        yield loaded


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Writes down what a test measured or counted; prepare.py puts it into the results."""
    return lambda text: record_property("note", text)


@pytest.fixture
def onnxruntime_cuda(record_property: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's CUDA provider works here."""
    from graftsdk.engines.onnxruntime import cuda_problem

    record_property("runtime", "onnxruntime cuda")
    if DRY:
        import gpu_stand_ins as stand_ins

        stand_ins.onnxruntime_on_a_gpu(monkeypatch.setattr)
    trouble = cuda_problem()
    if trouble is not None:
        pytest.skip(trouble)


@dataclass(frozen=True)
class TensorRT:
    """A library of the family that runs engines here.

    Attributes:
        name: "tensorrt" or "tensorrt_rtx". capability: of the GPU. targets: what it builds for; empty: this GPU only.
        dry: whether it is a stand-in.
    """

    name: str
    capability: str
    targets: tuple[str, ...]
    dry: bool = False

    def build(self, plan: Path, folder: Path, **options: Any) -> Any:
        """`build_engine` for this GPU; batches 1 and 4 where nothing else is said."""
        from graftsdk.export import build_engine

        options.setdefault("batches", (1, 4))
        return build_engine(plan, targets=(self.capability,), runtime=self.name, output=folder, **options)

    def predictor(self, plan: Path, folder: Path, **options: Any) -> Any:
        """A Predictor on the engines in `folder`."""
        from graftsdk import Predictor

        return Predictor(plan, device="cuda", engine="tensorrt", runtime=self.name, engines=folder, **options)


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def trt(
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> TensorRT:
    """TensorRT works here and has a target for this GPU."""
    record_property("runtime", request.param.replace("_", "-"))
    if DRY:
        import gpu_stand_ins as stand_ins

        kernels = stand_ins.kernels_of(request.getfixturevalue("library"))
        library = stand_ins.tensorrt_on_a_gpu(monkeypatch.setattr, request.param, kernels)
        return TensorRT(request.param, stand_ins.CAPABILITY, library.targets, dry=True)
    trouble = _tensorrt_problem(request.param)
    if trouble is not None:
        pytest.skip(trouble)
    from graftsdk.engines.driver import gpu_capabilities
    from graftsdk.engines.tensorrt import find_library

    return TensorRT(request.param, gpu_capabilities()[0], find_library(request.param).targets)


@cache
def _tensorrt_problem(name: str) -> str | None:
    from graftsdk.engines.available import engines_here

    try:
        state = next(each for each in engines_here() if each.name == name.replace("_", "-"))
    except GraftError as error:
        return str(error)
    return None if state.works else state.says
