"""What this machine and environment can do, and what is wrong with them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

import graftsdk
from graftsdk._native import cpu_features
from graftsdk.engines import Cache, Graph, default_threads, open_engine
from graftsdk.engines.available import RuntimeState, engines_here
from graftsdk.engines.driver import driver_problem
from graftsdk.engines.threads import cpu_quota
from graftsdk.errors import GraftError
from graftsdk.lifecycle.bits import BitsCheck, check_bits

__all__ = ["CacheState", "DeviceCheck", "Diagnosis", "Duplicate", "Threads", "diagnose"]

_BASE = {  # distribution -> the module that must import
    "numpy": "numpy",
    "opencv-python": "cv2",
    "pillow": "PIL",
    "onnxruntime": "onnxruntime",
    "onnx": "onnx",
    "onnx-ir": "onnx_ir",
    "safetensors": "safetensors",
    "tqdm": "tqdm",
}
_OPTIONAL = (
    "torch",
    "torchvision",
    "onnxscript",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-core",
    "pycuda",
    "openvino",
)
_DEVICES = ("cpu", "cuda")
# Modules that two distributions may claim: the one that is installed last overwrites the other's files.
_CLAIMED = {
    "cv2": "opencv-python",
    "onnxruntime": "onnxruntime",
}


@dataclass(frozen=True)
class Threads:
    """CPUs: of the machine, those in the affinity mask, the control group's quota in CPUs, and what an engine uses."""

    cpus: int
    affinity: int
    quota: float | None
    engine: int


@dataclass(frozen=True)
class DeviceCheck:
    """Whether an engine was opened and run on a device, and what was said where not."""

    device: str
    works: bool
    says: str


@dataclass(frozen=True)
class Duplicate:
    """A module that several installed distributions write, and the commands that put it right."""

    module: str
    distributions: tuple[str, ...]
    repair: str


@dataclass(frozen=True)
class CacheState:
    """The engine cache: where, how much, whether it can be used."""

    path: str
    entries: int
    nbytes: int
    writable: bool
    problem: str | None


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        versions: of graftsdk, Python and the system. packages: distribution -> version, None where it is absent.
        cpu: instruction sets that the native code and ONNX Runtime may use.
        runtimes: what could run a plan on a GPU, and why it cannot.
        bits: the promises about bits; empty where no engine works.
        problems: one line each, with what to do; empty on a sound machine.
    """

    versions: Mapping[str, str]
    packages: Mapping[str, str | None]
    cpu: tuple[str, ...]
    threads: Threads
    devices: tuple[DeviceCheck, ...]
    runtimes: tuple[RuntimeState, ...]
    duplicates: tuple[Duplicate, ...]
    cache: CacheState
    bits: tuple[BitsCheck, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {"ok": self.ok, **asdict(self)}


def diagnose() -> Diagnosis:
    """Look at packages, CPU, devices, cache; open engines on tiny graphs; check the bits. Nothing is changed."""
    duplicates = _duplicates()
    packages = _packages()
    cache = _cache_state()
    devices = tuple(_try_device(device) for device in _DEVICES)
    problems = [
        f"{each.module} is written by {' and '.join(each.distributions)}, the last one installed wins: {each.repair}"
        for each in duplicates
    ]
    problems += _imports()
    cpu, cuda = devices
    if not cpu.works:
        problems.append(f"device cpu: {cpu.says}")
    if not cuda.works and packages.get("onnxruntime-gpu"):
        problems.append(f"device cuda: {cuda.says}")
    runtimes = engines_here()
    if driver_problem() is None:  # elsewhere it is no problem that what needs a GPU does not run
        problems += [
            f"{each.name}: {each.says}" for each in runtimes if not each.works and packages.get(each.name) is not None
        ]
    if cache.problem is not None:
        problems.append(f"engine cache: {cache.problem}")
    bits = check_bits() if cpu.works else ()
    problems += [
        f"bits: {check.promise} does not hold here (difference {check.difference:.1e}); scores of a label may move "
        f"by that much when others are added; use a released onnxruntime"
        for check in bits
        if not check.holds
    ]
    versions = {
        "graftsdk": graftsdk.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip() or "not glibc",
    }
    return Diagnosis(
        versions,
        packages,
        tuple(cpu_features()),
        _threads(),
        devices,
        runtimes,
        duplicates,
        cache,
        bits,
        tuple(problems),
    )


def _packages() -> dict[str, str | None]:
    """Version by distribution: ours, those that stand in for them (headless, gpu), and the optional ones."""
    claimed = [name for names in _claims().values() for name in names]
    found: dict[str, str | None] = {}
    for name in dict.fromkeys((*_BASE, *claimed, *_OPTIONAL)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    for module, names in _claims().items():  # opencv-python-headless serves as well as opencv-python
        if names and _CLAIMED[module] not in names:
            del found[_CLAIMED[module]]
    return found


def _claims() -> dict[str, tuple[str, ...]]:
    """Module -> the distributions that write it."""
    found = metadata.packages_distributions()
    return {module: tuple(sorted(set(found.get(module, ())))) for module in _CLAIMED}


def _duplicates() -> tuple[Duplicate, ...]:
    return tuple(
        Duplicate(module, names, f"pip uninstall -y {' '.join(names)} && pip install {_wanted(names, module)}")
        for module, names in _claims().items()
        if len(names) > 1
    )


def _wanted(names: tuple[str, ...], module: str) -> str:
    return "onnxruntime-gpu" if "onnxruntime-gpu" in names else _CLAIMED[module]


def _imports() -> list[str]:
    """What does not import, of what the base install needs; ONNX Runtime is tried by its devices."""
    problems = []
    for distribution, module in _BASE.items():
        if module == "onnxruntime":
            continue
        try:
            import_module(module)
        except (ImportError, OSError) as error:
            problems.append(f"{module} does not import ({error}); pip install {distribution}")
    return problems


def _threads() -> Threads:
    return Threads(os.cpu_count() or 1, len(os.sched_getaffinity(0)), cpu_quota(), default_threads())


def _try_device(device: str) -> DeviceCheck:
    """Open the smallest graph there is on a device, and run it."""
    try:
        with open_engine([_relu()], device=device, threads=1, cache=False) as engine:
            values = engine.run({"x": np.array([[-1.0, 2.0]], np.float32)})
    except GraftError as error:
        return DeviceCheck(device, False, str(error))
    if values["y"].tolist() != [[0.0, 2.0]]:
        return DeviceCheck(device, False, f"Relu of [-1, 2]: expected [0, 2], found {values['y'].tolist()}")
    return DeviceCheck(device, True, "")


def _relu() -> Graph:
    """The graph y = Relu(x), float32[n, 2]."""

    def load() -> tuple[bytes, Mapping[str, np.ndarray]]:
        from onnx import TensorProto, helper

        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return model.SerializeToString(), {}

    return Graph(key="0" * 64, inputs={"x": "x"}, outputs=("y",), load=load)


def _cache_state() -> CacheState:
    cache = Cache()
    path = str(cache.root)
    try:
        entries = cache.ls()
    except (GraftError, OSError) as error:
        return CacheState(path, 0, 0, False, str(error))
    damaged = [entry for entry in entries if entry.problem is not None]
    writable = _writable(cache.root)
    problem = None
    if not writable:
        problem = (
            f"{path} cannot be written: graphs are compiled at each start; set XDG_CACHE_HOME to a folder of yours"
        )
    elif damaged:
        problem = f"{len(damaged)} of {len(entries)} entries are damaged ({damaged[0].problem}): graftsdk cache verify"
    return CacheState(path, len(entries), sum(entry.size for entry in entries), writable, problem)


def _writable(root: Path) -> bool:
    """Whether an entry could be made there: the folder, or the first folder above it that exists."""
    while not root.exists() and root != root.parent:
        root = root.parent
    return os.access(root, os.W_OK | os.X_OK)
