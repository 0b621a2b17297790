"""Encoded images to pixels: the one decoder, bounded before it decodes."""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from graftsdk.errors import DecodeError, GraftError, ImageTooLarge, InputError
from graftsdk.preprocess.encoded import check_jpeg_scans, check_png, image_format, webp_size
from graftsdk.preprocess.image import Color, check_color, check_image, check_size
from graftsdk.text import public_name

__all__ = ["IMAGE_SUFFIXES", "MAX_ENCODED_BYTES", "check_decoding", "decode_image", "list_images", "source_name"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MAX_ENCODED_BYTES = 20 * 2**20

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
    check_color(color)
    if isinstance(reduce, bool) or not isinstance(reduce, (int, np.integer)) or reduce not in (1, 2, 4, 8):
        raise InputError(f"reduce: expected 1, 2, 4 or 8, found {reduce!r:.40}")


def source_name(source: Any) -> str | None:
    """The path that an image comes from, for people; None where it comes from none that is text."""
    try:
        return public_name(os.fsdecode(source)) if isinstance(source, (str, os.PathLike)) else None
    except TypeError:  # a path-like that gives no path: decoding says so
        return None


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of a folder whose names end like an image's, sorted by name; folders inside it are not entered.

    Raises:
        InputError: no such folder, or not readable.
    """
    try:
        with os.scandir(Path(folder)) as entries:  # told apart without a call to the system for each, unless links
            names = sorted(
                entry.name
                for entry in entries
                if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and entry.is_file()
            )
        return [Path(folder, name) for name in names]
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
    if isinstance(path, str) and "://" in path:
        raise InputError(
            f"image: expected a file, found an address, {public_name(path)!r:.200}; Predictor.stream reads addresses"
        )
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
        check_jpeg_scans(data)
    elif name == "PNG":
        check_png(data)
    elif name == "WEBP":
        from PIL import WebPImagePlugin  # noqa: F401  (registers itself; not one of preinit's)

        check_size(*webp_size(data))  # its decoder allocates the canvas when it is opened
    image: ImageFile.ImageFile = Image.OPEN[name][0](io.BytesIO(data), "")
    check_size(image.height, image.width)
    for codec, _, offset, args in image.tile if name == "BMP" else ():
        # Pillow would take the memory of all pixels before it misses the first one.
        if codec == "raw" and isinstance(args, tuple) and len(data) <= offset + args[1] * (image.height - 1):
            raise DecodeError(f"image: expected a whole BMP, found one cut off after {len(data)} bytes")
    return image


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
