"""Pass: one block cut out of a trunk part, so that it can be run on any tap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftsdk.errors import PlanCorrupt
from graftsdk.graft.prune import prune
from graftsdk.plan import Part
from graftsdk.plan.onnx_part import model_from_part

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["BLOCK_INPUT", "cut_block"]

BLOCK_INPUT = "block/input"  # no value of a part has a slash in its name


def cut_block(part: Part, k: int) -> ir.Model:
    """The model that makes `tap_<k>`: for k = 0 the stem, from `crops`; else block k-1, from tap k-1 as BLOCK_INPUT.

    Requires: a trunk part with both taps. Ensures: nothing above the cut is inside.

    Raises:
        PlanCorrupt: the block reads something else than the tap above it.
    """
    import onnx_ir as ir

    model = model_from_part(part)
    graph = model.graph
    if k == 0:
        prune(graph, {"tap_0"})
        return model
    prune(graph, {f"tap_{k - 1}", f"tap_{k}"})
    above = next(value for value in graph.outputs if value.name == f"tap_{k - 1}")
    entry = ir.Value(name=BLOCK_INPUT, shape=above.shape, type=above.type)
    for use in tuple(above.uses()):
        use.node.replace_input_with(use.idx, entry)
    prune(graph, {f"tap_{k}"})
    if any(value.uses() for value in graph.inputs):
        raise PlanCorrupt(
            f"part {part.name}: expected block {k - 1} to read tap {k - 1} only, found that it reads more"
        )
    graph.inputs.clear()
    graph.inputs.append(entry)
    return model
