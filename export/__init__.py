"""Checkpoints -> ONNX parts -> plan -> TensorRT engines. Importing this package loads nothing heavy.

Everything but `build_engine` needs torch, the extra `[export]`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graftsdk.errors import MissingDependency

if TYPE_CHECKING:
    from graftsdk.export.build import BuildReport, build_engine
    from graftsdk.export.plan import ExportReport, export_branch, export_parts, export_plan, export_trunk

__all__ = [
    "BuildReport",
    "ExportReport",
    "build_engine",
    "export_branch",
    "export_parts",
    "export_plan",
    "export_trunk",
]

_BUILDING = ("BuildReport", "build_engine")
_EXTRA = ("torch", "torchvision", "onnxscript")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'graftsdk.export' has no attribute {name!r}")
    try:
        home = "build" if name in _BUILDING else "plan"
        value = getattr(import_module(f"graftsdk.export.{home}"), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise MissingDependency(f"exporting needs {package}: pip install 'graftsdk[export]'") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
