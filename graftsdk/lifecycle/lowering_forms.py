"""A part in one of its forms, opened alone on the CPU: float32, an INT8 part in its place, fp16 and bf16 emulated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Graph, open_engine
from graftsdk.graft import externalize
from graftsdk.graft.prune import prune
from graftsdk.graft.rounding import round_floats
from graftsdk.plan import Part
from graftsdk.plan.onnx_part import model_from_part

__all__ = ["Floats", "Form", "Run", "open_form"]

Floats = npt.NDArray[np.float32]
Form = str | Part  # "float32", "fp16", "bf16", or the INT8 part that stands in
Run = Callable[[Floats], Mapping[str, Floats]]

_NAME = "part"


def open_form(part: Part, form: Form, outputs: Sequence[str], stack: ExitStack) -> Run:
    """What maps the part's one input to those of its outputs, for as long as `stack` is open; never in the cache.

    fp16 and bf16 are computed in float32 whose values are rounded as `graftsdk.graft.rounding` says.

    Raises:
        EngineBuildError: the runtime refuses it. UnsupportedOp: a weight that the type cannot hold.
    """
    model = model_from_part(form if isinstance(form, Part) else part)
    prune(model.graph, outputs)
    if form in ("fp16", "bf16"):
        for index, node in enumerate(model.graph.all_nodes()):
            node.name = f"{_NAME}/{index}"  # as in a graft: the pass goes by the part's name
        round_floats(model, {_NAME: str(form)})
    entry = model.graph.inputs[0].name or ""
    names = tuple(value.name or "" for value in model.graph.outputs)
    key = hashlib.sha256(" ".join((entry, *names)).encode()).hexdigest()  # without a cache it tells nothing apart
    engine = stack.enter_context(
        open_engine([Graph(key, {entry: entry}, names, partial(externalize, model))], device="cpu", cache=False)
    )
    return lambda value: engine.run({entry: value})
