"""YOLACT's decoding against the plain way in numpy, one thread.

From the outputs of a network with 550x550 inputs (19,248 priors, 138x138x32 prototypes; 81 classes with the background,
or persons only) to 20 people in a photograph of 1920x1080, each found by 12 priors: people of 230 to 290 x 560 to 640
pixels, whose masks are ellipses. Ours ends with `BoxMasks`, the plain ways with a mask over the whole photograph for
each person, as YOLACT's own code does: all priors decoded, fast NMS, masks cut to the boxes and enlarged to the
photograph by OpenCV or by torch. They have to find the same people, and all but a few pixels of the masks. Ours is
measured with greedy NMS, as it is served, and with fast NMS. Before each call the outputs are written anew, as a
network writes them right before they are decoded.

The floor is one look at each byte of the outputs (a maximum), which the search for NaN and infinity needs.

Prints minima, medians, ratios and each target, and exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH the folder of the script is not on the path

from measure import Times, interleave, machine, table

from graftsdk.plan.manifest import SegmenterInfo
from graftsdk.segment import Instances, open_adapter

INPUT, GRIDS, SCALES = 550, (69, 35, 18, 9, 5), (24, 48, 96, 192, 384)
HEIGHT, WIDTH, PEOPLE, EACH = 1080, 1920, 20, 12
PROTOTYPES, CELLS = 32, 138
SCORE, IOU = 0.15, 0.5
TARGETS = {81: 4.0, 2: 1.5}  # milliseconds
FASTER = 10.0


def priors() -> np.ndarray:
    """float32[19248, 4]: cx, cy, w, h as fractions, square as in the original."""
    found = []
    for grid, scale in zip(GRIDS, SCALES, strict=True):
        y, x = np.mgrid[:grid, :grid]
        sides = scale * np.sqrt([1, 1 / 2, 2]) / INPUT
        centre = np.stack([(x + 0.5) / grid, (y + 0.5) / grid], axis=-1).reshape(-1, 1, 2).repeat(3, axis=1)
        found.append(np.concatenate([centre, np.stack([sides, sides], axis=1)[None].repeat(grid**2, axis=0)], axis=2))
    return np.concatenate([part.reshape(-1, 4) for part in found]).astype(np.float32)


def outputs(classes: int) -> list[np.ndarray]:
    """loc, conf, mask, priors, proto of a photograph with PEOPLE people in two rows; `classes` with the background."""
    rng = np.random.default_rng(0)
    boxes = priors()
    size = np.stack([rng.integers(230, 290, PEOPLE) / WIDTH, rng.integers(560, 640, PEOPLE) / HEIGHT], axis=1)
    place = np.stack([np.arange(PEOPLE) % 10 / 10 + 0.05, np.arange(PEOPLE) // 10 * 0.4 + 0.3], axis=1)
    conf = rng.random((len(boxes), classes), np.float32) ** 2 * 1e-3
    mask = np.tanh(rng.normal(size=(len(boxes), PROTOTYPES)))
    loc = rng.normal(size=(len(boxes), 4))
    free = np.ones(len(boxes), bool)
    for index, (centre, side) in enumerate(zip(place, size, strict=True)):
        far = np.abs(boxes[:, :2] - centre).sum(axis=1) + np.abs(np.log(boxes[:, 2:] / side)).sum(axis=1) + 9.0 * ~free
        near = np.argsort(far)[:EACH]
        free[near] = False
        conf[near, 1] = rng.uniform(0.2, 0.95, EACH)
        drawn = np.concatenate([centre, side]) + rng.normal(size=(EACH, 4)) * np.concatenate([side, side]) * 0.03
        loc[near, :2] = (drawn[:, :2] - boxes[near, :2]) / boxes[near, 2:] / 0.1
        loc[near, 2:] = np.log(drawn[:, 2:] / boxes[near, 2:]) / 0.2
        mask[near] = 0
        mask[near, index], mask[near, -1] = 0.9, -0.9
    conf[:, 0] = np.maximum(1 - conf[:, 1:].sum(axis=1), 0)
    y, x = (np.mgrid[:CELLS, :CELLS] + 0.5) / CELLS
    proto = rng.random((CELLS, CELLS, PROTOTYPES), np.float32)
    for index, ((cx, cy), (wide, high)) in enumerate(zip(place, size, strict=True)):
        proto[..., index] = np.clip(
            16 - 12 * ((x - cx) ** 2 / (wide / 2) ** 2 + (y - cy) ** 2 / (high / 2) ** 2), 0, None
        )
    proto[..., -1] = 6
    made = (loc[None], conf[None], mask[None], boxes, proto[None])
    return [np.ascontiguousarray(array, dtype=np.float32) for array in made]


def plain(made: list[np.ndarray], by: str) -> tuple[np.ndarray, np.ndarray]:
    """(boxes float32[n, 4] in pixels, masks uint8 or bool[n, HEIGHT, WIDTH])."""
    if not all(np.isfinite(output).all() for output in made):
        raise SystemExit("not finite")
    loc, conf, mask, anchors, proto = made[0][0], made[1][0], made[2][0], made[3], made[4][0]
    centre = anchors[:, :2] + loc[:, :2] * 0.1 * anchors[:, 2:]
    side = anchors[:, 2:] * np.exp(loc[:, 2:] * 0.2)
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    takes = conf[:, 1:].max(axis=1) > 0.05
    boxes, scores, coefficients = boxes[takes], conf[takes, 1], mask[takes]
    order = np.argsort(-scores, kind="stable")[:200]
    order = order[keep_fast(boxes[order])]
    order = order[scores[order] >= SCORE]
    boxes = boxes[order]
    masks = 1 / (1 + np.exp(-(proto @ coefficients[order].T)))
    x, y = np.arange(CELLS)[None, :, None], np.arange(CELLS)[:, None, None]
    x0, y0, x1, y1 = boxes.T * CELLS
    masks *= (x >= x0 - 1) & (x < x1 + 1) & (y >= y0 - 1) & (y < y1 + 1)
    pixels = np.clip(boxes * np.float32((WIDTH, HEIGHT, WIDTH, HEIGHT)), 0, np.float32((WIDTH, HEIGHT, WIDTH, HEIGHT)))
    return pixels, enlarged(masks, by)


def keep_fast(boxes: np.ndarray) -> np.ndarray:
    """bool[n]: YOLACT's fast NMS of boxes by falling score."""
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.triu(shared / (area[:, None] + area[None] - shared), 1).max(axis=0) <= IOU


def enlarged(masks: np.ndarray, by: str) -> np.ndarray:
    """[n, HEIGHT, WIDTH], nonzero where float32[h, w, n] is above 0.5 once enlarged."""
    if by == "torch":
        stack = torch.from_numpy(np.ascontiguousarray(masks.transpose(2, 0, 1))[None])
        whole = torch.nn.functional.interpolate(stack, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
        return whole[0].gt_(0.5).byte().numpy()
    frames = np.empty((masks.shape[2], HEIGHT, WIDTH), np.uint8)
    for index, frame in enumerate(frames):
        large = cv2.resize(np.ascontiguousarray(masks[:, :, index]), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        cv2.compare(large, 0.5, cv2.CMP_GT, dst=frame)
    return frames


def agree(found: Instances, boxes: np.ndarray, masks: np.ndarray) -> None:
    """The same people, in order, and masks that differ in less than one of 10,000 of their pixels."""
    if len(found) != len(boxes) or np.abs(found.boxes - boxes).max() > 1e-2 or found.masks is None:
        raise SystemExit(f"the plain way finds {len(boxes)} others than the {len(found)} people")
    for index, mask in enumerate(masks):
        ours = found.masks.mask_at(index, HEIGHT, WIDTH)
        if np.count_nonzero(ours != (mask != 0)) > 1e-4 * np.count_nonzero(ours):
            raise SystemExit(f"the plain way's mask of person {index} is another one")


def verdict(times: dict[str, Times], classes: int) -> bool:
    """Prints whether the targets are met."""
    ours = times["graftsdk"]
    rival = min((name for name in times if name.startswith("plain")), key=lambda name: times[name].least)
    ratio = times[rival].least / ours.least
    median = times[rival].median / ours.median
    met = 1e3 * ours.least <= TARGETS[classes], ratio >= FASTER
    words = ["met" if each else "MISSED" for each in met]
    print(f"  {1e3 * ours.least:.2f} ms (median {1e3 * ours.median:.2f}), target {TARGETS[classes]} ms: {words[0]}")
    print(f"  {rival}: {ratio:.0f} (median {median:.0f}) times ours, target {FASTER:.0f}: {words[1]}")
    print(f"  ours is {ours.least / times['floor'].least:.1f} times the floor")
    return all(met)


def processor() -> str:
    """The CPU's name as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(f"{processor()}; instruction sets: {machine()}; one thread; {rounds} rounds")
    names = ("loc", "conf", "mask", "priors", "proto")
    info = SegmenterInfo(
        "segmenter", "yolact", "images", (INPUT, INPUT), names, score_threshold=SCORE, iou_threshold=IOU, nms="fast"
    )
    adapter, greedy = open_adapter(info), open_adapter(replace(info, nms="greedy"))
    size = (HEIGHT, WIDTH)
    met = True
    for classes in TARGETS:
        own = outputs(classes)
        made = [output.copy() for output in own]
        found = adapter.decode(made, size)
        if [len(found), len(greedy.decode(made, size))] != [PEOPLE] * 2:
            raise SystemExit(f"expected {PEOPLE} people, found {len(found)}, or others by greedy NMS")
        for by in ("opencv", "torch"):
            agree(found, *plain(made, by))
        times = interleave(
            {
                "graftsdk": lambda made=made: greedy.decode(made, size),
                "graftsdk, fast NMS": lambda made=made: adapter.decode(made, size),
                "plain, enlarged by OpenCV": lambda made=made: plain(made, "opencv"),
                "plain, enlarged by torch": lambda made=made: plain(made, "torch"),
                "floor": lambda made=made: [output.max() for output in made],
            },
            rounds,
            before=lambda made=made, own=own: [np.copyto(to, of) for to, of in zip(made, own, strict=True)],
        )
        megabytes = sum(output.nbytes for output in made) / 1e6
        print(f"\n{classes} classes with the background, {megabytes:.1f} MB\n{table(times, 'image', 1, 'graftsdk')}")
        met = verdict(times, classes) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
