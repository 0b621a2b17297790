"""A predictor on engines that were built ahead: from its arguments to scores, on a stand-in for GPU and library."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_segmenter
import toys
from fake_gpu import CAPABILITY, Machine, kernels_of, library

from graftsdk import Predictor
from graftsdk.cli import build as cli_build
from graftsdk.engines import cuda, opener
from graftsdk.engines.cuda.host import HostDevice
from graftsdk.engines.record import read_record
from graftsdk.errors import (
    EngineBuildError,
    EngineClosed,
    EngineForked,
    EngineIncompatible,
    InputError,
    MissingDependency,
    PlanCorrupt,
)
from graftsdk.export import BuildReport
from graftsdk.loaded import Loaded
from graftsdk.plan import PartInfo, Provenance, SegmenterInfo
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import read_segmenter_part
from graftsdk.preprocess import golden_crops
from graftsdk.segment import recognise

__all__ = ["library"]  # a fixture

LABELS = ("child", "gender", "backpack")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def machine(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    found = Machine(kernels_of(library), monkeypatch)
    yield found
    assert found.fake.wrong == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toys.write(tmp_path / "engine.plan", LABELS)
    return tmp_path / "engine.plan"


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (60, 50, 3), np.uint8)


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for label, scores in expected.items():
        np.testing.assert_allclose(found[label], scores, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_scores_are_onnx_runtimes(machine: Machine, path: Path, image: np.ndarray, layout: Any) -> None:
    machine.build(path, layout=layout)
    with Predictor(path) as host, Predictor(path, engine="tensorrt", layout=layout) as gpu:
        assert (gpu.device, gpu.labels) == ("cuda", LABELS)
        for count in (0, 1, 3, 11):
            same(gpu.run(toys.crops(count)), host.run(toys.crops(count)))
        same(gpu.run(toys.crops(3), ["backpack"]), host.run(toys.crops(3), ["backpack"]))
        boxes = [[0, 0, 20, 60], [10, 5, 50, 40]]
        for one, other in zip(gpu.predict(image, boxes=boxes), host.predict(image, boxes=boxes), strict=True):
            for attribute in one:
                assert attribute.scores == pytest.approx(other[attribute.label].scores, abs=1e-5)


def test_the_segmenter_runs_there_too(machine: Machine, tmp_path: Path, image: np.ndarray) -> None:
    part, inputs, outputs, _ = read_segmenter_part(toy_segmenter.write(tmp_path / "s.onnx"))
    info = SegmenterInfo(part=part.name, **recognise(inputs, outputs))
    segmenter = part, info, PartInfo("segmenter", part.digest, provenance=Provenance("", ""))
    path = tmp_path / "found.plan"
    create_plan(path, toys.trunk(), [toys.branch("child")], segmenter)
    machine.build(path)
    with Predictor(path) as host, Predictor(path, engine="tensorrt") as gpu:
        ran = len(machine.fake.runs)
        found, expected = gpu.predict(image), host.predict(image)
        assert machine.fake.runs[ran][0] == ("output0", "output1")
        assert [person.box.tolist() for person in found] == [person.box.tolist() for person in expected]


def test_some_labels_of_a_split_plan_need_their_engines_alone(machine: Machine, path: Path) -> None:
    machine.build(path, layout="split", labels=["gender"])
    with (
        Predictor(path, engine="tensorrt", layout="split", labels=["gender"]) as gpu,
        Predictor(path, labels=["gender"]) as host,
    ):
        same(gpu.run(toys.crops(2)), host.run(toys.crops(2)))
    with pytest.raises(EngineIncompatible, match="graftsdk build .* --layout split"):
        Predictor(path, engine="tensorrt", layout="split", labels=["child"])


@pytest.mark.parametrize("sound", [True, False])
def test_golden_scores_are_compared_when_it_opens(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture, sound: bool
) -> None:
    path, stock, branches = tmp_path / "engine.plan", toys.trunk(), [toys.branch("child"), toys.branch("hat", 2)]
    create_plan(tmp_path / "first.plan", stock, branches)
    with Predictor(tmp_path / "first.plan") as host:
        scores = host.run(golden_crops(toys.CROP))
    stored = []
    for part, document in branches:
        rows = scores[document.label].tolist()
        if not sound and document.label == "hat":
            rows[1].reverse()
        exported = replace(document.exported, scores=tuple(map(tuple, rows)))  # type: ignore[type-var]
        stored.append((part, replace(document, exported=exported)))
    create_plan(path, stock, stored)
    machine.build(path)
    with caplog.at_level(logging.INFO, logger="graftsdk"), Predictor(path, engine="tensorrt"):
        (line,) = [each for each in caplog.records if "golden crops" in each.message]
    if sound:
        assert line.levelno == logging.INFO and "no decision flips" in line.message
    else:
        assert line.levelno == logging.WARNING and "decisions flip for 'hat (1)'" in line.message


# ----------------------------------------------------------------------------------------------------------- trust


def test_engines_of_elsewhere_need_the_callers_word(machine: Machine, path: Path) -> None:
    machine.build(path, remember=False)
    with pytest.raises(EngineIncompatible, match=r"An engine is code.*graftsdk build .*trust_engines=True"):
        Predictor(path, engine="tensorrt")
    with Predictor(path, engine="tensorrt", trust_engines=True) as gpu:
        assert len(gpu.run(toys.crops(1))) == 3


def test_engines_that_do_not_fit(machine: Machine, path: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineIncompatible, match=f"graftsdk build .* --for {CAPABILITY} --runtime tensorrt"):
        Predictor(path, engine="tensorrt")
    folder = machine.build(path)
    (engine,) = folder.glob("*.engine")
    content = engine.read_bytes()
    engine.write_bytes(content[:-1] + b"?")
    with pytest.raises(PlanCorrupt, match="engine"):
        Predictor(path, engine="tensorrt")
    machine.build(path, folder, version="11.5.0")
    with pytest.raises(EngineIncompatible, match="tensorrt 11.4.0, found 11.5.0"):
        Predictor(path, engine="tensorrt")
    elsewhere = tmp_path / "elsewhere"
    machine.build(path, elsewhere)
    with Predictor(path, engines=elsewhere) as gpu:  # "auto" takes those that are named
        assert gpu.device == "cuda"
    with Predictor(path) as host:
        assert host.device == "cpu"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"engine": "tensorrt", "device": "cpu"}, "which needs a GPU"),
        ({"engine": "onnxruntime", "engines": "x"}, "engines: expected it with engine='tensorrt' only"),
        ({"engine": "onnxruntime", "build": "auto"}, "build: expected it"),
        (
            {"trust_engines": True},
            r"trust_engines: expected it with engine='tensorrt' or with engines= \(--engines DIR\)",
        ),
        ({"engine": "fast"}, "engine: expected one of"),
        ({"engine": "tensorrt", "build": "always"}, "build: expected one of"),
    ],
)
def test_arguments_that_exclude_each_other(path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Predictor(path, **options)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_precision_that_needs_a_gpu_says_so(path: Path, precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftsdk.engines.onnxruntime.cuda_problem", lambda *_: "device 'cuda': no driver")
    with pytest.raises(EngineIncompatible, match=f"^precision '{precision}' needs a GPU: device 'cuda': no driver"):
        Predictor(path, precision=precision)
    with pytest.raises(EngineIncompatible, match="^device 'cuda': no driver"):
        Predictor(path, precision=precision, device="cuda")


# ----------------------------------------------------------------------------------------------------------- build


def test_what_is_missing_is_built_where_that_is_asked_for(
    machine: Machine, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commands: list[list[str]] = []

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(words)
        if len(commands) == 2:
            machine.build(path)
        return subprocess.CompletedProcess(words, 0 if len(commands) == 2 else 3)

    monkeypatch.setattr(opener.subprocess, "run", run)
    with pytest.raises(EngineBuildError, match="expected exit status 0, found 3"):
        Predictor(path, engine="tensorrt", build="auto")
    with Predictor(path, engine="tensorrt", build="auto") as gpu:
        assert len(gpu.run(toys.crops(1))) == 3
    with Predictor(path, engine="tensorrt", build="auto"):
        assert len(commands) == 2  # it is there
    assert commands[0][1:6] == ["-P", "-m", "graftsdk.cli.main", "build", str(path)]  # -P: nothing of the folder
    assert commands[0][6:10] == ["--for", CAPABILITY, "--runtime", "tensorrt"]
    assert "building engines, which may take minutes" in caplog.text


def test_what_the_build_prints_is_not_put_into_the_callers_output(
    machine: Machine, path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given: list[dict[str, Any]] = []
    original = subprocess.run

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        given.append(options)
        machine.build(path)
        return original([sys.executable, "-S", "-c", "print('a table')"], **options)

    monkeypatch.setattr(opener.subprocess, "run", run)
    Predictor(path, engine="tensorrt", build="auto").close()
    out, err = capfd.readouterr()
    assert out == "" and "a table" in err
    monkeypatch.setattr(sys, "__stderr__", None)  # closed when the process started; 2 may be any file since
    assert given[0]["stdout"] == 2 and opener._stderr() == subprocess.DEVNULL


def test_a_real_engine_is_built_and_needs_a_driver(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library builds for a GPU that is not here, and says so when the engine is to be run."""
    pytest.importorskip("tensorrt_rtx")
    from graftsdk.engines.driver import driver_problem

    if driver_problem() is None:
        pytest.skip("there is a driver")
    monkeypatch.setattr(cuda, "open_device", lambda *_: HostDevice(compute_capability=CAPABILITY))
    with pytest.raises((EngineIncompatible, MissingDependency), match="driver"):
        Predictor(path, engine="tensorrt", runtime="tensorrt_rtx", build="auto", labels=["child"])
    assert len(list(path.with_name("engine.engines").glob("merged-*.engine"))) == 1


# ------------------------------------------------------------------------------------------------------------ life


def test_it_pickles_with_its_options(machine: Machine, path: Path, tmp_path: Path) -> None:
    folder = machine.build(path, tmp_path / "elsewhere", labels=["child"], remember=False)
    with Predictor(path, engine="tensorrt", engines=folder, trust_engines=True, labels=["child"]) as gpu:
        pickled = pickle.dumps(gpu)
    with pickle.loads(pickled) as twin:
        assert (twin.labels, twin.device) == (("child",), "cuda")
        assert len(twin.run(toys.crops(2))["child"]) == 2
    with pytest.raises(EngineIncompatible, match="An engine is code"):
        Predictor(path, engine="tensorrt", engines=folder, labels=["child"])


def test_a_forked_child_refuses_it(machine: Machine, path: Path, image: np.ndarray) -> None:
    machine.build(path)
    with Predictor(path, engine="tensorrt") as gpu:
        gpu.run(toys.crops(1))
        child = os.fork()
        if not child:
            status = 1
            try:
                gpu.run(toys.crops(1))
            except EngineForked:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(gpu.run(toys.crops(1))) == 3


def test_after_close_everything_is_given_back(machine: Machine, path: Path, image: np.ndarray) -> None:
    machine.build(path)
    gpu = Predictor(path, engine="tensorrt")
    gpu.predict(image)
    gpu.close()
    gpu.close()
    with pytest.raises(EngineClosed):
        gpu.predict(image)
    with pytest.raises(EngineClosed):
        gpu.run(toys.crops(1))
    assert machine.device.memory.used == 0 and machine.fake.open_contexts == 0


def test_a_refused_one_gives_everything_back(machine: Machine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.build(path)
    monkeypatch.setattr(Loaded, "warm_up", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Predictor(path, engine="tensorrt")
    assert machine.device.memory.used == 0 and machine.fake.open_contexts == 0


# --------------------------------------------------------------------------------------------------- after a build


@pytest.mark.parametrize("here", [(CAPABILITY,), ("9.9",), ()])
def test_a_build_for_a_gpu_that_is_here_says_how_far_each_label_moved(
    machine: Machine, path: Path, here: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    machine.build(path)
    folder = path.with_name("engine.engines")
    records = tuple(read_record(each) for each in folder.glob("*.json"))
    monkeypatch.setattr(cli_build, "gpu_capabilities", lambda: here)
    said = argparse.Namespace(plan=str(path), precision="float32", layout="merged", labels=None)
    report = BuildReport(folder, records, (), 0.0)
    cli_build._print_golden(cli_build._golden(said, report))
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    if CAPABILITY in here:  # the toys' stored scores are made up: every label differs from them
        assert [row[0] for row in rows[2:]] == list(LABELS) and all(float(row[1]) > 0 for row in rows[2:])
        for each in folder.glob("*.engine"):
            each.write_bytes(b"no engine")
        assert cli_build._golden(said, report) == ()  # a build is no failure because of it
        assert capsys.readouterr().err.startswith("golden scores are not compared: ")
    else:
        assert rows == []
