"""Which library is taken, and that its silent failures are errors: by stand-ins, and by the real one where it is."""

from __future__ import annotations

import enum
import logging
import sys
from types import ModuleType
from typing import Any

import pytest

from graftsdk.engines import driver, tensorrt
from graftsdk.engines.tensorrt import Library, capability_number, find_library, problem, runtime_name
from graftsdk.errors import EngineIncompatible, EngineOutOfMemory, GraftError, InputError, MissingDependency


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Validity(enum.IntEnum):
    VALID, SUBOPTIMAL, INVALID = range(3)


class Diagnostics(enum.IntFlag):
    VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER = 1, 2, 4


def module(version: str, **names: Any) -> ModuleType:
    """A library that has what is asked of it to be taken."""
    found = ModuleType("stand_in")
    logger = type("ILogger", (), {"Severity": Severity})
    for name, value in {"__version__": version, "ILogger": logger, "Runtime": Runtime, **names}.items():
        setattr(found, name, value)
    return found


class Runtime:
    """Opens what is called b"sound"; says of the rest what it was told to."""

    engine_host_code_allowed = True
    said = ""

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> object:
        if content == b"sound":
            return ("engine", self.engine_host_code_allowed)
        self.logger.log(Severity.ERROR, self.said)
        return None


class CheckingRuntime(Runtime):
    engine_header_size = 2
    answer: tuple[Validity, int] = (Validity.VALID, 0)

    def get_engine_validity(self, header: bytes) -> tuple[Validity, int]:
        assert header == b"so"
        return self.answer


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes exactly these libraries importable."""
    monkeypatch.setattr(tensorrt, "_found", {})

    def make(**modules: ModuleType) -> None:
        for name in tensorrt.RUNTIMES:
            monkeypatch.setitem(sys.modules, name, modules.get(name))  # None: the import fails

    make()
    return make


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a driver."""
    monkeypatch.setattr(tensorrt, "driver_problem", lambda: None)
    monkeypatch.setattr(tensorrt, "gpu_capabilities", lambda: ("8.9",))


def refused(call: Any, *args: Any) -> GraftError:
    with pytest.raises(GraftError) as caught:
        call(*args)
    return caught.value


def test_none_is_installed(install: Any) -> None:
    error = refused(find_library)
    assert isinstance(error, MissingDependency) and "pip install 'graftsdk[tensorrt-rtx]'" in str(error)
    assert "pip install 'graftsdk[tensorrt]'" in str(refused(find_library, "tensorrt"))
    assert problem() == str(error)


@pytest.mark.parametrize(
    ("full", "rtx", "takes"),
    [
        ("11.4.0.106", None, "tensorrt"),
        (None, "1.7.1", "tensorrt_rtx"),
        ("11.4", "1.7.1.116", "tensorrt"),
        ("10.9.0", "1.10.0", "tensorrt_rtx"),
    ],
)
def test_the_first_that_is_recent_enough(install: Any, full: str | None, rtx: str | None, takes: str) -> None:
    there = {"tensorrt": full, "tensorrt_rtx": rtx}
    install(**{name: module(version) for name, version in there.items() if version})
    assert find_library().name == takes
    assert find_library().version == there[takes]
    assert find_library("tensorrt-rtx" if takes == "tensorrt_rtx" else takes) is find_library()


@pytest.mark.parametrize(("name", "version", "floor"), [("tensorrt", "11.3.9", "11.4"), ("tensorrt_rtx", "1.6", "1.7")])
def test_too_old(install: Any, name: str, version: str, floor: str) -> None:
    install(**{name: module(version)})
    for error in (refused(find_library), refused(find_library, name)):
        assert isinstance(error, EngineIncompatible)
        assert f"expected {name} {floor} or later, found {version}; pip install -U" in str(error)


def test_an_empty_folder_of_that_name_is_no_library(install: Any) -> None:
    install(tensorrt=ModuleType("tensorrt"))
    assert isinstance(refused(find_library, "tensorrt"), EngineIncompatible)


@pytest.mark.parametrize("name", ["trt", "", None, "tensorrt rtx"])
def test_unknown_runtimes(name: Any) -> None:
    assert isinstance(refused(runtime_name, name), InputError)


@pytest.mark.parametrize(("text", "number"), [("8.9", 89), ("12.0", 120), ("7.5", 75)])
def test_capabilities(text: str, number: int) -> None:
    assert capability_number(text) == number


@pytest.mark.parametrize("text", ["89", "8.90", "sm_89", "8.9 ", "0.9", 8.9, None, "٨.٩"])
def test_what_is_no_capability(text: Any) -> None:
    assert "expected text like '8.9'" in str(refused(capability_number, text))


def test_the_log_is_forwarded_and_its_errors_are_kept(install: Any, caplog: pytest.LogCaptureFixture) -> None:
    install(tensorrt=module("11.4"))
    library = find_library()
    caplog.set_level(logging.DEBUG, "graftsdk.tensorrt")
    for severity in Severity:
        library.logger.log(severity, f"it is\n {severity.name}")
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "ERROR", "WARNING", "INFO", "DEBUG"]
    assert library.last_errors() == ["it is INTERNAL_ERROR", "it is ERROR"]
    library.forget_errors()
    assert library.last_errors() == []


def test_what_a_missing_driver_adds_is_left_out(
    install: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tensorrt=module("11.4"))
    library = find_library()
    noise = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime"
    monkeypatch.setattr(tensorrt, "driver_problem", lambda: "no driver")
    library.logger.log(Severity.ERROR, noise)
    assert library.last_errors() == [noise]  # better than nothing
    library.logger.log(Severity.ERROR, "Dimension mismatch")
    assert library.last_errors() == ["Dimension mismatch"]
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == ["Dimension mismatch"]
    monkeypatch.setattr(tensorrt, "driver_problem", lambda: None)
    assert library.last_errors() == [noise, "Dimension mismatch"]


def test_no_runtime_is_made_without_a_driver(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(logger: Any) -> None:
        raise AssertionError("the lean runtime would have crashed the process")

    install(tensorrt=module("11.4", Runtime=explode))
    monkeypatch.setattr(tensorrt, "driver_problem", lambda: "no NVIDIA driver")
    error = refused(find_library().deserialize, b"sound")
    assert isinstance(error, EngineIncompatible) and "no NVIDIA driver" in str(error)
    assert problem() == "tensorrt 11.4: no NVIDIA driver" == problem(running=False)


def library_with(install: Any, runtime: type[Runtime]) -> Library:
    kinds = {"EngineValidity": Validity, "EngineInvalidityDiagnostics": Diagnostics}
    install(tensorrt_rtx=module("1.7.1", Runtime=runtime, **kinds))
    return find_library()


@pytest.mark.parametrize("runtime", [Runtime, CheckingRuntime])
def test_an_engine_is_opened_without_host_code(install: Any, driven: None, runtime: type[Runtime]) -> None:
    assert library_with(install, runtime).deserialize(b"sound") == ("engine", False)


@pytest.mark.parametrize(
    ("said", "kind", "says"),
    [
        ("Version tag does not match", EngineIncompatible, "found: Version tag does not match; build it again"),
        ("Cuda failure: out of memory", EngineOutOfMemory, "out of memory"),
    ],
)
def test_an_engine_that_is_none(
    install: Any, driven: None, monkeypatch: pytest.MonkeyPatch, said: str, kind: type[GraftError], says: str
) -> None:
    monkeypatch.setattr(Runtime, "said", said)
    error = refused(library_with(install, Runtime).deserialize, b"strange")
    assert isinstance(error, kind) and says in str(error)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((Validity.INVALID, 3), "version mismatch, unsupported cc; build it again with graftsdk build --for 8.9"),
        ((Validity.INVALID, 0), "no device"),
    ],
)
def test_what_the_header_says(
    install: Any, driven: None, monkeypatch: pytest.MonkeyPatch, answer: tuple[Validity, int], says: str
) -> None:
    monkeypatch.setattr(CheckingRuntime, "answer", answer)
    error = refused(library_with(install, CheckingRuntime).deserialize, b"sound")
    assert isinstance(error, EngineIncompatible) and says in str(error)


def test_the_real_library() -> None:
    pytest.importorskip("tensorrt_rtx")
    library = find_library("tensorrt_rtx")
    assert library.targets[:4] == ("7.5", "8.0", "8.6", "8.9") and "9.0" not in library.targets
    assert problem("tensorrt_rtx", running=False) is None
    if driver.driver_problem() is not None:
        assert isinstance(refused(library.deserialize, b"vtrt" + bytes(60)), EngineIncompatible)
