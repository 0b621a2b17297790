"""Arrays and other things in memory that are no image, and images in unusual memory."""

from __future__ import annotations

import gzip
import io
import mmap
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bad_images.case import Case, Given, always
from PIL import Image

from graftsdk.errors import DecodeError, DTypeError, ImageTooLarge, ImageTooSmall, InputError, LayoutError, ShapeError

__all__ = ["IMAGE", "array_cases", "unaligned", "written"]

IMAGE = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
IMAGE.flags.writeable = False


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"no/such/image.jpg"


class NumberPath:
    def __fspath__(self) -> int:
        return 7


class Failing:
    """A file of another library, which has errors of its own."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read(self, _size: int) -> bytes:
        raise self.error


def closed_mmap() -> mmap.mmap:
    found = mmap.mmap(-1, 4096)
    found.close()
    return found


def closed_file() -> io.BytesIO:
    found = io.BytesIO(b"x")
    found.close()
    return found


def released() -> memoryview:
    view = memoryview(b"x")
    view.release()
    return view


def written(folder: Path, data: bytes) -> Path:
    path = folder / "picture.jpg"
    path.write_bytes(data)
    return path


def not_an_image() -> Iterator[Case]:
    blank = np.zeros((20, 20, 3), np.uint8)
    sources: dict[str, tuple[Callable[[Path], Any], type[Exception]]] = {
        "None": (lambda _: None, InputError),
        "number": (lambda _: 7, InputError),
        "mapping": (lambda _: {}, InputError),
        "iterator": (lambda _: iter([IMAGE]), InputError),
        "list of numbers": (lambda _: blank.tolist(), InputError),
        "no such path": (lambda _: "no/such/image.jpg", InputError),
        "no such path, as bytes": (lambda _: BytesPath(), InputError),
        "path-like that gives a number": (lambda _: NumberPath(), InputError),
        "empty path": (lambda _: "", InputError),
        "path with NUL": (lambda _: "a\0b.jpg", InputError),
        "path too long": (lambda _: "x" * 5000, InputError),
        "path that is no text": (lambda _: "\ud800.jpg", InputError),
        "address": (lambda _: "https://example.org/a.jpg", InputError),
        "device": (lambda _: "/dev/zero", InputError),
        "file in text mode": (lambda _: io.StringIO("text"), InputError),
        "closed file": (lambda _: closed_file(), InputError),
        "closed mmap": (lambda _: closed_mmap(), InputError),
        "released memory": (lambda _: released(), InputError),
        "every second byte": (lambda _: memoryview(bytes(99))[::2], InputError),
        "file that fails": (lambda _: Failing(OSError("the disk is on fire")), InputError),
        "file that ends": (lambda _: Failing(EOFError("no more")), InputError),
        "file with errors of its own": (lambda _: Failing(zlib.error("invalid stored block lengths")), InputError),
        "gzip file cut off": (lambda _: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(bytes(999))[:-9])), InputError),
        "object array": (lambda _: blank.astype(object), DTypeError),
        "structured array": (lambda _: np.zeros((20, 20), [("b", "u1"), ("g", "u1"), ("r", "u1")]), DTypeError),
        "masked array": (lambda _: np.ma.array(blank), InputError),
        "text array": (lambda _: np.array("image.jpg"), DTypeError),
        "0-d array": (lambda _: np.array(7, np.uint8), ShapeError),
        "no bytes": (lambda _: b"", DecodeError),
        "bytes of a path": (lambda _: b"image.jpg", DecodeError),
        "file of text": (lambda folder: written(folder, b"not a picture\n" * 99), DecodeError),
        "raw pixels": (lambda _: IMAGE.tobytes(), DecodeError),
        "long buffer": (lambda _: bytearray(b"\xff\xd8\xff".ljust(21 * 2**20, b"\0")), ImageTooLarge),
        "long buffer of something else": (lambda _: bytearray(21 * 2**20), DecodeError),
        "PIL image of floats": (lambda _: Image.new("F", (20, 20)), DecodeError),
        "PIL image, its file closed": (lambda _: half_open(), DecodeError),
        "PIL image of a TIFF": (lambda _: opened("TIFF"), DecodeError),
        "PIL image, 15 wide": (lambda _: Image.new("RGB", (15, 16)), ImageTooSmall),
        "PIL image, 16385 wide": (lambda _: Image.new("1", (16385, 16)), ImageTooLarge),
    }
    for name, (source, error) in sources.items():
        yield Case("not an image", name, _of(source), error, arrays="array" in name)


def opened(kind: str) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, kind)
    return Image.open(file)


def half_open() -> Image.Image:
    found = opened("PNG")
    found.fp.close()
    return found


def _of(source: Callable[[Path], Any]) -> Callable[[Path], Given]:
    return lambda folder: Given(source(folder))


def dtypes() -> Iterator[Case]:
    wrong = ["?", "i1", "u2", "i2", "i4", "i8", "f2", "f4", "f8", "c8", ">u2", ">f4", "M8[s]", "U1", "V3"]
    for dtype in wrong:
        yield Case("dtype", dtype, always(Given(np.zeros((20, 20, 3), dtype))), DTypeError)
    for dtype in ("<u1", ">u1"):
        yield Case("dtype", dtype, always(Given(IMAGE.astype(dtype))), plain=always(Given(IMAGE)))


SHAPES: dict[str, dict[tuple[int, ...], type[Exception] | None]] = {
    "rank": {
        (): ShapeError,
        (120,): ShapeError,
        (20, 20): ShapeError,
        (1, 20, 20, 3): ShapeError,
        (1, 1, 20, 20, 3): ShapeError,
    },
    "channels": {
        (20, 20, 0): ShapeError,
        (20, 20, 1): ShapeError,
        (20, 20, 2): ShapeError,
        (20, 20, 4): ShapeError,
        (20, 20, 5): ShapeError,
        (3, 20, 30): LayoutError,
        (3, 3, 20): LayoutError,
        (3, 3, 3): ImageTooSmall,
        (1, 1, 3): ImageTooSmall,
        (3, 20, 3): ImageTooSmall,
        (20, 3, 3): ImageTooSmall,
    },
    "size": {
        (0, 20, 3): ImageTooSmall,
        (20, 0, 3): ImageTooSmall,
        (1, 1, 3): ImageTooSmall,
        (15, 16, 3): ImageTooSmall,
        (16, 15, 3): ImageTooSmall,
        (16, 16, 3): None,
        (1, 65535, 3): ImageTooSmall,
        (65535, 1, 3): ImageTooSmall,
        (16, 16384, 3): None,
        (16384, 16, 3): None,
        (5000, 10000, 3): None,
        (16, 16385, 3): ImageTooLarge,
        (16385, 16, 3): ImageTooLarge,
        (5000, 10001, 3): ImageTooLarge,
        (30000, 30000, 3): ImageTooLarge,
        (2**16, 2**15, 3): ImageTooLarge,
        (2**31, 2**30, 3): ImageTooLarge,
    },
}


def shapes() -> Iterator[Case]:
    """No memory stands behind them: nothing may touch the pixels to refuse them."""
    for row, table in SHAPES.items():
        for shape, error in table.items():
            given = Given(np.broadcast_to(np.uint8(9), shape))
            yield Case(row, " x ".join(map(str, shape)) or "none", always(given), error)


class Picture(np.ndarray):
    pass


def unaligned(image: np.ndarray) -> np.ndarray:
    view: np.ndarray = np.frombuffer(bytearray(image.nbytes + 1), np.uint8, offset=1).reshape(image.shape)
    view[:] = image
    return view


def mapped(folder: Path) -> np.ndarray:
    np.save(folder / "image.npy", IMAGE)
    found: np.ndarray = np.load(folder / "image.npy", mmap_mode="r")
    return found


MEMORY: dict[str, Callable[[Path], np.ndarray]] = {
    "F order": lambda _: np.asfortranarray(IMAGE),
    "transposed": lambda _: IMAGE.transpose(1, 0, 2),
    "planes": lambda _: np.ascontiguousarray(IMAGE.transpose(2, 0, 1)).transpose(1, 2, 0),
    "every second": lambda _: IMAGE[::2, ::2],
    "backwards": lambda _: IMAGE[::-1, ::-1],
    "channels backwards": lambda _: IMAGE[:, :, ::-1],
    "stride 0": lambda _: np.broadcast_to(IMAGE[:1], IMAGE.shape),
    "read-only": lambda _: IMAGE,
    "unaligned": lambda _: unaligned(IMAGE),
    "mapped": mapped,
    "subclass": lambda _: IMAGE.view(Picture),
    "record array": lambda _: IMAGE.view(np.recarray),
    "slice": lambda _: IMAGE[10:100, 5:80],
    "three of four channels": lambda _: np.pad(IMAGE, ((0, 0), (0, 0), (1, 0)))[:, :, 1:],
    "rows that overlap": lambda _: np.lib.stride_tricks.as_strided(IMAGE, (40, 50, 3), (3, 3, 1), writeable=False),
}


def memory() -> Iterator[Case]:
    """Each with masks that are turned in memory, too."""
    for name, view in MEMORY.items():
        for color in ("bgr", "rgb"):
            yield Case(
                "memory",
                f"{name}, {color}",
                partial(_viewed, view=view, color=color),
                plain=partial(_copied, view=view, color=color),
                persons=2,
            )


def _viewed(folder: Path, view: Callable[[Path], np.ndarray], color: str) -> Given:
    image = view(folder)
    return Given(image, _people(image), _turned(image), color)


def _copied(folder: Path, view: Callable[[Path], np.ndarray], color: str) -> Given:
    copy = np.array(view(folder), order="C")
    return Given(copy, _people(copy), _blobs(copy), color)


def _people(image: np.ndarray) -> np.ndarray:
    return np.array([[1, 2, 30, 35], [0, 0, image.shape[1], image.shape[0]]], np.float32)


def _blobs(image: np.ndarray) -> np.ndarray:
    masks = np.zeros((2, *image.shape[:2]), bool)
    masks[0, 5:30, 3:28] = masks[1, 3:33] = True
    return masks


def _turned(image: np.ndarray) -> np.ndarray:
    """`_blobs`, backwards in memory, of another dtype and value."""
    return np.ascontiguousarray(_blobs(image)[::-1, ::-1, ::-1].astype(np.uint8) * 200)[::-1, ::-1, ::-1]


CONTENT = {
    "black": np.zeros_like(IMAGE),
    "white": np.full_like(IMAGE, 255),
    "noise": IMAGE,
    "checker": (np.indices(IMAGE.shape).sum(axis=0) % 2 * 255).astype(np.uint8),
    "gradient": np.indices(IMAGE.shape)[0].astype(np.uint8) * 2,
    "one hot pixel": np.pad(np.full((1, 1, 3), 255, np.uint8), ((60, 59), (40, 49), (0, 0))),
}


def content() -> Iterator[Case]:
    for name, pixels in CONTENT.items():
        yield Case("content", name, always(Given(pixels)))


def array_cases() -> Iterator[Case]:
    for row in (not_an_image, dtypes, shapes, memory, content):
        yield from row()
