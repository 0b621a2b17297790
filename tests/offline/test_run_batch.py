from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toys
from PIL import Image

from graftsdk import Predictor
from graftsdk.errors import InputError, PlanError
from graftsdk.offline import run_batch
from graftsdk.offline.parts import Parts
from graftsdk.offline.ray_data import Actors

pytest.importorskip("pyarrow", reason="needs pyarrow; pip install 'graftsdk[batch]'")
import pyarrow.parquet as pq


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    toys.write(tmp_path / "engine.plan", ["child", "gender", "box"])
    return tmp_path / "engine.plan"


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(11):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    (folder / "05.png").write_bytes(b"no image")
    return sorted(folder.iterdir())


def test_one_row_an_image(tmp_path: Path, plan: Path, images: list[Path]) -> None:
    out, counts = tmp_path / "out.parquet", []
    found = run_batch(plan, images, out, chunk=4, progress=counts.append)
    assert (found.images, found.persons, found.failed) == (11, 10, 1) and counts == [0, 4, 4, 3]
    assert found.failures[0][0] == str(images[5]) and found.failures[0][1].startswith("DecodeError: ")
    rows = pq.read_table(out).to_pylist()
    assert [row["image"] for row in rows] == [str(image) for image in images]
    assert rows[5]["persons"] is None and rows[5]["width"] is None and "expected JPEG" in rows[5]["error"]
    with Predictor(plan) as predictor:
        wanted = predictor.predict(images[3])
    row = rows[3]
    assert (row["width"], row["height"], row["error"], row["truncated"]) == (36, 40, None, False)
    assert row["persons"] == [
        {
            "box": {"x0": 0, "y0": 0, "x1": 36, "y1": 40},
            "score": None,
            "attributes": {each.label: {"name": each.name, "score": each.score} for each in wanted[0]},
        }
    ]
    assert not (tmp_path / "out.parquet.parts").exists()


def test_what_is_done_is_not_done_again(
    tmp_path: Path, plan: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    run_batch(plan, images, whole, chunk=3)
    write, written = Parts.write, []

    def interrupted(self: Parts, chunk: int, rows: list[object]) -> None:
        if chunk == 2 and 2 not in written:
            written.append(2)
            raise KeyboardInterrupt
        written.append(chunk)
        write(self, chunk, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Parts, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_batch(plan, images, out, chunk=3)
    damaged = tmp_path / "out.parquet.parts" / "0000000.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])  # a disk that lied: made anew
    counts: list[int] = []
    run_batch(plan, images, out, chunk=3, progress=counts.append)
    assert written == [0, 1, 2, 0, 2, 3] and counts == [3, 3, 3, 2]
    assert out.read_bytes() == whole.read_bytes()
    before = out.stat().st_mtime_ns
    (tmp_path / "out.parquet.parts").mkdir()  # killed when the file was whole and the parts were not yet gone
    assert run_batch(plan, images, out, chunk=3).images == 11 and out.stat().st_mtime_ns == before
    assert not (tmp_path / "out.parquet.parts").exists()


def test_another_job_is_refused(
    tmp_path: Path, plan: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "merge", lambda self: None)
        with pytest.raises(FileNotFoundError):  # no merge, no file to count: the parts stay
            run_batch(plan, images, out)
    other = tmp_path / "other.plan"
    toys.write(other, ["child", "gender", "box"], seed=3)
    for changed, said in (
        ((other, images, {}), "the plan differ"),
        ((plan, images[:-1], {}), "the list of images, the number of images differ"),
        ((plan, images, {"reduce": 2}), "the options differ"),
        ((plan, images, {"chunk": 7}), "the size of a chunk differ"),
        ((plan, images, {"options": {"labels": ["child"]}}), "the labels differ"),
    ):
        with pytest.raises(InputError, match=f"{said}.*delete .*out.parquet.parts to begin anew"):
            run_batch(changed[0], changed[1], out, **changed[2])  # type: ignore[arg-type]
    run_batch(plan, images, out, options={"threads": 1})  # changes no answer
    with pytest.raises(InputError, match="found the result of another job: the plan differ"):
        run_batch(other, images, out)
    out.write_bytes(b"mine")
    with pytest.raises(InputError, match="expected nothing, found another file"):
        run_batch(plan, images, out)
    assert out.read_bytes() == b"mine"


def test_two_at_once_are_refused(tmp_path: Path, plan: Path, images: list[Path]) -> None:
    out = tmp_path / "out.parquet"

    def meanwhile(count: int) -> None:
        with pytest.raises(InputError, match="found another process at work on it"):
            run_batch(plan, images, out)

    assert run_batch(plan, images, out, progress=meanwhile).images == 11


def test_a_run_that_finds_another_one_at_its_end(
    tmp_path: Path, plan: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, remove, seen = tmp_path / "out.parquet", shutil.rmtree, []

    def meanwhile(path: Path, **options: bool) -> None:
        if out.exists() and not seen:  # the parts are about to go
            seen.append(path)
            assert run_batch(plan, images, out).images == 11
        remove(path, **options)

    monkeypatch.setattr("shutil.rmtree", meanwhile)
    assert run_batch(plan, images, out).images == 11 and seen
    assert not (tmp_path / "out.parquet.parts").exists()


def test_parts_of_another_job_stay(
    tmp_path: Path, plan: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "out.parquet", tmp_path / "other.parquet"
    run_batch(plan, images, out)
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "merge", lambda self: None)
        with pytest.raises(FileNotFoundError):
            run_batch(plan, images[:2], other)
    parts = (tmp_path / "other.parquet.parts").rename(tmp_path / "out.parquet.parts")
    assert run_batch(plan, images, out).images == 11
    assert sorted(path.name for path in parts.iterdir()) == ["0000000.parquet", "journal.json", "lock"]


def test_a_folder_of_parts_that_cannot_be(tmp_path: Path, plan: Path, images: list[Path]) -> None:
    (tmp_path / "out.parquet.parts").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"out\.parquet\.parts: expected a folder that can be written, or nothing"):
        run_batch(plan, images, tmp_path / "out.parquet")


def test_a_file_system_without_locks(
    tmp_path: Path, plan: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert run_batch(plan, images, tmp_path / "out.parquet").images == 11


def test_a_plan_that_is_replaced_between_two_looks(tmp_path: Path, plan: Path, images: list[Path]) -> None:
    def replace(count: int) -> None:  # called before the predictor opens
        toys.write(plan, ["child"], seed=3)

    with pytest.raises(PlanError, match="replaced while the job ran"):
        run_batch(plan, images, tmp_path / "out.parquet", progress=replace)
    assert not list((tmp_path / "out.parquet.parts").glob("*.parquet"))


def test_options_as_a_predictor_takes_them(
    tmp_path: Path, plan: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    options = {
        "labels": (label for label in ["box"]),
        "thresholds": {"box": np.float32(0.75)},
        "min_score": np.int64(1),
    }
    run_batch(plan, [os.fsencode(images[0])], out, options=options)  # type: ignore[list-item]
    record = json.loads(pq.read_schema(out).metadata[b"graftsdk.batch"])
    assert record["options"] == {"min_score": 1, "reduce": 1, "thresholds": {"box": 0.75}}
    assert record["labels"] == ["box"]
    assert pq.read_table(out).to_pylist()[0]["image"] == str(images[0])

    monkeypatch.chdir(tmp_path)
    told = {}

    def chunks(plan: str, options: dict[str, object], *_: object) -> None:
        told.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("graftsdk.offline.batch.run_chunks", chunks)
    with pytest.raises(KeyboardInterrupt):
        run_batch(plan, images, "ray.parquet", options={"engines": Path("built")}, actors=Actors())
    assert told["engines"] == str(tmp_path / "built")  # an actor has another working folder


def test_arguments(tmp_path: Path, plan: Path, images: list[Path]) -> None:
    for wrong, keywords in (([], {}), ([images[0], images[0]], {}), (images, {"chunk": 0}), (images, {"reduce": 3})):
        with pytest.raises(InputError):
            run_batch(plan, wrong, tmp_path / "out.parquet", **keywords)
    for options in ({"device": object()}, {"thresholds": {3: 0.5}}, {"min_score": float("nan")}):
        with pytest.raises(InputError, match=r"options\['"):
            run_batch(plan, images, tmp_path / "out.parquet", options=options)
    with pytest.raises(InputError, match="images: expected paths, found 3"):
        run_batch(plan, [3], tmp_path / "out.parquet")  # type: ignore[list-item]
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_name_that_is_no_utf8(tmp_path: Path, plan: Path, images: list[Path]) -> None:
    strange = os.fsencode(images[0].parent) + b"/\xff.png"
    os.rename(images[0], strange)
    run_batch(plan, [os.fsdecode(strange)], tmp_path / "out.parquet")
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["image"].endswith("/\\udcff.png") and row["error"] is None


def test_killed_at_any_moment(tmp_path: Path, plan: Path, images: list[Path]) -> None:
    out, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    run_batch(plan, images, whole, chunk=1)
    script = (
        "import sys, pathlib; from graftsdk.offline import run_batch\n"
        "folder, out = map(pathlib.Path, sys.argv[2:])\n"
        "print('begun', flush=True)\n"
        "tell = lambda count: print(count, flush=True)\n"
        "run_batch(sys.argv[1], sorted(folder.iterdir()), out, chunk=1, progress=tell)"
    )
    command = [sys.executable, "-c", script, str(plan), str(images[0].parent), str(out)]
    draws, kills = random.Random(5), 0
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(draws.randrange(1, 6)):
                process.stdout.readline()
            time.sleep(draws.random() / 200)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills >= 2
    assert not out.exists() or out.read_bytes() == whole.read_bytes()
    run_batch(plan, images, out, chunk=1)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out.parquet"]


def test_the_record_is_in_the_file(tmp_path: Path, plan: Path, images: list[Path]) -> None:
    out = tmp_path / "out.parquet"
    run_batch(plan, images, out, options={"labels": ["box"], "thresholds": {"box": 0.9}})
    record = json.loads(pq.read_schema(out).metadata[b"graftsdk.batch"])
    assert record["labels"] == ["box"] and record["options"] == {"reduce": 1, "thresholds": {"box": 0.9}}
