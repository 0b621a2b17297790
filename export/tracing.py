"""From a torch module's structure to an ONNX graph, weights left open: traced once for each structure.

Tracing runs on the meta device, where there are no weights, so the graph cannot depend on them: two branches of one
structure differ in their initialisers' values only.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from graftsdk.errors import UnsupportedOp
from graftsdk.export.simplify import simplify
from graftsdk.models import Branch, Trunk, Yolact
from graftsdk.models.backbones import backbone
from graftsdk.models.structure import tap_shapes, trunk_modules
from graftsdk.plan import CropSpec
from graftsdk.plan.onnx_part import IR_VERSION, OPSET
from graftsdk.segment.yolact import OUTPUTS

__all__ = ["TEMPERATURE", "YOLACT_INPUT", "branch_graph", "trunk_graph", "yolact_graph"]

TEMPERATURE = "temperature"
YOLACT_INPUT = "images"
PRIORS = "priors"
_TRACED_BATCH = 2  # a traced batch of 1 would be taken for a constant
_MAX_BATCH = 1024


class _Taps(nn.Module):
    """Crops -> taps 0..B."""

    def __init__(self, body: Trunk) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.body.taps(x)


class _Scores(nn.Module):
    """A tap -> calibrated probabilities. The temperature is a weight, so that the graph is the same for every value."""

    temperature: torch.Tensor

    def __init__(self, body: Branch) -> None:
        super().__init__()
        self.body = body
        self.register_buffer(TEMPERATURE, torch.ones((), device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.body(x) / self.temperature, 1)


class _Instances(nn.Module):
    """Images -> what YOLACT's decoding reads, but for the priors."""

    def __init__(self, body: Yolact) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.body(x)
        return found.loc, torch.softmax(found.conf, -1), found.mask, found.proto


def trunk_graph(trunk: Trunk) -> ir.Model:
    """The trunk's graph, `crops` -> `tap_0`..`tap_B`; its initialisers are named as in its state dict, without values.

    The caller's own copy.

    Raises:
        UnsupportedOp: an operator that has no exact form in ONNX; names it.
    """
    return _trunk_graph(trunk.arch, trunk.width, trunk.crop).clone()


def branch_graph(branch: Branch) -> ir.Model:
    """The branch's graph, `tap` -> `scores`; as `trunk_graph`, with one initialiser more, `temperature`.

    Raises:
        UnsupportedOp: an operator that has no exact form in ONNX; names it and the label.
    """
    form = (branch.arch, branch.trunk_width, branch.crop.size, branch.tap, branch.until, branch.pooling, branch.width)
    key = (*form, len(branch.classes))
    if key not in _BRANCHES:
        shape = tap_shapes(branch.backbone, branch.trunk_width, branch.crop.size)[branch.tap]
        where = f"label {branch.label!r}"
        _BRANCHES[key] = _trace(_Scores(branch.skeleton()), shape, "tap", ["scores"], where)
    return _BRANCHES[key].clone()


def yolact_graph(model: Yolact, priors: np.ndarray[Any, Any]) -> ir.Model:
    """The segmenter's graph, `images` -> OUTPUTS; as `trunk_graph`, but for the priors, which it holds.

    Args:
        priors: float32[P, 4], given out with every image, so that a file tells how it is decoded.

    Raises:
        UnsupportedOp: an operator that has no exact form in ONNX; names it.
    """
    shape = (3, *model.document().input_size)
    names = [name for name in OUTPUTS if name != PRIORS]
    traced = _trace(_Instances(model.skeleton()), shape, YOLACT_INPUT, names, "segmenter")
    graph, tensor = traced.graph, ir.Tensor(priors, name=f"{PRIORS}.boxes")
    kind = ir.TensorType(tensor.dtype)
    held = ir.Value(name=tensor.name, shape=ir.Shape(priors.shape), type=kind, const_value=tensor)
    graph.initializers.add(held)
    node = ir.node("Identity", [held])
    given = node.outputs[0]
    given.name, given.shape, given.type = PRIORS, held.shape, kind
    graph.append(node)
    graph.outputs.insert(OUTPUTS.index(PRIORS), given)
    return traced


_BRANCHES: dict[tuple[object, ...], ir.Model] = {}  # graphs without weights: a few kilobytes each


@lru_cache(maxsize=32)
def _trunk_graph(arch: str, width: float, crop: CropSpec) -> ir.Model:
    body = Trunk(arch, width, crop, trunk_modules(backbone(arch), width))  # on the meta device
    names = [f"tap_{k}" for k in range(len(body.blocks) + 1)]
    return _trace(_Taps(body), (3, *crop.size), "crops", names, f"trunk {arch}")


def _trace(module: nn.Module, shape: tuple[int, ...], name: str, outputs: Sequence[str], where: str) -> ir.Model:
    batch = torch.export.Dim("n", min=1, max=_MAX_BATCH)
    example = torch.empty(_TRACED_BATCH, *shape, device="meta")
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                dynamic_shapes=({0: batch},),
                input_names=[name],
                output_names=list(outputs),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UnsupportedOp(
            f"{where}: expected operators with an exact form in ONNX opset {OPSET}, found {_reason(error)}; "
            f"write it with others (see register_pooling and register_backbone)"
        ) from error
    assert program is not None  # dynamo=True always gives one
    model = program.model
    simplify(model)
    _check_operators(model, where)
    model.ir_version = IR_VERSION
    for value in list(model.graph.initializers.values()):
        del model.graph.initializers[value.name or ""]
        value.name = (value.name or "").removeprefix("body.")
        model.graph.initializers.add(value)
    return model


def _check_operators(model: ir.Model, where: str) -> None:
    odd = sorted({f"{node.domain}::{node.op_type}" for node in model.graph.all_nodes() if node.domain})
    odd += sorted({node.op_type for node in model.graph.all_nodes() if node.op_type.startswith("Random")})
    if odd or model.functions:
        raise UnsupportedOp(
            f"{where}: expected ONNX's own operators and the same result each time, found {', '.join(odd)}"
        )


def _reason(error: Exception) -> str:
    """The operator that the exporter names, or the first line of what it says."""
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None and len(chain) < 8:
        chain.append(chain[-1].__cause__)
    for each in reversed(chain):
        found = re.search(r"OpOverload\(op='([\w.]+)'", str(each))
        if found:
            return found[1]
    return f"{type(chain[-1]).__name__}: {str(chain[-1]).strip().splitlines()[0][:200]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own insides; what matters is raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
