"""`import graftsdk` costs the standard library only; the warm path never pulls torch or onnx in."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "torch", "torchvision", "onnx", "onnx_ir", "onnxruntime", "cv2", "PIL", "safetensors", "tqdm")
EXPORT_ONLY = ("torch", "torchvision", "onnxscript", "onnx", "onnx_ir")


def modules_after(statement: str) -> set[str]:
    """Top-level names that `statement` adds to sys.modules in a bare interpreter."""
    return {name.split(".")[0] for name in every_module_after(statement)}


def every_module_after(statement: str) -> set[str]:
    """All names that it adds."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_import_loads_the_standard_library_only() -> None:
    found = modules_after("import graftsdk")
    assert "graftsdk" in found
    strangers = found - set(sys.stdlib_module_names) - {"graftsdk"}
    assert not strangers, f"import graftsdk loads {sorted(strangers)}"


def test_errors_and_version_need_nothing_either() -> None:
    found = modules_after("import graftsdk; graftsdk.__version__; graftsdk.GraftError")
    assert found.isdisjoint(HEAVY), f"loaded {sorted(found & set(HEAVY))}"


@pytest.mark.parametrize(
    "module",
    [
        "predictor",
        "prediction",
        "plan",
        "graft",
        "engines",
        "preprocess",
        "segment",
        "segmenter",
        "cli.main",
        "cli.crop",
    ],
)
def test_module_leaves_torch_and_onnx_alone(module: str) -> None:
    found = modules_after(f"import graftsdk.{module}")
    assert found.isdisjoint(EXPORT_ONLY), f"graftsdk.{module} loads {sorted(found & set(EXPORT_ONLY))}"


def test_what_a_gpu_needs_is_no_part_of_a_start_on_a_cpu() -> None:
    found = every_module_after("import graftsdk.predictor")
    assert "graftsdk.engines.opening" in found
    gpu = ("graftsdk.engines.cuda.", "graftsdk.engines.tensorrt", "graftsdk.engines.device_", "graftsdk.device_")
    assert not [name for name in found if name.startswith(gpu)]


def test_the_probe_sees_what_is_loaded() -> None:
    assert "numpy" in modules_after("import graftsdk, numpy")
