"""What one snapshot costs on one core, stage by stage: the figures of docs/planning.md.

    python benchmarks/planning.py PLAN IMAGE [--runs 30]

Medians of milliseconds of `Prediction.timings`, with one thread: an image with its persons, and the same with nobody in
it, as most lifts are (an even grey picture of its size, encoded alike). A plan without a segmenter takes two boxes.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
from pathlib import Path

import numpy as np
from PIL import Image

from graftsdk import Predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("image")
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    full = Path(args.image).read_bytes()
    with Image.open(io.BytesIO(full)) as image:
        size, empty = image.size, io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), 120, np.uint8)).save(empty, "JPEG", quality=90)
    with Predictor(args.plan, threads=1, device="cpu") as predictor:
        boxes = None
        if predictor.plan.manifest.segmenter is None:
            boxes = [[0, 0, size[0] // 2, size[1]], [size[0] // 2, 0, size[0], size[1]]]
        found = {
            "persons": len(predictor.predict(full, boxes=boxes)),
            "empty": _stages(predictor, empty.getvalue(), args),
        }
        stages = _stages(predictor, full, args, boxes)
        for name in ("crop", "engine"):
            stages[f"{name} a person"] = round(stages[name] / max(1, found["persons"]), 2)
        found |= {"full": stages, "labels": len(predictor.labels), "size": size, "cpu": _cpu()}
    print(json.dumps(found, indent=2))


def _stages(predictor: Predictor, image: bytes, args: argparse.Namespace, boxes: object = None) -> dict[str, float]:
    if boxes is None and predictor.plan.manifest.segmenter is None:
        boxes = np.zeros((0, 4), np.float32)
    runs = [predictor.predict(image, boxes=boxes).timings for _ in range(args.runs + 3)][3:]  # type: ignore[call-overload]
    return {stage: round(statistics.median(run[stage] for run in runs), 2) for stage in runs[0]}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
