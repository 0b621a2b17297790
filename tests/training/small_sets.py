"""Small data sets that tests draw: bright discs on a dark ground, in COCO's layout."""

from __future__ import annotations

import json

import cv2
import numpy as np
from pycocotools import mask as rle


def write_discs(folder, count, seed=0, size=(64, 96)):
    """`folder`, with `count` PNGs of one or two discs, category "person"."""
    rng = np.random.default_rng(seed)
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(count):
        image = rng.integers(0, 60, (*size, 3)).astype(np.uint8)
        for _ in range(int(rng.integers(1, 3))):
            mask = np.zeros(size, np.uint8)
            cv2.circle(mask, (int(rng.integers(20, 76)), int(rng.integers(20, 44))), int(rng.integers(10, 20)), 1, -1)
            image[mask > 0] = (230, 210, 200)
            packed = rle.encode(np.asfortranarray(mask))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "segmentation": {"size": list(size), "counts": packed["counts"].decode()},
                }
            )
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "height": size[0], "width": size[1]})
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (folder / "annotations" / "instances_discs.json").write_text(json.dumps(data))
    return folder
