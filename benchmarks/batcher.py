"""Sixteen callers through the batcher against one that hands over full batches. `python benchmarks/batcher.py`

Two plans: the demo, whose segmenter finds people, and the reference plan (18 labels, InceptionV3 at 299x299), whose
boxes are given; the same images in every case, interleaved in one run. Then what a lone caller waits longer than with
`predict`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH the folder of the script is not on the path

from measure import Times, interleave, machine, table

from graftsdk import Predictor

EXAMPLES = Path(__file__).parents[1] / "examples"
THROUGHPUT, ADDED_MS = 0.97, 2.0  # targets
BOXES = [[40, 40, 180, 340], [200, 30, 330, 350], [350, 60, 470, 340], [480, 50, 620, 350]]


def cases(predictor: Predictor, count: int, callers: int, given: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One caller with a list, and many with an image each at a time."""
    picture = cv2.imread(str(EXAMPLES / "lobby.jpg"))
    images = [np.roll(picture, 7 * index, axis=1) for index in range(count)]
    boxes: list[Any] = [BOXES if given else None] * count
    batcher = predictor.batcher()
    pool = ThreadPoolExecutor(callers)
    yield "predict, list", lambda: predictor.predict(images, boxes=boxes)
    name = f"batcher, {callers} callers"
    yield name, lambda: list(pool.map(lambda image, own: batcher.predict(image, boxes=own), images, boxes))
    yield "predict, one", lambda: predictor.predict(images[0], boxes=boxes[0])
    yield "batcher, alone", lambda: batcher.predict(images[0], boxes=boxes[0])


def report(title: str, times: dict[str, Times], callers: int) -> None:
    """Both ratios, by minimum and by median."""
    print(f"\n{title}")
    print(table(times, "case", 1, "predict, list"))
    many, listed = times[f"batcher, {callers} callers"], times["predict, list"]
    least, median = listed.least / many.least, listed.median / many.median
    print(f"throughput through the batcher: {least:.3f} (minima), {median:.3f} (medians); target {THROUGHPUT}")
    alone, one = times["batcher, alone"], times["predict, one"]
    least, median = 1e3 * (alone.least - one.least), 1e3 * (alone.median - one.median)
    print(f"a lone caller waits longer by {least:.2f} ms (minima), {median:.2f} ms (medians); target {ADDED_MS} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, help="one without a segmenter, e.g. full.plan of benchmarks/plans.py")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument(
        "--images",
        type=int,
        default=64,
        help="in each case of many; a few a caller, so that its start and end weigh little",
    )
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(machine())
    for path, given in ((EXAMPLES / "demo.plan", False), (options.plan, True)):
        if path is None:
            continue
        with Predictor(path) as predictor:
            times = interleave(dict(cases(predictor, options.images, options.callers, given)), options.rounds)
            title = f"{path.name}, {options.images} images, {'4 boxes each' if given else 'people are found'}"
            report(title, times, options.callers)


if __name__ == "__main__":
    main()
