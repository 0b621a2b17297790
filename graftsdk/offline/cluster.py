"""Ray, connected to a cluster or started here; on this machine's own loopback address as far as Ray lets us."""

from __future__ import annotations

import os
from typing import Any

from graftsdk.offline.packages import ray

__all__ = ["connect", "prepare"]


def prepare() -> None:
    """Before Ray is imported: what it reads from the environment only then. What the user has set stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get("RAY_ADDRESS"):
        # Named after the systems where it is Ray's default: no cluster, so the processes listen on 127.0.0.1. Without
        # it they listen on every interface, and init's own argument for an address resolves 127.0.0.1 to another one.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def connect() -> tuple[Any, bool]:
    """The package ray, connected, and whether that was done here: then `shutdown` is the caller's.

    To the cluster that RAY_ADDRESS names, or a Ray that is started here: no dashboard, no usage statistics.

    Raises:
        MissingDependency: Ray is absent.
    """
    prepare()
    library = ray()
    if library.is_initialized():
        return library, False
    address = os.environ.get("RAY_ADDRESS")
    if address:
        library.init(address=address, log_to_driver=False)
    else:
        library.init(address="local", include_dashboard=False, log_to_driver=False)
    return library, True
