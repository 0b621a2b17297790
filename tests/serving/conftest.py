"""A service over a toy plan, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import toys
from requests_and_problems import encoded

pytest.importorskip("fastapi", reason="needs graftsdk[serve]")
pytest.importorskip("httpx", reason="needs httpx, which the test client of starlette is made of")

from starlette.testclient import TestClient

from graftsdk.predictor import Predictor
from graftsdk.serving.app import create_app
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings


@pytest.fixture(scope="session")
def toy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "toy.plan"
    toys.write(path)
    return path


@pytest.fixture(scope="module")
def service(toy_path: Path) -> Service:
    return Service(Predictor(toy_path, threads=1), ServeSettings(max_bytes=2 * 2**20, max_parts=4, pace=1.0))


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service)) as client:  # starts and stops the service
        yield client


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    return encoded((48, 64))
