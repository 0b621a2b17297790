"""As many persons as a segmenter finds: none, one, hundreds, more than the limit, and outputs that are no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import toys
from bad_images.judge import bounded, scores
from onnx import TensorProto, helper, numpy_helper

from graftsdk import Predictor
from graftsdk.errors import GraftError, NonFiniteOutput
from graftsdk.plan import PartInfo, Provenance, SegmenterInfo
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import read_segmenter_part
from graftsdk.segment import recognise

SIDE = 256
ANCHORS = (SIDE // 8) ** 2 + (SIDE // 16) ** 2 + (SIDE // 32) ** 2  # 1344
MOST = 1000


def network(path: Path) -> None:
    """YOLO's outputs: as many persons of 10 x 12 pixels as four times the red of the image's first pixel.

    A blue of that pixel over 0.9 makes a coefficient infinite.
    """
    predictions = np.zeros((1, 4 + 1 + 32, ANCHORS), np.float32)
    places = np.arange(ANCHORS)
    predictions[0, 0], predictions[0, 1] = places % 40 * 6 + 8, places // 40 * 7 + 8
    predictions[0, 2], predictions[0, 3] = 10, 12
    predictions[0, 5] = 9
    prototypes = np.zeros((1, 32, SIDE // 4, SIDE // 4), np.float32)
    prototypes[0, 0] = 1
    ranks = np.zeros_like(predictions)
    ranks[0, 4] = 1 - places / 2000  # falls: the first anchors are the surest
    coefficient_row = np.zeros_like(predictions)
    coefficient_row[0, 5, 7] = 1
    arrays = {
        "predictions": predictions,
        "prototypes": prototypes,
        "ranks": ranks,
        "coefficient_row": coefficient_row,
        "places": (places + 0.5).astype(np.float32).reshape(1, 1, ANCHORS),
        "starts": np.zeros(4, np.int64),
        "corner": np.array([1, 3, 1, 1], np.int64),
        "axes": np.arange(4),
        "flat": np.array([1, 3, 1], np.int64),
        "red": np.array(0),
        "blue": np.array(2),
        "scale": np.array(255 * 4, np.float32),
        "zero": np.array(0, np.float32),
        "huge": np.array(3.4e38, np.float32),
        "limit": np.array(0.9, np.float32),
        "ten": np.array(10, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Slice", ["images", "starts", "corner", "axes"], ["pixel"]),
        node("Reshape", ["pixel", "flat"], ["colour"]),
        node("Gather", ["colour", "red"], ["reds"], axis=1),
        node("Gather", ["colour", "blue"], ["blues"], axis=1),
        node("Mul", ["reds", "scale"], ["count"]),
        node("Less", ["places", "count"], ["wanted"]),
        node("Where", ["wanted", "ranks", "zero"], ["found"]),
        node("Greater", ["blues", "limit"], ["hot"]),
        node("Where", ["hot", "huge", "zero"], ["burst"]),
        node("Mul", ["burst", "coefficient_row"], ["once"]),
        node("Mul", ["once", "ten"], ["spoilt"]),
        node("Add", ["predictions", "found"], ["sum"]),
        node("Add", ["sum", "spoilt"], ["output0"]),
        node("Mul", ["blues", "zero"], ["nothing"]),
        node("Add", ["prototypes", "nothing"], ["output1"]),
    ]
    shapes = {"output0": predictions.shape, "output1": prototypes.shape}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "toy", [image], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    folder = tmp_path_factory.mktemp("plan")
    network(folder / "segmenter.onnx")
    part, inputs, outputs, _ = read_segmenter_part(folder / "segmenter.onnx")
    info = SegmenterInfo(part=part.name, **recognise(inputs, outputs), max_persons=MOST)
    segmenter = part, info, PartInfo("segmenter", part.digest, provenance=Provenance("", ""))
    create_plan(folder / "p", toys.trunk(), [toys.branch("child"), toys.branch("hat", 2)], segmenter)
    with Predictor(folder / "p") as predictor:
        yield predictor


def picture(persons: int, *, hot: bool = False) -> np.ndarray:
    """Noise, whose first pixel says how many persons are found; four a unit of red."""
    image = np.random.default_rng(persons).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    image[0, 0] = (255 if hot else 0, 0, persons // 4)
    return image


@pytest.mark.parametrize("persons", [0, 4, 28, 32, 36, 500, 1000])
def test_each_person_found_has_the_scores_of_its_own_box(predictor: Predictor, persons: int) -> None:
    image = picture(persons)
    with bounded():
        found = predictor.predict(image)
    assert (len(found), found.truncated) == (persons, False)
    assert [person.score for person in found] == sorted((person.score for person in found), reverse=True)
    for person in [found[index] for index in {0, 31, 32, persons - 1} if 0 <= index < persons]:
        alone = predictor.predict(image, boxes=person.box[None], masks=person.mask[None])[0]
        assert [attribute.scores for attribute in person] == [attribute.scores for attribute in alone]


def test_more_than_the_limit_are_cut_by_score(predictor: Predictor) -> None:
    found, most = predictor.predict(picture(1020)), predictor.predict(picture(1000))
    assert (len(found), found.truncated) == (MOST, True)
    assert [person.score for person in found] == [person.score for person in most]


def test_images_of_all_these_share_batches(predictor: Predictor) -> None:
    images = [picture(count) for count in (0, 4, 500, 0, 36, 1020)]
    together = predictor.predict(images)
    assert [scores(one) for one in together] == [scores(predictor.predict(image)) for image in images]
    assert [one.truncated for one in together] == [False] * 5 + [True]


def test_a_segmenter_that_gives_no_numbers_fails_for_that_image_alone(predictor: Predictor) -> None:
    before = scores(predictor.predict(picture(36)))
    with pytest.raises(NonFiniteOutput, match="output0"):
        predictor.predict(picture(36, hot=True))
    with pytest.raises(NonFiniteOutput, match="^image 1: "):
        predictor.predict([picture(36), picture(4, hot=True)])
    found = predictor.predict([picture(36), picture(4, hot=True), picture(36)], errors="return")
    assert isinstance(found[1], GraftError) and type(found[1]) is NonFiniteOutput
    assert scores(found[0]) == scores(found[2]) == before
