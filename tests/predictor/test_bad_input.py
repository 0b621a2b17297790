"""Bad input in combinations: counts, indices, labels, lists, both layouts; single cases are in test_bad_images.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import toys
from bad_images.arrays import IMAGE
from bad_images.judge import CROPS, bounded, check_message, inference
from bad_images.persons import boxes_of

from graftsdk import Predictor
from graftsdk.errors import (
    GraftError,
    InputError,
    ShapeError,
)
from graftsdk.preprocess import BoxMasks


@pytest.fixture(scope="module", params=["merged", "split"])
def predictor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    path = tmp_path_factory.mktemp("plan") / "engine.plan"
    toys.write(path)
    with Predictor(path, layout=request.param) as predictor:
        predictor.predict(IMAGE)
        yield predictor


@pytest.fixture(autouse=True)
def _unharmed(predictor: Predictor) -> Iterator[None]:
    """The golden inference gives the same bits after each case as before; the case is quick and takes little memory."""
    before = inference(predictor)
    with bounded():
        yield
    assert inference(predictor) == before


def refused(call: Callable[[], object], kind: type[Exception], text: str = "expected") -> None:
    with pytest.raises(GraftError, match=text) as caught:
        call()
    assert type(caught.value) is kind
    check_message(str(caught.value))


@pytest.mark.parametrize("shape", [(16, 16), (16, 16384), (16384, 16), (5000, 10000), (7071, 7071)])
def test_the_least_and_the_largest_size(predictor: Predictor, shape: tuple[int, int]) -> None:
    image = np.broadcast_to(np.array([9, 99, 199], np.uint8), (*shape, 3))
    small = predictor.predict(np.full((16, 16, 3), (9, 99, 199), np.uint8))
    found = predictor.predict(image)
    assert found[0].box.tolist() == [0, 0, shape[1], shape[0]]
    for label in predictor.labels:
        assert found[0][label].scores == pytest.approx(small[0][label].scores, abs=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_masks_over_a_large_image(predictor: Predictor, whole: bool) -> None:
    image = np.broadcast_to(np.array([9, 99, 199], np.uint8), (3000, 4000, 3))
    boxes = np.array([[0, 0, 4000, 3000]], np.float32)
    full = np.broadcast_to(np.ones((), bool), (1, 3000, 4000))
    masks = full if whole else BoxMasks([np.ones((8, 8), bool)], boxes)
    small = predictor.predict(np.ascontiguousarray(image[:16, :16]))
    found = predictor.predict(image, boxes=boxes, masks=masks)
    assert found[0]["child"].scores == pytest.approx(small[0]["child"].scores, abs=1e-5)


# --- persons ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["boxes", "masks", "both"])
@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 63, 64, 65, 1000, 1001])
def test_number_of_persons(predictor: Predictor, count: int, given: str) -> None:
    boxes = boxes_of(count)
    masks = BoxMasks([np.eye(3, dtype=bool)] * count, boxes)
    options = {"boxes": boxes if given != "masks" else None, "masks": masks if given != "boxes" else None}
    found = predictor.predict(IMAGE, labels=["gender"], **options)
    assert (len(found), found.truncated) == (min(count, 1000), count > 1000)
    for index in {0, 31, 32, 63, 64, len(found) - 1} & set(range(len(found))):
        own = {name: None if side is None else side[index : index + 1] for name, side in options.items()}
        alone = predictor.predict(IMAGE, labels=["gender"], **own)[0]
        assert found[index]["gender"].scores == alone["gender"].scores
        assert found[index].box.tolist() == alone.box.tolist()
        if given != "boxes":
            assert np.array_equal(found[index].mask, alone.mask)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ([5, 5, 5, 20], "x0 < x1"),
        ([5, 5, 20, 5], "x0 < x1"),
        ([20, 5, 5, 20], "x0 < x1"),
        ([5, 20, 20, 5], "x0 < x1"),
        ([-9, 0, 0, 9], "a part of the image of 90 x 120"),
        ([90, 0, 99, 9], "a part of the image"),
        ([0, 120, 9, 130], "a part of the image"),
        ([np.nan, 0, 9, 9], "finite"),
        ([0, 0, np.inf, 9], "finite"),
        ([-np.inf, 0, 9, 9], "finite"),
    ],
)
@pytest.mark.parametrize("index", [0, 40, 1000])
def test_a_bad_box_is_named_by_its_own_index(predictor: Predictor, box: list[float], text: str, index: int) -> None:
    boxes = boxes_of(1001)
    boxes[index] = box
    refused(lambda: predictor.predict(IMAGE, boxes=boxes), InputError, rf"^box {index}: expected {text}")
    refused(lambda: predictor.predict([IMAGE] * 2, boxes=[None, boxes]), InputError, rf"^image 1: box {index}: ")


@pytest.mark.parametrize(("count", "others"), [(0, 1), (1, 0), (32, 64), (64, 32), (32, 33), (1500, 1200)])
def test_each_box_has_its_mask(predictor: Predictor, count: int, others: int) -> None:
    masks = np.broadcast_to(np.ones((120, 90), bool), (others, 120, 90))
    refused(lambda: predictor.predict(IMAGE, boxes=boxes_of(count), masks=masks), ShapeError, f"expected {count}")


@pytest.mark.parametrize("index", [0, 40])
def test_an_empty_mask_is_named(predictor: Predictor, index: int) -> None:
    masks = np.ones((41, 120, 90), np.uint8)
    masks[index] = 0
    refused(lambda: predictor.predict(IMAGE, masks=masks), InputError, f"^mask {index}: ")


# --- arguments -------------------------------------------------------------------------------------------------------

NO_LABELS: dict[str, Any] = {
    "number": 7,
    "text": "child",
    "bytes": b"child",
    "none": [],
    "lists": [["child"]],
    "None inside": [None],
    "twice": ["child"] * 2,
    "unknown": ["hat"],
    "numbers": np.zeros(3),
    "rows of numbers": np.zeros((2, 2)),
}


@pytest.mark.parametrize("name", NO_LABELS)
def test_no_labels(predictor: Predictor, name: str) -> None:
    labels = NO_LABELS[name]
    refused(lambda: predictor.predict(IMAGE, labels=labels), InputError, "^labels: expected a list of some of")
    refused(lambda: predictor.run(CROPS, labels), InputError, "^labels: expected a list of some of")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("color", ["RGB", "gray", "", b"bgr", None, 3, ["bgr"], {"bgr"}, np.array(["bgr", "rgb"])]),
        ("reduce", [0, 3, 16, -1, 1.0, "2", None, True, [2], np.array([1, 2])]),
        ("errors", ["ignore", "", None, True, b"raise", ["raise"], np.array(["raise", "return"])]),
    ],
    ids=["color", "reduce", "errors"],
)
def test_other_arguments(predictor: Predictor, name: str, values: list[Any]) -> None:
    for value in values:
        for image in (IMAGE, [IMAGE, IMAGE]):
            refused(lambda: predictor.predict(image, **{name: value}), InputError, rf"^{name}: expected")  # noqa: B023


@pytest.mark.parametrize("name", ["masks", "boxes"])
def test_each_image_of_a_list_has_its_own_persons(predictor: Predictor, name: str) -> None:
    for side in ([], [None], [None] * 3, (None,), 7, "ab", {}, iter([]), np.zeros((2, 1, 4)), np.zeros((2, 120, 90))):
        refused(lambda: predictor.predict([IMAGE] * 2, **{name: side}), InputError, rf"^{name}: expected a list")  # noqa: B023


# --- lists -----------------------------------------------------------------------------------------------------------


def test_images_of_any_number_of_persons_share_batches_and_keep_their_own(predictor: Predictor) -> None:
    counts = [3, 0, 40, 0, 0, 31, 1, 65, 0]
    images = [np.roll(IMAGE, 7 * i, axis=1) for i in range(len(counts))]
    boxes = [boxes_of(count) for count in counts]
    masks = [BoxMasks([np.eye(3 + i, dtype=bool)] * len(own), own) for i, own in enumerate(boxes)]
    masks[2] = None  # type: ignore[call-overload]
    together = predictor.predict(images, boxes=boxes, masks=masks, labels=["gender", "child"])
    assert [len(prediction) for prediction in together] == counts
    for prediction, image, own, mask in zip(together, images, boxes, masks, strict=True):
        alone = predictor.predict(image, boxes=own, masks=mask, labels=["gender", "child"])
        assert prediction.to_dict(masks=True)["persons"] == alone.to_dict(masks=True)["persons"]
        assert prediction.labels == ("gender", "child")
        assert all(prediction.timings[stage] >= 0 for stage in ("decode", "segment", "crop", "engine"))


def test_nobody_anywhere(predictor: Predictor) -> None:
    assert [len(found) for found in predictor.predict([IMAGE] * 3, boxes=[[]] * 3)] == [0, 0, 0]
    assert predictor.predict([]) == []
    assert predictor.predict(()) == []
