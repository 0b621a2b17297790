"""Trunks and branches as parts: the traced graph, filled with weights, BatchNorm folded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from graftsdk.errors import InputError, ValidationFailed
from graftsdk.export.fold import fold_batch_norms
from graftsdk.export.tracing import TEMPERATURE, branch_graph, trunk_graph
from graftsdk.models import Branch, Trunk, trunk_cost
from graftsdk.plan import ExportedTrunk, Part, TrunkDocument
from graftsdk.plan.onnx_part import part_from_model

__all__ = ["branch_part", "trunk_part"]

_Array = np.ndarray[Any, np.dtype[Any]]


def trunk_part(trunk: Trunk) -> tuple[Part, TrunkDocument]:
    """The trunk as a part, and its document with what every tap costs. Not verified yet: see `graftsdk.export.verify`.

    Raises:
        UnsupportedOp: an operator that has no exact form in ONNX.
        ValidationFailed: a weight that is not finite, before or after BatchNorm is folded; names the tensor.
        InputError: weights that are not float32.
    """
    model = trunk_graph(trunk)
    fill_weights(model, trunk, {}, "trunk")
    macs, parameters = trunk_cost(trunk)
    return part_from_model(model, "trunk"), replace(trunk.document(), exported=ExportedTrunk(macs, parameters))


def branch_part(branch: Branch) -> Part:
    """The branch as a part: softmax(logits / temperature) inside. Raises as `trunk_part`, naming the label too."""
    model = branch_graph(branch)
    temperature = np.array(branch.temperature, np.float32)
    fill_weights(model, branch, {TEMPERATURE: temperature}, f"label {branch.label!r}")
    return part_from_model(model, "branch")


def fill_weights(model: ir.Model, module: nn.Module, more: dict[str, _Array], where: str) -> None:
    """Give the graph's open initialisers their values and fold BatchNorm. Requires: names as in the state dict."""
    weights = {name: _array(name, tensor, where) for name, tensor in _tensors(module)} | more
    for name, value in model.graph.initializers.items():
        if name in weights:
            value.const_value = ir.Tensor(weights[name], name=name)
    fold_batch_norms(model.graph)
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            continue
        array = value.const_value.numpy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValidationFailed(
                f"{where}: {name}: expected finite weights, found NaN or infinity once BatchNorm was folded into them; "
                f"its statistics are out of range: train it again"
            )
        value.const_value = ir.Tensor(_without_subnormals(array), name=name)


def _without_subnormals(array: _Array) -> _Array:
    """Numbers below 1.2e-38 as zero: each costs a CPU a hundred cycles, and no score knows the difference."""
    if array.dtype != np.float32:
        return array
    small = (array != 0) & (np.abs(array) < np.finfo(np.float32).tiny)
    return np.where(small, np.float32(0), array) if small.any() else array


def _tensors(module: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _array(name: str, tensor: torch.Tensor, where: str) -> _Array:
    if tensor.is_floating_point() and tensor.dtype != torch.float32:
        raise InputError(f"{where}: {name}: expected float32 weights, found {tensor.dtype}; call .float() first")
    array: _Array = tensor.detach().cpu().contiguous().numpy()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValidationFailed(f"{where}: {name}: expected finite weights, found NaN or infinity; train it again")
    return array
