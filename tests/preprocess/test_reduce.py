"""Decoding at a part of the size: sides rounded up, the same picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from graftsdk.errors import ImageTooSmall, InputError
from graftsdk.preprocess import decode_image

SIZES = [(128, 128), (129, 135), (131, 257), (200, 143)]  # height, width


def picture(height: int, width: int) -> Image.Image:
    """Smooth, so that scales can be compared."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([128 + 90 * np.sin(x / 40), 128 + 90 * np.cos(y / 50), 128 + 60 * np.sin((x + y) / 60)], axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def averaged(pixels: np.ndarray, reduce: int) -> np.ndarray:
    """The mean of each square of `reduce` pixels; squares at the edge are what is left of them."""
    height, width = (-(-side // reduce) for side in pixels.shape[:2])
    found = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            found[y, x] = pixels[y * reduce : (y + 1) * reduce, x * reduce : (x + 1) * reduce].mean(axis=(0, 1))
    return found


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "array", "PIL"])
def test_size_and_content(kind: str, size: tuple[int, int], reduce: int) -> None:
    image = picture(*size)
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    source: object = encoded(image, kind, **options) if kind not in ("array", "PIL") else image
    if kind == "array":
        source = np.asarray(image)[:, :, ::-1]
    whole = decode_image(source)  # type: ignore[arg-type]
    found = decode_image(source, reduce=reduce)  # type: ignore[arg-type]
    assert found.shape == (-(-size[0] // reduce), -(-size[1] // reduce), 3)
    off = np.abs(found - averaged(whole, reduce))
    # A JPEG is scaled by its decoder, in whole blocks of 8 pixels: what lies beyond the edge of the image counts there.
    inner = off[:-1, :-1] if kind == "JPEG" else off
    assert inner.max() <= (4 if kind == "JPEG" else 1)


def test_a_jpeg_is_decoded_at_that_scale_and_not_averaged() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise, "JPEG", quality=90)
    assert not np.array_equal(decode_image(data, reduce=4), np.round(averaged(decode_image(data), 4)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_upright(kind: str) -> None:
    image = picture(128, 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode_image(encoded(image, kind, exif=exif), reduce=2)
    assert found.shape == (100, 64, 3)
    turned = np.rot90(decode_image(encoded(image, kind), reduce=2), -1)
    assert np.array_equal(found, turned)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_other_pixel_types(mode: str) -> None:
    grey = picture(64, 64).convert("L")
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    source = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    whole = decode_image(source)
    found = decode_image(source, reduce=2)
    assert found.shape == (32, 32, 3)
    assert np.abs(found - averaged(whole, 2)).max() <= 3


def test_too_small_once_reduced() -> None:
    for source in (encoded(picture(60, 60), "JPEG"), np.zeros((60, 60, 3), np.uint8)):
        assert decode_image(source, reduce=2).shape == (30, 30, 3)
        with pytest.raises(ImageTooSmall):
            decode_image(source, reduce=4)


@pytest.mark.parametrize("reduce", [0, 3, 16, -1, 2.0, True, "2", None])
def test_other_scales_are_refused(reduce: object) -> None:
    with pytest.raises(InputError, match="expected 1, 2, 4 or 8, found"):
        decode_image(np.zeros((64, 64, 3), np.uint8), reduce=reduce)  # type: ignore[arg-type]


def test_the_callers_image_stays_as_it_was() -> None:
    lazy = Image.open(io.BytesIO(encoded(picture(64, 64), "JPEG")))
    decode_image(lazy, reduce=2)
    assert lazy.size == (64, 64)
