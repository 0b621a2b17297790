"""The routes of `graftsdk serve`: what each answers, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from requests_and_problems import check_problem, encoded

from graftsdk.predictor import Predictor
from graftsdk.preprocess import decode_image
from graftsdk.serving.app import create_app
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings, check_binding, read_keys

JPEG = {"content-type": "image/jpeg"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_an_image_is_answered_as_the_predictor_does(client: Any, service: Service, kind: str) -> None:
    data = encoded((48, 64), kind)
    answer = client.post("/v1/predict", content=data, headers={"content-type": f"image/{kind.lower()}"})
    assert answer.status_code == 200
    found, wanted = answer.json(), service.predictor.predict(data).to_dict(masks=True)
    assert found["id"] == answer.headers["x-request-id"]
    assert found["profile"] is None and "source" not in found
    for name in ("persons", "plan", "labels", "size", "truncated"):
        assert found[name] == wanted[name]


def test_bytes_without_a_kind_and_a_form_are_images_too(client: Any, jpeg: bytes) -> None:
    raw = client.post("/v1/predict", content=jpeg, headers={"content-type": "application/octet-stream"}).json()
    form = client.post("/v1/predict", files={"image": ("a.jpg", jpeg)}).json()
    assert raw["persons"] == form["persons"]


def test_labels_are_those_that_were_asked_for_in_their_order(client: Any, jpeg: bytes) -> None:
    found = client.post("/v1/predict?labels=backpack,child", content=jpeg, headers=JPEG).json()
    assert found["labels"] == ["backpack", "child"]
    assert list(found["persons"][0]["attributes"]) == ["backpack", "child"]


def test_masks_can_be_left_out(client: Any, jpeg: bytes) -> None:
    assert "mask" in client.post("/v1/predict", content=jpeg, headers=JPEG).json()["persons"][0]
    found = client.post("/v1/predict?masks=none", content=jpeg, headers=JPEG).json()
    assert "mask" not in found["persons"][0]


def test_crops_are_answered_each_in_its_place_and_a_bad_one_alone_fails(client: Any, service: Service) -> None:
    pictures = [encoded((48, 24), seed=1), b"no image", encoded((60, 30), "PNG", seed=2)]
    files = [("image", (f"{index}.jpg", data)) for index, data in enumerate(pictures)]
    found = client.post("/v1/crops?labels=gender,child", files=files).json()
    assert [crop["name"] for crop in found["crops"]] == ["0.jpg", "1.jpg", "2.jpg"]
    assert found["crops"][1]["error"]["code"] == "decode_error"
    for index in (0, 2):
        image = decode_image(pictures[index])
        box = np.array([[0, 0, image.shape[1], image.shape[0]]])
        wanted = service.predictor.predict(image, boxes=box, labels=["gender", "child"]).to_dict()
        assert found["crops"][index]["attributes"] == wanted["persons"][0]["attributes"]


def test_one_crop_may_be_the_body(client: Any, jpeg: bytes) -> None:
    found = client.post("/v1/crops", content=jpeg, headers=JPEG).json()
    assert len(found["crops"]) == 1 and set(found["crops"][0]["attributes"]) == {"child", "gender", "backpack"}


def test_the_plan_says_what_it_is(client: Any, service: Service) -> None:
    found = client.get("/v1/plan").json()
    assert found["digest"] == service.predictor.plan.digest
    assert [label["label"] for label in found["labels"]] == ["child", "gender", "backpack"]
    assert found["labels"][1]["classes"] == ["other", "female", "male"]
    assert found["labels"][1]["thresholds"] == {"female": 0.4, "male": 0.5}
    assert found["crop"]["size"] == [32, 32] and found["segmenter"] is None and found["profiles"] == []


def test_health(client: Any, service: Service) -> None:
    assert client.get("/live").json() == {"live": True}
    ready = client.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "plan": service.predictor.plan.digest, "refused": None}


def test_it_is_not_ready_before_the_engine_answered_and_after_the_end(toy_path: Path) -> None:
    from starlette.testclient import TestClient

    service = Service(Predictor(toy_path, threads=1), ServeSettings())
    app = create_app(service)
    early = TestClient(app)  # without its lifespan
    assert early.get("/ready").status_code == 503 and early.get("/live").status_code == 200
    with TestClient(app) as client:
        assert client.get("/ready").status_code == 200
    assert early.get("/ready").status_code == 503


def test_an_engine_that_does_not_work_never_gets_ready(toy_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    from graftsdk.errors import NonFiniteOutput

    service = Service(Predictor(toy_path, threads=1), ServeSettings())

    def broken(*_: Any, **__: Any) -> Any:
        raise NonFiniteOutput("label 'child': found NaN")

    monkeypatch.setattr(service.batcher, "submit_crops", broken)
    with pytest.raises(NonFiniteOutput), TestClient(create_app(service)):
        pass


def test_a_client_may_name_its_request(client: Any, jpeg: bytes) -> None:
    headers = {**JPEG, "x-request-id": "lift-7.12"}
    answer = client.post("/v1/predict", content=jpeg, headers=headers)
    assert answer.headers["x-request-id"] == answer.json()["id"] == "lift-7.12"
    hostile = client.get("/live", headers={"x-request-id": "a b"})
    assert hostile.headers["x-request-id"] != "a b"


def test_no_page_of_fastapi_is_there(client: Any) -> None:
    check_problem(client.get("/docs"), 404, "not_found")
    check_problem(client.get("/redoc"), 404, "not_found")
    assert "http" not in str(client.get("/openapi.json").json()["paths"])


KEY, OTHER = "k" * 32, "another-key-0123"


@pytest.fixture(scope="module")
def locked(toy_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from starlette.testclient import TestClient

    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"# of the lifts\n{KEY}\n\n{OTHER}\n")
    service = Service(Predictor(toy_path, threads=1), ServeSettings(keys=read_keys(str(path))))
    with TestClient(create_app(service)) as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/plan", "/metrics", "/v2", "/openapi.json", "/nope", "/live/"])
def test_without_a_key_nothing_but_health_is_told(locked: Any, path: str) -> None:
    assert check_problem(locked.get(path), 401, "unauthorized")
    assert locked.get(path).headers["www-authenticate"] == "Bearer"
    assert locked.get("/live").status_code == locked.get("/ready").status_code == 200
    assert locked.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {KEY}"}, {"x-api-key": OTHER}, {"authorization": f"bearer {OTHER}"}]
)
def test_any_of_the_keys_opens(locked: Any, headers: dict[str, str]) -> None:
    assert locked.get("/v1/plan", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": "Bearer "},
        {"x-api-key": KEY + "k"},
        {"x-api-key": b"\xff" * 32},
        {"x-api-key": "# of the lifts"},
    ],
)
def test_other_keys_do_not(locked: Any, headers: dict[str, Any], jpeg: bytes) -> None:
    check_problem(locked.post("/v1/predict", content=jpeg, headers={**JPEG, **headers}), 401, "unauthorized")


def test_keys_come_from_a_variable_and_are_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTSDK_API_KEYS", f"{KEY} {OTHER}")
    settings = ServeSettings(keys=read_keys(None))
    assert settings.allows(KEY) and settings.allows(OTHER)
    assert not settings.allows(None) and not settings.allows("") and not settings.allows(KEY[:31])


@pytest.mark.parametrize("text", ["short", "has a blank in it", "", "# only a remark"])
def test_a_key_that_can_be_guessed_is_refused_and_never_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text + "\n")
    with pytest.raises(ValueError) as caught:
        read_keys(str(path))
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_beyond_this_machine_a_key_is_needed(host: str) -> None:
    with pytest.raises(ValueError, match="--insecure"):
        check_binding(host, (), insecure=False)
    check_binding(host, (b"0" * 32,), insecure=False)
    check_binding(host, (), insecure=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_on_this_machine_none_is(host: str) -> None:
    check_binding(host, (), insecure=False)
