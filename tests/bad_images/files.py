"""Encoded images, whole and damaged, and what is none."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bad_images.arrays import IMAGE, written
from bad_images.case import Case, Given, always
from PIL import Image

from graftsdk.errors import DecodeError, ImageTooLarge

__all__ = ["BOMBS", "file_cases", "scan_bomb"]

# uint8[48, 64, 3], RGB: smooth enough for JPEG, no symmetry.
SMOOTH = np.asarray(Image.fromarray(IMAGE[:6, :8]).resize((64, 48)))
BGR = SMOOTH[:, :, ::-1]
SIZE = (48, 64)
OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"quality": 90}}


def encoded(kind: str, image: Image.Image | np.ndarray = SMOOTH, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def truncated() -> Iterator[Case]:
    """Cut in the header, at sixteenths, and just before the end."""
    for kind, options in OPTIONS.items():
        data = encoded(kind, **options)
        ends = [1, 4, 12, 30, *(len(data) * i // 13 for i in range(1, 13)), *(len(data) - i for i in (12, 4, 2, 1))]
        for end in ends:
            cut = data[:end]
            yield Case("encoded", f"{kind} cut at {end}", always(Given(cut)), DecodeError, arrays=False)


def flipped() -> Iterator[Case]:
    """One bit, but none of the size: a picture of that size, or refused. A PNG, which has checksums: the same one."""
    for kind, options in OPTIONS.items():
        data = encoded(kind, **options)
        start = data.find(b"\xff\xc0") + 5  # a JPEG's frame header: marker, length, depth, then the size
        sizes = {"JPEG": range(start, start + 4), "PNG": range(0), "WEBP": range(26, 30)}[kind]
        rng = np.random.default_rng(len(kind))
        bits = [bit for bit in rng.permutation(len(data) * 8).tolist() if bit // 8 not in sizes][:56]
        bits += [8 * (len(data) - back) + 3 for back in (5, 6, 17, 23)]  # where the last checksums are
        for bit in bits:
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            yield Case(
                "encoded",
                f"{kind} with bit {bit} flipped",
                always(Given(bytes(damaged))),
                DecodeError,
                size=SIZE,
                pixels=BGR if kind == "PNG" else None,
                arrays=False,
            )


def png(
    width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, kind: int = 2, rows: bytes = b""
) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows or b"\0" * 10_000_000, 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*item) for item in chunks) + body + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 4096, 0, 0, 54) + info + b"\0" * 4096


def jpeg(width: int, height: int) -> bytes:
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    return b"\xff\xd8" + frame + b"\xff\xda" + struct.pack(">HB", 12, 3) + b"\1\0\2\0\3\0\0\x3f\0" + b"\0" * 4096


def webp(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def scan_bomb(count: int, junk: bytes = b"") -> bytes:
    """A small progressive JPEG whose last scan comes `count` times more, each after some `junk`."""
    data = encoded("JPEG", Image.new("RGB", (512, 512), (9, 99, 199)), progressive=True)
    return data[:-2] + (junk + data[data.rindex(b"\xff\xda") : -2]) * count + b"\xff\xd9"


@functools.cache
def long_text() -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(b"a" * 10**6) for _ in range(100)]) + packer.flush()


BOMBS: dict[str, tuple[Callable[[], bytes], type[Exception]]] = {
    "png 30000 x 30000": (lambda: png(30_000, 30_000), ImageTooLarge),
    "png 2^31": (lambda: png(2**31 - 1, 2**31 - 1), ImageTooLarge),
    "png just above": (lambda: png(10_000, 5_001), ImageTooLarge),
    "png text": (lambda: png(64, 64, (b"zTXt", b"key\0\0" + long_text())), DecodeError),
    "png profile": (lambda: png(64, 64, (b"iCCP", b"key\0\0" + long_text())), DecodeError),
    "png chunks": (lambda: png(64, 64, *[(b"teSt", b"")] * 100_000), DecodeError),
    "bmp 60000 x 60000": (lambda: bmp(60_000, 60_000), ImageTooLarge),
    "bmp 16000 x 3000, 4 KiB": (lambda: bmp(16_000, 3_000), DecodeError),
    "jpeg 65535 x 65535": (lambda: jpeg(65_535, 65_535), ImageTooLarge),
    "jpeg of 110 scans": (lambda: scan_bomb(100), DecodeError),
    "webp canvas": (
        lambda: webp(b"VP8X", b"\x02\0\0\0" + (16_383).to_bytes(3, "little") * 2 + b"\0" * 64),
        ImageTooLarge,
    ),
    "webp lossless": (
        lambda: webp(b"VP8L", b"\x2f" + (16_383 | 16_383 << 14).to_bytes(4, "little") + b"\0" * 64),
        ImageTooLarge,
    ),
    "webp lossy": (lambda: webp(b"VP8 ", b"\x30\1\0\x9d\1\x2a\xff\x3f\xff\x3f" + b"\0" * 64), ImageTooLarge),
    "more than 20 MiB": (lambda: b"\xff\xd8\xff" + b"\0" * 20 * 2**20, ImageTooLarge),
}

WRONG_MAGIC = {
    "one byte": b"x",
    "zeros": bytes(4096),
    "JPEG's first two bytes": b"\xff\xd8",
    "JPEG's first four bytes": b"\xff\xd8\xff\xe0",
    "PNG's signature alone": b"\x89PNG\r\n\x1a\n",
    "PNG without its first byte": encoded("PNG")[1:],
    "PNG read as text": encoded("PNG").replace(b"\r\n", b"\n"),
    "BMP's name alone": b"BM",
    "RIFF of no kind": b"RIFF\0\0\0\0WEBP",
    "RIFF with sound": b"RIFF\x64\0\0\0WAVE" + bytes(100),
    "WebP without a picture": b"RIFF\x64\0\0\0WEBPABCD" + bytes(100),
    "JPEG after a space": b" " + encoded("JPEG"),
    "JPEG in base64": b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBD",
    "page of HTML": b"<!DOCTYPE html><html><body>404</body></html>",
    "letters ÿØÿ": "ÿØÿ".encode(),
}
OTHER_FORMATS = {
    **{kind: encoded(kind) for kind in ("EPS", "PDF", "TIFF", "GIF", "PPM", "ICO", "JPEG2000")},
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
    "TIFF, big-endian": b"MM\0*" + bytes(99),
}


def refused_files() -> Iterator[Case]:
    for name, (bomb, error) in BOMBS.items():
        yield Case("encoded", f"bomb: {name}", lambda _, bomb=bomb: Given(bomb()), error, arrays=False)
    for name, data in {**WRONG_MAGIC, **OTHER_FORMATS}.items():
        yield Case("encoded", f"wrong content: {name}", partial(_named_jpeg, data=data), DecodeError, arrays=False)


def _named_jpeg(folder: Path, data: bytes) -> Given:
    return Given(written(folder, data))


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: np.rot90(stored, 1),
}


def right_files() -> Iterator[Case]:
    for orientation, upright in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield _right(f"EXIF orientation {orientation}", encoded("PNG", exif=exif), upright(BGR))
    for name, (data, pixels, within) in _pictures().items():
        yield _right(name, data, pixels, within)


def _right(name: str, data: bytes, pixels: np.ndarray, within: int = 0) -> Case:
    return Case("encoded", f"right: {name}", always(Given(data)), pixels=pixels, within=within, arrays=False)


def _pictures() -> dict[str, tuple[bytes, np.ndarray, int]]:
    """Name -> file, pixels in BGR, how far the decoder may be from them."""
    rng = np.random.default_rng(5)
    wide = rng.integers(0, 65536, (*SIZE, 3), np.uint16)
    eight = np.round(wide / 257).astype(np.uint8)
    alpha = rng.integers(0, 256, (*SIZE, 1), np.uint8)
    over_black = np.round(BGR * (alpha / 255)).astype(np.uint8)
    clear = np.concatenate([SMOOTH, alpha], axis=2)
    palette = Image.fromarray(SMOOTH).convert("P", palette=Image.Palette.ADAPTIVE)
    coloured = np.asarray(palette.convert("RGB"))[:, :, ::-1]
    without = np.where((np.asarray(palette) == 3)[:, :, None], 0, coloured).astype(np.uint8)
    grey = np.repeat(eight[:, :, :1], 3, axis=2)
    frames = {"save_all": True, "append_images": [Image.fromarray(SMOOTH[::-1]), Image.fromarray(SMOOTH[:, ::-1])]}
    rows = b"".join(b"\0" + line.astype(">u2").tobytes() for line in np.concatenate([wide, wide[:, :, :1]], axis=2))
    red = Image.new("CMYK", (64, 48), (0, 255, 255, 0))
    return {
        "CMYK": (encoded("JPEG", red), np.full((*SIZE, 3), (0, 0, 255), np.uint8), 12),
        "16-bit grey": (encoded("PNG", wide[:, :, 0]), grey, 0),
        "16-bit colour": (cv2.imencode(".png", wide[:, :, ::-1])[1].tobytes(), eight[:, :, ::-1], 1),
        "16-bit colour and alpha": (
            png(64, 48, depth=16, kind=6, rows=rows),
            np.round(eight[:, :, ::-1] * (wide[:, :, :1] / 65535)).astype(np.uint8),
            2,
        ),
        "1-bit": (encoded("PNG", Image.fromarray(grey[:, :, 0] > 127)), (grey > 127).astype(np.uint8) * 255, 0),
        "palette": (encoded("PNG", palette), coloured, 0),
        "palette in a BMP": (encoded("BMP", palette), coloured, 0),
        "palette with a clear colour": (encoded("PNG", palette, transparency=3), without, 0),
        "alpha": (encoded("PNG", clear), over_black, 1),
        "alpha in a WebP": (encoded("WEBP", clear, lossless=True, exact=True), over_black, 1),
        "grey": (encoded("PNG", grey[:, :, 0]), grey, 0),
        "grey in a JPEG": (encoded("JPEG", SMOOTH[:, :, 0], quality=95), np.repeat(SMOOTH[:, :, :1], 3, axis=2), 12),
        "grey and alpha": (
            encoded("PNG", Image.fromarray(np.concatenate([grey[:, :, :1], alpha], axis=2), "LA")),
            np.round(grey * (alpha / 255)).astype(np.uint8),
            1,
        ),
        "animated PNG": (encoded("PNG", **frames), BGR, 0),
        "animated WebP": (encoded("WEBP", lossless=True, **frames), BGR, 0),
        "a phone's two pictures in a JPEG": (encoded("MPO", quality=95, subsampling=0, **frames), BGR, 12),
        "progressive JPEG": (encoded("JPEG", progressive=True, quality=95, subsampling=0), BGR, 12),
        "BMP": (encoded("BMP"), BGR, 0),
    }


def file_cases() -> Iterator[Case]:
    for row in (truncated, flipped, refused_files, right_files):
        yield from row()
