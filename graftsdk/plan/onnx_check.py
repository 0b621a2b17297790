"""What bytes must be before they are taken for an ONNX graph. A file is hostile until it passed here.

Nothing is opened: external data is refused wherever it can hide, before any library could follow it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from graftsdk.errors import PlanCorrupt, PlanPathError

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message

__all__ = ["parse_model"]

# Reads a compiled engine from a path that stands in the graph, or from its bytes: code, not a graph.
_HOST_CODE = "EPContext"


def parse_model(content: bytes, where: str, weights: Collection[str] = ()) -> onnx.ModelProto:
    """The model in some bytes: one plain graph, sorted, whole, without external data.

    Args:
        content: the bytes.
        where: what they are, for messages.
        weights: names of the initialisers that lie beside the graph.

    Raises:
        PlanPathError: a tensor names external data.
        PlanCorrupt: not ONNX; functions or training information; a value read before it is made, or made twice.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except (DecodeError, ValueError, RecursionError) as error:
        raise PlanCorrupt(f"{where}: expected an ONNX model, found bytes that are none") from error
    if not proto.HasField("graph") or not proto.graph.output:
        raise PlanCorrupt(f"{where}: expected an ONNX model with outputs, found none")
    if any(isinstance(text, bytes) for text in _texts(proto)):  # protobuf hands out as bytes what it cannot decode
        raise PlanCorrupt(f"{where}: expected names in UTF-8, found bytes that are none")
    if proto.functions or proto.training_info:
        raise PlanCorrupt(f"{where}: expected a plain graph, found functions or training information")
    for graph in _graphs(proto.graph):
        for tensor in _tensors(graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise PlanPathError(f"{where}: {tensor.name[:80]!r} names external data; save the model as one file")
        if any(node.op_type == _HOST_CODE for node in graph.node):
            raise PlanCorrupt(f"{where}: expected operators, found {_HOST_CODE}, a compiled engine; export it again")
    _check_values(proto.graph, [set(weights)], where)
    return proto


def _texts(message: Message) -> Iterator[str | bytes]:
    """Every string in a message and in those inside it."""
    pending = [message]
    while pending:
        for field, value in pending.pop().ListFields():
            if field.type == field.TYPE_STRING:
                yield from [value] if isinstance(value, (str, bytes)) else value
            elif field.type == field.TYPE_MESSAGE:
                pending.extend([value] if hasattr(value, "ListFields") else value)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph inside it; protobuf itself allows about 30 levels."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current.node:
            pending.extend(_subgraphs(node))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of one graph: initialisers, sparse ones, attributes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _check_values(graph: onnx.GraphProto, outer: list[set[str]], where: str) -> None:
    """Every value is made once in its graph, before it is read; so there is no cycle."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {sparse.values.name for sparse in graph.sparse_initializer}
    scopes = [*outer, own]
    for node in graph.node:
        for name in node.input:
            _check_known(name, scopes, where)
        for inner in _subgraphs(node):
            _check_values(inner, scopes, where)
        for name in node.output:
            if name and name in own:
                raise PlanCorrupt(f"{where}: expected each value once, {name[:80]!r} is made twice")
            own.add(name)
    for value in graph.output:
        if not value.name:
            raise PlanCorrupt(f"{where}: expected outputs with names, found one without")
        _check_known(value.name, scopes, where)


def _check_known(name: str, scopes: list[set[str]], where: str) -> None:
    if name and not any(name in scope for scope in scopes):
        raise PlanCorrupt(f"{where}: {name[:80]!r} is read before anything makes it; the graph is cyclic or cut")
