"""What the service says of itself: its plan, whether it lives and is ready, its metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from graftsdk.serving.predict_routes import check_query
from graftsdk.serving.problems import refusals
from graftsdk.serving.service import Service

__all__ = ["plan_routes"]

_READY: dict[str, Any] = {
    "type": "object",
    "required": ["ready", "plan", "refused"],
    "properties": {
        "ready": {"type": "boolean"},
        "plan": {"type": "string", "description": "digest of the plan that answers"},
        "refused": {"type": ["string", "null"], "description": "why a newer plan file does not serve"},
    },
}


def plan_routes(service: Service) -> APIRouter:
    """The routes, over a service."""
    router = APIRouter()

    @router.get("/v1/plan", summary="The plan that answers: labels, thresholds, crop, profiles", responses=refusals())
    async def plan(request: Request) -> dict[str, Any]:
        check_query(request, ())
        return service.description()

    @router.get("/live", summary="The process answers", responses=refusals())
    async def live(request: Request) -> dict[str, bool]:
        return {"live": True}

    @router.get(
        "/ready",
        summary="The engine has answered and takes requests",
        response_class=JSONResponse,
        responses={
            **refusals(),
            200: {"description": "ready", "content": {"application/json": {"schema": _READY}}},
            503: {"description": "not ready", "content": {"application/json": {"schema": _READY}}},
        },
    )
    async def ready(request: Request) -> JSONResponse:
        told = {"ready": service.ready, "plan": service.predictor.plan.digest, "refused": service.refused()}
        return JSONResponse(told, 200 if service.ready else 503)

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            **refusals(),
            200: {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}},
        },
    )
    async def metrics(request: Request) -> Response:
        text = b"" if service.metrics is None else service.metrics.render()
        return Response(text, media_type="text/plain; version=0.0.4")

    return router
