"""A part alone, opened as the product opens it. Needs no torch."""

from __future__ import annotations

from graftsdk.engines import Engine, open_engine
from graftsdk.engines.layout import part_graph
from graftsdk.plan import Part

__all__ = ["open_part"]


def open_part(part: Part) -> Engine:
    """The part alone on the CPU, compiled as the product does it, for this process only.

    Raises:
        EngineBuildError: the runtime refuses it.
    """
    return open_engine([part_graph(part)], device="cpu", cache=False)
