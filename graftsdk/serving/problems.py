"""What a client is told when it gets no answer: one form, a status, a code; never a path, a repr or library text."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from graftsdk.errors import (
    EngineClosed,
    GraftError,
    ImageTooLarge,
    InputError,
    Overloaded,
)
from graftsdk.text import one_line

__all__ = ["MEDIA_TYPE", "PROBLEM", "PROBLEM_SCHEMA", "ClientGone", "Problem", "problem_of", "refusals"]

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 1  # seconds: a full queue is empty again after less

PROBLEM = {"$ref": "#/components/schemas/Problem"}  # where `create_app` puts the schema
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "the status in words"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "what was expected and found"},
        "code": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "description": "a stable name for programs"},
        "id": {"type": "string", "description": "the request's, as in the header X-Request-ID and in the log"},
    },
}


class ClientGone(Exception):
    """Nobody waits for the answer any more; there is none."""


class Problem(Exception):
    """An answer that is no result.

    Attributes:
        status: HTTP's. code: a stable name. detail: for people. headers: sent with it. close: end the connection.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = one_line(" ".join(detail.split()))[:500]
        self.headers = dict(headers or {})
        self.close = close
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER))

    def document(self, request_id: str) -> dict[str, Any]:
        """The problem as JSON types (RFC 9457)."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "id": request_id,
        }

    def body(self, request_id: str, *, inference: bool = False) -> bytes:
        """The document as bytes of UTF-8.

        Args:
            inference: with the member "error", which is what clients of the Open Inference Protocol read.
        """
        document = self.document(request_id) | ({"error": self.detail} if inference else {})
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")


def problem_of(error: GraftError, what: str = "image") -> Problem:
    """What a client is told of an error of ours: of its own input all, of the rest a code.

    Args:
        what: of the input, where the error is about what came.
    """
    code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", error.code).lower()
    if isinstance(error, Overloaded):
        return Problem(503, code, "expected a free place in the queue in time, found none; try again later")
    if isinstance(error, EngineClosed):
        return Problem(503, code, "the service is stopping; try again, another one may answer", close=True)
    if isinstance(error, InputError):
        told = re.sub(r"; Predictor\.\w+ .*\Z", "", str(error).removeprefix("image: "))
        return Problem(413 if isinstance(error, ImageTooLarge) else 422, code, f"{what}: {told}")
    return Problem(500, code, "the service could not compute an answer; its log has the reason under this id")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents of an operation, for its OpenAPI description; those that every one may have are in it."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": PROBLEM}},
        }
        for status in sorted({400, 401, 408, 413, 415, 422, 500, 503, *statuses})
    }
