"""The Open Inference Protocol, version 2, over HTTP: what clients of Triton and KServe speak.

One model: input "crops" FP32 [N, 3, H, W], as `graftsdk.preprocess.mask_crop` makes them; an output FP32 [N, C] of
calibrated probabilities for each label. There is no managing of models and no shared memory.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from graftsdk.serving.predict_routes import check_query
from graftsdk.serving.problems import Problem, refusals
from graftsdk.serving.service import Service, until_gone
from graftsdk.serving.tensors import HEAD_LENGTH, INPUT, read_request, write_answer

__all__ = ["VERSION", "open_inference_routes"]

VERSION = "1"  # of the model: a plan that is replaced changes its digest, which every answer has
_JSON = ("application/json", "application/octet-stream", "")

_TENSOR: dict[str, Any] = {
    "type": "object",
    "required": ["name", "datatype", "shape", "data"],
    "properties": {
        "name": {"const": INPUT},
        "datatype": {"const": "FP32"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 4, "maxItems": 4},
        "data": {"type": "array", "items": {"type": "number"}},
    },
    "additionalProperties": False,
}
_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 256},
        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
        "outputs": {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        },
    },
    "additionalProperties": False,
}


def open_inference_routes(service: Service) -> APIRouter:
    """The routes, over a service."""
    router = APIRouter(responses=refusals(404))

    def check_model(name: str, version: str = VERSION) -> None:
        if name != service.settings.model or version != VERSION:
            raise Problem(404, "unknown_model", "expected the model and version that GET /v2 tells, found others")

    @router.get("/v2", summary="What the server is")
    async def server(request: Request) -> dict[str, Any]:
        plan = service.description()
        return {
            "name": "graftsdk",
            "version": plan["version"],
            "extensions": ["binary_tensor_data"],
            "models": [service.settings.model],
        }

    @router.get("/v2/health/live", summary="The process answers", response_class=Response)
    async def live() -> Response:
        return Response()

    @router.get("/v2/health/ready", summary="The model answers", response_class=Response)
    async def ready() -> Response:
        return Response(status_code=200 if service.ready else 503)

    @router.get("/v2/models/{name}/ready", summary="The model answers", response_class=Response)
    async def model_ready(name: str) -> Response:
        check_model(name)
        return await ready()

    @router.get("/v2/models/{name}/versions/{version}/ready", summary="The model answers", response_class=Response)
    async def version_ready(name: str, version: str) -> Response:
        check_model(name, version)
        return await ready()

    @router.get("/v2/models/{name}", summary="Inputs and outputs of the model")
    async def model(name: str) -> dict[str, Any]:
        check_model(name)
        plan = service.description()
        return {
            "name": name,
            "versions": [VERSION],
            "platform": "graftsdk",
            "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, 3, *plan["crop"]["size"]]}],
            "outputs": [
                {"name": label["label"], "datatype": "FP32", "shape": [-1, len(label["classes"])]}
                for label in plan["labels"]
            ],
        }

    @router.get("/v2/models/{name}/versions/{version}", summary="Inputs and outputs of the model")
    async def model_version(name: str, version: str) -> dict[str, Any]:
        check_model(name, version)
        return await model(name)

    async def infer(request: Request, name: str, version: str = VERSION) -> Response:
        check_model(name, version)
        check_query(request, ())
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _JSON:
            raise Problem(415, "content_type", "Content-Type: expected application/json, found another")
        return await until_gone(_answer(service, request, name), request.receive)

    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}}}
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        router.post(
            path,
            summary="Scores of prepared crops",
            response_class=Response,
            responses={200: {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}},
            openapi_extra=body,
            name="infer" if "version" not in path else "infer_version",
        )(infer if "version" in path else _unversioned(infer))
    return router


def _unversioned(infer: Any) -> Any:
    async def infer_newest(request: Request, name: str) -> Response:
        found: Response = await infer(request, name)
        return found

    return infer_newest


async def _answer(service: Service, request: Request, name: str) -> Response:
    until = time.monotonic() + service.settings.seconds
    body = await request.body()
    size = service.predictor.plan.manifest.crop.size
    # In a worker: a megabyte of JSON takes tens of milliseconds, in which nobody else would be served, and memory.
    asked = await service.work(lambda _: read_request(body, request.headers.get(HEAD_LENGTH), size), until)
    raw = dict(asked.outputs or ())
    known = service.predictor.labels
    if len(raw) != len(asked.outputs or ()) or any(label not in known for label in raw):
        raise Problem(400, "unknown_output", "outputs: expected labels that the model's metadata has, each once")
    scores = await service.infer(asked.crops, list(raw) or None)
    head = {
        "model_name": name,
        "model_version": VERSION,
        "id": asked.id or request.state.request_id,
        "parameters": {"plan": scores.plan.digest},
    }
    told = [(label, values, raw.get(label, asked.binary)) for label, values in scores.items()]
    text, length = await service.work(lambda _: write_answer(head, told), until)
    if length is None:
        return Response(text, media_type="application/json")
    return Response(text, media_type="application/octet-stream", headers={HEAD_LENGTH: str(length)})
