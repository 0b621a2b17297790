"""A part of a frame's persons: only they are cut out, and errors name them by their place in the frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toys

from graftsdk.errors import NonFiniteOutput
from graftsdk.preprocess import BoxMasks
from graftsdk.preprocess.ahead import Decoded
from graftsdk.scene import CropBatch, Scene
from graftsdk.tracking import Look

DOCUMENT = toys.branch("bag")[1]


def look(masks: Any, crops: list[np.ndarray], bad: int | None = None) -> Look:
    """Three persons side by side, red, green and blue; the crop at place `bad` of a batch gets no number."""
    image = np.zeros((32, 96, 3), np.uint8)
    for place in range(3):
        image[:, 32 * place : 32 * place + 32, 2 - place] = 255
    scene = Scene(Decoded("a.png", image, 1.0))
    scene.boxes = np.array([[32 * place, 0, 32 * place + 32, 32] for place in range(3)], np.float32)
    scene.scores, scene.masks = np.array([0.9, 0.8, 0.7], np.float32), masks

    def compute(cut: np.ndarray) -> dict[str, np.ndarray]:
        crops.append(cut.copy())
        rows = np.full((len(cut), 2), 0.5, np.float32)
        if bad is not None:
            rows[bad] = np.nan
        return {"bag": rows}

    batch = lambda labels: CropBatch(toys.CROP, 1, {"bag": DOCUMENT}, compute)  # noqa: E731
    return Look(scene, ("bag",), batch, {"bag": DOCUMENT}, {"bag": {}}, "digest")


@pytest.mark.parametrize("kind", ["none", "array", "boxed"])
def test_the_persons_that_are_asked_for_are_cut_out(kind: str) -> None:
    extents = np.array([[32 * place, 0, 32 * place + 32, 32] for place in range(3)])
    masks = {
        "none": None,
        "array": np.ones((3, 32, 96), bool),
        "boxed": BoxMasks([np.ones((4, 4), bool)] * 3, extents),
    }[kind]
    crops: list[np.ndarray] = []
    found = look(masks, crops).score([2, 0], ("bag",))
    assert found["bag"].shape == (2, 2) and [len(cut) for cut in crops] == [2]
    brightest = [int(np.argmax(crop.mean(axis=(1, 2)))) for crop in crops[0]]
    assert brightest == [2, 0]  # blue, then red


def test_an_error_names_the_person_of_the_frame() -> None:
    with pytest.raises(NonFiniteOutput, match="person 2 got"):
        look(None, [], bad=1).score([0, 2], ("bag",))


def test_without_a_segmenter_all_persons_are_sure() -> None:
    view = look(None, [])
    view._scene.scores = None
    assert view.scores.tolist() == [1, 1, 1] and view.scores.dtype == np.float32
