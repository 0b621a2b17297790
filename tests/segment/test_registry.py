from __future__ import annotations

import dataclasses

import pytest

from graftsdk.errors import InputError
from graftsdk.segment import open_adapter, recognise

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
    }
    assert recognise(inputs, outputs, "yolo", size) == fields  # saying what is so changes nothing


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({}, OUTPUTS),
        (INPUTS, {}),
        ({**INPUTS, "size": [2]}, OUTPUTS),
        (INPUTS, {"output0": OUTPUTS["output0"]}),  # detection without masks
        (INPUTS, {**OUTPUTS, "output2": [1]}),
        (INPUTS, {"output0": ["batch", 300, 38], "output1": ["batch", 32, 160, 160]}),  # exported with nms
        (INPUTS, {"output0": [1, 25200, 117], "output1": [1, 32, 160, 160]}),  # YOLOv5
        (INPUTS, {"output0": [1, 36, 8400], "output1": [1, 32, 160, 160]}),  # no class
        (INPUTS, {"output0": [1, 116, 2100], "output1": [1, 32, 160, 160]}),
        (INPUTS, {"output0": [1, 116, 8400], "output1": [1, 32, 80, 80]}),
        (INPUTS, {"output0": [1, 116, 8400], "output1": [1, 16, 160, 160]}),
        (INPUTS, {"output0": [8, 116, 8400], "output1": [8, 32, 160, 160]}),
        ({"images": [8, 3, 640, 640]}, OUTPUTS),
        ({"images": [1, 640, 640, 3]}, OUTPUTS),
        ({"images": [1, 3, "h", 650]}, OUTPUTS),
        ({"images": [1, 3, "h", "w"]}, {"output0": [1, 36, "a"], "output1": [1, 32, "h", "w"]}),
        ({"images": [1, 1, 640, 640]}, OUTPUTS),
        ({"images": [1, 3, 650, 650]}, OUTPUTS),
        ({"images": [1, 3, 0, 0]}, OUTPUTS),
        ({"images": [3, 640, 640]}, OUTPUTS),
    ],
)
def test_others_are_refused_with_what_was_found_and_what_is_known(inputs, outputs):
    with pytest.raises(InputError, match="found inputs .* and outputs .*; known: yolo") as caught:
        recognise(inputs, outputs)
    for name in (*inputs, *outputs):
        assert repr(name) in str(caught.value)


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
    ],
)
def test_what_shapes_leave_open_is_asked_for(shapes, family, size, asked):
    with pytest.raises(InputError, match="expected shapes that tell family and size, found inputs") as caught:
        recognise(*shapes, family, size)
    advice = str(caught.value).split("say so: ")[1]
    for text in ("segmenter_family='yolo' (--segmenter-family yolo)", "segmenter_size=(H, W) (--segmenter-size H W)"):
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
        ((INPUTS, {"output0": [1, 300, 38], "output1": [1, 32, 160, 160]}), None),
    ],
)
def test_what_the_caller_says_must_fit(shapes, size):
    with pytest.raises(InputError, match="expected the shapes of family 'yolo'.*, found inputs .*; known: yolo"):
        recognise(*shapes, "yolo", size)


def test_a_family_that_is_not_known():
    with pytest.raises(InputError, match="expected a family among 'yolo', found 'mask-rcnn'; say one of these"):
        recognise(INPUTS, OUTPUTS, "mask-rcnn")


def test_a_family_from_the_future(info):
    with pytest.raises(InputError, match="expected a family among 'yolo', found 'yolact'"):
        open_adapter(dataclasses.replace(info, family="yolact"))
