"""What every test may use: the optional data folder beside the checkout, seeded numbers, repeatable properties."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# The same examples in every run; the time of one example depends on the machine and proves nothing.
settings.register_profile("graftsdk", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("graftsdk")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout: real photographs, data sets and models that are never shipped."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the data folder ../shared beside the checkout, which is not part of the project")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests compile into a cache of their own, never into the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No thread and no open file stays behind the test; what earlier ones left may go meanwhile."""
    before = _threads_and_files()
    yield
    if _threads_and_files() - before:
        gc.collect()
    assert _threads_and_files() - before == set()


def _threads_and_files() -> set[object]:
    found: set[object] = set(threading.enumerate())
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded numbers, the same in every run of the test that asks for them."""
    return np.random.default_rng(0)
