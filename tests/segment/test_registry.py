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
        (INPUTS, {"output0": [1, "c", 8400], "output1": [1, 32, 160, 160]}),
        (INPUTS, {"output0": [8, 116, 8400], "output1": [8, 32, 160, 160]}),
        (INPUTS, {"output0": [], "output1": [1, 32, 160, 160]}),
        ({"images": [8, 3, 640, 640]}, OUTPUTS),
        ({"images": [1, 3, "h", "w"]}, OUTPUTS),
        ({"images": [1, 640, 640, 3]}, OUTPUTS),
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


def test_a_family_from_the_future(info):
    with pytest.raises(InputError, match="expected a family among 'yolo', found 'yolact'"):
        open_adapter(dataclasses.replace(info, family="yolact"))
