"""Pass: keep only the nodes that some outputs need."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from graftsdk.errors import PlanCorrupt

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["prune"]


def prune(graph: ir.Graph, outputs: Collection[str]) -> None:
    """Make `outputs` the graph's only outputs and drop the nodes and initialisers that nothing needs any more.

    Requires: each name is an output of the graph. Ensures: nodes keep their order; every node left is needed.

    Raises:
        PlanCorrupt: the graph has no such output.
    """
    known = {value.name: value for value in graph.outputs}
    missing = set(outputs) - set(known)
    if missing:
        raise PlanCorrupt(f"expected a graph with the outputs {sorted(missing)}, found {sorted(map(str, known))}")
    kept = [value for value in graph.outputs if value.name in outputs]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    needed: set[ir.Node] = set()
    read: set[ir.Value] = set()
    pending = list(kept)
    while pending:
        value = pending.pop()
        if value in read:
            continue
        read.add(value)
        node = value.producer()
        if node is None or node in needed or node.graph is not graph:
            continue
        needed.add(node)
        pending += [value for value in _reads(node) if value is not None]
    graph.remove([node for node in reversed(graph) if node not in needed], safe=True)
    for name in [name for name, value in graph.initializers.items() if value not in read]:
        del graph.initializers[name]


def _reads(node: ir.Node) -> list[ir.Value | None]:
    """What a node reads, its subgraphs included."""
    import onnx_ir as ir

    found = list(node.inputs)
    for attribute in node.attributes.values():
        graphs = []
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = list(attribute.as_graphs())
        for graph in graphs:
            found.extend(graph.outputs)
            for inner in graph.all_nodes():
                found += inner.inputs
    return found
