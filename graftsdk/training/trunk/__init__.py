"""The trunk, trained by the dynamic graph (paper 3.3): one head a label, of which a step runs only those it drew."""

from __future__ import annotations

__all__: list[str] = []
