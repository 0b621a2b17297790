"""Drawn people as two networks see them, for occlusion.py: crops along the box, and crops cut by the mask."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from graftsdk.drawing.pictures import encode
from graftsdk.files import atomic_write
from graftsdk.lifecycle.segmenters import open_segmenter
from graftsdk.plan import CropSpec
from graftsdk.preprocess import mask_crop
from graftsdk.preprocess.boxmasks import inside
from graftsdk.preprocess.cutout import cut_out
from graftsdk.training.crops.packed import whole_values
from graftsdk.training.labels.allot import allot
from graftsdk.training.synthetic import DrawnPerson, draw_scene
from graftsdk.training.synthetic.dataset import is_crowd

Pixels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

TRAIN_SEED, TEST_SEED = 1001, 1002  # of the scenes; the demo segmenter has seen those of seed 1
LEAST_SIDE = 16  # pixels of a box; what is smaller is no crop
LEAST_IOU = 0.5  # of a found mask with the visible pixels
NETWORKS: dict[str, Literal["keep", "fill"]] = {"box": "keep", "mask": "fill"}  # what becomes of the background
ARMS = {"box": "box", "mask": "mask", "yolact": "mask", "yolact box": "box"}  # whose networks judge it


class TestPeople(NamedTuple):
    """N people. crops: of each arm, uint8[N, H, W, 3]. targets: int64[N, L]. iou: of the found mask, 0: none found."""

    crops: dict[str, Pixels]
    targets: npt.NDArray[np.int64]
    occlusion: npt.NDArray[np.float64]
    cut: Bools  # by the picture's border
    iou: npt.NDArray[np.float64]


def people_of(seed: int, index: int) -> tuple[Pixels, list[DrawnPerson]]:
    """(the picture as its camera stores it, uint8[H, W, 3], BGR; who can be asked for)."""
    scene = draw_scene(seed, index)
    jpeg = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, scene.quality])[1]
    image = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)
    big = [p for p in scene.persons if min(p.box[2] - p.box[0], p.box[3] - p.box[1]) >= LEAST_SIDE]
    return image, [person for person in big if not is_crowd(person)]


def write_training(folder: Path, scenes: int, labels: Sequence[str], negatives: float) -> None:
    """Sub-datasets of disjoint people, the same ones for each network: NETWORK/LABEL/train/{no,yes}/*.png.

    Of "mask", alpha is the true mask; of "box" there is none: what reads a picture blends alpha over black.
    """
    names, pictures, targets = [], [], []
    for index in tqdm(range(scenes), desc="training scenes", unit="scene"):
        image, people = people_of(TRAIN_SEED, index)
        for place, person in enumerate(people):
            names.append(f"{index:06d}_{place}")
            pictures.append(cut_out(image, np.array(person.box), person.mask[None]).pixels)
            targets.append([int(bool(person.attributes[label])) for label in labels])
    known = np.array(targets, np.int64)
    order = known.sum(axis=0).argsort(kind="stable")  # the rarest label first
    columns = [known[:, column] for column in order]
    owner = allot(names, ["drawn"] * len(names), columns, [1] * len(labels), negatives, TRAIN_SEED)
    staging = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(staging, ignore_errors=True)  # of a killed run, perhaps with other options
    for row, rank in enumerate(owner.tolist()):
        if rank >= 0:
            label, target = labels[order[rank]], known[row, order[rank]]
            for network in NETWORKS:
                home = staging / network / label / "train" / ("no", "yes")[target]
                home.mkdir(parents=True, exist_ok=True)
                picture = pictures[row] if network == "mask" else np.ascontiguousarray(pictures[row][:, :, :3])
                (home / f"{names[row]}.png").write_bytes(encode(picture, ".png"))  # not synced: renamed when whole
    staging.rename(folder)


def found_people(segmenter: Any, image: Pixels, people: Sequence[DrawnPerson]) -> Iterator[tuple[float, int, Any]]:
    """(IoU, which, all that was found) for each person, one to one; IoU 0: the person was not found."""
    found = segmenter.find(image)
    height, width = image.shape[:2]
    masks = [inside(found.masks, index, 0, height, 0, width) for index in range(len(found))]
    iou = np.zeros((len(people), len(found)))
    for row, column in np.ndindex(iou.shape):
        true, own = people[row].mask, masks[column]
        iou[row, column] = np.count_nonzero(true & own) / np.count_nonzero(true | own)
    pairs = dict(zip(*(side.tolist() for side in linear_sum_assignment(-iou)), strict=True))
    for row in range(len(people)):
        column = pairs.get(row, -1)
        value = float(iou[row, column]) if column >= 0 else 0.0
        yield (value, column, found) if value >= LEAST_IOU else (0.0, -1, found)


def test_people(path: Path, scenes: int, labels: Sequence[str], size: tuple[int, int]) -> TestPeople:
    """Read, or drawn and written first."""
    if not path.exists():
        _write_test(path, scenes, labels, size)
    with np.load(path, allow_pickle=False) as file:
        crops = {arm: file[arm] for arm in ARMS}
        return TestPeople(crops, file["targets"], file["occlusion"], file["cut"], file["iou"])


def _write_test(path: Path, scenes: int, labels: Sequence[str], size: tuple[int, int]) -> None:
    specs = {name: CropSpec(size, background=kind) for name, kind in NETWORKS.items()}
    rows: dict[str, list[Any]] = {name: [] for name in (*ARMS, "targets", "occlusion", "cut", "iou")}
    nobody = np.zeros((*size, 3), np.uint8)
    with open_segmenter("demo", device="cpu", threads=1) as segmenter:
        for index in tqdm(range(scenes), desc="test scenes", unit="scene"):
            image, people = people_of(TEST_SEED, index)
            for person, (iou, which, found) in zip(people, found_people(segmenter, image, people), strict=True):
                true = np.array([person.box], np.float32), person.mask[None]
                for arm, network in ARMS.items():
                    if not arm.startswith("yolact"):
                        crop = mask_crop(image, *true, specs[network])[0]
                    elif iou:
                        crop = mask_crop(image, found.boxes, found.masks, specs[network])[which]
                    rows[arm].append(
                        whole_values(crop, specs[network]) if iou or not arm.startswith("yolact") else nobody
                    )
                a = person.amodal
                rows["cut"].append(bool(a[0].any() or a[-1].any() or a[:, 0].any() or a[:, -1].any()))
                rows["iou"].append(iou)
                rows["occlusion"].append(person.occlusion)
                rows["targets"].append([int(bool(person.attributes[label])) for label in labels])
    arrays: dict[str, Any] = {name: np.array(values) for name, values in rows.items()}
    with atomic_write(path) as file:
        np.savez(file, **arrays)
