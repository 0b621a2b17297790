"""mask_crop side by side with what else one could run, one thread, in one interleaved run. `python benchmarks/crop.py`

8 people of about 260x600 pixels from a 1080p image to 299x299, with masks over the whole image, planar and normalised:
without antialias against OpenCV's chains, with it against Pillow's and torchvision's; and 20 people whose masks are
160x160 prototypes over the whole letterboxed image, against enlarging those to the whole image first. The rivals write
into one array that is kept, or return what they make; `mask_crop` makes a new array in each call, and the line "kept
array" is its kernel writing into one that is kept.

Masks are ellipses, which cover two thirds of their boxes (the share is printed): `mask_crop` reads and computes nothing
above, below and beside the person, and pays for the rest of the box with a plain store. The last table is the same with
masks that cover their boxes wholly.

The floor is a plain store of the crops' bytes into that array. Prints minima, medians, ratios and each target.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH the folder of the script is not on the path

from measure import Times, interleave, machine, table

from graftsdk import _native
from graftsdk.preprocess import BoxMasks, CropSpec, mask_crop

HEIGHT, WIDTH, SIZE = 1080, 1920, 299
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
ANTIALIASED, PLAIN = CropSpec((SIZE, SIZE)), CropSpec((SIZE, SIZE), antialias=False)


class Scene:
    """People in an image: boxes, masks at 160x160 over the letterboxed image, and the same over the whole image."""

    def __init__(self, people: int, whole: bool = False) -> None:
        """`whole`: each mask covers its box, not an ellipse in it."""
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        self.image = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        wide, high = rng.integers(230, 290, people), rng.integers(560, 640, people)
        x, y = rng.integers(0, WIDTH - wide), rng.integers(0, HEIGHT - high)
        self.boxes = np.stack([x, y, x + wide, y + high], axis=1)
        cells = np.zeros((people, 160, 160), np.float32)
        middle = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 + (0, (WIDTH - HEIGHT) / 2)
        for cell, (x, y) in zip(cells, np.round(middle * 160 / WIDTH).astype(int).tolist(), strict=True):
            if whole:
                cell[max(y - 29, 0) : y + 30, max(x - 14, 0) : x + 15] = 1
            else:
                cv2.ellipse(cell, (x, y), (9, 23), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
        rest = (WIDTH - HEIGHT) / 2
        self.box_masks = BoxMasks(cells, np.float32([[0, -rest, WIDTH, HEIGHT + rest]] * people))
        self.frames = self.enlarged()
        self.out = np.zeros((people, 3, SIZE, SIZE), np.float32)

    def enlarged(self) -> np.ndarray:
        """uint8[N, H, W], 0 or 255: each mask enlarged with OpenCV to the whole image."""
        frames = np.zeros((len(self.boxes), HEIGHT, WIDTH), np.uint8)
        rest = (WIDTH - HEIGHT) // 2
        for frame, cell in zip(frames, self.box_masks, strict=True):
            cv2.compare(cv2.resize(cell, (WIDTH, WIDTH))[rest : rest + HEIGHT], 0.5, cv2.CMP_GT, dst=frame)
        return frames

    def share(self) -> float:
        """The part of a box that its mask covers, on average."""
        parts = [frame[y0:y1, x0:x1] for frame, (x0, y0, x1, y1) in zip(self.frames, self.boxes.tolist(), strict=True)]
        return float(np.mean([np.count_nonzero(part) / part.size for part in parts]))

    def cut(self, index: int, masks: np.ndarray) -> np.ndarray:
        """uint8[h, w, 3]: one person, background 0."""
        x0, y0, x1, y1 = self.boxes[index].tolist()
        region = self.image[y0:y1, x0:x1]
        return cv2.bitwise_and(region, region, mask=masks[index, y0:y1, x0:x1])


SCALE, BIAS = (1 / (255 * STD)).tolist(), (-MEAN / STD).tolist()


def opencv_by_numpy(scene: Scene) -> None:
    for index, crop in enumerate(scene.out):
        small = cv2.resize(scene.cut(index, scene.frames), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        planar(small, crop)


def opencv_by_opencv(scene: Scene) -> None:
    for index, crop in enumerate(scene.out):
        small = cv2.resize(scene.cut(index, scene.frames), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        for channel, plane in enumerate(crop):
            plane[...] = small[:, :, 2 - channel]
            cv2.multiply(plane, SCALE[channel], dst=plane)
            cv2.add(plane, BIAS[channel], dst=plane)


def planar(small: np.ndarray, crop: np.ndarray) -> None:
    """uint8 BGR pixels into the planes, RGB, normalised in place."""
    for channel, plane in enumerate(crop):
        plane[...] = small[:, :, 2 - channel]
        plane *= SCALE[channel]
        plane += BIAS[channel]


def usual(scene: Scene) -> np.ndarray:
    """As it is mostly written."""
    crops = []
    for index in range(len(scene.boxes)):
        small = cv2.resize(scene.cut(index, scene.frames), (SIZE, SIZE))
        crops.append(((small[:, :, ::-1].astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1))
    return np.ascontiguousarray(np.stack(crops))


def pillow(scene: Scene) -> None:
    for index, crop in enumerate(scene.out):
        image = Image.fromarray(scene.cut(index, scene.frames))
        planar(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)), crop)


def torchvision(scene: Scene) -> None:
    out = torch.from_numpy(scene.out)
    for index in range(len(scene.boxes)):
        pixels = torch.from_numpy(scene.cut(index, scene.frames)).permute(2, 0, 1)
        small = functional.resize(pixels, [SIZE, SIZE], antialias=True).flip(0)
        out[index] = functional.normalize(small.float().div_(255), MEAN.tolist(), STD.tolist(), inplace=True)


def upsampled_first(scene: Scene) -> None:
    frames = scene.enlarged()
    for index, crop in enumerate(scene.out):
        small = cv2.resize(scene.cut(index, frames), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        planar(small, crop)


def kept(scene: Scene, spec: CropSpec, masks: np.ndarray | BoxMasks) -> None:
    chosen = {"masks": masks}
    if isinstance(masks, BoxMasks):
        chosen = {"arrays": masks.arrays, "extents": masks.extents}
    _native.mask_crop(
        scene.image, scene.boxes.astype(np.float64), **chosen, size=spec.size, mean=spec.mean, std=spec.std, fill=0,
        reverse=True, antialias=spec.antialias, letterbox=False, pad=0.0, out=scene.out,
    )  # fmt: skip


def agree(crops: np.ndarray, scene: Scene, most: float) -> None:
    """The rivals round to whole grey levels: their crops have to be ours within `most` levels on average."""
    off = float(np.abs(crops - scene.out).mean()) * 255 * float(STD.mean())
    if off > most:
        raise SystemExit(f"a rival computes something else: {off:.2f} grey levels away on average")


def report(title: str, times: dict[str, Times], ours: str, people: int, targets: dict[str, float]) -> None:
    print(f"\n{title}\n{table(times, 'crop', people, ours)}")
    for names, target in targets.items():
        rivals = names.split(" | ")
        least = min(times[name].least for name in rivals) / times[ours].least
        median = min(times[name].median for name in rivals) / times[ours].median
        verdict = "met" if least >= target else "MISSED"
        print(f"  {' | '.join(rivals)}: {least:.2f} (median {median:.2f}) times ours, target {target}: {verdict}")
    if "floor" in times:
        kernel = times[f"{ours}, kept array"].least / times["floor"].least
        print(f"  ours is {times[ours].least / times['floor'].least:.1f} times the floor, in a kept array {kernel:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(f"instruction sets: {machine()}; mask_crop: {_native.mask_crop_levels()[-1]}; one thread; {rounds} rounds")

    scene = Scene(8)
    plain = mask_crop(scene.image, scene.boxes, scene.frames, PLAIN)
    antialiased = mask_crop(scene.image, scene.boxes, scene.frames, ANTIALIASED)
    rivals: list[tuple[Callable[[Scene], object], np.ndarray]] = [
        (opencv_by_numpy, plain), (opencv_by_opencv, plain), (pillow, antialiased), (torchvision, antialiased)
    ]  # fmt: skip
    for rival, crops in rivals:
        rival(scene)
        agree(crops, scene, 1.0)

    times = interleave(
        {
            "graftsdk": lambda: mask_crop(scene.image, scene.boxes, scene.frames, PLAIN),
            "graftsdk, kept array": lambda: kept(scene, PLAIN, scene.frames),
            "OpenCV, numpy affine": lambda: opencv_by_numpy(scene),
            "OpenCV, OpenCV affine": lambda: opencv_by_opencv(scene),
            "usual": lambda: usual(scene),
            "floor": lambda: scene.out.fill(1.0),
        },
        rounds,
    )
    targets = {"OpenCV, numpy affine | OpenCV, OpenCV affine": 1.5, "usual": 5.0}
    report("Without antialias, 8 people", times, "graftsdk", 8, targets)

    times = interleave(
        {
            "graftsdk": lambda: mask_crop(scene.image, scene.boxes, scene.frames, ANTIALIASED),
            "graftsdk, kept array": lambda: kept(scene, ANTIALIASED, scene.frames),
            "Pillow": lambda: pillow(scene),
            "torchvision": lambda: torchvision(scene),
            "floor": lambda: scene.out.fill(1.0),
        },
        rounds,
    )
    report("With antialias, 8 people", times, "graftsdk", 8, {"Pillow": 3.0, "torchvision": 3.0})

    for whole in (False, True):
        crowd = Scene(20, whole)
        upsampled_first(crowd)
        agree(mask_crop(crowd.image, crowd.boxes, crowd.box_masks, PLAIN), crowd, 1.0)
        small_masks(crowd, rounds)


def small_masks(crowd: Scene, rounds: int) -> None:
    times = interleave(
        {
            "graftsdk": lambda: mask_crop(crowd.image, crowd.boxes, crowd.box_masks, PLAIN),
            "graftsdk, kept array": lambda: kept(crowd, PLAIN, crowd.box_masks),
            "enlarged, then OpenCV": lambda: upsampled_first(crowd),
            "enlarged, then graftsdk": lambda: mask_crop(crowd.image, crowd.boxes, crowd.enlarged(), PLAIN),
            "floor": lambda: crowd.out.fill(1.0),
        },
        rounds,
    )
    title = f"Masks of 160x160, 20 people, {100 * crowd.share():.0f}% of a box covered"
    report(title, times, "graftsdk", 20, {"enlarged, then OpenCV | enlarged, then graftsdk": 8.0})


if __name__ == "__main__":
    main()
