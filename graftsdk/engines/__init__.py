"""Grafted graphs to scores: compiled once for each device, kept in the engine cache, run from many threads.

Importing this package loads the standard library only; onnxruntime is imported when an engine is opened or
`share_threads` is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftsdk.engines.base import Engine, Graph
    from graftsdk.engines.cache import Cache, CacheEntry
    from graftsdk.engines.opening import open_engine
    from graftsdk.engines.threads import default_threads, share_threads

__all__ = [
    "Cache",
    "CacheEntry",
    "Engine",
    "Graph",
    "default_threads",
    "open_engine",
    "share_threads",
]

_HOMES = {
    "Cache": "cache",
    "CacheEntry": "cache",
    "Engine": "base",
    "Graph": "base",
    "default_threads": "threads",
    "open_engine": "opening",
    "share_threads": "threads",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'graftsdk.engines' has no attribute {name!r}")
    value = getattr(import_module(f"graftsdk.engines.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
