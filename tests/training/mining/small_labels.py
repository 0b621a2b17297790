"""A small sub-dataset that tests draw: bars (yes), bars of nearly the same kind and noise (no)."""

from __future__ import annotations

import cv2
import numpy as np


def write_label(root, label="bars", yes=24, near=24, far=36, size=(40, 32)):
    """`root`, with train and val of one label; names of "no" begin with near_ or far_."""
    rng = np.random.default_rng(0)
    for split, share in (("train", 1), ("val", 4)):
        for kind, count in (("yes", yes), ("near", near), ("far", far)):
            folder = root / label / split / ("yes" if kind == "yes" else "no")
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count // share):
                cv2.imwrite(str(folder / f"{kind}_{number:03d}.png"), picture(rng, kind, size))
    return root


def picture(rng, kind, size):
    image = rng.integers(0, 40, (*size, 3)).astype(np.uint8)
    if kind == "far":
        return 255 - image // 4
    left = int(rng.integers(2, 8)) + (0 if kind == "yes" else 5)
    image[5:-5, left : left + 9] = (40, 200, 220)
    return image
