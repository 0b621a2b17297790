"""Grafting: parts and labels -> one ONNX graph, the trunk once, then the fan-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftsdk.errors import PlanCorrupt
from graftsdk.graft.group import CROPS, FLOATS, Group, joints_of, merged_group
from graftsdk.graft.prune import prune
from graftsdk.graft.requantise import drop_requantising
from graftsdk.plan import BranchDocument, Plan, TrunkDocument
from graftsdk.plan.onnx_part import IR_VERSION, OPSET, check_graph, model_from_part

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["graft", "graft_group"]


def graft(plan: Plan, labels: Sequence[str] | None = None) -> ir.Model:
    """One ONNX model that answers `labels` (None: all of the plan), holding only what they need.

    Input `crops` float32[n, 3, H, W]; for each label an output `<part>/scores` float32[n, C], probabilities in the
    order of its classes (`plan.manifest.find(label)` tells the part). Weights are views of the plan's bytes.

    Raises:
        InputError: no such label. PlanCorrupt: a part's graph does not fit together.
    """
    return graft_group(plan, merged_group(joints_of(plan.manifest, labels)))


def graft_group(plan: Plan, group: Group) -> ir.Model:
    """The graph of one group, see `Group` for its inputs and outputs.

    Requires: parts that trees of the plan use. Ensures: every value, node and initialiser is named `<part>/<its name>`,
    except the input `crops`; only what the outputs need is inside; a branch's nodes stand together. A part in a lower
    precision keeps the names of the one in float32.
    """
    import onnx_ir as ir

    documents = _documents(plan)
    forms = dict(group.forms)
    stored = {part: form for part, form in forms.items() if form not in FLOATS}
    crops: ir.Value | None = None
    nodes: list[ir.Node] = []
    initializers: list[ir.Value] = []
    values: dict[str, ir.Value] = {}
    inputs: list[ir.Value] = []

    def take(part: str, name: str, outputs: set[str]) -> ir.Value:
        """Move a part's pruned graph in as `name`; its one input value, detached from the graph it came from."""
        model = model_from_part(plan.parts[stored.get(part, part)])
        for document in documents[part]:
            check_graph(model, document, f"part {part}")
        scion = model.graph
        prune(scion, outputs)
        entry = scion.inputs[0]
        _prefix(scion, name)
        moved, weights = list(scion), list(scion.initializers.values())
        results = list(scion.outputs)
        scion.outputs.clear()
        scion.inputs.clear()
        scion.initializers.clear()
        scion.remove(moved)
        nodes.extend(moved)
        initializers.extend(weights)
        for value in results:
            values[value.name or ""] = value
        return entry

    for trunk in group.trunks:
        taps = {joint.tap for joint in group.joints if joint.trunk == trunk}
        taps |= {k for owner, k in group.taps if owner == trunk}
        entry = take(trunk, trunk, {f"tap_{k}" for k in taps})
        if crops is None:
            crops = entry
            crops.name = CROPS
            inputs.append(crops)
        else:
            ir.convenience.replace_all_uses_with(entry, crops)
    for joint in group.joints:
        entry = take(joint.branch, joint.name, {"scores"})
        tap = values[f"{joint.trunk}/tap_{joint.tap}"]
        _check_joint(entry, tap, joint.branch)
        ir.convenience.replace_all_uses_with(entry, tap)
    for joint in group.loose:
        inputs.append(take(joint.branch, joint.name, {"scores"}))
    graph = ir.Graph(
        inputs,
        [values[name] for name in group.outputs],
        nodes=nodes,
        initializers=initializers,
        opset_imports={"": OPSET},
        name="graft",
    )
    model = ir.Model(graph, ir_version=IR_VERSION)
    owners = {**{trunk: trunk for trunk in group.trunks}, **{j.name: j.branch for j in (*group.joints, *group.loose)}}
    floats = {name: forms[part] for name, part in owners.items() if forms.get(part) in FLOATS}
    if stored:
        drop_requantising(graph)
    if floats:
        from graftsdk.graft.floats import lower_floats

        lower_floats(model, floats)
    return model


def _documents(plan: Plan) -> dict[str, list[TrunkDocument | BranchDocument]]:
    """What the plan says of each part; a part may serve several labels."""
    found: dict[str, list[TrunkDocument | BranchDocument]] = {}
    for tree in plan.manifest.trees:
        found.setdefault(tree.trunk, []).append(tree.document)
        for branch in tree.branches:
            found.setdefault(branch.part, []).append(branch.document)
    return found


def _prefix(graph: ir.Graph, part: str) -> None:
    """Name everything in a part's graph `<part>/<name>`."""
    weights = list(graph.initializers.values())
    graph.initializers.clear()
    for value in (*graph.inputs, *weights):
        value.name = f"{part}/{value.name}"
    taken: set[str] = set()
    for index, node in enumerate(graph.all_nodes()):
        name = node.name or node.op_type  # ONNX lets nodes go without names; in one graph they must differ
        while name in taken:
            name = f"{name}.{index}"
        taken.add(name)
        node.name = f"{part}/{name}"
        for value in node.outputs:
            if value.name:  # an unused optional output has none
                value.name = f"{part}/{value.name}"
        for attribute in node.attributes.values():
            _prefix_subgraphs(attribute, part)
    for value in weights:
        graph.initializers.add(value)


def _prefix_subgraphs(attribute: ir.Attr, part: str) -> None:
    import onnx_ir as ir

    if attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return
    graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()
    for inner in graphs:
        weights = list(inner.initializers.values())
        inner.initializers.clear()
        for value in (*inner.inputs, *weights):
            value.name = f"{part}/{value.name}"
        for value in weights:
            inner.initializers.add(value)


def _check_joint(entry: ir.Value, tap: ir.Value, branch: str) -> None:
    """A branch's input must have the tap's channels, height and width."""
    if entry.shape is None or tap.shape is None:
        return
    wanted, found = list(entry.shape)[1:], list(tap.shape)[1:]
    if wanted != found:
        raise PlanCorrupt(f"part {branch}: expected a tap of {wanted} values a crop, the trunk's tap has {found}")
