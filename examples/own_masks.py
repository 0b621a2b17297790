"""Your own segmentation in front of a plan: `python examples/own_masks.py out/engine.plan [FOLDER]`.

`make demo` leaves it there. Masks come in two forms, and both are shown on the same drawn people:

- over the whole image, bool or uint8 [N, H, W]: what most tools hand out;
- `BoxMasks`, small masks that each cover a box: what segmenters compute before they enlarge it. They are enlarged
  while the crop is cut, so that nothing of the image's size is ever made.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from scene import lift_scene

from graftsdk import Predictor
from graftsdk.preprocess import BoxMasks, mask_boxes

plan = sys.argv[1] if len(sys.argv) > 1 else "out/engine.plan"
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "out")
folder.mkdir(parents=True, exist_ok=True)

image, masks = lift_scene()  # uint8[H, W, 3] BGR, bool[N, H, W]
boxes = mask_boxes(masks, (image.shape[0], image.shape[1]))  # float32[N, 4], xyxy, half-open

# As a segmenter would give them: each mask at 28x28 over its own box, as probabilities.
small = []
for mask, box in zip(masks, boxes.astype(int), strict=True):
    x0, y0, x1, y1 = box.tolist()
    part = mask[y0:y1, x0:x1].astype(np.float32)
    part = cv2.resize(part, (28, 28), interpolation=cv2.INTER_AREA)
    small.append(np.clip(part, 0, 1))  # resizing rounds, a little above 1 too
box_masks = BoxMasks(small, boxes)

with Predictor(plan) as predictor:
    whole = predictor.predict(image, masks=masks)  # the box is the mask's own
    boxed = predictor.predict(image, boxes=boxes, masks=box_masks)
    cropped = predictor.predict(image, boxes=boxes)  # no masks: the background stays in the crop

for person, other in zip(whole, boxed, strict=True):
    label = next(iter(person.attributes))
    share = float((person.mask & other.mask).sum() / (person.mask | other.mask).sum())
    print(
        f"person {person.index}: masks agree on {share:.1%} of their pixels; "
        f"{label} {person[label].score:.3f} with the whole mask, {other[label].score:.3f} with the small one, "
        f"{cropped[person.index][label].score:.3f} with the background"
    )
boxed.save(folder / "own_masks.png")
print(f"The picture: {folder / 'own_masks.png'}")
