"""The Open Inference Protocol: tensors in JSON and in bytes, and what is refused."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from requests_and_problems import check_problem
from starlette.testclient import TestClient

from graftsdk.predictor import Predictor
from graftsdk.serving import open_inference
from graftsdk.serving.app import create_app
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings

INFER = "/v2/models/graftsdk/infer"


def tensor(crops: np.ndarray, **changes: Any) -> dict[str, Any]:
    told = {"name": "crops", "datatype": "FP32", "shape": list(crops.shape), "data": crops.ravel().tolist()}
    return {**told, **changes}


def test_what_the_server_and_the_model_are(client: Any) -> None:
    assert client.get("/v2").json()["models"] == ["graftsdk"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/graftsdk/ready"):
        assert client.get(path).status_code == 200
    model = client.get("/v2/models/graftsdk").json()
    assert model == client.get("/v2/models/graftsdk/versions/1").json()
    assert model["inputs"] == [{"name": "crops", "datatype": "FP32", "shape": [-1, 3, 32, 32]}]
    assert [output["name"] for output in model["outputs"]] == ["child", "gender", "backpack"]
    for path in ("/v2/models/other", "/v2/models/graftsdk/versions/2", "/v2/models/other/ready"):
        check_problem(client.get(path), 404, "unknown_model")


@pytest.mark.parametrize("nested", [False, True])
def test_tensors_in_json(client: Any, service: Service, nested: bool) -> None:
    crops = toys.crops(2)
    data = crops.tolist() if nested else crops.ravel().tolist()
    answer = client.post(INFER, json={"id": "mine", "inputs": [tensor(crops, data=data)]}).json()
    assert answer["id"] == "mine" and answer["model_name"] == "graftsdk" and answer["model_version"] == "1"
    assert answer["parameters"] == {"plan": service.predictor.plan.digest}
    wanted = service.predictor.run(crops)
    assert [output["name"] for output in answer["outputs"]] == list(wanted)
    for output in answer["outputs"]:
        found = np.array(output["data"], np.float32).reshape(output["shape"])
        assert output["datatype"] == "FP32"
        np.testing.assert_array_equal(found, wanted[output["name"]])


def test_tensors_in_bytes(client: Any, service: Service) -> None:
    crops = toys.crops(3)
    told = tensor(crops, parameters={"binary_data_size": crops.nbytes})
    del told["data"]
    outputs = [{"name": "gender", "parameters": {"binary_data": True}}, {"name": "child"}]
    head = json.dumps({"inputs": [told], "outputs": outputs}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    answer = client.post(INFER, content=head + crops.tobytes(), headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    gender, child = json.loads(answer.content[:length])["outputs"]
    wanted = service.predictor.run(crops)
    found = np.frombuffer(answer.content[length:], "<f4").reshape(gender["shape"])
    assert gender["parameters"] == {"binary_data_size": found.nbytes} and "data" not in gender
    np.testing.assert_array_equal(found, wanted["gender"])
    np.testing.assert_array_equal(np.array(child["data"], np.float32).reshape(child["shape"]), wanted["child"])


CROPS = toys.crops(1)
MALFORMED: list[Any] = [
    {},
    {"inputs": []},
    {"inputs": "crops"},
    {"inputs": [tensor(CROPS), tensor(CROPS)]},
    {"inputs": [tensor(CROPS, name="other")]},
    {"inputs": [tensor(CROPS, datatype="FP16")]},
    {"inputs": [tensor(CROPS, shape=[1, 32, 32, 3])]},
    {"inputs": [tensor(CROPS, shape=[0, 3, 32, 32], data=[])]},
    {"inputs": [tensor(CROPS, shape=[-1, 3, 32, 32])]},
    {"inputs": [tensor(CROPS, shape=[2**40, 3, 32, 32])]},
    {"inputs": [tensor(CROPS, shape=[True, 3, 32, 32])]},
    {"inputs": [tensor(CROPS, shape=[1.0, 3, 32, 32])]},
    {"inputs": [tensor(CROPS, data=[0.0])]},
    {"inputs": [tensor(CROPS, data=["0"] * CROPS.size)]},
    {"inputs": [tensor(CROPS, data=[True] * CROPS.size)]},
    {"inputs": [tensor(CROPS, data=[10**400] * CROPS.size)]},
    {"inputs": [tensor(CROPS, data={})]},
    {"inputs": [tensor(CROPS, parameters={"binary_data_size": CROPS.nbytes})]},
    {"inputs": [tensor(CROPS, parameters={"shared_memory_region": "a"})]},
    {"inputs": [tensor(CROPS)], "parameters": 7},
    {"inputs": [tensor(CROPS)], "id": 7},
    {"inputs": [tensor(CROPS)], "id": "\ud800"},
    {"inputs": [tensor(CROPS)], "more": 7},
    {"inputs": [tensor(CROPS)], "outputs": 7},
    {"inputs": [tensor(CROPS)], "outputs": [7]},
    {"inputs": [tensor(CROPS)], "outputs": [{"name": "nope"}]},
    {"inputs": [tensor(CROPS)], "outputs": [{"name": "child"}, {"name": "child"}]},
    {"inputs": [tensor(CROPS)], "outputs": [{"name": "child", "parameters": {"classification": 1}}]},
    {"inputs": [tensor(CROPS)], "outputs": [{"name": "child", "parameters": {"binary_data": 1}}]},
    [],
    "crops",
    None,
]


@pytest.mark.parametrize("body", MALFORMED)
def test_malformed_requests(client: Any, body: Any) -> None:
    answer = client.post(INFER, content=json.dumps(body), headers={"content-type": "application/json"})
    document = check_problem(answer, 400)
    assert document["error"] == document["detail"]  # what clients of the protocol show


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b"[" * 100_000, b'{"id": NaN}', b'{"id": "a", "id": "b"}', b'{"id": 1' + b"0" * 9999 + b"}"],
)
def test_what_is_no_json(client: Any, text: bytes) -> None:
    check_problem(client.post(INFER, content=text, headers={"content-type": "application/json"}), 400)


@pytest.mark.parametrize("length", ["-1", "a", "9999999", "1" * 20, "3"])
def test_lengths_of_the_head(client: Any, length: str) -> None:
    headers = {"inference-header-content-length": length, "content-type": "application/octet-stream"}
    check_problem(client.post(INFER, content=json.dumps({"inputs": [tensor(CROPS)]}), headers=headers), 400)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_values_that_are_none(client: Any, value: float) -> None:
    crops = CROPS.copy()
    with np.errstate(over="ignore"):
        crops[0, 0, 0, 0] = value
    told = tensor(crops, parameters={"binary_data_size": crops.nbytes})
    del told["data"]
    head = json.dumps({"inputs": [told]}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    check_problem(client.post(INFER, content=head + crops.tobytes(), headers=headers), 422, "crops")


def test_values_that_a_network_cannot_bear_are_the_clients_fault(client: Any, service: Service) -> None:
    document = check_problem(client.post(INFER, json={"inputs": [tensor(CROPS * 0 + 3e38)]}), 422, "crops")
    assert "no number" in document["detail"]
    assert client.post(INFER, json={"inputs": [tensor(CROPS)]}).status_code == 200


def test_a_label_that_a_reload_takes_fails_nobody_who_did_not_name_it(
    toy_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Path(shutil.copyfile(toy_path, tmp_path / "engine.plan"))
    service = Service(Predictor(plan, threads=1), ServeSettings())
    arun = service.batcher.arun

    async def reloaded(*arguments: Any, **options: Any) -> Any:
        toys.write(tmp_path / "later.plan", ["gender"])
        (tmp_path / "later.plan").replace(plan)
        service.predictor.reload()
        return await arun(*arguments, **options)

    with TestClient(create_app(service)) as client:
        monkeypatch.setattr(service.batcher, "arun", reloaded)
        answer = client.post(INFER, json={"inputs": [tensor(CROPS)]})
        assert answer.status_code == 200, answer.text
        assert [output["name"] for output in answer.json()["outputs"]] == ["gender"]
        assert answer.json()["parameters"] == {"plan": service.predictor.plan.digest}


def test_json_is_read_and_written_by_the_workers(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the event loop, nor by as many threads as asyncio has: each takes a lot of memory."""
    names: list[str] = []

    def noted(call: Any) -> Any:
        def called(*arguments: Any) -> Any:
            names.append(threading.current_thread().name)
            return call(*arguments)

        return called

    for name in ("read_request", "write_answer"):
        monkeypatch.setattr(open_inference, name, noted(getattr(open_inference, name)))
    assert client.post(INFER, json={"inputs": [tensor(CROPS)]}).status_code == 200
    assert len(names) == 2 and all(name.startswith("graftsdk-serve") for name in names)


def test_another_kind_of_content(client: Any) -> None:
    answer = client.post(INFER, content=b"{}", headers={"content-type": "text/plain"})
    check_problem(answer, 415, "content_type")


def test_there_is_no_managing_of_models(client: Any) -> None:
    for path in ("/v2/repository/index", "/v2/repository/models/graftsdk/unload", "/v2/systemsharedmemory/status"):
        check_problem(client.post(path), 404, "not_found")
