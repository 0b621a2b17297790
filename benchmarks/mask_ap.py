"""Mask AP of the yolo adapter against a plain full-frame decode. `python benchmarks/mask_ap.py --data FOLDER`

Both decode the same network outputs of the same photographs. Plain is the usual way: each mask's logits at the
prototypes' resolution, upsampled to the letterboxed frame, cut to its box, unletterboxed to the image, > 0. The
adapter's masks are `BoxMasks`, drawn into the frame at the end only. COCO's AP (IoU .50:.95, all areas, at most 100
detections an image) for the category "person". Prints both, the difference and its target, and ms an image.

`--data` is a folder in COCO's layout: annotations/instances_*.json and the folder of images of the same name.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO
from tqdm import tqdm

from graftsdk.export.opening import open_part
from graftsdk.export.segmenter import read_segmenter
from graftsdk.plan import SegmenterInfo
from graftsdk.preprocess import decode_image
from graftsdk.segment import Instances, open_adapter
from graftsdk.training.segmenter.mask_ap import average_precision, encoded_mask

TARGET = 0.005  # of AP, either way
PREFIX = "instances_"

Masks = list[tuple[np.ndarray, float]]  # bool[H, W], score


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/COCO-persons"), help="COCO's layout")
    parser.add_argument("--segmenter", type=Path, default=Path("../shared/models/yolov8n-seg-640.onnx"))
    parser.add_argument("--images", type=int, metavar="N", help="the first N only")
    parser.add_argument("--min-score", type=float, default=0.001, help="as usual for AP: every score counts")
    options = parser.parse_args()
    truth = next(iter(sorted((options.data / "annotations").glob(f"{PREFIX}*.json"))), None)
    if truth is None:
        parser.error(f"expected annotations/{PREFIX}*.json in {options.data}, found none")
    folder = options.data / truth.stem.removeprefix(PREFIX)
    source = read_segmenter(options.segmenter)
    adapter, info = open_adapter(source.info), source.info
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
    (category,) = coco.getCatIds(catNms=["person"])
    images = coco.loadImgs(sorted(coco.getImgIds()))[: options.images]
    found: dict[str, list[dict[str, Any]]] = {"plain": [], "adapter": []}
    spent = {"plain": 0.0, "adapter": 0.0, "adapter, to frames": 0.0}
    with open_part(source.part) as engine:
        for entry in tqdm(images, unit="image"):
            image = decode_image(folder / entry["file_name"])
            size = image.shape[:2]
            feed, geometry = adapter.prepare(image)
            values = engine.run({info.input: feed}, info.outputs)
            outputs = [values[name] for name in info.outputs]
            started = time.perf_counter()
            plain = plain_decode(outputs, size, info, options.min_score)
            after_plain = time.perf_counter()
            instances = adapter.decode(outputs, geometry, options.min_score)
            decoded = time.perf_counter()
            ours = frames(instances, size)
            spent["plain"] += after_plain - started
            spent["adapter"] += decoded - after_plain
            spent["adapter, to frames"] += time.perf_counter() - decoded
            for name, masks in (("plain", plain), ("adapter", ours)):
                found[name] += [
                    {
                        "image_id": entry["id"],
                        "category_id": category,
                        "segmentation": encoded_mask(mask),
                        "score": score,
                    }
                    for mask, score in masks
                ]
    ids = [entry["id"] for entry in images]
    print(f"{options.segmenter.name}, {len(images)} images, least score {options.min_score:g}")
    print(f"{'':20s} {'AP':>8s} {'AP50':>8s} {'AP75':>8s} {'masks':>8s}")
    results = {name: average_precision(coco, masks, ids, category) for name, masks in found.items()}
    for name, result in results.items():
        print(f"{name:20s} {result.ap:8.4f} {result.ap50:8.4f} {result.ap75:8.4f} {result.found:8d}")
    differences = [
        getattr(results["adapter"], name) - getattr(results["plain"], name) for name in ("ap", "ap50", "ap75")
    ]
    print(f"{'difference':20s} " + " ".join(f"{value:+8.4f}" for value in differences))
    for name, seconds in spent.items():
        print(f"{name:20s} {1e3 * seconds / max(len(images), 1):8.2f} ms an image")
    met = abs(differences[0]) <= TARGET
    print(f"target: a difference of at most {TARGET}: {'met' if met else 'MISSED'}")
    return 0 if met else 1


def frames(found: Instances, size: tuple[int, int]) -> Masks:
    """The adapter's masks over the whole image."""
    assert found.masks is not None
    return [(found.masks.mask_at(index, *size), float(found.scores[index])) for index in range(len(found))]


def plain_decode(outputs: list[np.ndarray], size: tuple[int, int], info: SegmenterInfo, min_score: float) -> Masks:
    """Every mask over the whole image, one after the other, nothing shared with the adapter."""
    predictions, prototypes = outputs[0][0].T, outputs[1][0]
    scores = predictions[:, 4:-32]
    rows = np.flatnonzero((scores.argmax(axis=1) == info.person_class) & (scores.max(axis=1) >= min_score))
    boxes = [(x - w / 2, y - h / 2, w, h) for x, y, w, h in predictions[rows, :4].tolist()]
    people = scores[rows, info.person_class]
    kept = cv2.dnn.NMSBoxes(boxes, people.tolist(), 0.0, info.iou_threshold)[: info.max_persons]
    (height, width), (input_height, input_width) = size, info.input_size
    ratio = min(input_height / height, input_width / width)
    inner_height, inner_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    top, left = round((input_height - inner_height) / 2 - 0.1), round((input_width - inner_width) / 2 - 0.1)
    columns, lines = np.arange(input_width) + 0.5, np.arange(input_height)[:, None] + 0.5
    found = []
    for index in kept:
        logits = np.tensordot(predictions[rows[index], -32:], prototypes, 1)
        full = cv2.resize(logits, (input_width, input_height), interpolation=cv2.INTER_LINEAR)
        x, y, w, h = boxes[index]
        inside = (columns >= x) & (columns < x + w) & (lines >= y) & (lines < y + h)
        full[~inside] = -1.0
        cut = full[top : top + inner_height, left : left + inner_width]
        found.append(((cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR) > 0), float(people[index])))
    return found


if __name__ == "__main__":
    sys.exit(main())
