"""ONNX models as parts, and back: the only place where a part's graph is taken from or written to an ONNX file."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.errors import PlanCorrupt, PlanError, PlanLimitError, PlanPathError, PlanVersionError
from graftsdk.files import atomic_write
from graftsdk.plan.documents import DOCUMENT_KEY, BranchDocument, SegmenterDocument, TrunkDocument, read_document
from graftsdk.plan.onnx_check import parse_model
from graftsdk.plan.part import EXTERNAL_BYTES, Part

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = [
    "IR_VERSION",
    "OPSET",
    "Shapes",
    "interface",
    "model_from_part",
    "part_from_model",
    "read_onnx_part",
    "read_segmenter_part",
    "serialise",
    "write_onnx",
    "write_onnx_part",
]

Shapes = dict[str, tuple[int | None, ...]]  # None where a side is free; empty where nothing is known

OPSET = 18
IR_VERSION = 10
MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit


def part_from_model(model: ir.Model, role: str) -> Part:
    """The part that a model makes: weights of 1 KiB and more beside the graph, nothing else than the graph kept.

    The same model gives the same bytes: initialisers are sorted by name, metadata and documentation are dropped.
    `model` is used up.

    Raises:
        PlanCorrupt: an initialiser is not finite, has no value, or has a dtype that a plan cannot hold.
    """
    import onnx_ir as ir

    fed = [value for value in model.graph.inputs if not value.is_initializer()]
    model.graph.inputs.clear()
    model.graph.inputs.extend(fed)  # an input with a default value is a weight
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    small: list[ir.Value] = []
    for name in sorted(model.graph.initializers):
        value = model.graph.initializers[name]
        if not value.uses() and not value.is_graph_output():
            continue
        array = _array(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise PlanCorrupt(f"initialiser {name!r}: expected finite weights, found NaN or infinity; train it again")
        if array.nbytes >= EXTERNAL_BYTES:
            array.setflags(write=False)
            tensors[name] = array
        else:
            small.append(value)
    model.graph.initializers.clear()
    for value in small:
        value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)  # type: ignore[union-attr]
        model.graph.initializers.add(value)
    _strip(model)
    try:
        return _checked(Part(role, serialise(model, role), tensors))
    except KeyError as error:
        raise PlanCorrupt(f"expected weights of a dtype that a plan can hold, found {error}") from error


def model_from_part(part: Part) -> ir.Model:
    """The part as an onnx_ir model; its weights are views of the part's tensors.

    Raises:
        PlanCorrupt: the graph is not ONNX, or not as a part's graph is.
        PlanPathError: it names external data. PlanVersionError: a trunk or branch of another opset than 18.
    """
    import onnx_ir as ir

    where = f"part {part.name}"
    proto = parse_model(part.graph, where, part.tensors)
    if part.role != "segmenter":
        _check_versions(proto, where)
    if {tensor.name for tensor in proto.graph.initializer} & set(part.tensors):
        raise PlanCorrupt(f"{where}: a weight stands both inside and beside its graph")
    for name, array in part.tensors.items():  # declared without content, so that the graph is valid
        proto.graph.initializer.add(name=name, dims=array.shape, data_type=ir.DataType.from_numpy(array.dtype).value)
    model = _deserialise(proto, where)
    for value in model.graph.initializers.values():
        if value.is_graph_input():
            raise PlanCorrupt(f"{where}: {value.name!r} is both an input and a weight")
        if value.name not in part.tensors and _array(value).nbytes >= EXTERNAL_BYTES:
            raise PlanCorrupt(f"{where}: expected weights of {EXTERNAL_BYTES} bytes or more beside the graph")
    for name, array in part.tensors.items():
        model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    return model


def read_onnx_part(path: str | os.PathLike[str]) -> tuple[Part, TrunkDocument | BranchDocument]:
    """A trunk or branch that was exported on its own, and its document.

    Raises:
        PlanPathError: no such file, or external data. PlanVersionError: another opset than 18.
        PlanCorrupt: not ONNX, no document inside, or a graph that is not what the document says.
    """
    where = str(path)
    proto = parse_model(_read(Path(path)), where)
    _check_versions(proto, where)
    texts = [entry.value for entry in proto.metadata_props if entry.key == DOCUMENT_KEY]
    if len(texts) != 1:
        raise PlanCorrupt(
            f"{where}: expected an exported trunk or branch with one {DOCUMENT_KEY!r} document in its metadata, "
            f"found {len(texts)}; write it with graftsdk-export --parts"
        )
    document = read_document(texts[0], where)
    if isinstance(document, SegmenterDocument):
        raise PlanCorrupt(
            f"{where}: expected a trunk or branch, found a segmenter ({document.family}, {document.arch}); "
            f"it is for --segmenter"
        )
    if document.exported is None:
        raise PlanCorrupt(f"{where}: its document lacks the record of the export; write it with graftsdk-export")
    part = part_from_model(_deserialise(proto, where), "trunk" if isinstance(document, TrunkDocument) else "branch")
    check_interface(part, document, where)
    return part, document


def write_onnx_part(path: str | os.PathLike[str], part: Part, document: TrunkDocument | BranchDocument) -> None:
    """Write a part as one ONNX file that `read_onnx_part` gives back, digest and all."""
    write_onnx(path, part, {DOCUMENT_KEY: document.to_json()})


def write_onnx(path: str | os.PathLike[str], part: Part, metadata: Mapping[str, str]) -> None:
    """Write a part as one ONNX file, whole or not at all, with these metadata_props. Raises PlanPathError."""
    model = model_from_part(part)
    model.metadata_props.update(metadata)
    content = serialise(model, str(path))
    with atomic_write(path) as file:
        file.write(content)


def read_segmenter_part(path: str | os.PathLike[str]) -> tuple[Part, Shapes, Shapes, dict[str, str]]:
    """Any ONNX file as a segmenter part.

    Returns:
        The part, its inputs and its outputs as name -> shape (None where a side is free), and its metadata.

    Raises:
        PlanPathError, PlanCorrupt: as `read_onnx_part`.
    """
    where = str(path)
    proto = parse_model(_read(Path(path)), where)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    model = _deserialise(proto, where)
    part = part_from_model(model, "segmenter")  # first: it takes weights out of the inputs
    return part, *interface(model), metadata


def interface(model: ir.Model) -> tuple[Shapes, Shapes]:
    """A graph's inputs and outputs, name -> shape."""
    inputs, outputs = (
        {value.name or "": _shape(value) for value in values} for values in (model.graph.inputs, model.graph.outputs)
    )
    return inputs, outputs


def serialise(model: ir.Model, where: str) -> bytes:
    """A model's bytes, the same for the same model.

    Raises:
        PlanCorrupt: it holds something that can be read but not written, an attribute without a type for one.
    """
    import onnx_ir as ir

    try:
        return bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    except (ir.serde.SerdeError, TypeError, ValueError) as error:
        raise PlanCorrupt(f"{where}: expected a graph that can be written, found: {_first_cause(error)}") from error


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def check_interface(part: Part, document: TrunkDocument | BranchDocument, where: str) -> None:
    """Prove that a trunk's or branch's inputs and outputs are what its document says. Raises PlanCorrupt."""
    check_graph(model_from_part(part), document, where)


def check_graph(model: ir.Model, document: TrunkDocument | BranchDocument, where: str) -> None:
    """As `check_interface`, for a part that was read already."""
    inputs = {value.name: _shape(value) for value in model.graph.inputs}
    outputs = {value.name: _shape(value) for value in model.graph.outputs}
    role = "trunk" if isinstance(document, TrunkDocument) else "branch"
    if isinstance(document, TrunkDocument):
        expected_in = {"crops": (None, 3, *document.crop.size)}
        expected_out = {f"tap_{k}" for k in range(document.blocks + 1)}
        fits = inputs == expected_in and set(outputs) == expected_out
    else:
        fits = set(inputs) == {"tap"} and outputs == {"scores": (None, len(document.classes))}
    if not fits:
        raise PlanCorrupt(f"{where}: expected the inputs and outputs of a {role}, found {inputs} and {outputs}")


def _check_versions(proto: onnx.ModelProto, where: str) -> None:
    opsets = [(opset.domain, opset.version) for opset in proto.opset_import]
    if opsets != [("", OPSET)] or not 3 <= proto.ir_version <= IR_VERSION:
        raise PlanVersionError(
            f"{where}: expected opset {OPSET} and IR at most {IR_VERSION}, found {opsets} and {proto.ir_version}; "
            f"export it again with graftsdk-export"
        )


def _array(value: ir.Value) -> np.ndarray[Any, Any]:
    """An initialiser's content. Raises PlanCorrupt: it has none, or not as much as its shape says."""
    if value.const_value is None:
        raise PlanCorrupt(f"initialiser {value.name!r}: expected a value, found none")
    try:
        array = np.asarray(value.const_value.numpy())
        if array.shape != value.const_value.shape.numpy():  # a side of -1 would be made to fit
            raise ValueError(f"{array.shape} values for the shape {value.const_value.shape}")
        return np.ascontiguousarray(array).reshape(array.shape)
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise PlanCorrupt(f"initialiser {value.name!r}: expected a plain tensor, found: {error}") from error


def _checked(part: Part) -> Part:
    part.digest  # noqa: B018  computed here, so that a dtype that no plan can hold is found here
    return part


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise PlanPathError(f"{path}: expected a regular file")
            if found.st_size > MAX_FILE_BYTES:
                raise PlanLimitError(f"{path}: expected at most 2 GiB, found {found.st_size} bytes")
            return file.read(MAX_FILE_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, PlanError):
            raise
        raise PlanPathError(f"{str(path)!r}: expected an ONNX file, found: {error}") from error


def _deserialise(proto: onnx.ModelProto, where: str) -> ir.Model:
    import onnx_ir as ir

    try:
        return ir.from_proto(proto)
    except Exception as error:  # the library raises many kinds for the many ways in which a graph can be wrong
        raise PlanCorrupt(f"{where}: expected a valid ONNX graph, found: {_first_cause(error)}") from error


def _strip(model: ir.Model) -> None:
    """Drop what does not change a result: producers, metadata, documentation, stack traces."""
    model.metadata_props.clear()
    model.producer_name = model.producer_version = model.domain = model.doc_string = None
    model.model_version = None
    graph = model.graph
    graph.metadata_props.clear()
    graph.doc_string = None
    graph.name = "part"
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            value.doc_string = None


def _shape(value: ir.Value) -> tuple[int | None, ...]:
    if value.shape is None:
        return ()
    return tuple(side if isinstance(side, int) else None for side in value.shape)
