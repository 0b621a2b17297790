"""ONNX Runtime's execution providers: which ones a device means, in which order, with which options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftsdk.errors import InputError

__all__ = ["CPU", "CUDA", "TENSORRT", "provider_name", "providers_for"]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_NAMES = {"cuda": CUDA, "tensorrt": TENSORRT}


def providers_for(device: str, provider: str | None = None, options: Mapping[str, str] | None = None) -> list[Any]:
    """ONNX Runtime's list of execution providers, the first one first.

    Args:
        device: "cpu" or "cuda".
        provider: on "cuda": "cuda" or "tensorrt"; None is "cuda".
        options: of that provider, in ONNX Runtime's own words, over ours.

    Raises:
        InputError: another provider, options that are no mapping of names, or either for the CPU.
    """
    if provider is not None and (not isinstance(provider, str) or provider not in _NAMES):
        raise InputError(f"provider: expected 'cuda', 'tensorrt' or None, found {provider!r:.80}")
    if options is not None and not (isinstance(options, Mapping) and all(isinstance(name, str) for name in options)):
        raise InputError(f"provider_options: expected {{name: value}}, found {options!r:.80}")
    if device == "cpu":
        if provider is not None or options:
            raise InputError("provider: expected none on device 'cpu', which has one; take device='cuda'")
        return [CPU]
    own = {name: str(value) for name, value in (options or {}).items()}
    cuda = {"use_tf32": "0"}  # TF32 keeps 10 bits of the mantissa; scores must agree with the CPU's
    if provider == "tensorrt":
        return [(TENSORRT, own), (CUDA, cuda), CPU]  # what TensorRT does not take runs behind it
    return [(CUDA, {**cuda, **own}), CPU]


def provider_name(provider: Any) -> str:
    """The name in an item of ONNX Runtime's list."""
    return provider if isinstance(provider, str) else str(provider[0])
