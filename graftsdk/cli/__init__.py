"""The command `graftsdk`: one file a subcommand, each of them arguments and printing only."""

from __future__ import annotations

__all__: list[str] = []
