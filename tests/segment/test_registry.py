from __future__ import annotations

import dataclasses
import random

import pytest

from graftsdk.errors import InputError
from graftsdk.plan.manifest import FAMILIES
from graftsdk.segment import open_adapter, recognise
from graftsdk.segment.registry import ADAPTERS

INPUTS = {"images": ["batch", 3, 640, 640]}
OUTPUTS = {"output0": ["batch", 116, 8400], "output1": ["batch", 32, 160, 160]}


@pytest.mark.parametrize(
    ("inputs", "outputs", "size"),
    [
        (INPUTS, OUTPUTS, (640, 640)),
        ({"images": [1, 3, 640, 640]}, {"output0": [1, 116, 8400], "output1": [1, 32, 160, 160]}, (640, 640)),
        ({"images": [1, 3, 320, 320]}, {"output0": [1, 37, 2100], "output1": [1, 32, 80, 80]}, (320, 320)),
        ({"x": [None, 3, 64, 96]}, {"b": [None, 32, 16, 24], "a": [None, 39, 126]}, (64, 96)),
    ],
)
def test_yolo_is_told_by_its_shapes(inputs, outputs, size):
    fields = recognise(inputs, outputs)
    by_rank = sorted(outputs, key=lambda name: len(outputs[name]))
    assert fields == {
        "family": "yolo",
        "input": next(iter(inputs)),
        "input_size": size,
        "outputs": tuple(by_rank),
        "person_class": 0,
        "score_threshold": 0.25,
        "iou_threshold": 0.7,
        "nms": "greedy",
    }
    assert recognise(inputs, outputs, "yolo", size) == fields  # saying what is so changes nothing


@pytest.mark.parametrize(
    ("predictions", "iou_threshold"),
    [
        ([1, 25200, 117], 0.45),  # YOLOv5
        ([1, 25200, 38], 0.45),  # with one class it has the columns of an export with NMS: its rows tell
        ([1, 300, 38], 0.7),  # exported with NMS
        ([1, 8400, 38], 0.7),
        ([1, 116, 8400], 0.7),
        ([1, 25200, 8400], 0.7),  # both fit: what older plans mean
    ],
)
def test_the_layouts_of_yolo(predictions, iou_threshold):
    outputs = {"output0": predictions, "output1": [1, 32, 160, 160]}
    for given in (outputs, dict(reversed(outputs.items()))):
        fields = recognise(INPUTS, given)
        assert (fields["family"], fields["outputs"]) == ("yolo", ("output0", "output1"))
        assert (fields["score_threshold"], fields["iou_threshold"]) == (0.25, iou_threshold)


YOLACT = {
    "loc": [1, 19248, 4],
    "conf": [1, 19248, 81],
    "mask": [1, 19248, 32],
    "priors": [19248, 4],
    "proto": [1, 138, 138, 32],
}
FREE = {
    "loc": ["n", "P", 4],
    "conf": ["n", "P", 2],
    "mask": ["n", "P", 8],
    "priors": ["P", 4],
    "proto": ["n", "h", "w", 8],
}


@pytest.mark.parametrize("side", [550, 549])
@pytest.mark.parametrize(
    "outputs",
    [
        YOLACT,
        FREE,
        {**YOLACT, "conf": [1, 19248, 4]},  # three classes: as wide as the boxes
        {**YOLACT, "conf": [1, 19248, 32]},  # 31 classes: as wide as the coefficients
        {**YOLACT, "mask": [1, 19248, 4], "proto": [1, 138, 138, 4]},
    ],
)
def test_yolact_is_told_by_its_shapes(outputs, side):
    expected = {
        "family": "yolact",
        "input": "images",
        "input_size": (side, 550),
        "outputs": ("loc", "conf", "mask", "priors", "proto"),
        "person_class": 0,
        "score_threshold": 0.15,
        "iou_threshold": 0.5,
        "nms": "greedy",
    }
    assert recognise({"images": ["n", 3, side, 550]}, outputs) == expected
    assert recognise({"images": ["n", 3, "h", "w"]}, outputs, input_size=(side, 550)) == expected


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("outputs", [YOLACT, FREE])
def test_yolact_in_any_order_and_under_any_names(outputs, seed):
    names = list(outputs)
    random.Random(seed).shuffle(names)
    fields = recognise({"x": [1, 3, 550, 550]}, {f"{at}": outputs[name] for at, name in enumerate(names)})
    assert tuple(names[int(at)] for at in fields["outputs"]) == ("loc", "conf", "mask", "priors", "proto")


MASKRCNN = {
    "boxes": ["n", 4],
    "labels": ["m"],
    "scores": ["m"],
    "masks": [None, None, None, None],
}  # as torch writes it


@pytest.mark.parametrize("image", [[3, 600, 800], [1, 3, 600, 800]])
@pytest.mark.parametrize("masks", [[None] * 4, ["n", 1, 600, 800]])
def test_mask_rcnn_is_told_by_its_shapes(image, masks):
    outputs = {**MASKRCNN, "masks": masks}
    expected = {
        "family": "maskrcnn",
        "input": "images",
        "input_size": (600, 800),
        "outputs": ("boxes", "labels", "scores", "masks"),
        "person_class": 1,
        "score_threshold": 0.5,
        "iou_threshold": 0.5,
        "nms": "greedy",
    }
    if len(image) == 3:
        expected["batched"] = False
    assert recognise({"images": image}, outputs) == expected
    given = {name: outputs[name] for name in ("masks", "labels", "boxes", "scores")}
    assert recognise({"images": image}, given) == expected
    assert recognise({"images": [*image[:-2], "h", "w"]}, outputs, input_size=(600, 800)) == expected


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({}, OUTPUTS),
        (INPUTS, {}),
        ({**INPUTS, "size": [2]}, OUTPUTS),
        (INPUTS, {"output0": OUTPUTS["output0"]}),  # detection without masks
        (INPUTS, {**OUTPUTS, "output2": [1]}),
        (INPUTS, {"output0": [1, 300, 39], "output1": [1, 32, 160, 160]}),
        (INPUTS, {"output0": [1, 25200, 37], "output1": [1, 32, 160, 160]}),  # YOLOv5 without a class
        (INPUTS, {"output0": [1, 6300, 117], "output1": [1, 32, 160, 160]}),  # of 320 x 320
        (INPUTS, {"output0": [1, 36, 8400], "output1": [1, 32, 160, 160]}),  # no class
        (INPUTS, {"output0": [1, 116, 2100], "output1": [1, 32, 160, 160]}),
        (INPUTS, {"output0": [1, 116, 8400], "output1": [1, 32, 80, 80]}),
        (INPUTS, {"output0": [1, 116, 8400], "output1": [1, 16, 160, 160]}),
        (INPUTS, {"output0": [8, 116, 8400], "output1": [8, 32, 160, 160]}),
        ({"images": [8, 3, 640, 640]}, OUTPUTS),
        ({"images": [1, 640, 640, 3]}, OUTPUTS),
        ({"images": [1, 3, "h", 650]}, OUTPUTS),
        ({"images": [1, 3, "h", "w"]}, {"output0": [1, 36, "a"], "output1": [1, 31, "h", "w"]}),
        ({"images": [1, 1, 640, 640]}, OUTPUTS),
        ({"images": [1, 3, 650, 650]}, OUTPUTS),
        ({"images": [1, 3, 0, 0]}, OUTPUTS),
        ({"images": [3, 640, 640]}, OUTPUTS),
        ({"images": []}, OUTPUTS),
        (INPUTS, {**YOLACT, "priors": [19247, 4]}),
        (INPUTS, {**YOLACT, "mask": [1, 19248, 31]}),
        (INPUTS, {**YOLACT, "conf": [1, 19248, 1]}),  # the background alone
        (INPUTS, {**YOLACT, "loc": [1, 19248, 5]}),
        (INPUTS, {**YOLACT, "proto": [1, 32, 138, 138]}),  # planes first
        (INPUTS, {name: shape for name, shape in YOLACT.items() if name != "priors"}),
        (INPUTS, {**YOLACT, "more": [1]}),
        ({"images": [3, 550, 550]}, YOLACT),
        ({"images": [3, 600, 800]}, {**MASKRCNN, "masks": ["n", 1, 28, 28]}),  # not pasted
        ({"images": [3, 600, 800]}, {**MASKRCNN, "masks": ["n", "h", "w"]}),
        ({"images": [3, 600, 800]}, {**MASKRCNN, "boxes": [5, 4], "scores": [4]}),
        ({"images": [3, 600, 800]}, {name: shape for name, shape in MASKRCNN.items() if name != "masks"}),
        ({"images": [2, 3, 600, 800]}, MASKRCNN),
        ({"a": [3, 600, 800], "b": [3, 600, 800]}, MASKRCNN),  # a batch of two
        ({"images": [3, 16, 16]}, MASKRCNN),
    ],
)
def test_others_are_refused_with_what_was_found_and_what_is_known(inputs, outputs):
    with pytest.raises(
        InputError, match="found inputs .* and outputs .*; known: yolo .*; yolact .*; maskrcnn "
    ) as caught:
        recognise(inputs, outputs)
    for name in (*inputs, *outputs):
        assert repr(name) in str(caught.value)


def test_a_network_of_many_outputs_is_refused_at_once():
    with pytest.raises(InputError, match=r"'o7' \[1\], \.\.\.; known"):
        recognise(INPUTS, {f"o{index}": [1] for index in range(500)})


DYNAMIC = {"images": ["n", 3, "h", "w"]}, {"output0": ["n", 116, "a"], "output1": ["n", 32, "y", "x"]}
UNKNOWN = {"images": [1, 3, 64, 96]}, {"a": [], "b": []}
CLASSES = INPUTS, {"output0": [1, "c", 8400], "output1": [1, 32, 160, 160]}


@pytest.mark.parametrize(
    ("shapes", "family", "size", "asked"),
    [
        (DYNAMIC, None, None, ("segmenter_family='yolo'", "segmenter_size=(H, W)")),
        (DYNAMIC, "yolo", None, ("segmenter_size=(H, W)",)),
        (DYNAMIC, None, (64, 96), ("segmenter_family='yolo'",)),
        (({"images": [1, 3, "h", "w"]}, OUTPUTS), None, None, ("segmenter_size=(H, W)",)),
        (({"images": [1, 3, 640, "w"]}, OUTPUTS), None, None, ("segmenter_size=(H, W)",)),
        (UNKNOWN, None, None, ("segmenter_family='yolo'",)),
        (CLASSES, None, None, ("segmenter_family='yolo'",)),
        (({"images": [1, 3, "h", "w"]}, YOLACT), None, None, ("segmenter_size=(H, W)",)),
        (({"images": [3, "h", "w"]}, MASKRCNN), None, None, ("segmenter_size=(H, W)",)),
        (({"images": [1, 3, 64, 96]}, dict.fromkeys("abcd", ())), None, None, ("segmenter_family='maskrcnn'",)),
        (({"images": [1, 3, 64, 96]}, dict.fromkeys("abcde", ())), None, None, ("segmenter_family='yolact'",)),
        (({"images": [1, "c", 64, 96]}, YOLACT), None, None, ("segmenter_family='yolact'",)),
    ],
)
def test_what_shapes_leave_open_is_asked_for(shapes, family, size, asked):
    with pytest.raises(InputError, match="expected shapes that tell family and size, found inputs") as caught:
        recognise(*shapes, family, size)
    advice = str(caught.value).split("say so: ")[1]
    texts = [f"segmenter_family={name!r} (--segmenter-family {name})" for name in FAMILIES]
    for text in (*texts, "segmenter_size=(H, W) (--segmenter-size H W)"):
        assert (text in advice) is any(text.startswith(name) for name in asked)


@pytest.mark.parametrize(
    ("shapes", "size", "expected", "outputs"),
    [
        (DYNAMIC, (64, 96), (64, 96), ("output0", "output1")),
        ((DYNAMIC[0], dict(reversed(DYNAMIC[1].items()))), (64, 96), (64, 96), ("output0", "output1")),
        (({"images": [1, 3, "h", "w"]}, OUTPUTS), (640, 640), (640, 640), ("output0", "output1")),
        (({"images": [1, 3, 640, "w"]}, OUTPUTS), (640, 640), (640, 640), ("output0", "output1")),
        (UNKNOWN, None, (64, 96), ("a", "b")),  # nothing is known of the outputs: in their order
        (({"images": [1, 3, 64, 96]}, {"a": [], "b": [1, 39, 126]}), None, (64, 96), ("b", "a")),
        (({"images": [1, 3, 64, 96]}, {"a": [1, 32, 16, 24], "b": []}), None, (64, 96), ("b", "a")),
        (CLASSES, None, (640, 640), ("output0", "output1")),
        ((DYNAMIC[0], {"a": ["n", "a", 117], "b": DYNAMIC[1]["output1"]}), (64, 96), (64, 96), ("a", "b")),
    ],
)
def test_what_the_caller_says_is_taken(shapes, size, expected, outputs):
    fields = recognise(*shapes, "yolo", size)
    assert (fields["input_size"], fields["outputs"]) == (expected, outputs)


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ((INPUTS, OUTPUTS), (320, 320)),  # another size than the network's own
        (DYNAMIC, (100, 100)),  # not multiples of 32
        (({"images": [1, 3, "h", "w"]}, OUTPUTS), (320, 320)),  # outputs of 640
        ((INPUTS, {"output0": [1, 36, 8400], "output1": []}), None),
        ((INPUTS, YOLACT), None),
    ],
)
def test_what_the_caller_says_must_fit(shapes, size):
    with pytest.raises(InputError, match="expected the shapes of family 'yolo'.*, found inputs .*; known: yolo"):
        recognise(*shapes, "yolo", size)


def test_the_size_that_is_said_tells_yolov5_where_sides_are_free():
    free = {"images": ["n", 3, "h", "w"]}, {"output0": ["n", "a", 117], "output1": ["n", 32, "y", "x"]}
    assert recognise(*free, "yolo", (640, 640))["iou_threshold"] == 0.45


def test_a_family_that_is_not_known():
    with pytest.raises(
        InputError, match="expected a family among 'yolo', 'yolact', 'maskrcnn', found 'sam'; say one of these"
    ):
        recognise(INPUTS, OUTPUTS, "sam")


def test_a_family_from_the_future(info):
    with pytest.raises(InputError, match="expected a family among 'yolo', .*, found 'sam'; update graftsdk"):
        open_adapter(dataclasses.replace(info, family="sam"))


def test_plans_and_adapters_know_the_same_families(info):
    assert tuple(ADAPTERS) == FAMILIES
    for family, adapter in ADAPTERS.items():
        assert type(open_adapter(dataclasses.replace(info, family=family, nms=""))) is adapter
        assert dataclasses.replace(info, family=family, nms="").nms in adapter.nms  # what an older plan means
        assert adapter.nms[0] == "greedy"


@pytest.mark.parametrize("family", ["yolo", "maskrcnn"])
def test_a_suppression_that_the_family_does_not_have(info, family):
    with pytest.raises(InputError, match=f"expected nms 'greedy' for family '{family}', found 'fast'"):
        open_adapter(dataclasses.replace(info, family=family, nms="fast"))
