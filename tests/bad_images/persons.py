"""Boxes and masks, right and wrong."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from bad_images.arrays import IMAGE, unaligned
from bad_images.case import Case, Given, always
from PIL import Image

from graftsdk.errors import DTypeError, InputError, ShapeError
from graftsdk.preprocess import BoxMasks

__all__ = ["boxes_of", "person_cases"]

HEIGHT, WIDTH = IMAGE.shape[:2]


def boxes_of(count: int) -> np.ndarray:
    return np.array([[i % 40, i % 50, i % 40 + 30, i % 50 + 60] for i in range(count)], np.float32).reshape(count, 4)


NAN, INF = float("nan"), float("inf")
WRONG_BOXES = {
    "no width": [5, 5, 5, 20],
    "no height": [5, 5, 20, 5],
    "a point": [5, 5, 5, 5],
    "inverted x": [20, 5, 5, 20],
    "inverted y": [5, 20, 20, 5],
    "inverted": [20, 20, 5, 5],
    "left of it": [-9, 0, 0, 9],
    "right of it": [WIDTH, 0, WIDTH + 9, 9],
    "above it": [0, -9, 9, 0],
    "below it": [0, HEIGHT, 9, HEIGHT + 10],
    "NaN": [NAN, 0, 9, 9],
    "all NaN": [NAN] * 4,
    "infinite": [0, 0, INF, 9],
    "minus infinite": [-INF, 0, 9, 9],
    "1e300": [0, 0, 1e300, 9],
}
RIGHT_BOXES = {
    "sub-pixel": ([10.2, 10.2, 10.3, 10.3], [10, 10, 11, 11]),
    "sub-pixel over an edge": ([9.9, 20, 10.1, 21], [9, 20, 11, 21]),
    "denormal": ([0, 0, 1e-310, 1e-310], [0, 0, 1, 1]),
    "last corner": ([89.999, 119.999, 89.9999, 119.9999], [89, 119, 90, 120]),
    "full": ([0, 0, WIDTH, HEIGHT], [0, 0, WIDTH, HEIGHT]),
    "beyond every side": ([-50, -50, 200, 200], [0, 0, WIDTH, HEIGHT]),
    "far beyond": ([-2e9, -2e9, 2e9, 2e9], [0, 0, WIDTH, HEIGHT]),
    "over a corner": ([80.5, 110.5, 95, 130], [80, 110, 90, 120]),
    "minus zero": ([-0.0, -0.0, 9, 9], [0, 0, 9, 9]),
}
OTHER_BOXES: dict[str, tuple[Any, type[Exception]]] = {
    "ragged": ([[1, 2, 3, 4], [3]], ShapeError),
    "one, flat": ([1, 2, 3, 4], ShapeError),
    "of three": (np.zeros((2, 3)), ShapeError),
    "of five": (np.zeros((2, 5)), ShapeError),
    "of rank 3": (np.zeros((1, 2, 4)), ShapeError),
    "empty, flat": (np.zeros(0), ShapeError),
    "text": ("boxes", InputError),
    "number": (7, InputError),
    "mapping": ({}, InputError),
    "None inside": ([[1, 2, 3, None]], DTypeError),
    "text inside": ([["1", "2", "3", "4"]], DTypeError),
    "complex": (boxes_of(2).astype(complex), DTypeError),
    "objects": (boxes_of(2).astype(object), DTypeError),
    "dates": (boxes_of(2).astype("M8[s]"), DTypeError),
    "bool": (boxes_of(2) > 0, DTypeError),
    "masked": (np.ma.array(boxes_of(2)), InputError),
    "2^70": ([[1, 2, 3, 2**70]], DTypeError),
    "2^63 unsigned": (np.array([[1, 2, 3, 2**63]], np.uint64), InputError),
}


def persons() -> Iterator[Case]:
    for count in (0, 1, 2, 31, 32, 33, 63, 64, 65, 500, 1000, 1001):
        yield Case("persons", f"{count}", always(Given(IMAGE, boxes_of(count))), persons=count)
    yield Case("persons", "none, as a list", always(Given(IMAGE, [])), persons=0)
    same = np.array([[3.5, 4, 50, 99]] * 40)
    yield Case("persons", "duplicated", always(Given(IMAGE, same)), persons=40)
    for name, box in WRONG_BOXES.items():
        given = Given(IMAGE, [[3, 4, 50, 99], box])
        yield Case("persons", name, always(given), InputError)
    for name, (box, whole) in RIGHT_BOXES.items():
        given, plain = Given(IMAGE, [box]), Given(IMAGE, [whole])
        yield Case("persons", name, always(given), plain=always(plain))
    for name, (boxes, error) in OTHER_BOXES.items():
        given = Given(IMAGE, boxes)
        yield Case("persons", f"boxes: {name}", always(given), error)


BOX = np.array([[5, 8, 65, 98]], np.float32)
CELLS = np.ones((2, 2), np.float32)
FRAME = np.zeros((1, HEIGHT, WIDTH), bool)
FRAME[0, 10:80, 20:60] = True
PART = np.array([[20, 10, 60, 80]], np.float32)  # the same, as an extent

WRONG_MASKS: dict[str, tuple[Any, type[Exception]]] = {
    "one, without N": (FRAME[0], ShapeError),
    "of rank 4": (FRAME[..., None], ShapeError),
    "turned": (FRAME.transpose(0, 2, 1), ShapeError),
    "half the size": (FRAME[:, ::2, ::2], ShapeError),
    "a column less": (FRAME[:, :, 1:], ShapeError),
    "float32": (FRAME.astype(np.float32), DTypeError),
    "float64": (FRAME.astype(np.float64), DTypeError),
    "int8": (FRAME.astype(np.int8), DTypeError),
    "int64": (FRAME.astype(np.int64), DTypeError),
    "uint16": (FRAME.astype(">u2"), DTypeError),
    "objects": (FRAME.astype(object), DTypeError),
    "masked": (np.ma.array(FRAME), InputError),
    "list of arrays": ([FRAME[0]], InputError),
    "PIL image": (Image.fromarray(FRAME[0]), InputError),
    "text": ("masks", InputError),
    "mapping": ({}, InputError),
    "two for one box": (FRAME.repeat(2, 0), ShapeError),
    "none for one box": (FRAME[:0], ShapeError),
    "two BoxMasks for one box": (partial(BoxMasks, [CELLS] * 2, PART.repeat(2, 0)), ShapeError),
    "no BoxMasks for one box": (partial(BoxMasks, [], np.empty((0, 4))), ShapeError),
}
# Arrays and extents that no BoxMasks can be made of.
NO_BOXMASKS: dict[str, tuple[Any, Any, type[Exception]]] = {
    "arrays: nothing": (None, PART, InputError),
    "arrays: a number": (7, PART, InputError),
    "arrays: lists": ([[[1, 1], [1, 1]]], PART, InputError),
    "arrays: a row": (CELLS, PART.repeat(2, 0), ShapeError),
    "array: empty": ([CELLS[:0]], PART, ShapeError),
    "array: float64": ([CELLS.astype(np.float64)], PART, DTypeError),
    "array: >f4": ([CELLS.astype(">f4")], PART, DTypeError),
    "array: int64": ([CELLS.astype(np.int64)], PART, DTypeError),
    "array: masked": ([np.ma.array(CELLS)], PART, InputError),
    "array: logits": ([CELLS * -3], PART, InputError),
    "array: 0 to 255": ([CELLS * 255], PART, InputError),
    "array: NaN": ([CELLS * np.float32(NAN)], PART, InputError),
    "extents: one for two": ([CELLS] * 2, PART, ShapeError),
    "extents: flat": ([CELLS], PART[0], ShapeError),
    "extents: None": ([CELLS], None, DTypeError),
    "extents: text": ([CELLS], [["a", "b", "c", "d"]], DTypeError),
    "extents: ragged": ([CELLS] * 2, [[1, 2], [3]], ShapeError),
    "extents: masked": ([CELLS], np.ma.array(PART), InputError),
    "extents: NaN": ([CELLS], PART * NAN, InputError),
    "extents: infinite": ([CELLS], [[0, 0, INF, 9]], InputError),
    "extents: inverted": ([CELLS], PART[:, ::-1], InputError),
    "extents: no area": ([CELLS], [[3, 3, 3, 9]], InputError),
    "extents: no area in float32": ([CELLS], [[0, 0, 1e-60, 9]], InputError),
}
# Without boxes, each mask must have a box of its own.
WITHOUT_A_BOX: dict[str, Any] = {
    "nothing set": FRAME & False,
    "outside the image": partial(BoxMasks, [CELLS], [[200, 200, 300, 300]]),
    "between the pixels": partial(BoxMasks, [CELLS], [[10.6, 10.6, 11.4, 11.4]]),
    "half everywhere": partial(BoxMasks, [CELLS / 2], PART),
}
RIGHT_MASKS: dict[str, tuple[Any, np.ndarray]] = {
    "uint8, 1": (FRAME.astype(np.uint8), FRAME),
    "uint8, 7 is set too": (FRAME.astype(np.uint8) * np.uint8(7), FRAME),
    "F order": (np.asfortranarray(FRAME), FRAME),
    "backwards": (np.ascontiguousarray(FRAME[:, ::-1, ::-1])[:, ::-1, ::-1], FRAME),
    "stride 0": (np.broadcast_to(np.True_, FRAME.shape), FRAME | True),
    "unaligned": (unaligned(FRAME.view(np.uint8)).view(bool), FRAME),
    "nothing set": (FRAME & False, FRAME & False),
    "BoxMasks over the frame": (partial(BoxMasks, FRAME, [[0, 0, WIDTH, HEIGHT]]), FRAME),
    "BoxMasks over a part of the box": (partial(BoxMasks, [CELLS], PART), FRAME),
    "BoxMasks, one cell": (partial(BoxMasks, [CELLS[:1, :1]], PART), FRAME),
    "BoxMasks, uint8 of 255": (partial(BoxMasks, [CELLS.astype(np.uint8) * np.uint8(255)], PART), FRAME),
    "BoxMasks, bool": (partial(BoxMasks, [CELLS.astype(bool)], PART), FRAME),
    "BoxMasks, integer extents": (partial(BoxMasks, [CELLS], PART.astype(np.int16)), FRAME),
    "BoxMasks, backwards": (partial(BoxMasks, [np.ones((4, 6), np.float32)[::-2, ::-3]], PART), FRAME),
    "BoxMasks beyond the image": (partial(BoxMasks, [CELLS], [[-50, -50, 900, 900]]), FRAME | True),
    "BoxMasks beside the box": (partial(BoxMasks, [CELLS], [[70, 0, 90, 120]]), FRAME & False),
    "BoxMasks outside the image": (partial(BoxMasks, [CELLS], [[200, 200, 300, 300]]), FRAME & False),
    "BoxMasks between the pixels": (partial(BoxMasks, [CELLS], [[10.6, 10.6, 11.4, 11.4]]), FRAME & False),
}


def masks() -> Iterator[Case]:
    for name, (wrong, error) in WRONG_MASKS.items():
        yield Case("masks", name, always(Given(IMAGE, BOX, wrong)), error)
    for name, (arrays, extents, error) in NO_BOXMASKS.items():
        yield Case("BoxMasks", name, always(Given(IMAGE, BOX, partial(BoxMasks, arrays, extents))), error)
    for name, wrong in WITHOUT_A_BOX.items():
        yield Case("masks", f"no box: {name}", always(Given(IMAGE, None, wrong)), InputError)
    for name, (right, frame) in RIGHT_MASKS.items():
        given, plain = Given(IMAGE, BOX, right), Given(IMAGE, BOX, frame)
        yield Case("masks", f"right: {name}", always(given), plain=always(plain))


def person_cases() -> Iterator[Case]:
    yield from persons()
    yield from masks()
