"""Encoded images before they are decoded: which format they are, and what a decoder would not notice in time."""

from __future__ import annotations

import re
import struct
import zlib
from typing import Literal

from graftsdk.errors import DecodeError

__all__ = ["check_jpeg_scans", "check_png", "image_format", "webp_size"]

_MAX_JPEG_SCANS = 64  # encoders write about ten; each one walks all pixels again, however few bytes it has
_MAX_PNG_CHUNKS = 65_536  # the limit of 20 MiB in chunks of 320 bytes; encoders write 8 KiB and more
# Nothing but a marker begins with FF and ends with one of these in coded pixels: FF00 is a value, FFD0..FFD7 a restart.
_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")


def image_format(data: bytes) -> Literal["JPEG", "PNG", "BMP", "WEBP"] | None:
    """By what a file begins with; its first 16 bytes are enough."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"BM"):
        return "BMP"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def check_jpeg_scans(data: bytes) -> None:
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


def check_png(data: bytes) -> None:
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


def webp_size(data: bytes) -> tuple[int, int]:
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
