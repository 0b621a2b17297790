"""Plans in their life: what they hold and cost, whether they are still right, what a change did, what this machine can.

Each module gives frozen dataclasses or JSON types and prints nothing; `graftsdk.cli` prints them.
"""

from __future__ import annotations

__all__: list[str] = []
