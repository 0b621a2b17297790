"""Parts and segmenters that name files outside themselves, or are no graphs: refused before a runtime sees them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import toys
from onnx import TensorProto, helper, numpy_helper

from graftsdk.errors import PlanCorrupt, PlanError, PlanPathError, PlanVersionError
from graftsdk.graft import graft
from graftsdk.plan import Part, load_plan
from graftsdk.plan.documents import DOCUMENT_KEY
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import model_from_part, read_onnx_part, read_segmenter_part, write_onnx_part

Change = Callable[[onnx.ModelProto], object]


def outside(location: str = "weights.bin", shape: tuple[int, ...] = (300,)) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def sparse(where: str) -> onnx.SparseTensorProto:
    made = onnx.SparseTensorProto(dims=[300])
    made.values.CopyFrom(outside() if where == "values" else numpy_helper.from_array(np.ones(300, np.float32), "w"))
    made.indices.CopyFrom(outside() if where == "indices" else numpy_helper.from_array(np.arange(300), "i"))
    return made


def attribute(value: object) -> onnx.AttributeProto:
    return helper.make_attribute("value", value)


def constant(**fields: object) -> Change:
    def change(model: onnx.ModelProto) -> None:
        node = onnx.NodeProto(op_type="Constant", output=["evil"])
        node.attribute.add(name="value", **fields)  # type: ignore[arg-type]
        model.graph.node.append(node)

    return change


def inner(depth: int) -> onnx.GraphProto:
    graph = onnx.GraphProto(name=f"inner{depth}")
    if depth == 0:
        graph.initializer.append(outside())
    else:
        node = onnx.NodeProto(op_type="If", input=["tap"], output=["evil"])
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH, g=inner(depth - 1))
        graph.node.append(node)
    return graph


def function(model: onnx.ModelProto) -> None:
    made = model.functions.add(name="f", domain="evil")
    node = made.node.add(op_type="Constant", output=["w"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=outside())


def located(location: str) -> Change:
    return lambda model: model.graph.initializer.append(outside(location))


def silent(model: onnx.ModelProto) -> None:
    """External by its location alone, in a tensor that says it is not."""
    tensor = outside()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


EXTERNAL: dict[str, tuple[Change, type[PlanError]]] = {
    "an initialiser": (located("weights.bin"), PlanPathError),
    "the folder above": (located("../weights.bin"), PlanPathError),
    "an absolute path": (located("/etc/passwd"), PlanPathError),
    "an empty path": (located(""), PlanPathError),
    "NUL in the path": (located("a\0b"), PlanPathError),
    "an address": (located("https://example.org/w"), PlanPathError),
    "a location without saying so": (silent, PlanPathError),
    "an attribute": (constant(type=onnx.AttributeProto.TENSOR, t=outside()), PlanPathError),
    "a list attribute": (constant(type=onnx.AttributeProto.TENSORS, tensors=[outside()]), PlanPathError),
    "a subgraph": (constant(type=onnx.AttributeProto.GRAPH, g=inner(0)), PlanPathError),
    "a subgraph six deep": (constant(type=onnx.AttributeProto.GRAPHS, graphs=[inner(6)]), PlanPathError),
    "sparse values": (lambda m: m.graph.sparse_initializer.append(sparse("values")), PlanPathError),
    "sparse indices": (lambda m: m.graph.sparse_initializer.append(sparse("indices")), PlanPathError),
    "a sparse attribute": (
        constant(type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse("values")), PlanPathError),
    "a function": (function, PlanCorrupt),
    "training information": (lambda m: m.training_info.add(), PlanCorrupt),
    "a compiled engine": (
        lambda m: m.graph.node.add(op_type="EPContext", domain="com.microsoft", output=["evil"]), PlanCorrupt),
}  # fmt: skip


def branch_file(folder: Path, change: Change | None = None) -> Path:
    path = folder / "branch.onnx"
    write_onnx_part(path, *toys.branch("child", 1))
    if change is not None:
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("case", EXTERNAL)
@pytest.mark.parametrize("how", ["branch file", "segmenter file", "part in a plan"])
def test_external_data(tmp_path: Path, case: str, how: str) -> None:
    change, leaf = EXTERNAL[case]
    (tmp_path / "weights.bin").write_bytes(bytes(1200))  # it is there: not opening it is the point
    if how == "part in a plan":
        part, document = toys.branch("child", 1)
        proto = onnx.ModelProto.FromString(part.graph)
        change(proto)
        hostile = Part("branch", proto.SerializeToString(), part.tensors)
        create_plan(tmp_path / "engine.plan", toys.trunk(), [(hostile, document)])
        with load_plan(tmp_path / "engine.plan") as plan, pytest.raises(leaf):
            graft(plan)
        return
    path = branch_file(tmp_path, change)
    with pytest.raises(leaf):
        (read_onnx_part if how == "branch file" else read_segmenter_part)(path)


def add_opset(model: onnx.ModelProto, domain: str, version: int) -> None:
    model.opset_import.add(domain=domain, version=version)


def second_document(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key=DOCUMENT_KEY, value=model.metadata_props[0].value)


def set_document(text: str) -> Change:
    return lambda model: setattr(model.metadata_props[0], "value", text)


def weight(model: onnx.ModelProto) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == "own.weight")


NO_BRANCHES: dict[str, tuple[Change, type[PlanError]]] = {
    "opset 17": (lambda m: setattr(m.opset_import[0], "version", 17), PlanVersionError),
    "opset 28": (lambda m: setattr(m.opset_import[0], "version", 28), PlanVersionError),
    "no opset": (lambda m: m.ClearField("opset_import"), PlanVersionError),
    "a second opset": (lambda m: add_opset(m, "", 18), PlanVersionError),
    "another domain": (lambda m: add_opset(m, "com.microsoft", 1), PlanVersionError),
    "IR 14": (lambda m: setattr(m, "ir_version", 14), PlanVersionError),
    "IR 2": (lambda m: setattr(m, "ir_version", 2), PlanVersionError),
    "no document": (lambda m: m.ClearField("metadata_props"), PlanCorrupt),
    "two documents": (second_document, PlanCorrupt),
    "a document that is no JSON": (set_document("os.system('x')"), PlanCorrupt),
    "a trunk's document": (set_document(toys.trunk()[1].to_json()), PlanCorrupt),
    "no graph": (lambda m: m.ClearField("graph"), PlanCorrupt),
    "no outputs": (lambda m: m.graph.ClearField("output"), PlanCorrupt),
    "no nodes": (lambda m: m.graph.ClearField("node"), PlanCorrupt),
    "another output": (lambda m: setattr(m.graph.output[0], "name", "logits"), PlanCorrupt),
    "another input": (lambda m: m.graph.input.append(helper.make_tensor_value_info("x", 1, ["n"])), PlanCorrupt),
    "fewer bytes than the shape says": (lambda m: setattr(weight(m), "raw_data", b"1234"), PlanCorrupt),
    "a shape of 2**50": (lambda m: weight(m).dims.__setitem__(0, 2**50), PlanCorrupt),
    "a negative shape": (lambda m: weight(m).dims.__setitem__(0, -1), PlanCorrupt),
    "an unknown dtype": (lambda m: setattr(weight(m), "data_type", 99), PlanCorrupt),
    "weights of text": (lambda m: setattr(weight(m), "data_type", TensorProto.STRING), PlanCorrupt),
    "NaN weights": (lambda m: setattr(weight(m), "raw_data", b"\xff" * len(weight(m).raw_data)), PlanCorrupt),
    "infinite weights": (
        lambda m: setattr(weight(m), "raw_data", np.float32(np.inf).tobytes() * (len(weight(m).raw_data) // 4)),
        PlanCorrupt),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_BRANCHES)
def test_files_that_are_no_branches(tmp_path: Path, case: str) -> None:
    change, leaf = NO_BRANCHES[case]
    with pytest.raises(leaf):
        read_onnx_part(branch_file(tmp_path, change))


@pytest.mark.parametrize("content", [b"", b"hello", bytes(100), b"\x08\x0a" * 50, b"\xff" * 64])
def test_bytes_that_are_no_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    for read in (read_onnx_part, read_segmenter_part):
        with pytest.raises(PlanCorrupt):
            read(path)


@pytest.mark.parametrize("case", ["missing", "folder", "fifo", "NUL"])
def test_paths_that_are_no_files(tmp_path: Path, case: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = {"folder": tmp_path, "NUL": Path("a\0b")}.get(case, tmp_path / case)
    for read in (read_onnx_part, read_segmenter_part):
        with pytest.raises(PlanPathError):
            read(path)


def test_a_part_comes_back_from_its_file_digest_and_all(tmp_path: Path) -> None:
    for name, (part, document) in {"b": toys.branch("child", 1), "t": toys.trunk()}.items():
        write_onnx_part(tmp_path / name, part, document)
        again, said = read_onnx_part(tmp_path / name)
        assert (again.digest, said) == (part.digest, document)
        onnx.checker.check_model(tmp_path / name)


def test_inputs_with_default_values_are_weights(tmp_path: Path) -> None:
    """Exporters of IR 3 listed every weight among the inputs."""
    path = branch_file(
        tmp_path, lambda m: m.graph.input.append(helper.make_tensor_value_info("own.weight", 1, weight(m).dims))
    )
    part, inputs, _, _ = read_segmenter_part(path)
    assert list(inputs) == ["tap"]
    assert "own.weight" in part.tensors


def test_a_part_whose_graph_holds_its_big_weights() -> None:
    part, _ = toys.branch("child", 1)
    proto = onnx.ModelProto.FromString(part.graph)
    proto.graph.initializer.append(numpy_helper.from_array(part.tensors["own.weight"], "own.weight"))
    with pytest.raises(PlanCorrupt):
        model_from_part(Part("branch", proto.SerializeToString(), {}))
    with pytest.raises(PlanCorrupt):
        model_from_part(Part("branch", proto.SerializeToString(), part.tensors))


@pytest.mark.parametrize("link", ["hard link", "symlink"])
def test_why_we_refuse_first(tmp_path: Path, link: str) -> None:
    """The probe: ONNX Runtime reads a linked file beside the model. When it stops to, this test says so."""
    (tmp_path / "elsewhere").mkdir()
    secret = tmp_path / "elsewhere" / "secret"
    secret.write_bytes(np.full(300, 42, np.float32).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    if link == "hard link":
        os.link(secret, folder / "weights.bin")
    else:
        inside = folder / "real.bin"
        inside.write_bytes(secret.read_bytes())
        os.symlink(inside, folder / "weights.bin")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [300])],
        [outside()],
    )
    path = folder / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {})[0][0] == 42
    with pytest.raises(PlanPathError):
        read_segmenter_part(path)
