"""Layouts: how the parts of a plan are partitioned into groups, each group one compiled graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from graftsdk.engines.base import Graph
from graftsdk.errors import InputError
from graftsdk.graft import Group, Joint, externalize, graft_group, merged_group
from graftsdk.plan import Manifest, Part, Plan
from graftsdk.plan.onnx_part import model_from_part

__all__ = ["LAYOUTS", "Layout", "built_groups", "graphs_of", "part_graph", "partition", "segmenter_graph"]

Layout = Literal["merged", "split"]
LAYOUTS: tuple[Layout, ...] = ("merged", "split")


def partition(joints: Mapping[str, Joint], layout: str, forms: Mapping[str, str] | None = None) -> tuple[Group, ...]:
    """The groups of a layout for some labels, in the order in which they run.

    `merged` is one group. `split` is each trunk alone, with all taps up to the deepest that is read, then each
    branch alone. A split trunk gives every one of those taps (measured: all ten cost 0.9% over one), so that a new
    label at any of them compiles nothing but its own branch.

    Args:
        joints: of the labels. layout: "merged" or "split".
        forms: how parts are computed that are not in float32, see `Manifest.forms`.

    Raises:
        InputError: another layout.
    """
    groups = _groups(joints, layout)
    return groups if not forms else tuple(group.lowered(forms) for group in groups)


def built_groups(
    manifest: Manifest, joints: Mapping[str, Joint], layout: str, forms: Mapping[str, str] | None = None
) -> tuple[Group, ...]:
    """As `partition`, for engines that are built ahead: a split trunk gives every tap, whatever the labels read.

    Where an engine is built anew its bits may be others, on TensorRT. So the trunk's must never have to be: not for
    a label on a deeper tap either. The price is that its last blocks are always computed.
    """
    blocks = {tree.trunk: tree.document.blocks for tree in manifest.trees}
    return tuple(
        replace(group, taps=tuple((trunk, k) for trunk in group.trunks for k in range(blocks[trunk] + 1)))
        if group.taps
        else group
        for group in partition(joints, layout, forms)
    )


def _groups(joints: Mapping[str, Joint], layout: str) -> tuple[Group, ...]:
    if layout == "merged":
        return (merged_group(joints),)
    if layout != "split":
        raise InputError(f"layout: expected 'merged' or 'split', found {layout!r}")
    branches = sorted(set(joints.values()))
    groups = []
    for trunk in sorted({joint.trunk for joint in branches}):
        deepest = max(joint.tap for joint in branches if joint.trunk == trunk)
        groups.append(Group(trunks=(trunk,), taps=tuple((trunk, k) for k in range(deepest + 1))))
    return (*groups, *(Group(loose=(joint,)) for joint in branches))


def graphs_of(plan: Plan, groups: tuple[Group, ...]) -> list[Graph]:
    """The groups as graphs that an engine compiles; each is grafted only when it has to be compiled."""
    return [_graph(plan, group) for group in groups]


def segmenter_graph(plan: Plan) -> Graph:
    """The plan's segmenter as a graph of its own; its values keep the names that the manifest gives.

    Raises:
        InputError: the plan has none.
    """
    info = plan.manifest.segmenter
    if info is None:
        raise InputError("the plan has no segmenter; export it with --segmenter, or bring masks or boxes")
    return Graph(
        key=plan.manifest.parts[info.part].digest,
        inputs={info.input: info.input},
        outputs=info.outputs,
        load=lambda: externalize(model_from_part(plan.parts[info.part])),
    )


def part_graph(part: Part) -> Graph:
    """A part alone as a graph; its values keep the part's own names."""
    model = model_from_part(part)
    return Graph(
        key=part.digest,
        inputs={str(value.name): str(value.name) for value in model.graph.inputs},
        outputs=tuple(str(value.name) for value in model.graph.outputs),
        load=lambda: externalize(model_from_part(part)),
    )


def _graph(plan: Plan, group: Group) -> Graph:
    return Graph(
        key=group.key(plan.manifest),
        inputs=group.inputs,
        outputs=group.outputs,
        load=lambda: externalize(graft_group(plan, group)),
        precision=group.precision,
    )
