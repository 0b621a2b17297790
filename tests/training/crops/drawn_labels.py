"""A small sub-dataset on disk: "yes" has a bright disc on noise, "no" has none."""

from __future__ import annotations

import cv2
import numpy as np

from graftsdk.training.labels import open_label


def drawn_set(root, label, counts, seed=0, size=(48, 24)):
    """`label` below `root`, with so many images of each class in each split, as `open_label` finds it."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for name in ("no", "yes"):
            folder = root / label / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 110, (*size, 3)).astype(np.uint8)
                if name == "yes":
                    place = int(rng.integers(8, 16)), int(rng.integers(10, 38))
                    cv2.circle(image, place, 7, (40, 230, 240), -1)
                cv2.imwrite(str(folder / f"{split}{number}.png"), image)
    return open_label(root, label)
