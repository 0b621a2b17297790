"""Bad input, the rows on arrays: each refusal against its exact error."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from graftsdk.errors import (
    DTypeError,
    GraftError,
    ImageTooLarge,
    ImageTooSmall,
    InputError,
    LayoutError,
    ShapeError,
)
from graftsdk.preprocess import CropSpec, check_image, decode_image, mask_crop

SPEC = CropSpec((24, 16))


def refusal(array, **options):
    with pytest.raises(GraftError) as caught:
        check_image(array, **options)
    return type(caught.value), str(caught.value)


def closed_mmap():
    memory = mmap.mmap(-1, 4096)
    memory.close()
    return memory


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (None, InputError),
        ([[[0, 0, 0]] * 20] * 20, InputError),
        (np.zeros((20, 20, 3), object), DTypeError),
        (np.zeros((20, 20, 3), [("b", "u1")]), DTypeError),
        (np.ma.array(np.zeros((20, 20, 3), np.uint8)), InputError),
        (np.array(7, np.uint8), ShapeError),
        (closed_mmap(), InputError),
        (b"20x20", InputError),
        (np.uint8(3), InputError),
        (np.array("image"), DTypeError),
    ],
)
def test_not_an_image(array, error):
    assert refusal(array)[0] is error


@pytest.mark.parametrize(
    "dtype", ["bool", "i1", "u2", "i2", "i4", "i8", "f2", "f4", "f8", "c8", ">u2", ">f4", "datetime64[s]"]
)
def test_dtype(dtype):
    error, message = refusal(np.zeros((20, 20, 3), dtype))
    assert error is DTypeError
    assert "expected uint8" in message and np.dtype(dtype).str in message
    assert ("* 255" in message) == (np.dtype(dtype).kind == "f")


@pytest.mark.parametrize("dtype", ["<u1", ">u1", "|u1", np.ubyte])
def test_a_byte_has_no_order(dtype):
    assert check_image(np.zeros((20, 20, 3), dtype)).dtype == np.uint8


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ((), ShapeError),
        ((1200,), ShapeError),
        ((20, 20), ShapeError),
        ((1, 20, 20, 3), ShapeError),
        ((1, 1, 20, 20, 3), ShapeError),
        ((20, 20, 0), ShapeError),
        ((20, 20, 1), ShapeError),
        ((20, 20, 2), ShapeError),
        ((20, 20, 4), ShapeError),
        ((20, 20, 5), ShapeError),
        ((3, 20, 30), LayoutError),
        ((3, 3, 20), LayoutError),
        ((3, 3, 3), ImageTooSmall),
        ((1, 1, 3), ImageTooSmall),
        ((3, 20, 3), ImageTooSmall),
        ((20, 3, 3), ImageTooSmall),
        ((20, 0, 3), ImageTooSmall),
        ((0, 20, 3), ImageTooSmall),
        ((15, 16, 3), ImageTooSmall),
        ((16, 15, 3), ImageTooSmall),
        ((1, 65535, 3), ImageTooSmall),
        ((65535, 1, 3), ImageTooSmall),
        ((16, 16385, 3), ImageTooLarge),
        ((16385, 16, 3), ImageTooLarge),
        ((10000, 5001, 3), ImageTooLarge),
        ((30000, 30000, 3), ImageTooLarge),
        ((2**31, 2**30, 3), ImageTooLarge),
    ],
)
def test_shape(shape, error):
    array = np.broadcast_to(np.uint8(0), shape)  # no memory behind it: nothing may touch the pixels to refuse it
    found, message = refusal(array)
    assert found is error
    assert "expected" in message and "found" in message


@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 16384, 3), (16384, 16, 3), (10000, 5000, 3)])
def test_the_limits_themselves_are_right(shape):
    array = np.broadcast_to(np.uint8(9), shape)
    assert check_image(array) is array


def test_channels_first_says_how_to_turn():
    error, message = refusal(np.zeros((3, 40, 50), np.uint8))
    assert error is LayoutError and "image.transpose(1, 2, 0)" in message


@pytest.mark.parametrize("color", ["RGB", "gray", None, 3, ["bgr"]])
def test_color(color):
    assert refusal(np.zeros((20, 20, 3), np.uint8), color=color)[0] is InputError


def test_rgb_comes_back_as_contiguous_bgr(rng):
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    bgr = check_image(image, color="rgb")
    assert bgr.flags.c_contiguous and (bgr == image[:, :, ::-1]).all()
    assert check_image(image) is image


class Picture(np.ndarray):
    pass


def unaligned(image):
    memory = bytearray(image.nbytes + 1)
    copy = np.frombuffer(memory, np.uint8, offset=1).reshape(image.shape)
    copy[:] = image
    return copy


def read_only(image):
    copy = image.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "fortran": np.asfortranarray,
    "transposed": lambda image: np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2),
    "planes": lambda image: np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0),
    "every other": lambda image: image.repeat(2, 0).repeat(2, 1)[::2, ::2],
    "reversed": lambda image: image[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "read-only": read_only,
    "unaligned": unaligned,
    "subclass": lambda image: image.view(Picture),
    "slice": lambda image: np.pad(image, ((3, 2), (5, 1), (0, 0)))[3:-2, 5:-1],
    "four channels": lambda image: np.pad(image, ((0, 0), (0, 0), (0, 1)))[:, :, :3],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_memory_layouts_do_not_matter(layout, color, rng):
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    turned = LAYOUTS[layout](image)
    before = turned.copy()
    masks = rng.random((2, 40, 50)) > 0.4
    boxes = np.array([[2, 3, 44, 39], [0, 0, 50, 40]])
    assert np.array_equal(check_image(turned, color), check_image(image, color))
    ours = mask_crop(turned, boxes, masks, SPEC, color=color)
    assert ours.tobytes() == mask_crop(image, boxes, masks, SPEC, color=color).tobytes()
    assert np.array_equal(turned, before)


def test_a_memory_map_is_an_image(tmp_path, rng):
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    (tmp_path / "image.raw").write_bytes(image.tobytes())
    mapped = np.memmap(tmp_path / "image.raw", np.uint8, "r", shape=image.shape)
    box = np.array([[2, 3, 44, 39]])
    assert mask_crop(mapped, box, None, SPEC).tobytes() == mask_crop(image, box, None, SPEC).tobytes()
    assert np.array_equal(decode_image(mapped), image)


def test_stride_zero():
    flat = np.broadcast_to(np.array([1, 2, 3], np.uint8), (40, 50, 3))
    box = np.array([[2, 3, 44, 39]])
    assert mask_crop(flat, box, None, SPEC).tobytes() == mask_crop(flat.copy(), box, None, SPEC).tobytes()


@given(
    st.integers(16, 60),
    st.integers(16, 60),
    st.tuples(*[st.sampled_from([-3, -2, -1, 1, 2, 3])] * 2),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_strides_give_the_bytes_of_the_copy(height, width, steps, flip, seed):
    rng = np.random.default_rng(seed)
    memory = rng.integers(0, 256, (3 * height, 3 * width, 3), dtype=np.uint8)
    view = memory[:: steps[0], :: steps[1]][:height, :width, :: -1 if flip else 1]
    view.flags.writeable = False
    x0, y0 = rng.uniform(-5, 12, 2)
    box = np.array([[x0, y0, x0 + rng.uniform(6, 40), y0 + rng.uniform(6, 40)]])
    masks = rng.random((1, 2 * height, width))[:, ::2] > 0.4
    ours = mask_crop(view, box, masks, SPEC)
    theirs = mask_crop(np.ascontiguousarray(view), box, np.ascontiguousarray(masks), SPEC)
    assert ours.tobytes() == theirs.tobytes()


def test_rows_that_overlap_in_memory(rng):
    line = rng.integers(0, 256, 400, dtype=np.uint8)
    view = as_strided(line, (40, 50, 3), (3, 3, 1), writeable=False)
    box = np.array([[0, 0, 50, 40]])
    assert mask_crop(view, box, None, SPEC).tobytes() == mask_crop(view.copy(), box, None, SPEC).tobytes()
