from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import toys
from PIL import Image

from graftsdk.errors import MissingDependency
from graftsdk.offline import run_batch
from graftsdk.offline.ray_data import Actors, ChunkActor

pytest.importorskip("pyarrow", reason="needs pyarrow; pip install 'graftsdk[batch]'")


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    toys.write(tmp_path / "engine.plan", ["child", "gender"])
    (tmp_path / "images").mkdir()
    for index in range(7):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    return [f"images/{index}.png" for index in range(7)]


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the collector
def test_the_same_file_as_without_ray_though_an_actor_is_killed(
    tmp_path: Path, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="needs Ray; pip install 'graftsdk[ray]'")
    monkeypatch.chdir(tmp_path)  # relative paths mean the same in an actor
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run_batch("engine.plan", images, "here.parquet", chunk=1)
    counts: list[int] = []

    def kill(count: int) -> None:
        counts.append(count)
        if len(counts) == 2:  # the first call tells of earlier runs
            mine = psutil.Process().children(recursive=True)
            (actor,) = [each for each in mine if "MapWorker" in "".join(each.cmdline())]
            actor.kill()

    found = run_batch("engine.plan", images, "ray.parquet", chunk=1, actors=Actors(1), progress=kill)
    assert not ray.is_initialized()
    assert (found.images, found.failed) == (7, 1) and sum(counts) == 7
    assert Path("ray.parquet").read_bytes() == Path("here.parquet").read_bytes()


def test_ray_is_absent(tmp_path: Path, images: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingDependency, match=r'pip install "graftsdk\[ray\]"'):
        run_batch("engine.plan", images, "out.parquet", actors=Actors())


def test_a_plan_that_was_replaced_is_refused(tmp_path: Path, images: list[str]) -> None:
    from graftsdk.errors import PlanError
    from graftsdk.offline.job import Job

    with pytest.raises(PlanError, match="replaced while the job ran"):
        ChunkActor(str(tmp_path / "engine.plan"), {}, Job("0" * 64, ("child",), {"reduce": 1}, (), 1), "{}", ".", ".")
