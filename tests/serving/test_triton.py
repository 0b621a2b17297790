from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import toy_segmenter
import toys
from PIL import Image

from graftsdk import Predictor
from graftsdk.cli import export_triton
from graftsdk.errors import InputError, PlanPathError
from graftsdk.plan import PartInfo, Provenance, SegmenterInfo
from graftsdk.plan.edit import create_plan, remove_label
from graftsdk.plan.onnx_part import read_segmenter_part
from graftsdk.segment import recognise
from graftsdk.serving import triton
from graftsdk.serving.triton import export_repository

LABELS = ["child", "gender", "crops", "Straße 5\n"[:-1]]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    toys.write(tmp_path / "engine.plan", LABELS)
    return tmp_path / "engine.plan"


@pytest.fixture
def images(tmp_path: Path) -> list[bytes]:
    found = []
    for index in range(3):
        pixels = np.random.default_rng(index).integers(60, 256, (90 + index, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        found.append((tmp_path / f"{index}.png").read_bytes())
    return found


class Tensor:
    def __init__(self, name: str, values: np.ndarray[Any, Any]) -> None:
        self.name, self._values = name, values

    def as_numpy(self) -> np.ndarray[Any, Any]:
        return self._values


def _backend(repository: Path) -> tuple[ModuleType, list[int]]:
    """A stand-in for the module that the server gives its python backend; and the sizes of the batches it ran."""
    sizes: list[int] = []

    class TritonError:
        INVALID_ARG, INTERNAL = "invalid", "internal"

        def __init__(self, message: str, code: str) -> None:
            self.text, self.code = message, code

        def message(self) -> str:
            return self.text

    class Response:
        def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
            self.tensors, self._error = {each.name: each for each in output_tensors}, error

        def has_error(self) -> bool:
            return self._error is not None

        def error(self) -> TritonError | None:
            return self._error

    class Request:
        def __init__(self, model_name: str, requested_output_names: list[str], inputs: list[Tensor], **_: Any) -> None:
            self.model, self.names, self.inputs = model_name, requested_output_names, inputs

        def exec(self) -> Response:
            feeds = {each.name: each.as_numpy() for each in self.inputs}
            sizes.append(len(feeds["crops"]))
            path = repository / self.model / "1" / "model.onnx"
            if not path.exists():
                return Response([], TritonError("no such model", TritonError.INTERNAL))
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            return Response([Tensor(n, v) for n, v in zip(self.names, session.run(self.names, feeds), strict=True)])

    module = ModuleType("triton_python_backend_utils")
    module.__dict__.update(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=Response,
        InferenceRequest=Request,
        PreferredMemory=lambda kind, device: None,
        TRITONSERVER_MEMORY_CPU=0,
        get_input_tensor_by_name=lambda request, name: request[name],
        get_output_tensor_by_name=lambda response, name: response.tensors[name],
    )
    return module, sizes


def _config(path: Path) -> Any:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(encoding="ascii"), schema.ModelConfig())


def _loaded(repository: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[int]]:
    """The front as the server loads it: its own model.py, and the configuration as JSON."""
    module, sizes = _backend(repository)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    spec = importlib.util.spec_from_file_location("front_model", repository / name / "1" / "model.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    parameters = _config(repository / name / "config.pbtxt").parameters
    config = {"parameters": {key: {"string_value": value.string_value} for key, value in parameters.items()}}
    model = loaded.TritonPythonModel()
    model.initialize(
        {"model_config": json.dumps(config), "model_repository": str(repository / name), "model_version": "1"}
    )
    return model, sizes


def _request(*images: bytes) -> dict[str, Tensor]:
    return {"IMAGE": Tensor("IMAGE", np.array(images, object).reshape(-1, 1))}


def _answers(response: Any) -> list[dict[str, Any]]:
    assert not response.has_error(), response.error().text
    return [json.loads(text) for text in response.tensors["JSON"].as_numpy().reshape(-1)]


def test_the_same_answers_as_the_predictor(
    tmp_path: Path, plan: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, inputs, outputs, _ = read_segmenter_part(toy_segmenter.write(tmp_path / "toy.onnx"))
    info = SegmenterInfo(part=part.name, **recognise(inputs, outputs))
    segmenter = part, info, PartInfo("segmenter", part.digest, provenance=Provenance("", ""))
    stock = toys.trunk()
    create_plan(plan, stock, [toys.branch("child", 1), toys.branch("box", 2, seed=2)], segmenter)
    assert export_repository(plan, tmp_path / "repo") == ["engine", "engine_crops"]
    model, sizes = _loaded(tmp_path / "repo", "engine", monkeypatch)
    first, bad, second = model.execute([_request(images[0]), _request(b"no image"), _request(*images[1:])])
    model.finalize()
    assert bad.error().code == "invalid" and bad.error().text.startswith("DecodeError: image: expected JPEG")
    with Predictor(plan) as predictor:
        wanted = [each.to_dict(masks=True) for each in predictor.predict(images)]
    assert len(wanted[0]["persons"]) > 1
    assert sizes == [sum(len(each["persons"]) for each in wanted)]  # persons of all images in one batch
    found = _answers(first) + _answers(second)
    for mine, theirs in zip(found, wanted, strict=True):
        for each in (mine, theirs):
            each.pop("source", None), each.pop("timings", None)
        assert mine == theirs


def test_configurations(tmp_path: Path, plan: Path) -> None:
    export_repository(plan, tmp_path / "repo", name="lift", max_delay_us=700, fronts=3)
    crops = _config(tmp_path / "repo" / "lift_crops" / "config.pbtxt")
    assert (crops.name, crops.backend, crops.max_batch_size) == ("lift_crops", "onnxruntime", 32)
    assert crops.dynamic_batching.max_queue_delay_microseconds == 700
    session = onnxruntime.InferenceSession(
        tmp_path / "repo" / "lift_crops" / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    assert [each.name for each in crops.output] == [each.name for each in session.get_outputs()]
    assert [each.name for each in crops.output] == ["child", "gender", "crops_", LABELS[3]]
    assert [list(each.dims) for each in crops.output] == [[2], [3], [2], [2]]
    assert [each.name for each in session.get_inputs()] == [each.name for each in crops.input] == ["crops"]
    assert list(crops.input[0].dims) == session.get_inputs()[0].shape[1:] == [3, toys.SIDE, toys.SIDE]
    front = _config(tmp_path / "repo" / "lift" / "config.pbtxt")
    assert (front.name, front.backend, front.instance_group[0].count) == ("lift", "python", 3)


def test_a_model_over_crops_that_fails(
    tmp_path: Path,
    plan: Path,
    images: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    export_repository(plan, tmp_path / "repo")
    model, _ = _loaded(tmp_path / "repo", "engine", monkeypatch)
    (tmp_path / "repo" / "engine_crops" / "1" / "model.onnx").unlink()
    found = model.execute([_request(images[0]), _request(images[1])])
    model.finalize()
    assert [each.error().code for each in found] == ["internal", "internal"]
    assert "no such model" in caplog.text  # what a runtime said is for the log
    assert "expected an answer of the model over crops" in found[0].error().text


def test_weights_beside_the_graph(tmp_path: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_INLINE_BYTES", 1000)  # of 2 GB
    export_repository(plan, tmp_path / "repo", labels=["gender"])
    folder = tmp_path / "repo" / "engine_crops" / "1"
    assert (folder / "model.onnx.data").stat().st_size > 10_000
    crops = toys.crops(3)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    with Predictor(plan) as predictor:
        np.testing.assert_allclose(session.run(["gender"], {"crops": crops})[0], predictor.run(crops)["gender"], 1e-5)


def test_what_is_replaced(tmp_path: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repo"
    export_repository(plan, repository, name="old")
    export_repository(plan, repository, name="new")
    assert sorted(path.name for path in repository.iterdir()) == ["graftsdk.json", "new", "new_crops"]
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        patch.setattr(triton, "_save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        export_repository(plan, repository, name="third")
    assert sorted(path.name for path in repository.iterdir()) == ["graftsdk.json", "new", "new_crops"]
    (repository / "their model").mkdir()
    with pytest.raises(PlanPathError, match="found 'their model' too"):
        export_repository(plan, repository)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for other in ("other", "engine.plan", "missing/repo"):
        with pytest.raises(PlanPathError):
            export_repository(plan, tmp_path / other)
    for wrong in ({"name": "a b"}, {"labels": ["none"]}, {"fronts": 0}, {"max_delay_us": -1}):
        with pytest.raises(InputError):
            export_repository(plan, tmp_path / "repo2", **wrong)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.plan", "other", "repo"]


def test_command(tmp_path: Path, plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    export_triton.configure(parser)
    args: SimpleNamespace = parser.parse_args([str(plan), "-o", str(tmp_path / "repo"), "--labels=child,gender"])  # type: ignore[assignment]
    assert export_triton.run(args) == 0  # type: ignore[arg-type]
    assert "repo: engine (an image in, JSON out) and engine_crops" in capsys.readouterr().out
    assert json.loads((tmp_path / "repo" / "graftsdk.json").read_text())["labels"] == ["child", "gender"]


def test_a_plan_that_is_replaced_meanwhile_is_none_of_the_two(
    tmp_path: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = triton._save

    def replacing(*arguments: Any) -> None:
        save(*arguments)
        remove_label(plan, "child")

    monkeypatch.setattr(triton, "_save", replacing)
    with pytest.raises(PlanPathError, match="found it replaced"):
        export_repository(plan, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()
