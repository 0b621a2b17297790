"""One start of a predictor in this process: seconds and memory, as JSON. Run by run.py in fresh processes."""

from __future__ import annotations

import json
import sys
import time

import cv2  # noqa: F401  imports are done before the clock starts
import numpy as np
import onnxruntime  # noqa: F401
import psutil

from graftsdk import Predictor
from graftsdk.plan import open_plan

process = psutil.Process()
with open_plan(sys.argv[1]) as plan:
    weights = sum(section.size for part in plan.manifest.parts for name, section in plan.sections(part).items() if name)
    crops = np.zeros((1, 3, *plan.manifest.crop.size), np.float32)
before = process.memory_info().rss
started = time.perf_counter()
predictor = Predictor(sys.argv[1])
ready = time.perf_counter() - started
predictor.run(crops)
first = time.perf_counter() - started
after = process.memory_info().rss
print(
    json.dumps(
        {
            "ready_s": ready,
            "first_result_s": first,
            "memory_gb": (after - before) / 1e9,
            "memory_x_weights": (after - before) / weights,
            "weights_gb": weights / 1e9,
        }
    )
)
