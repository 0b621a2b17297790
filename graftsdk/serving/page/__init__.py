"""The page at `/`: a picture goes in, its persons are outlined and what the plan says of them is shown.

Plain files of the package and nothing else: no build, no outside resource. The page asks the service that serves it,
by relative addresses, so that it also works under a prefix behind a proxy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Request, Response

__all__ = ["OPEN_PATHS", "page_routes"]

OPEN_PATHS = ("/", "/page/")  # what needs no key: files of the package, which hold nothing of anybody

_SCRIPTS = ("page.js", "address.js", "outline.js", "panels.js", "readings.js", "service.js", "stage.js", "table.js")
_SAMPLES = ("lift.jpg", "street.jpg", "child.jpg")
# A list, not a folder: what is not named here is not served, whatever the address says.
_FILES = {
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(_SCRIPTS, "text/javascript; charset=utf-8"),
    **{f"samples/{name}": "image/jpeg" for name in _SAMPLES},
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # blob: the picture that the visitor chose
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no text ever becomes markup
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Asked for again each time, and answered with 304: scripts of two releases must never meet in one page.
_FRESH = "no-cache"
_KEPT = "public, max-age=86400"


def page_routes() -> APIRouter:
    """`/` and `/page/...`; the files are read once, here.

    Every answer has an ETag, a Content-Security-Policy of this origin only and `nosniff`. The routes are for people
    and stand in no OpenAPI description.
    """
    folder = files(__name__)
    router = APIRouter(include_in_schema=False)
    for path, name in {"/": "index.html", **{f"/page/{name}": name for name in _FILES}}.items():
        body = folder.joinpath(*name.split("/")).read_bytes()
        router.add_api_route(path, _route(name, body), methods=["GET", "HEAD"], response_model=None)
    return router


def _route(name: str, body: bytes) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag, "Cache-Control": _KEPT if name.startswith("samples/") else _FRESH}
    kind = _FILES.get(name, "text/html; charset=utf-8")

    async def answer(request: Request) -> Response:
        known = {known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")}
        if tag in known:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    return answer
