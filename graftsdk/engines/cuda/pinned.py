"""Memory that another library allocated, as an array."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

__all__ = ["array_at"]


def array_at(address: int, nbytes: int, owner: object = None) -> np.ndarray:
    """uint8[nbytes] on the memory at `address`; `owner`, which keeps it, lives as long as the array and its views."""
    memory: Any = (ctypes.c_uint8 * nbytes).from_address(address)
    memory.owner = owner
    return np.frombuffer(memory, np.uint8)
