"""Small sets in the layouts of PETA, PA-100K, RAP (pictures are their own names, no decoder is asked) and of scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PETA_IMAGES = {  # subset -> images and lines of Label.txt
    "VIPeR": (["000_45_1.jpg", "000_45_2.jpg", "001_0_1.bmp"], "000 personalMale hairLong\n001 personalFemale\n"),
    "CUHK": (["0002.jpg", "0003.jpg", "0700.jpg"], "0002.png hairLong\n0003.png\n0700.png personalMale\n"),
    "PRID": (["0298_a.jpg", "0999_a.jpg", "stray.jpg"], "0298 carryingBabyBuggy\n0999 personalMale\n\n"),
}


def peta(root: Path) -> Path:
    for subset, (names, lines) in PETA_IMAGES.items():
        folder = root / subset / "archive"
        folder.mkdir(parents=True)
        (folder / "Label.txt").write_text(lines, encoding="utf-8")
        for name in names:
            (folder / name).write_bytes(f"{subset}/{name}".encode())
    return root


def crowd(root: Path, people: int = 60, images: int = 2) -> Path:
    """Two cameras in PETA's layout: hats are rare and of the north only, every second person is a man."""
    for subset in ("north", "south"):
        folder = root / subset / "archive"
        folder.mkdir(parents=True)
        lines = []
        for person in range(people):
            words = [f"{person:03d}", "personalMale" if person % 2 else "personalFemale"]
            words += ["hat"] if subset == "north" and person % 5 == 0 else []
            words += [("young", "middle", "old")[(0, 0, 0, 1, 1, 2)[person % 6]]]
            lines.append(" ".join(words))
            for index in range(images):
                (folder / f"{person:03d}_{index}.jpg").write_bytes(f"{subset} {person} {index}".encode())
        (folder / "Label.txt").write_text("\n".join(lines), encoding="utf-8")
    return root


def cells(texts: list[str]) -> np.ndarray:
    """A column of MATLAB cells; "" becomes an empty matrix, as in a damaged row."""
    found = np.empty((len(texts), 1), object)
    for index, text in enumerate(texts):
        found[index, 0] = np.array([text], object) if text else np.zeros((0, 0), np.uint8)
    return found


def pa100k(root: Path) -> Path:
    from scipy.io import savemat

    (root / "data").mkdir(parents=True)
    mat = {"attributes": cells(["Female", "Age18-60", "Skirt&Dress"])}
    numbers = iter(range(1, 100))
    for split, count in (("train", 20), ("val", 10), ("test", 10)):
        names = [f"{next(numbers):06d}.jpg" for _ in range(count)]
        for name in names:
            (root / "data" / name).write_bytes(name.encode())
        mat[f"{split}_images_name"] = cells(["", *names[1:]] if split == "test" else names)
        mat[f"{split}_label"] = np.stack([np.arange(count) % 2, np.arange(count) % 3 > 0, np.arange(count) % 4 == 0], 1)
    (root / "data/000002.jpg").write_bytes((root / "data/000035.jpg").read_bytes())  # of train, and of test
    (root / "data/000003.jpg").unlink()
    savemat(root / "annotation.mat", mat)
    return root


def rap(root: Path, version: int, people: int = 4) -> Path:
    """Two images each, the first one missing; a hat is unknown of everybody."""
    from scipy.io import savemat

    names = [
        f"CAM0{1 + person // 2 % 2}_2014-02-15_20140215161032-20140215162620_tarid{person}_frame{frame}_line1.png"
        for person in range(people)
        for frame in range(2)
    ]
    names = [name.replace("_", "-") for name in names] if version == 2 else names
    (root / "RAP_annotation").mkdir(parents=True)
    (root / "RAP_dataset").mkdir()
    for name in names[1:]:
        (root / "RAP_dataset" / name).write_bytes(name.encode())
    labels = np.array([[row // 2 % 2, row % 3, 2] for row in range(2 * people)], np.uint8)
    attributes = cells(["Femal", "ub-Shirt", "hs-Hat"])
    if version == 1:
        fields = {"partion": cells(["x"]), "label": labels, "attribute_eng": attributes, "imagesname": cells(names)}
    else:
        persons = np.array([[7], [7], [-1], [-1], [-2], [7], [9], [9]], np.int16)
        fields = {"name": cells(names), "label": labels, "attribute": attributes, "person_identity": persons}
    savemat(root / "RAP_annotation/RAP_annotation.mat", {"RAP_annotation": fields})
    return root


SIDES = (40, 60)


def packed(mask: np.ndarray) -> dict[str, Any]:
    from pycocotools import mask as rle

    made = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(made["size"]), "counts": made["counts"].decode()}


def ellipse(centre: tuple[int, int], axes: tuple[int, int]) -> np.ndarray:
    return cv2.ellipse(np.zeros(SIDES, np.uint8), centre, axes, 0, 0, 360, 1, -1) > 0


MASKS = (ellipse((15, 20), (9, 17)), ellipse((44, 22), (10, 15)))


def scenes(root: Path, count: int = 12) -> Path:
    """Scenes of two people, of whom the first of every second one has a hat."""
    (root / "scenes").mkdir(parents=True)
    (root / "annotations").mkdir()
    rng = np.random.default_rng(3)
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for index in range(count):
        cv2.imwrite(str(root / f"scenes/{index:06d}.jpg"), rng.integers(0, 255, (*SIDES, 3), np.uint8))
        document["images"].append({"id": index, "file_name": f"{index:06d}.jpg", "height": 40, "width": 60})
        for side, mask in enumerate(MASKS):
            document["annotations"].append(
                {
                    "id": 2 * index + side,
                    "image_id": index,
                    "category_id": 1,
                    "segmentation": packed(mask),
                    "iscrowd": 0,
                    "attributes": {
                        "hat": side == 0 and index % 2 == 0,
                        "age": ("child", "old")[side],
                        "lookalike_hat": ("", "bun")[side],
                        "yaw_bin": float(side),
                        "grey": 0.25,
                    },
                }
            )
    (root / "annotations/instances_scenes.json").write_text(json.dumps(document))
    return root
