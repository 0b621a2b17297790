"""The fingerprint of a trunk: a SHA-256 chain, one link a tap.

    h_0     = SHA-256(TAG, JSON of arch, width and crop specification, the stem's tensors)
    h_(k+1) = SHA-256(h_k, name of block k, the block's tensors)

A tensor is its name, dtype, shape and little-endian bytes; parameters and buffers alike, BatchNorm's
`num_batches_tracked` too, in the order of their names. Texts are preceded by their length, so no two trunks read
the same. fingerprint(k) = h_k does not depend on blocks k and later.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from graftsdk.plan.cropspec import CropSpec
from graftsdk.plan.strict_json import dump_json

__all__ = ["fingerprint_chain"]

TAG = "graftsdk trunk fingerprint 1"


def fingerprint_chain(
    arch: str,
    width: float,
    crop: CropSpec,
    stem: Sequence[tuple[str, Mapping[str, torch.Tensor]]],
    blocks: Sequence[tuple[str, Mapping[str, torch.Tensor]]],
) -> tuple[str, ...]:
    """h_0..h_n for the n blocks given, 64 hex digits each.

    Args:
        arch: the backbone's name.
        width: of the trunk.
        crop: of the trunk.
        stem: (torchvision name, state dict) of each of its modules.
        blocks: the same of each block.
    """
    digest = hashlib.sha256()
    _text(digest, TAG)
    _text(digest, dump_json({"arch": arch, "width": float(width), "crop": crop.to_dict()}))
    for name, tensors in stem:
        _module(digest, name, tensors)
    chain = [digest.digest()]
    for name, tensors in blocks:
        digest = hashlib.sha256(chain[-1])
        _module(digest, name, tensors)
        chain.append(digest.digest())
    return tuple(link.hex() for link in chain)


def _module(digest: hashlib._Hash, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    _text(digest, name)
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        _text(digest, dump_json({"name": key, "dtype": dtype, "shape": list(tensor.shape)}))
        digest.update(_little_endian(tensor))


def _text(digest: hashlib._Hash, text: str) -> None:
    data = text.encode("utf-8")
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)


def _little_endian(tensor: torch.Tensor) -> memoryview:
    # A tensor of no dimension has no byte view in torch; reshape gives it one.
    data: npt.NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    if sys.byteorder == "big" and tensor.element_size() > 1:
        data = data.reshape(-1, tensor.element_size())[:, ::-1].copy()
    return data.data
