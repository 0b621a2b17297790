"""What a service is asked in tests, and what each of its problems must look like."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def encoded(size: tuple[int, int], kind: str = "JPEG", seed: int = 0) -> bytes:
    """A picture of noise; `size` is (H, W)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def check_problem(answer: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """The document, proved to be one that tells a client nothing of the machine."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code", "id"} <= set(document)
    assert document["status"] == status
    assert code is None or document["code"] == code, document
    assert document["id"] == answer.headers["x-request-id"]
    for told in (
        "/tmp",
        "/work",
        "/usr",
        "Traceback",
        "0x",
        "site-packages",
        "object at",
        "Predictor.",
        "pillow",
        "PIL",
    ):
        assert told not in answer.text
    return document
