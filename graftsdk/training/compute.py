"""What a training computes with: threads, and whether bfloat16 pays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["low_precision", "torch_threads"]


def low_precision(precision: str | None, device: torch.device) -> bool:
    """Whether forward passes run in bfloat16: as asked, or where its matrix products have units of their own."""
    if precision is not None:
        return precision == "bfloat16"
    return device.type != "cpu" or bool(torch.cpu._is_amx_tile_supported())


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """So many threads of torch's; None: as many as before."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
