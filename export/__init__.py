"""Checkpoints -> ONNX parts -> plan. Importing this package loads nothing heavy; its names need `[export]`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graftsdk.errors import MissingDependency

if TYPE_CHECKING:
    from graftsdk.export.plan import ExportReport, export_branch, export_parts, export_plan, export_trunk

__all__ = ["ExportReport", "export_branch", "export_parts", "export_plan", "export_trunk"]

_EXTRA = ("torch", "torchvision", "onnxscript")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'graftsdk.export' has no attribute {name!r}")
    try:
        value = getattr(import_module("graftsdk.export.plan"), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise MissingDependency(f"exporting needs {package}: pip install 'graftsdk[export]'") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
