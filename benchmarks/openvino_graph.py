"""OpenVINO on the grafted graph, set up as its documentation recommends for latency on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from graftsdk.engines import default_threads
from graftsdk.graft import graft
from graftsdk.plan import open_plan


def openvino_runner(path: Path, crops: np.ndarray) -> Callable[[], object]:
    """The grafted graph itself, compiled by OpenVINO in float32."""
    import onnx_ir as ir
    import openvino

    target = path.with_suffix(".openvino.onnx")
    with open_plan(path) as plan:
        ir.save(graft(plan), target, external_data=f"{target.name}.data")
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": default_threads(),
    }
    request = core.compile_model(core.read_model(target), "CPU", settings).create_infer_request()
    return lambda: request.infer({0: crops})
