"""Device memory and kernels behind one small protocol, for cuda.core, pycuda and machines without a GPU.

Importing this package loads the standard library only; the packages of a GPU are imported when a device is opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftsdk.engines.cuda.interop import DeviceArray, as_device_array
    from graftsdk.engines.cuda.probe import device_problem, open_device
    from graftsdk.engines.cuda.protocol import Device
    from graftsdk.engines.cuda.resources import DeviceBuffer, DeviceSpan, Event, Graph, HostBuffer, Module, Stream

__all__ = [
    "Device",
    "DeviceArray",
    "DeviceBuffer",
    "DeviceSpan",
    "Event",
    "Graph",
    "HostBuffer",
    "Module",
    "Stream",
    "as_device_array",
    "device_problem",
    "open_device",
]

_HOMES = {
    "Device": "protocol",
    "DeviceArray": "interop",
    "DeviceBuffer": "resources",
    "DeviceSpan": "resources",
    "Event": "resources",
    "Graph": "resources",
    "HostBuffer": "resources",
    "Module": "resources",
    "Stream": "resources",
    "as_device_array": "interop",
    "device_problem": "probe",
    "open_device": "probe",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'graftsdk.engines.cuda' has no attribute {name!r}")
    value = getattr(import_module(f"graftsdk.engines.cuda.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
