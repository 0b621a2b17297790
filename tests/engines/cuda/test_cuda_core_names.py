"""Every name and argument of cuda.core and cuda.bindings that is used, compared with the packages as installed."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest

from graftsdk.engines.cuda.driver_errors import KNOWN

CALLS: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("cuda.core", "Device.set_current", ("self",), {}),
    ("cuda.core", "Device.allocate", ("self", 1), {"stream": 0}),
    ("cuda.core", "Device.create_stream", ("self",), {"options": 0}),
    ("cuda.core", "Device.create_event", ("self",), {"options": 0}),
    ("cuda.core", "LegacyPinnedMemoryResource.allocate", ("self", 1), {}),
    ("cuda.core", "Buffer.close", ("self", 0), {}),
    ("cuda.core", "Buffer.from_handle", (1, 1), {"owner": 0}),
    ("cuda.core", "Stream.from_handle", (1,), {}),
    ("cuda.core", "Stream.wait", ("self", 0), {}),
    ("cuda.core", "Stream.record", ("self", 0), {}),
    ("cuda.core", "Stream.sync", ("self",), {}),
    ("cuda.core", "Stream.close", ("self",), {}),
    ("cuda.core", "Stream.create_graph_builder", ("self",), {}),
    ("cuda.core", "Event.sync", ("self",), {}),
    ("cuda.core", "Event.close", ("self",), {}),
    ("cuda.core.graph", "GraphBuilder.begin_building", ("self", "thread_local"), {}),
    ("cuda.core.graph", "GraphBuilder.end_building", ("self",), {}),
    ("cuda.core.graph", "GraphBuilder.complete", ("self",), {}),
    ("cuda.core.graph", "GraphBuilder.close", ("self",), {}),
    ("cuda.core.graph", "Graph.launch", ("self", 0), {}),
    ("cuda.core.graph", "Graph.close", ("self",), {}),
    ("cuda.core", "ObjectCode.from_cubin", (b"",), {}),
    ("cuda.core", "ObjectCode.get_kernel", ("self", "name"), {}),
    ("cuda.core", "launch", (0, 0, 0, 1, 2, 3), {}),
    ("cuda.core.utils", "StridedMemoryView.from_dlpack", (0, 1), {}),
    ("cuda.core.utils", "StridedMemoryView.from_buffer", (0, (1,), (1,)), {"dtype": 0, "is_readonly": False}),
    ("cuda.core.utils", "StridedMemoryView.__dlpack__", ("self",), {"max_version": None}),
    ("cuda.bindings.driver", "cuInit", (0,), {}),
    ("cuda.bindings.driver", "cuDriverGetVersion", (), {}),
    ("cuda.bindings.driver", "cuDeviceGetCount", (), {}),
    ("cuda.bindings.driver", "cuDevicePrimaryCtxRetain", (0,), {}),
    ("cuda.bindings.driver", "cuCtxPushCurrent", (0,), {}),
    ("cuda.bindings.driver", "cuCtxPopCurrent", (), {}),
    ("cuda.bindings.driver", "cuCtxSynchronize", (), {}),
    ("cuda.bindings.driver", "cuMemGetInfo", (), {}),
    ("cuda.bindings.driver", "cuMemPoolTrimTo", (0, 0), {}),
    ("cuda.bindings.driver", "cuMemcpyAsync", (0, 0, 1, 0), {}),
    ("cuda.bindings.driver", "cuMemsetD8Async", (0, 0, 1, 0), {}),
    ("cuda.bindings.driver", "cuPointerGetAttribute", (0, 1), {}),
]
PROPERTIES = [
    ("cuda.core", "Device", ("name", "compute_capability", "memory_resource")),
    ("cuda.core", "DeviceMemoryResource", ("handle",)),
    ("cuda.core", "Buffer", ("handle",)),
    ("cuda.core", "Stream", ("handle",)),
    ("cuda.core", "Event", ("is_done", "__sub__")),
    ("cuda.core", "ObjectCode", ("handle", "code")),
    ("cuda.core.utils", "StridedMemoryView", ("ptr", "shape", "strides", "dtype", "readonly")),
]


def installed(module: str, name: str) -> Any:
    pytest.importorskip("cuda.core")
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("module", "name", "args", "options"), CALLS, ids=lambda value: str(value)[:40])
def test_calls_fit_the_installed_package(
    module: str, name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    inspect.signature(installed(module, name)).bind(*args, **options)


def test_what_needs_no_driver_is_made() -> None:
    assert installed("cuda.core", "StreamOptions")(nonblocking=True).nonblocking is True
    assert installed("cuda.core", "EventOptions")(timing_enabled=True).timing_enabled is True
    config = installed("cuda.core", "LaunchConfig")(grid=(2, 3, 4), block=(5, 6, 7), shmem_size=8)
    assert (config.grid, config.block, config.shmem_size) == ((2, 3, 4), (5, 6, 7), 8)


@pytest.mark.parametrize(("module", "name", "attributes"), PROPERTIES)
def test_properties_are_there(module: str, name: str, attributes: tuple[str, ...]) -> None:
    found = installed(module, name)
    assert [attribute for attribute in attributes if not hasattr(found, attribute)] == []


def test_every_error_that_is_known_is_one_of_the_drivers() -> None:
    results = installed("cuda.bindings.driver", "CUresult").__members__
    runtime = installed("cuda.bindings.runtime", "cudaError_t").__members__
    absent = {name for name in KNOWN if f"CUDA_ERROR_{name}" not in results}
    assert absent == {"INSUFFICIENT_DRIVER"} and "cudaErrorInsufficientDriver" in runtime
