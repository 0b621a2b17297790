"""Arguments of copies and launches, checked before a driver sees them."""

from __future__ import annotations

from typing import Any

import numpy as np

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError, LayoutError, ShapeError

__all__ = ["fitting", "host_block", "kernel_argument", "three_sizes"]

LARGEST = 1 << 62  # bytes; what a 64-bit size can hold with room for our own sums


def fitting(doing: str, nbytes: int, room: int) -> int:
    """The size of a copy, where the memory holds as much.

    Raises:
        InputError: no size; its leaf ShapeError: too large a one.
    """
    if type(nbytes) is int and 0 <= nbytes <= room:  # nearly always; the words of the other cases cost time
        return nbytes
    size = whole_number(f"{doing}: nbytes", nbytes, 0, LARGEST)
    if size > room:
        raise ShapeError(f"{doing}: expected at most {room} bytes, which the memory holds, found {size}")
    return size


def host_block(what: str, memory: Any, *, writable: bool) -> tuple[int, int]:
    """Address and size of the host's side of a copy.

    Raises:
        InputError: neither an array nor a HostBuffer, or read-only where it is written.
        LayoutError: the array's elements do not lie one after another.
    """
    array = memory if isinstance(memory, np.ndarray) else getattr(memory, "array", None)
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise InputError(f"{what}: expected a HostBuffer or an array of numbers, found {type(memory).__name__}")
    if not array.flags.c_contiguous:
        raise LayoutError(f"{what}: expected a C-contiguous array, found strides {array.strides}; copy it first")
    if writable and not array.flags.writeable:
        raise InputError(f"{what}: expected a writable array, found a read-only one")
    return array.__array_interface__["data"][0], array.nbytes


def three_sizes(what: str, numbers: tuple[int, ...], high: int) -> tuple[int, int, int]:
    """The sizes of a grid or block, those that are not given as 1.

    Raises:
        InputError: no sizes; its leaf ShapeError: none, or more than three.
    """
    if not isinstance(numbers, tuple) or not 1 <= len(numbers) <= 3:
        raise ShapeError(f"launch: {what}: expected 1 to 3 whole numbers, found {numbers!r:.80}")
    sizes = [
        number if type(number) is int and 1 <= number <= high else whole_number(f"launch: {what}", number, 1, high)
        for number in numbers
    ]
    x, y, z = sizes + [1] * (3 - len(sizes))
    return x, y, z


def kernel_argument(name: str, index: int, value: Any, device: object) -> int | np.generic:
    """The argument as a kernel is given it: an address, or a value of C's size.

    Raises:
        InputError: anything else.
    """
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value
    if type(value) is int and 0 <= value < 1 << 64:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return whole_number(f"{name}: argument {index}, an address", value, 0, (1 << 64) - 1)
    if getattr(value, "device", None) is device and hasattr(value, "ptr"):
        return int(value.ptr)
    raise InputError(
        f"{name}: argument {index}: expected device memory, an int (an address) or a NumPy scalar (a value), "
        f"found {type(value).__name__}; write, for one, np.float32(0.5)"
    )
