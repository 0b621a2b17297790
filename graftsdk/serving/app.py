"""The ASGI application: routes over a service, limits before them, problems for whatever is no result."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import graftsdk
from graftsdk.serving.crops_routes import crops_routes
from graftsdk.serving.limits import Limits
from graftsdk.serving.open_inference import open_inference_routes
from graftsdk.serving.page import OPEN_PATHS, page_routes
from graftsdk.serving.plan_routes import plan_routes
from graftsdk.serving.predict_routes import predict_routes
from graftsdk.serving.problems import PROBLEM_SCHEMA, Problem
from graftsdk.serving.service import Service

__all__ = ["create_app"]

_COMPUTING = (
    "/v1/predict",
    "/v1/crops",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
)
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def create_app(service: Service) -> FastAPI:
    """The application of a service, which it starts and stops with its lifespan.

    FastAPI's own pages of documentation load their script from elsewhere and are off; /openapi.json is there.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await service.start()
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="graftsdk",
        version=graftsdk.__version__,
        summary="People in images and their attributes",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={HTTPException: _http, RequestValidationError: _validation},
    )
    for routes in (predict_routes, crops_routes, plan_routes, open_inference_routes):
        app.include_router(routes(service))
    app.include_router(page_routes())
    app.add_middleware(
        Limits,
        settings=service.settings,
        told=service.answered,
        cut=service.count_cut,
        open_paths=OPEN_PATHS,
        full=lambda: service.batcher.full,
        computing=_COMPUTING,
    )
    _complete(app, with_keys=bool(service.settings.keys))
    return app


async def _http(request: Request, error: Exception) -> Response:
    """What the router itself refuses. It goes on as a problem, which `Limits` answers."""
    assert isinstance(error, HTTPException)  # registered for nothing else
    phrase = HTTPStatus(error.status_code).phrase
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    details = {404: "expected a path that /openapi.json has", 405: "expected a method that the header Allow has"}
    raise Problem(error.status_code, code, details.get(error.status_code, phrase), headers=headers)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # registered for nothing else
    names = sorted({str(found["loc"][-1]) for found in error.errors()})
    raise Problem(422, "invalid_parameter", f"{', '.join(names)}: expected a value that /openapi.json allows")


def _complete(app: FastAPI, *, with_keys: bool) -> None:
    """Put the schema of problems, and the keys where there are any, into the OpenAPI description."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        found = described()
        components = found.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
        if with_keys:
            components["securitySchemes"] = _SCHEMES
            found["security"] = [{name: []} for name in _SCHEMES]
        return found

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation has it
