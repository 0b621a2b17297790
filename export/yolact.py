"""YOLACT as a segmenter part: the traced network with softmax inside, its priors beside, compared with torch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from graftsdk.engines import Engine
from graftsdk.errors import InputError, ValidationFailed
from graftsdk.export.parts import fill_weights
from graftsdk.export.tracing import YOLACT_INPUT, yolact_graph
from graftsdk.export.validate import device_of, evaluating
from graftsdk.models import Yolact
from graftsdk.plan import Part
from graftsdk.plan.onnx_part import part_from_model
from graftsdk.segment.yolact import OUTPUTS

__all__ = ["check_outputs", "read_yolact", "yolact_part"]

# Of an output's greatest value: loc and proto are sums of some hundred float32 in another order. Measured 1e-6 to 1e-5
# on random and on trained networks; conf and mask lie in 0..1 and -1..1.
TOLERANCE = 1e-3
SEED = 0

_Array = np.ndarray[Any, np.dtype[Any]]


def yolact_part(model: Yolact) -> Part:
    """The network as a part: `images` float32[n, 3, H, W] -> `loc`, `conf`, `mask`, `priors`, `proto`.

    `conf` is after the softmax, `mask` after tanh. Not compared with torch yet: see `check_outputs`.

    Raises:
        UnsupportedOp: an operator that has no exact form in ONNX.
        ValidationFailed: a weight that is not finite, before or after BatchNorm is folded; names the tensor.
        InputError: weights that are not float32.
    """
    graph = yolact_graph(model, model.priors().numpy())
    fill_weights(graph, model, {}, "segmenter")
    return part_from_model(graph, "segmenter")


def read_yolact(source: Any) -> tuple[Yolact, str]:
    """The segmenter in a checkpoint or in memory, and what to call it. Raises PlanError leaves, InputError."""
    if isinstance(source, Yolact):
        return source, "segmenter"
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"segmenter: expected a path or a Yolact, found {type(source).__name__}")
    return Yolact.load(source), str(source)


def check_outputs(model: Yolact, engine: Engine, where: str) -> float:
    """The greatest difference between the engine's outputs and torch's, relative to an output's greatest value.

    Both see noise with the mean and deviation of a normalised image, the same in every run.

    Raises:
        ValidationFailed: it is more than rounding explains; names the output.
    """
    height, width = model.input_size
    feed = np.random.default_rng(SEED).standard_normal((1, 3, height, width)).astype(np.float32)
    found = engine.run({YOLACT_INPUT: feed}, OUTPUTS)
    with torch.inference_mode(), evaluating(model):
        expected = model(torch.from_numpy(feed).to(device_of(model)))
        truth = {
            "loc": expected.loc,
            "conf": torch.softmax(expected.conf, -1),
            "mask": expected.mask,
            "priors": model.priors(),
            "proto": expected.proto,
        }
    worst = 0.0
    for name, tensor in truth.items():
        array = tensor.cpu().numpy()
        difference = float(np.abs(found[name] - array).max() / max(float(np.abs(array).max()), 1e-6))
        if not difference <= TOLERANCE:  # a NaN too
            raise ValidationFailed(
                f"{where}: expected {name!r} within {TOLERANCE:g} of torch, found {difference:.1e} of its "
                f"greatest value"
            )
        worst = max(worst, difference)
    return worst
