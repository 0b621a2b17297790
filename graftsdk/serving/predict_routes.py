"""`POST /v1/predict`: an image comes as the body, or as the one part of a form; people and attributes go out."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from graftsdk.serving.problems import Problem, refusals
from graftsdk.serving.service import Service, until_gone
from graftsdk.text import one_line

__all__ = ["IMAGE_TYPES", "LABELS", "PROFILE", "check_query", "image_body", "pictures_of", "predict_routes", "split"]

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream")
FORM = "multipart/form-data"
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{1,70}")  # as RFC 2046 has it
_MAX_FIELD = 1024  # bytes of a field that is no file; there is none that we read

LABELS = Query(max_length=4096, description="labels to answer, in this order, with commas between; default: all")
PROFILE = Query(max_length=256, description="the group of thresholds that decides; default: the plan's own")

_ATTRIBUTES: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "object"}}
_PERSON: dict[str, Any] = {
    "type": "object",
    "required": ["index", "box", "score", "attributes"],
    "properties": {
        "index": {"type": "integer"},
        "box": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
        "score": {"type": ["number", "null"]},
        "attributes": _ATTRIBUTES,
        "mask": {
            "type": ["object", "null"],
            "description": "COCO's uncompressed run lengths, column by column, zeros first",
            "properties": {
                "size": {"type": "array", "items": {"type": "integer"}},
                "counts": {"type": "array", "items": {"type": "integer"}},
            },
        },
    },
}
_PREDICTION: dict[str, Any] = {
    "type": "object",
    "required": ["id", "profile", "size", "plan", "labels", "truncated", "timings", "persons"],
    "properties": {
        "id": {"type": "string"},
        "profile": {"type": ["string", "null"]},
        "size": {"type": "array", "items": {"type": "integer"}, "description": "height and width, pixels"},
        "plan": {"type": "string", "description": "digest of the plan that answered"},
        "labels": {"type": "array", "items": {"type": "string"}},
        "truncated": {"type": "boolean", "description": "there were more persons than the limit"},
        "timings": {"type": "object", "additionalProperties": {"type": "number"}},
        "persons": {"type": "array", "items": _PERSON},
    },
}


def image_body(part: str, many: bool) -> dict[str, Any]:
    """What the OpenAPI description says of a body: an image, or a form with one or many of them."""
    picture = {"type": "string", "format": "binary"}
    field = {"type": "array", "items": picture, "minItems": 1} if many else picture
    form = {"type": "object", "required": [part], "properties": {part: field}, "additionalProperties": False}
    content = {kind: {"schema": picture} for kind in IMAGE_TYPES} | {FORM: {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def predict_routes(service: Service) -> APIRouter:
    """The route, over a service."""
    router = APIRouter()

    @router.post(
        "/v1/predict",
        summary="People in an image and their attributes",
        response_class=Response,
        responses={200: _answer(_PREDICTION), **refusals()},
        openapi_extra=image_body("image", many=False),
    )
    async def predict(
        request: Request,
        labels: Annotated[str | None, LABELS] = None,
        profile: Annotated[str | None, PROFILE] = None,
        masks: Annotated[Literal["rle", "none"], Query(description="masks, run-length coded, or none")] = "rle",
    ) -> Response:
        check_query(request, ("labels", "profile", "masks"))
        ((_, data),) = await pictures_of(request, most=1)
        work = service.predict(data, split(labels), profile, masks=masks == "rle", request_id=request.state.request_id)
        return Response(await until_gone(work, request.receive), media_type="application/json")

    return router


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "OK", "content": {"application/json": {"schema": schema}}}


def check_query(request: Request, known: tuple[str, ...]) -> None:
    """Refuse a parameter that nobody reads (a misspelt one would silently do nothing), or one twice. Raises Problem."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) != len(names) or any(name not in known for name in names):
        raise Problem(422, "unknown_parameter", f"query: expected {', '.join(known) or 'none'}, each once, found other")


def split(labels: str | None) -> list[str] | None:
    """The names between commas; None where nothing was said."""
    return None if labels is None else [name.strip() for name in labels.split(",")]


async def pictures_of(request: Request, most: int) -> list[tuple[str, bytes]]:
    """The name and bytes of each image in the body, 1 to `most` of them. Nothing is decoded, nothing touches a disk.

    Raises:
        Problem: 415 another kind of content, 400 an empty body or a broken form, 413 more parts.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in IMAGE_TYPES:
        data = await request.body()
        if not data:
            raise Problem(400, "empty_body", "expected an image as the body, found nothing")
        return [("image", data)]
    if kind != FORM:
        raise Problem(
            415, "content_type", f"Content-Type: expected one of {', '.join(IMAGE_TYPES)} or {FORM}, found another"
        )
    return await _parts(request, most)


class _Parser(MultiPartParser):
    """Keeps files in memory, where the whole body is already, and never on a disk: images are not stored."""

    spool_max_size = 2**62


async def _parts(request: Request, most: int) -> list[tuple[str, bytes]]:
    body = await request.body()
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"")
    # The parser takes what is cut off for whole.
    if _BOUNDARY.fullmatch(boundary) is None or b"--" + boundary + b"--" not in body:
        raise Problem(400, "malformed_form", "expected a form with a boundary, closed by it, found none or a part")
    # Nothing but the boundary: of every name of a charset that is none, Python remembers that it is none.
    headers = Headers(raw=[(b"content-type", FORM.encode() + b'; boundary="' + boundary + b'"')])
    parser = _Parser(headers, request.stream(), max_files=most + 1, max_fields=0, max_part_size=_MAX_FIELD)
    files: list[UploadFile] = []
    try:
        form = await parser.parse()
        files = [item for _, item in form.multi_items() if isinstance(item, UploadFile)]
        if len(files) > most:
            raise Problem(413, "too_many_parts", f"expected at most {most} files in the form, found more")
        found = [(one_line((file.filename or "image")[-200:]), await file.read()) for file in files]
    except (MultiPartException, HTTPException, ValueError, KeyError, UnicodeError) as error:
        detail = "expected a form with files alone, each whole, within the limits on parts and fields"
        raise Problem(400, "malformed_form", detail) from error
    finally:
        for file in files:
            await file.close()
        for left in getattr(parser, "_files_to_close_on_error", ()):  # of parts that never ended
            left.close()
    if not found or not all(data for _, data in found):
        raise Problem(400, "empty_body", "expected an image in every file of the form, found nothing")
    return found
