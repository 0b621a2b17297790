"""Encoded images to pixels: the one decoder, bounded before it decodes."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from graftsdk.errors import DecodeError, GraftError, ImageTooLarge, InputError
from graftsdk.preprocess.image import Color, check_image, check_size

__all__ = ["IMAGE_SUFFIXES", "MAX_ENCODED_BYTES", "check_decoding", "decode_image", "image_format", "list_images"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MAX_ENCODED_BYTES = 20 * 2**20
_MAX_JPEG_SCANS = 64  # encoders write about ten; each one walks all pixels again, however few bytes it has
_MAX_PNG_CHUNKS = 65_536  # the limit of 20 MiB in chunks of 320 bytes; encoders write 8 KiB and more

_OTHER = "; Predictor.stream reads videos"
_SOURCES = "a path, bytes, a binary file, a PIL image or an array uint8[H, W, 3]"
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Nothing but a marker begins with FF and ends with one of these in coded pixels: FF00 is a value, FFD0..FFD7 a restart.
_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_tolerance = threading.Lock()
_decoding = 0  # how many threads are in `_strict`
_tolerant = False  # what ImageFile.LOAD_TRUNCATED_IMAGES was before them


def decode_image(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | npt.NDArray[np.uint8],
    color: Color = "bgr",
    reduce: int = 1,
) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3], BGR, upright: the first frame of an image.

    Files are JPEG, PNG, WebP or BMP by their content, whatever their name, and at most 20 MiB. Size is checked in
    the header, before pixels are decoded. EXIF orientation is applied; other metadata and colour profiles are
    ignored. Transparency is blended over black. 16-bit grey is scaled to 8 bits. A file that ends too early is
    refused, never filled up.

    Args:
        source: a path, bytes, a binary file, a PIL image or an array uint8[H, W, 3].
        color: the channel order of an array, "bgr" or "rgb"; of no effect for everything else.
        reduce: 1, 2, 4 or 8: sides divided by it, rounded up. A JPEG is decoded at that scale, which is faster; other
            images are averaged afterwards. Scores of what is cut out of it are other ones.

    Raises:
        InputError: another kind of source, or a file that is missing, not a regular file, or not readable; another
            color or reduce.
        DecodeError: not one of the four formats, damaged, truncated, or of a pixel type without an 8-bit meaning.
        ImageTooLarge: more than 20 MiB encoded, a side over 16384 or more than 50 million pixels.
        ImageTooSmall: a side under 16, reduced or not.
        DTypeError, ShapeError, LayoutError: an array that is no image (`check_image`).
    """
    check_decoding(color, reduce)
    if isinstance(source, np.ndarray):
        pixels = check_image(source, color)
        return pixels if reduce == 1 else _pixels(lambda: Image.fromarray(pixels[:, :, ::-1]), reduce)
    if isinstance(source, Image.Image):
        return _pixels(lambda: _check_opened(source), reduce)
    data = _read(source)
    if len(data) > MAX_ENCODED_BYTES:
        if image_format(data) is None:
            raise DecodeError(f"image: expected JPEG, PNG, WebP or BMP, found other content{_OTHER}")
        raise ImageTooLarge(f"image: expected at most {MAX_ENCODED_BYTES >> 20} MiB, found more; encode it smaller")
    return _pixels(lambda: _open(data), reduce, drafted=True)


def check_decoding(color: Any, reduce: Any) -> None:
    """Refuse another channel order or scale than `decode_image` knows. Raises InputError."""
    if not isinstance(color, str) or color not in ("bgr", "rgb"):
        raise InputError(f"color: expected 'bgr' or 'rgb', found {color!r:.40}")
    if isinstance(reduce, bool) or not isinstance(reduce, (int, np.integer)) or reduce not in (1, 2, 4, 8):
        raise InputError(f"reduce: expected 1, 2, 4 or 8, found {reduce!r:.40}")


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of a folder whose names end like an image's, sorted by name; folders inside it are not entered.

    Raises:
        InputError: no such folder, or not readable.
    """
    try:
        return sorted(
            path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
    except (OSError, ValueError) as error:
        raise InputError(f"folder: expected a readable folder, found {os.fspath(folder)!r:.200}") from error


def _read(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, (bytearray, memoryview)):
        return _copied(source)
    if isinstance(source, (str, os.PathLike)):
        return _read_path(source)
    if not callable(getattr(source, "read", None)):
        advice = "; Predictor.stream takes iterators" if hasattr(source, "__next__") else ""
        raise InputError(f"image: expected {_SOURCES}, found {type(source).__name__}{advice}")
    try:
        data = source.read(MAX_ENCODED_BYTES + 1)
    except Exception as error:  # of whatever library the file is: EOFError, zlib.error
        raise InputError(f"image: expected a readable binary file, found one that fails: {error!s:.200}") from error
    if not isinstance(data, bytes):
        raise InputError(f"image: expected a file opened in binary mode, found one that gives {type(data).__name__}")
    return data


def _copied(source: bytearray | memoryview) -> bytes:
    """The bytes of a buffer that its owner may change; of one that is too long only so many that it is seen."""
    try:
        return bytes(memoryview(source).cast("B")[: MAX_ENCODED_BYTES + 1])
    except (ValueError, TypeError) as error:  # released, or not contiguous
        raise InputError(f"image: expected contiguous bytes, found a buffer that gives none: {error}") from error


def _read_path(path: str | os.PathLike[str]) -> bytes:
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer before it is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder; list_images gives its files" if stat.S_ISDIR(mode) else "a special file"
                raise InputError(f"image: expected a file, found {os.fspath(path)!r:.200}, {kind}")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_ENCODED_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise InputError(f"image: expected a file, found nothing at {os.fspath(path)!r:.200}") from error
    except InputError:
        raise
    except TypeError as error:
        raise InputError(f"image: expected a path, found a {type(path).__name__} that gives none") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL inside
        raise InputError(f"image: expected a readable file, found {os.fspath(path)!r:.200}") from error


def image_format(data: bytes) -> Literal["JPEG", "PNG", "BMP", "WEBP"] | None:
    """By what a file begins with; its first 16 bytes are enough."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"BM"):
        return "BMP"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _open(data: bytes) -> Image.Image:
    """The image, its header read and its size checked, its pixels not decoded.

    Pillow's registry is asked for the one format's class: `Image.open` would give its own answer (a warning, from
    89 million pixels on) before ours, and would try any plugin that the process has registered.
    """
    Image.preinit()
    name = image_format(data)
    if name is None:
        raise DecodeError(f"image: expected JPEG, PNG, WebP or BMP, found other content ({len(data)} bytes){_OTHER}")
    if name == "JPEG":
        _check_jpeg_scans(data)
    elif name == "PNG":
        _check_png(data)
    elif name == "WEBP":
        from PIL import WebPImagePlugin  # noqa: F401  (registers itself; not one of preinit's)

        check_size(*_webp_size(data))  # its decoder allocates the canvas when it is opened
    image: Image.Image = Image.OPEN[name][0](io.BytesIO(data), "")
    check_size(image.height, image.width)
    return image


def _check_jpeg_scans(data: bytes) -> None:
    """Refuse a progressive JPEG that decodes for hours: 20 MiB hold 600,000 scans."""
    scans, marker = 0, _JPEG_MARKER.search(data, 2)
    while marker is not None:
        kind, start = marker[1][0], marker.end()
        scans += kind == 0xDA
        if scans > _MAX_JPEG_SCANS:
            raise DecodeError(f"image: expected a JPEG of at most {_MAX_JPEG_SCANS} scans, found more; encode it anew")
        if kind == 0xD9:  # what follows the end is not decoded
            return
        # Segments are stepped over whole: a thumbnail inside one has scans of its own.
        bare = kind < 0xC0 or kind == 0xD8  # reserved ones have no length that libjpeg would step over
        marker = _JPEG_MARKER.search(data, start if bare else start + int.from_bytes(data[start : start + 2], "big"))


def _check_png(data: bytes) -> None:
    """Refuse a PNG that is cut off or damaged: Pillow stops looking once it has the pixels.

    It leaves out the checksums of the pixels, and bits of the compressed data's end would change some unseen.
    """
    start, view = 8, memoryview(data)
    for _ in range(_MAX_PNG_CHUNKS):
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        body, start = start + 4, start + 12 + length
        if start > len(data):
            raise DecodeError(f"image: expected a whole PNG, found one cut off after {len(data)} bytes")
        if zlib.crc32(view[body : start - 4]) != int.from_bytes(data[start - 4 : start], "big"):
            raise DecodeError("image: expected a whole PNG, found a part that its checksum contradicts")
        if kind == b"IEND":
            return
    raise DecodeError(f"image: expected a PNG of at most {_MAX_PNG_CHUNKS} chunks, found more; encode it anew")


def _webp_size(data: bytes) -> tuple[int, int]:
    """(height, width) in a WebP header."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise DecodeError("image: expected a whole WebP header, found its beginning only")
    if kind == b"VP8X":  # two 24-bit numbers, less one
        return int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
    if kind == b"VP8L":  # 14 bits each, less one, after a signature byte
        bits = int.from_bytes(body[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":  # 14 bits each, after frame tag and start code
        width, height = struct.unpack("<HH", body[6:10])
        return height & 0x3FFF, width & 0x3FFF
    raise DecodeError("image: expected a WebP image, found a RIFF file without one")


def _check_opened(image: Image.Image) -> Image.Image:
    # An unread file of another format would run its own decoder (EPS: Ghostscript) when its pixels are asked for.
    if image.format not in (None, "JPEG", "MPO", "PNG", "WEBP", "BMP"):
        raise DecodeError(
            f"image: expected a PIL image from JPEG, PNG, WebP or BMP, found {image.format!r:.20}; "
            f'if you trust its file, pass image.convert("RGB")'
        )
    check_size(image.height, image.width)
    return image


def _pixels(opened: Any, reduce: int, *, drafted: bool = False) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3], BGR. The one place where Pillow's errors become ours: its plugins raise almost anything.

    Args:
        opened: gives the image, its pixels not decoded.
        reduce: sides divided by it.
        drafted: the image is ours, so that its JPEG decoder may be set to another scale.
    """
    import cv2

    try:
        image: Image.Image = opened()
        width, height = (-(-side // reduce) for side in image.size)
        if reduce > 1:
            check_size(height, width)
            if drafted:
                image.draft(None, (image.width // reduce, image.height // reduce))  # JPEG alone does something
        with _strict():
            image.load()
        rgb = _to_rgb(image)
        if rgb.size != (width, height):
            rgb = rgb.reduce(reduce)
        rgb = _upright(rgb, image)
        return np.ascontiguousarray(cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR), dtype=np.uint8)
    except GraftError:
        raise
    except MemoryError as error:
        raise ImageTooLarge("image: expected enough memory for its pixels, found too little; shrink it") from error
    except Exception as error:
        raise DecodeError("image: expected a whole JPEG, PNG, WebP or BMP, found a damaged or truncated one") from error


@contextmanager
def _strict() -> Iterator[None]:
    """Other libraries let Pillow fill truncated files with grey for the whole process; here they are refused.

    The first of several threads turns that off, the last one gives it back.
    """
    global _decoding, _tolerant
    with _tolerance:
        if _decoding == 0:
            _tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        _decoding += 1
    try:
        yield
    finally:
        with _tolerance:
            _decoding -= 1
            if _decoding == 0 and _tolerant:
                ImageFile.LOAD_TRUNCATED_IMAGES = True


def _after_fork_in_child() -> None:
    """The threads that were decoding, and may hold the lock, are not here."""
    global _tolerance, _decoding
    if _decoding and _tolerant:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
    _tolerance, _decoding = threading.Lock(), 0


os.register_at_fork(after_in_child=_after_fork_in_child)


def _upright(image: Image.Image, source: Image.Image) -> Image.Image:
    """The image turned as the source's EXIF says; unreadable EXIF says nothing."""
    try:
        orientation = source.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  (parsers of hostile metadata raise almost anything; pixels are intact)
        orientation = 1
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB: 16-bit grey scaled, transparency blended over black."""
    if image.mode.startswith("I"):
        return _grey_to_rgb(image)
    if image.mode == "F":
        raise DecodeError("image: expected 8 or 16 bits a channel, found floats; scale it to 0..255 first")
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
        return black
    return image.convert("RGB")


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0 or values.max() > 65535:
        raise DecodeError("image: expected grey values of 16 bits, found others; scale them to 0..255 first")
    grey = ((values + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = 0
    return Image.fromarray(grey).convert("RGB")
