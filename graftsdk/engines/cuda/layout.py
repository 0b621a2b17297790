"""How an array's elements lie in memory, checked before its address is given to anything."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graftsdk.errors import InputError, LayoutError, ShapeError

__all__ = ["check_layout", "contiguous_strides"]

_LARGEST = 1 << 47  # bytes; what addresses of a process span


def contiguous_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Bytes from one element to the next along each axis in C order."""
    strides = []
    step = itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def check_layout(what: str, shape: Sequence[int], strides: Sequence[int], itemsize: int, ptr: int, layout: str) -> None:
    """Nothing, where the elements lie as asked: "contiguous", "rows" (those of the first axis may lie apart) or "any".

    Raises:
        ShapeError: more bytes than there are addresses.
        LayoutError: other strides, or such as no array of ours may have: elements over one another, or backwards.
        InputError: no address, or one that is not a multiple of an element's size.
    """
    if layout not in ("contiguous", "rows", "any"):
        raise InputError(f"layout: expected 'contiguous', 'rows' or 'any', found {layout!r:.80}")
    if not math.prod(shape):
        return
    if math.prod(shape) * itemsize > _LARGEST or any(abs(stride) > _LARGEST for stride in strides):
        raise ShapeError(f"{what}: expected at most {_LARGEST} bytes, found shape {list(shape)}, strides {strides}")
    if ptr <= 0 or ptr % itemsize:
        raise InputError(f"{what}: expected an address that is a multiple of {itemsize}, found {ptr:#x}")
    dense = contiguous_strides(shape, itemsize)
    apart = [
        axis
        for axis, (size, stride, step) in enumerate(zip(shape, strides, dense, strict=True))
        if size > 1 and stride != step
    ]
    if layout == "contiguous" and apart:
        raise LayoutError(
            f"{what}: expected elements one after another, strides {dense}, found {tuple(strides)}; make a contiguous "
            "copy on its device"
        )
    if layout == "rows" and apart and (apart != [0] or strides[0] < dense[0] or strides[0] % itemsize):
        raise LayoutError(
            f"{what}: expected rows of {dense[0]} bytes, each without gaps, found strides {tuple(strides)}; make a "
            "contiguous copy on its device"
        )
    if layout == "any" and any(shape[axis] > 1 and (strides[axis] <= 0 or strides[axis] % itemsize) for axis in apart):
        raise LayoutError(f"{what}: expected strides forward by whole elements, found {tuple(strides)}; copy it")
