"""Masks made of prototypes by the CUDA kernels, compiled for the host, against what the CPU makes."""

from __future__ import annotations

import numpy as np
import pytest
from device_crops import allowed, device_crop, upload, upload_frame

from graftsdk.engines.cuda.crop import crop_windows
from graftsdk.engines.cuda.prototypes import Coefficients, DevicePrototypes, Prototypes
from graftsdk.errors import InputError, ShapeError
from graftsdk.preprocess import BoxMasks, CropSpec, mask_crop_reference
from graftsdk.segment.prototypes import FINE, MOST, SLOPE, cut_masks, sample_masks

IMAGE = (60, 80)  # height, width
BOXES = np.array([[0.1, 0.2, 0.5, 0.9], [-0.3, 0.4, 0.05, 2.0], [0, 0, 1, 1], [0.5, 0.5, 0.51, 0.52]])


def read(kernels, masks, stream):
    """float32 arrays: each mask as the device holds it."""
    found = np.empty(masks.owner.nbytes // 4, np.float32)
    kernels.device.d2h(found, masks.owner, found.nbytes, stream)
    stream.sync()
    starts = (masks.pointers - np.uint64(masks.owner.ptr)) // np.uint64(4)
    return [
        found[start : start + rows * columns].reshape(rows, columns)
        for start, (rows, columns) in zip(starts.tolist(), masks.sizes.tolist(), strict=True)
    ]


def on_device(kernels, predictions, rows, stream):
    """The coefficients of `rows`, from [P, K] or, by columns, from [K, P]."""
    buffer = upload(kernels, predictions, stream)
    row_stride, kind_stride = (stride // 4 for stride in predictions.strides)
    return Coefficients(buffer.ptr, np.array(rows), row_stride, kind_stride), buffer


@pytest.mark.parametrize("kinds", [32, 5, 1])
def test_yolacts_masks_are_the_cpus_to_the_bit(kernels, kinds, rng):
    prototypes = rng.standard_normal((23, 31, kinds)).astype(np.float32)
    predictions = (4 * rng.standard_normal((9, kinds))).astype(np.float32)
    rows = [8, 0, 3, 3]
    expected, held = cut_masks(predictions[rows], prototypes, BOXES)
    stream = kernels.device.stream()
    coefficients, keep = on_device(kernels, predictions, rows, stream)
    source = upload(kernels, prototypes, stream)
    with DevicePrototypes(kernels) as maker:
        masks = maker.cut(coefficients, Prototypes(source.ptr, 23, 31, kinds), BOXES, IMAGE, stream)
        for index, mask in enumerate(read(kernels, masks, stream)):
            assert mask.tobytes() == expected[index].tobytes()
        assert not maker.overflowed(stream).any()
        cell = (IMAGE[1] / 31, IMAGE[0] / 23) * 2
        assert masks.extents.tobytes() == (held * cell).astype(np.float32).tobytes()
    del keep


@pytest.mark.parametrize("by_columns", [False, True])
def test_yolos_masks_are_the_cpus(kernels, by_columns, rng):
    prototypes = rng.standard_normal((32, 20, 28)).astype(np.float32)
    predictions = (3 * rng.standard_normal((7, 32))).astype(np.float32)
    rows = [6, 2, 2, 5]
    boxes = np.array([[2.5, 3.25, 20, 19], [-3, -2, 4.5, 40], [0, 0, 28, 20], [5.5, 5.5, 5.6, 5.7]])
    expected = sample_masks(predictions[rows], prototypes, np.clip(boxes, 0, (28, 20) * 2))
    boxes = np.clip(boxes, 0, (28, 20) * 2)
    shapes = np.clip(np.ceil(FINE * (boxes[:, :1:-1] - boxes[:, 1::-1])), 1, MOST).astype(np.int64)
    stream = kernels.device.stream()
    stored = np.ascontiguousarray(predictions.T) if by_columns else predictions
    coefficients, keep = on_device(kernels, stored, rows, stream)
    if by_columns:
        coefficients = Coefficients(coefficients.ptr, coefficients.rows, 1, 7)
    source = upload(kernels, prototypes, stream)
    with DevicePrototypes(kernels) as maker:
        masks = maker.sample(
            coefficients, Prototypes(source.ptr, 20, 28, 32), boxes, shapes, boxes.astype(np.float32), SLOPE, stream
        )
        assert masks.sizes.tolist() == expected.shapes.tolist()
        for index, mask in enumerate(read(kernels, masks, stream)):
            np.testing.assert_allclose(mask, expected[index], rtol=0, atol=1e-5)
    del keep


def test_people_are_cut_out_by_masks_that_stay_on_the_device(kernels, rng):
    """Prototypes to crops, nothing read back: the reference's crops by the CPU's masks."""
    image = rng.integers(0, 256, (*IMAGE, 3), dtype=np.uint8)
    prototypes = rng.standard_normal((15, 20, 8)).astype(np.float32)
    predictions = (3 * rng.standard_normal((4, 8))).astype(np.float32)
    boxes = BOXES[:3]
    sampled, held = cut_masks(predictions[:3], prototypes, boxes)
    extents = (held * ((IMAGE[1] / 20, IMAGE[0] / 15) * 2)).astype(np.float32)
    in_image = np.clip(boxes, 0, 1) * (IMAGE[1], IMAGE[0], IMAGE[1], IMAGE[0])
    spec = CropSpec((33, 40), fill=50)
    expected = mask_crop_reference(image, in_image, BoxMasks([sampled[i] for i in range(3)], extents), spec)
    stream = kernels.device.stream()
    coefficients, keep = on_device(kernels, predictions, [0, 1, 2], stream)
    source = upload(kernels, prototypes, stream)
    frame, also = upload_frame(kernels, image, stream)
    crops = np.empty_like(expected)
    with (
        DevicePrototypes(kernels) as maker,
        device_crop(kernels, spec) as crop,
        kernels.device.alloc(crops.nbytes) as out,
    ):
        masks = maker.cut(coefficients, Prototypes(source.ptr, 15, 20, 8), boxes, IMAGE, stream)
        crop.cut(frame, crop_windows(in_image, *IMAGE), out.ptr, stream, masks=masks, reverse=True)
        kernels.device.d2h(crops, out, crops.nbytes, stream)
        stream.sync()
    assert (np.abs(crops - expected.astype(np.float64)).max(axis=(0, 2, 3)) <= allowed(spec)).all()
    del keep, also


def test_sums_that_overflow_are_told(kernels):
    prototypes = np.full((6, 6, 4), 3e38, np.float32)
    predictions = np.array([[1, 1, 1, 1], [3, -3, 3, -3]], np.float32)  # inf, which is fine, and inf - inf
    stream = kernels.device.stream()
    coefficients, keep = on_device(kernels, predictions, [0, 1], stream)
    source = upload(kernels, prototypes, stream)
    with DevicePrototypes(kernels) as maker:
        maker.cut(coefficients, Prototypes(source.ptr, 6, 6, 4), BOXES[[0, 2]], IMAGE, stream)
        assert maker.overflowed(stream).tolist() == [False, True]
    del keep


def test_nobody_is_no_work(kernels):
    nobody = Coefficients(4096, np.empty(0, np.int64), 4, 1)
    stream = kernels.device.stream()
    with DevicePrototypes(kernels) as maker:
        masks = maker.cut(nobody, Prototypes(4096, 6, 6, 4), np.empty((0, 4)), IMAGE, stream)
        assert len(masks) == 0 and len(maker.overflowed(stream)) == 0


@pytest.mark.parametrize(
    ("error", "change", "message"),
    [
        (InputError, {"boxes": [[0.5, 0, 0.2, 1]]}, "x0 < x1"),
        (InputError, {"boxes": [[0, 0, np.nan, 1]]}, "x0 < x1"),
        (ShapeError, {"boxes": [[0, 0, 1, 1]] * 2}, "one for each row"),
        (InputError, {"ptr": 4098}, "aligned float32"),
        (InputError, {"rows": [-1]}, "aligned float32"),
    ],
)
def test_what_does_not_fit_is_refused(kernels, error, change, message):
    wanted = {"boxes": [[0, 0, 1, 1]], "ptr": 4096, "rows": [0]} | change
    coefficients = Coefficients(wanted["ptr"], np.array(wanted["rows"]), 4, 1)
    with DevicePrototypes(kernels) as maker, pytest.raises(error, match=message):
        maker.cut(coefficients, Prototypes(4096, 6, 6, 4), np.array(wanted["boxes"], np.float64), IMAGE, None)


@pytest.mark.parametrize("grid", [(4097, 6, 6, 4), (4096, 0, 6, 4), (4096, 1 << 16, 1 << 16, 4)])
def test_prototypes_that_do_not_fit_are_refused(grid):
    with pytest.raises(ShapeError, match="prototypes: expected"):
        Prototypes(*grid)


def test_masks_may_have_memory_of_their_own(kernels, rng):
    """What a caller gives room for is written over by no later call."""
    prototypes = rng.standard_normal((9, 12, 8)).astype(np.float32)
    predictions = rng.standard_normal((2, 8)).astype(np.float32)
    stream = kernels.device.stream()
    coefficients, keep = on_device(kernels, predictions, [0, 1], stream)
    source = upload(kernels, prototypes, stream)
    with DevicePrototypes(kernels, room=kernels.device.alloc) as maker:
        made = [maker.cut(coefficients, Prototypes(source.ptr, 9, 12, 8), BOXES[pair], IMAGE, stream) for pair in
                ([0, 2], [1, 3])]  # fmt: skip
        for masks, pair in zip(made, ([0, 2], [1, 3]), strict=True):
            expected, _ = cut_masks(predictions, prototypes, BOXES[pair])
            for index, mask in enumerate(read(kernels, masks, stream)):
                assert mask.tobytes() == expected[index].tobytes()
    del keep
