from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from graftsdk.engines import Engine, default_threads
from graftsdk.engines.available import RuntimeState
from graftsdk.errors import EngineBuildError
from graftsdk.lifecycle import bits, doctor
from graftsdk.lifecycle.bits import BitsCheck, check_bits
from graftsdk.lifecycle.doctor import Diagnosis, diagnose
from graftsdk.lifecycle.small_tree import LABELS, small_plan

HOLDING = (BitsCheck("batch 1 = batch 8", True, 0.0),)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of the bits, which has tests of its own."""
    monkeypatch.setattr(doctor, "check_bits", lambda: HOLDING)


def test_bits_hold_here() -> None:
    checks = check_bits()
    assert len(checks) == 4
    assert [(check.holds, check.difference) for check in checks] == [(True, 0.0)] * 4


def test_small_tree_answers_differently_crop_by_crop(tmp_path: Path) -> None:
    """A tree whose scores are all alike would keep any bits."""
    from graftsdk.engines.layout import graphs_of, partition
    from graftsdk.engines.reference import open_reference
    from graftsdk.graft import joints_of
    from graftsdk.preprocess import golden_crops

    with small_plan(tmp_path / "small.plan") as plan:
        groups = partition(joints_of(plan.manifest), "merged")
        with open_reference(graphs_of(plan, groups)) as engine:
            values = engine.run({"crops": golden_crops(plan.manifest.crop, count=8)})
    assert len(values) == len(LABELS)
    for scores in values.values():
        assert len(np.unique(scores[:, 1])) == 8
        assert scores.min() > 1e-6 and scores.max() < 1 - 1e-6


def test_bits_that_do_not_hold_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime whose result depends on the batch size."""
    true = bits._run

    def run(plan: object, engine: Engine, labels: Sequence[str], crops: np.ndarray, batch: int) -> dict:  # type: ignore[type-arg]
        found = true(plan, engine, labels, crops, batch)  # type: ignore[arg-type]
        if batch == 1:
            found["b"] = np.nextafter(found["b"], np.float32(1))
        return found

    monkeypatch.setattr(bits, "_run", run)
    found = diagnose()
    broken = [check for check in found.bits if not check.holds]
    assert [check.promise for check in broken] == ["batch 1 = batch 8"]
    assert 0 < broken[0].difference < 1e-6
    assert not found.ok
    assert "batch 1 = batch 8 does not hold here" in found.problems[0]


@pytest.mark.usefixtures("quick")
def test_sound_machine() -> None:
    found = diagnose()
    assert found.ok, found.problems
    cpu, cuda = found.devices
    assert cpu.works and cpu.device == "cpu"
    assert cuda.works or "cuda" in cuda.says
    assert found.packages["numpy"] == np.__version__
    assert found.threads.engine == default_threads() <= found.threads.affinity <= found.threads.cpus
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("module", "distributions", "repair"),
    [
        (
            "cv2",
            ["opencv-python-headless", "opencv-python", "opencv-python"],
            "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python",
        ),
        (
            "onnxruntime",
            ["onnxruntime", "onnxruntime-gpu"],
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        ),
    ],
)
def test_two_distributions_of_one_module(
    monkeypatch: pytest.MonkeyPatch, module: str, distributions: list[str], repair: str
) -> None:
    claims = {"cv2": ["opencv-python"], "onnxruntime": ["onnxruntime"], module: distributions}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: claims)
    found = diagnose()
    (duplicate,) = found.duplicates
    assert (duplicate.module, duplicate.distributions) == (module, tuple(sorted(set(distributions))))
    assert duplicate.repair == repair
    assert not found.ok
    assert repair in found.problems[0]


@pytest.mark.usefixtures("quick")
def test_headless_opencv_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = {"cv2": ["opencv-python-headless"], "onnxruntime": ["onnxruntime"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: claims)
    found = diagnose()
    assert "opencv-python" not in found.packages
    assert "opencv-python-headless" in found.packages
    assert found.ok, found.problems


@pytest.mark.usefixtures("quick")
def test_module_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor._BASE, "safetensors", "safetensors_that_is_not_there")
    found = diagnose()
    assert not found.ok
    assert "pip install safetensors" in found.problems[0]


@pytest.mark.usefixtures("quick")
def test_cache_that_others_may_write(own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    own_cache.chmod(0o777)
    found = diagnose()
    assert not found.cache.writable
    assert any(problem.startswith("engine cache: ") for problem in found.problems)


@pytest.mark.usefixtures("quick")
def test_cache_that_is_a_file(own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_bytes(b"")
    found = diagnose()
    assert found.cache.problem is not None
    assert not found.ok


def test_no_engine_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Engine:
        raise EngineBuildError("nothing works")

    monkeypatch.setattr(doctor, "open_engine", refuse)
    found: Diagnosis = diagnose()
    assert [device.works for device in found.devices] == [False, False]
    assert found.bits == ()  # not run: there is nothing to run them on
    assert "device cpu: nothing works" in found.problems


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("driver", [None, "no NVIDIA driver"])
def test_a_runtime_that_does_not_work_is_a_problem_where_there_is_a_gpu(
    driver: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = (
        RuntimeState("tensorrt-rtx", False, True, "no target for it"),
        RuntimeState("pycuda", False, False, "not installed"),
    )
    packages = {"tensorrt-rtx": "1.7.1", "pycuda": None}
    monkeypatch.setattr(doctor, "engines_here", lambda: states)
    monkeypatch.setattr(doctor, "driver_problem", lambda: driver)
    monkeypatch.setattr(doctor, "_packages", lambda: packages)
    found = diagnose()
    assert found.runtimes == states
    assert found.to_dict()["runtimes"][0]["says"] == "no target for it"
    assert [line for line in found.problems if "cuda" not in line] == (
        ["tensorrt-rtx: no target for it"] if driver is None else []
    )
