"""One label's branch, trained on the frozen trunk's features: kept on disk, drawn at random, the best epoch saved."""

from __future__ import annotations

__all__: list[str] = []
