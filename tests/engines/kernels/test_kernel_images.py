"""Kernels compiled by NVRTC for every GPU that the documents name, without one; and how they are kept."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from graftsdk.engines.cache import Cache
from graftsdk.engines.cuda import kernels as module
from graftsdk.engines.cuda.kernels import ARCHITECTURES, NAMES, compile_kernels, kernel_source, load_image
from graftsdk.errors import EngineBuildError, InputError, MissingDependency, PlanPathError

try:
    from cuda.bindings import nvrtc

    nvrtc.nvrtcVersion()
except (ImportError, RuntimeError):
    nvrtc = None

needs_nvrtc = pytest.mark.skipif(nvrtc is None, reason="needs NVRTC: pip install 'graftsdk[gpu]'")


@pytest.fixture
def compiled(monkeypatch):
    """Images as short as they can be, and how many were made."""
    made = []

    def compile_(capability):
        made.append(capability)
        return f"image for {capability}".encode()

    monkeypatch.setattr(module, "compile_kernels", compile_)
    monkeypatch.setattr(module, "_nvrtc", lambda: type("Nvrtc", (), {"nvrtcVersion": staticmethod(lambda: (0, 13, 0))}))
    return made


@needs_nvrtc
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_every_architecture_compiles(capability, caplog):
    """An ELF with every kernel, none of which spills registers."""
    with caplog.at_level(logging.DEBUG, logger="graftsdk"):
        image = compile_kernels(capability, ("--ptxas-options=-v",))
    assert image[:4] == b"\x7fELF"
    assert all(name.encode() in image for name in NAMES)
    assert f"for 'sm_{capability.replace('.', '')}'" in caplog.text
    assert caplog.text.count("0 bytes spill stores, 0 bytes spill loads") == len(NAMES)


@needs_nvrtc
def test_what_nvrtc_says_is_in_the_error(monkeypatch):
    monkeypatch.setattr(module, "kernel_source", lambda: kernel_source() + b"\nint broken = nothing;\n")
    with pytest.raises(EngineBuildError, match=r'(?s)sm_90, found NVRTC_ERROR_COMPILATION.*"nothing" is undefined'):
        compile_kernels("9.0")


@needs_nvrtc
def test_a_gpu_that_nvrtc_does_not_know_is_told():
    with pytest.raises(EngineBuildError, match=r"sm_59.*a newer GPU needs a newer NVRTC"):
        compile_kernels("5.9")


@pytest.mark.parametrize("capability", ["", "9", "sm_90", "9.0 --x", "90"])
def test_what_is_no_capability_is_refused(capability):
    with pytest.raises(InputError, match="compute capability: expected"):
        compile_kernels(capability)


def test_without_the_package_the_install_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingDependency, match=r"pip install 'graftsdk\[gpu\]'"):
        compile_kernels("9.0")


def test_images_are_kept(compiled, cache_root):
    cache = Cache()
    assert load_image("9.0", cache) == load_image("9.0", cache) == b"image for 9.0"
    assert load_image("8.6", cache) == b"image for 8.6"
    assert compiled == ["9.0", "8.6"]
    assert os.stat(cache_root).st_mode & 0o777 == 0o700
    assert {entry.key["device"] for entry in cache.ls()} == {"sm_90", "sm_86"}
    assert load_image("9.0") == b"image for 9.0" and len(compiled) == 3  # no cache: nothing is looked up


@pytest.mark.parametrize("change", ["source", "runtime", "options"])
def test_another_source_or_compiler_compiles_anew(compiled, monkeypatch, change):
    load_image("9.0", Cache())
    if change == "source":
        monkeypatch.setattr(module, "kernel_source", lambda: b"another")
    elif change == "runtime":
        monkeypatch.setattr(module, "_version", lambda nvrtc: "NVRTC 14.1")
    else:
        monkeypatch.setattr(module, "_OPTIONS", ("--fmad=true",))
    load_image("9.0", Cache())
    assert len(compiled) == 2


@pytest.mark.parametrize("damage", [b"", b"image for 9.1", b"image for 9.0 and more"])
def test_a_damaged_image_is_compiled_again(compiled, cache_root, damage):
    cache = Cache()
    load_image("9.0", cache)
    (stored,) = cache_root.glob("*/model.onnx")
    stored.write_bytes(damage)
    assert load_image("9.0", cache) == load_image("9.0", cache) == b"image for 9.0"
    assert len(compiled) == 2


def test_a_cache_that_others_can_write_to_is_refused(compiled, cache_root):
    load_image("9.0", Cache())
    cache_root.chmod(0o777)
    with pytest.raises(PlanPathError, match="others may have written"):
        load_image("9.0", Cache())


def test_a_full_disk_costs_the_cache_alone(compiled, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Cache, "build", full)
    assert load_image("9.0", Cache()) == b"image for 9.0"
    assert "No space left" in caplog.text


def test_importing_loads_no_cuda():
    code = "import graftsdk.engines.cuda.kernels, graftsdk.engines.cuda.crop, graftsdk.engines.cuda.prototypes, sys; "
    code += "print([name for name in sys.modules if name.split('.')[0] in ('cuda', 'pycuda', 'torch', 'onnxruntime')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
