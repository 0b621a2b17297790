"""A group's graph with its parts named by position: what the engines of two plans share that differ in weights alone.

A refit exchanges weights by their names, which begin with their part's: a branch that was trained again is another
part. Positions follow the plan's own order, in which a replaced label keeps its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.engines.refittable import renamed
from graftsdk.graft import Group
from graftsdk.plan import Manifest

if TYPE_CHECKING:
    import onnx

__all__ = ["Structure", "in_plan_order", "part_names", "structure_of"]


@dataclass(frozen=True)
class Structure:
    """A graph, ready for the library.

    Attributes:
        digest: SHA-256 of the graph without its weights. names: the plan's name of a part -> its position.
        content: ONNX whose big initialisers are external. weights: those.
    """

    digest: str
    names: Mapping[str, str]
    content: bytes
    weights: Mapping[str, np.ndarray[Any, Any]]


def in_plan_order(group: Group, manifest: Manifest) -> Group:
    """The group with its branches in the plan's order, not that of their digests, which move with every training."""
    places: dict[tuple[str, int], int] = {}
    for tree in manifest.trees:
        for branch in tree.branches:
            places.setdefault((branch.part, branch.document.tap), len(places))
    return replace(group, joints=tuple(sorted(group.joints, key=lambda joint: places[joint.branch, joint.tap])))


def part_names(group: Group) -> dict[str, str]:
    """What values of the group's graph begin with -> its position, as 16 hex digits like any part's name.

    A trunk that is not inside has none: nothing in the graph is called after it.
    """
    names = (*group.trunks, *(joint.name for joint in (*group.joints, *group.loose)))
    return {name: f"{index:016x}" for index, name in enumerate(dict.fromkeys(names))}


def structure_of(content: bytes, weights: Mapping[str, np.ndarray[Any, Any]], names: Mapping[str, str]) -> Structure:
    """The structure of a graph that `externalize` gave; `names` as of `part_names`.

    Small weights stand in the bytes themselves: float values are left out of the digest, integers, which are shapes
    and axes, are part of it.
    """
    import onnx

    model = onnx.ModelProto.FromString(content)
    _rename(model.graph, names)
    inside = model.SerializeToString(deterministic=True)
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
            for field in ("raw_data", "float_data", "int32_data"):
                tensor.ClearField(field)
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    return Structure(digest, names, inside, {renamed(name, names): array for name, array in weights.items()})


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for each in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        each.name = renamed(each.name, names)
    for node in graph.node:
        node.name = renamed(node.name, names)
        for values in (node.input, node.output):
            values[:] = [renamed(name, names) for name in values]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _rename(inner, names)
