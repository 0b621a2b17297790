"""A part: one ONNX subgraph without its weights, the weights beside it, and the digest that names both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from graftsdk.plan.strict_json import dump_json

__all__ = ["EXTERNAL_BYTES", "Part", "dtype_name", "numpy_dtype"]

# Smaller initialisers stay inside the graph: ONNX Runtime must read shape tensors while it loads.
EXTERNAL_BYTES = 1024

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(text): name for name, text in _DTYPES.items()}


@dataclass(frozen=True, eq=False)
class Part:
    """A trunk, branch or segmenter as it lies in a plan.

    Attributes:
        role: "trunk", "branch" or "segmenter".
        graph: ONNX bytes without the initialisers in `tensors`.
        tensors: initialiser name -> read-only array, every initialiser of 1 KiB and more.
    """

    role: str
    graph: bytes
    tensors: Mapping[str, np.ndarray[Any, Any]]

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """SHA-256 of the graph (under "") and of every tensor's bytes."""
        found = {"": hashlib.sha256(self.graph).hexdigest()}
        for name, array in self.tensors.items():
            found[name] = hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
        return MappingProxyType(found)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) over role, graph and every tensor's name, dtype, shape and bytes."""
        return part_digest(
            self.role,
            self.hashes[""],
            {name: (dtype_name(array.dtype), array.shape, self.hashes[name]) for name, array in self.tensors.items()},
        )

    @property
    def name(self) -> str:
        """The first 16 hex digits of the digest."""
        return self.digest[:16]

    @property
    def nbytes(self) -> int:
        """Bytes of the graph and of all tensors."""
        return len(self.graph) + sum(array.nbytes for array in self.tensors.values())


def part_digest(role: str, graph_sha256: str, tensors: Mapping[str, tuple[str, tuple[int, ...], str]]) -> str:
    """The digest of a part from the digests of its pieces: tensors by name as (dtype, shape, SHA-256)."""
    listed = {name: [dtype, list(shape), sha256] for name, (dtype, shape, sha256) in tensors.items()}
    text = dump_json({"role": role, "graph": graph_sha256, "tensors": listed})
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The format's name of a dtype, "F32". Raises KeyError for one that no plan can hold, big-endian ones too."""
    return _NAMES[dtype]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The dtype behind the format's name."""
    return np.dtype(_DTYPES[name])
