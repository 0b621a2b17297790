"""The optional packages of this folder, each with the line that installs it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from graftsdk.errors import MissingDependency

__all__ = ["parquet", "pyarrow", "ray", "ray_data"]


def pyarrow() -> Any:
    """The package pyarrow. Raises MissingDependency."""
    return _package("pyarrow", "batch")


def parquet() -> Any:
    """The module pyarrow.parquet. Raises MissingDependency."""
    return _package("pyarrow.parquet", "batch")


def ray() -> Any:
    """The package ray. Raises MissingDependency."""
    return _package("ray", "ray")


def ray_data() -> Any:
    """The module ray.data. Raises MissingDependency."""
    return _package("ray.data", "ray")


def _package(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependency(
            f'expected the package {name.partition(".")[0]}, found {error}; pip install "graftsdk[{extra}]"'
        ) from error
