"""Sixteen callers through the batcher against one that hands over full batches. `python benchmarks/batcher.py`

Two plans: the demo, whose segmenter finds people, and the reference plan (18 labels, InceptionV3 at 299x299), whose
boxes are given; the same images in every case, interleaved in one run. Then what a lone caller waits longer than with
`predict`. The process keeps the memory that it freed, as `graftsdk serve` does: without that every thread but the main
one loses milliseconds an image to page faults, the batcher's or not.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH the folder of the script is not on the path

from measure import Times, interleave, machine, table

from graftsdk import Predictor
from graftsdk.engines.memory import keep_memory

EXAMPLES = Path(__file__).parents[1] / "examples"
THROUGHPUT, ADDED_MS = 0.97, 2.0  # targets
BOXES = [[40, 40, 180, 340], [200, 30, 330, 350], [350, 60, 470, 340], [480, 50, 620, 350]]


def measure(
    predictor: Predictor, options: argparse.Namespace, given: bool
) -> tuple[dict[str, Times], dict[str, Times]]:
    """One caller with a list against many with an image each at a time; then one caller with one image."""
    picture = cv2.imread(str(EXAMPLES / "lobby.jpg"))
    images = [np.roll(picture, 7 * index, axis=1) for index in range(options.images)]
    boxes: list[Any] = [BOXES if given else None] * len(images)
    with predictor.batcher() as batcher, ThreadPoolExecutor(options.callers) as pool:

        def shared() -> None:
            list(pool.map(lambda image, own: batcher.predict(image, boxes=own), images, boxes))

        many = {"list": lambda: predictor.predict(images, boxes=boxes), "batcher": shared}
        lone = {
            "predict": lambda: predictor.predict(images[0], boxes=boxes[0]),
            "batcher": lambda: batcher.predict(images[0], boxes=boxes[0]),
        }
        return interleave(many, options.rounds), interleave(lone, 6 * options.rounds)


def report(many: dict[str, Times], lone: dict[str, Times]) -> None:
    """Both ratios, by minimum and by median."""
    print(table(many, "case", 1, "list"))
    print(table(lone, "image", 1, "predict"))
    shared, listed = many["batcher"], many["list"]
    least, median = listed.least / shared.least, listed.median / shared.median
    print(f"throughput through the batcher: {least:.3f} (minima), {median:.3f} (medians); target {THROUGHPUT}")
    alone, one = lone["batcher"], lone["predict"]
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
    keep_memory()
    print(machine())
    for path, given in ((EXAMPLES / "demo.plan", False), (options.plan, True)):
        if path is None:
            continue
        with Predictor(path) as predictor:
            persons = "4 boxes each" if given else "people are found"
            print(f"\n{path.name}, {options.images} images, {options.callers} callers, {persons}")
            report(*measure(predictor, options, given))


if __name__ == "__main__":
    main()
