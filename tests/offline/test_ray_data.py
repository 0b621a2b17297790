from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import toys
from PIL import Image

from graftsdk.errors import EngineError, MissingDependency, PlanError
from graftsdk.offline import run_batch
from graftsdk.offline.cluster import connect
from graftsdk.offline.job import Job
from graftsdk.offline.parts import begin_part, forget_begun, part_path, write_part
from graftsdk.offline.ray_data import Actors, ChunkActor, _ours

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


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_an_image_that_ends_every_process_ends_the_job(
    tmp_path: Path, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="needs Ray; pip install 'graftsdk[ray]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    class Fatal(ChunkActor):
        """In a function, so that Ray carries it to its processes, which do not know this file."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            predict = self._predictor.predict

            def fatal(image: list[str], **options: Any) -> Any:
                if any(each.endswith("5.png") for each in image):
                    os._exit(1)
                return predict(image, **options)

            self._predictor.predict = fatal  # type: ignore[method-assign,assignment]

    ray, _ = connect()
    try:
        with monkeypatch.context() as patch:
            patch.setattr("graftsdk.offline.ray_data.ChunkActor", Fatal)
            with pytest.raises(EngineError, match=r"chunk 5, 'images/5\.png' to 'images/5\.png'.* 3 processes ended"):
                run_batch("engine.plan", images, "out.parquet", chunk=1, actors=Actors(1))
        with pytest.raises(PlanError, match="replaced while the job ran"):  # an actor's error comes as it is
            replace = partial(toys.write, Path("other.plan"), ["child"])
            replace(seed=1)
            run_batch("other.plan", images, "x.parquet", actors=Actors(1), progress=lambda _: replace(seed=2))
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    counts: list[int] = []
    assert run_batch("engine.plan", images, "out.parquet", chunk=1, progress=counts.append).images == 7
    assert 0 < counts[0] < 7  # what was done is kept, and the one chunk was not


def test_a_chunk_is_begun_anew_in_each_run(tmp_path: Path) -> None:
    assert [begin_part(tmp_path, 3) for _ in range(4)] == [1, 2, 3, 4] and begin_part(tmp_path, 4) == 1
    write_part(part_path(tmp_path, 3), [], ["child"], "{}")
    assert begin_part(tmp_path, 3) == 1 and begin_part(tmp_path, 4) == 2
    forget_begun(tmp_path)
    assert begin_part(tmp_path, 3) == 1 and begin_part(tmp_path, 4) == 1


def test_what_ray_says_of_an_error_is_told_by_its_cause() -> None:
    text = (
        "ray::MapWorker()\n  File\nMemoryError: no room\n\nray.exceptions.UserCodeException: UDF failed\nTo change ..."
    )
    assert str(_ours(RuntimeError(text))).startswith("Ray: expected every chunk done, found MemoryError: no room; ")
    assert "found a node is gone; " in str(_ours(RuntimeError("lost:\na node is gone")))


def test_ray_is_absent(tmp_path: Path, images: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingDependency, match=r'pip install "graftsdk\[ray\]"'):
        run_batch("engine.plan", images, "out.parquet", actors=Actors())


def test_a_plan_that_was_replaced_is_refused(tmp_path: Path, images: list[str]) -> None:
    job = Job("0" * 64, ("child",), {"reduce": 1}, (), 1)
    actor = ChunkActor(str(tmp_path / "engine.plan"), {}, job, "{}", str(tmp_path), ".")
    found = actor({"chunk": [0], "images": [b"a.png"]})
    assert found["failure"][0].startswith("PlanError: ") and "replaced while the job ran" in found["failure"][0]
    assert not list(tmp_path.glob("*.parquet"))
