"""Arrays that are fed to an engine: checked against what the compiled graph says, and cut into batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graftsdk.errors import DTypeError, InputError, ShapeError

__all__ = ["Port", "batch_of", "check_feed", "chunk_sizes", "on_device"]


@dataclass(frozen=True)
class Port:
    """An input or output of a compiled graph. A dimension is None where any size fits; the first is the batch."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join('n' if size is None else str(size) for size in self.shape)}]"


def check_feed(name: str, array: object, port: Port) -> np.ndarray:
    """`array`, C-contiguous and aligned, if it has the port's dtype, rank and fixed dimensions (any batch size).

    Raises:
        DTypeError: another dtype or byte order: ONNX Runtime reads big-endian numbers as garbage, without an error.
        ShapeError: another rank or size.
        InputError: not a numpy array.
    """
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise InputError(f"feed {name!r}: expected a numpy array {port}, found {type(array).__name__}")
    if array.dtype != port.dtype or not array.dtype.isnative:
        raise DTypeError(f"feed {name!r}: expected {port} in native byte order, found dtype {array.dtype.str}")
    if array.ndim != len(port.shape) or any(
        expected not in (None, found) for expected, found in zip(port.shape[1:], array.shape[1:], strict=True)
    ):
        raise ShapeError(f"feed {name!r}: expected {port}, found shape {array.shape}")
    return np.require(array, requirements=["C", "A", "E"])


def batch_of(feeds: Mapping[str, np.ndarray]) -> int:
    """The batch size that all feeds have.

    Raises:
        ShapeError: they have several.
    """
    sizes = {name: len(array) for name, array in feeds.items()}
    if len(set(sizes.values())) != 1:
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ShapeError(f"feeds: expected one batch size, found {found}")
    return next(iter(sizes.values()))


def chunk_sizes(batch: int, max_batch: int, fixed: Iterable[int]) -> list[int]:
    """`batch` as a sum, without padding: powers of two at most `max_batch`, largest first (5 = 4 + 1).

    Few sizes keep few memory patterns in the runtime. Graphs with a batch size of their own (`fixed`) get that one.

    Raises:
        ShapeError: the batch is no multiple of the graphs' own size, or they have several.
    """
    own = set(fixed)
    if len(own) > 1:
        raise ShapeError(f"outputs: expected graphs of one batch size, found {sorted(own)}; ask for them in two runs")
    if own:
        size = own.pop()
        if batch % size:
            raise ShapeError(f"feeds: expected a batch that is a multiple of the graph's own {size}, found {batch}")
        return [size] * (batch // size)
    sizes, size = [], 1 << (max_batch.bit_length() - 1)
    while batch:
        if batch >= size:
            sizes.append(size)
            batch -= size
        else:
            size //= 2
    return sizes


def on_device(value: object) -> bool:
    """Whether a feed is an array that may lie on a device; NumPy's never does."""
    known = hasattr(value, "__dlpack__") or hasattr(value, "__cuda_array_interface__")
    return known and not isinstance(value, np.ndarray)
