"""What a spawned process does in test_process.py; a function it can import by name."""

from __future__ import annotations

from engine_graphs import crops, merged

from graftsdk.engines import open_engine


def bits() -> tuple[bytes, bool]:
    """The scores' bytes, and whether this process had to compile."""
    with open_engine([merged()], device="cpu") as engine:
        return engine.run({"crops": crops(5)})["a/scores"].tobytes(), engine.compiled
