"""The HTTP service: `graftsdk serve`. Needs `graftsdk[serve]`; nothing below imports it."""

from __future__ import annotations

__all__: list[str] = []
