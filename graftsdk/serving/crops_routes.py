"""`POST /v1/crops`: pictures of one person each, cut out elsewhere; attributes of each go out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from graftsdk.serving.predict_routes import LABELS, PROFILE, check_query, image_body, pictures_of, split
from graftsdk.serving.problems import PROBLEM, refusals
from graftsdk.serving.service import Service, until_gone

__all__ = ["crops_routes"]

_CROP: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "description": "the file's, of a form"},
        "attributes": {"type": "object", "additionalProperties": {"type": "object"}},
        "error": PROBLEM,
    },
}
_CROPS: dict[str, Any] = {
    "type": "object",
    "required": ["id", "plan", "profile", "crops"],
    "properties": {
        "id": {"type": "string"},
        "plan": {"type": "string", "description": "digest of the plan that answered"},
        "profile": {"type": ["string", "null"]},
        "crops": {"type": "array", "items": _CROP, "description": "in the order of the parts"},
    },
}


def crops_routes(service: Service) -> APIRouter:
    """The route, over a service."""
    router = APIRouter()

    @router.post(
        "/v1/crops",
        summary="Attributes of pictures that show one person each",
        response_class=Response,
        responses={
            200: {"description": "OK", "content": {"application/json": {"schema": _CROPS}}},
            **refusals(),
        },
        openapi_extra=image_body("image", many=True),
    )
    async def crops(
        request: Request,
        labels: Annotated[str | None, LABELS] = None,
        profile: Annotated[str | None, PROFILE] = None,
    ) -> Response:
        check_query(request, ("labels", "profile"))
        pictures = await pictures_of(request, most=service.settings.max_parts)
        work = service.crops(pictures, split(labels), profile, request.state.request_id)
        return Response(await until_gone(work, request.receive), media_type="application/json")

    return router
