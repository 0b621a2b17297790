"""The options that say on what, how and in which precision a plan's engine runs; the same for every command."""

from __future__ import annotations

import argparse
from typing import Any

from graftsdk.plan.lowered import PRECISIONS

__all__ = ["BUILT_USAGE", "ENGINE_USAGE", "add_built_options", "add_engine_options", "built_options", "engine_options"]

ENGINE_USAGE = (
    "         [--device {auto,cpu,cuda}] [--layout {merged,split}]\n"
    "         [--precision {float32,fp16,bf16,int8}] [--threads N]"
)


BUILT_USAGE = "\n         [--engines DIR [--trust-engines]]"


def add_engine_options(parser: Any) -> None:
    """Add them to a parser or a group of one; `engine_options` reads them."""
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="cuda never falls back")
    add(
        "--layout", choices=("merged", "split"), default="merged", help="one grafted graph, or trunk and branches apart"
    )
    add("--precision", choices=PRECISIONS, help="int8: see graftsdk quantize; fp16, bf16: GPU only; default: float32")
    add("--threads", type=int, metavar="N", help="default: the cores that this process may use")


def add_built_options(parser: Any) -> None:
    """Add those that name engines of TensorRT; `built_options` reads them."""
    add = parser.add_argument
    add("--engines", metavar="DIR", help="run the TensorRT engines in DIR, made by graftsdk build; needs a GPU")
    add("--trust-engines", action="store_true", help="with --engines: also those that this machine did not build")


def built_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was said, as keyword arguments of `Predictor`."""
    return {name: getattr(args, name) for name in ("engines", "trust_engines")}


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was said, as keyword arguments of `Predictor`."""
    return {name: getattr(args, name) for name in ("device", "layout", "precision", "threads")}
