"""Video files before anything decodes them: which container it is, and whether all of it is there.

FFmpeg chooses a reader by content. Some readers are for texts that name other files and addresses (HLS, concat, SDP,
DASH); a file that is called a video must never make it open those. So only binary containers pass.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from graftsdk.errors import DecodeError

__all__ = ["Container", "check_container"]

_PROBED = 2**20  # bytes of a file that FFmpeg looks at to choose a reader (PROBE_BUF_MAX)
_MAX_STEPS = 50_000  # boxes, chunks or clusters walked over: 7 hours of one-second fragments; beyond, nothing is said
_ISO_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
_SEGMENT, _CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"


@dataclass(frozen=True)
class Container:
    """A video file's outermost structure.

    Attributes:
        kind: "mp4" (and mov), "avi", "mkv" (and webm), "ts", "ps" or "flv".
        cut: the file ends before the media data that its header announces. Never true of a whole file; the kinds ts,
            ps and flv announce nothing.
        counted: the header lists every frame; else a frame count is an estimate from duration and rate.
        ragged: it ends inside a packet: the last frame may be damaged, and what would follow is not known.
    """

    kind: str
    cut: bool = False
    counted: bool = False
    ragged: bool = False

    @property
    def torn(self) -> bool:
        """The last frame that FFmpeg gives is a part of one, the rest of it invented. Of mkv it gives whole ones."""
        return self.cut and self.kind != "mkv"


def check_container(file: BinaryIO, name: str) -> Container:
    """The container of an open regular file. Raises DecodeError where it is none that is read here."""
    head = file.read(_PROBED)
    size = file.seek(0, 2)
    if size == 0:
        raise DecodeError(f"{name}: expected a video, found an empty file")
    container: Container | None = None
    if head[4:8] in _ISO_FIRST:
        container = _iso(file, size)
    elif head.startswith(b"\x1a\x45\xdf\xa3") and (b"matroska" in head[:4096] or b"webm" in head[:4096]):
        container = Container("mkv", cut=_mkv_cut(file, size))
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        container = Container("avi", cut=_avi_cut(file, size), counted=True)
    elif head.startswith(b"\x00\x00\x01\xba"):
        container = Container("ps")
    elif head.startswith(b"FLV\x01"):
        container = Container("flv")
    elif (packet := _packet(head)) is not None:
        container = Container("ts", ragged=size % packet != 0)
    # FFmpeg takes a file with such a line for a session description, whatever else it holds.
    if container is None or b"c=IN IP" in head:
        raise DecodeError(
            f"{name}: expected a video (mp4, mov, avi, mkv, webm, ts, mpg, flv) or an image (JPEG, PNG, WebP, BMP), "
            f"found other content ({size} bytes); play lists and addresses in files are not followed"
        )
    return container


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _packet(head: bytes) -> int | None:
    """ISO/IEC 13818-1: bytes in a packet of a transport stream, with or without a clock before each; None: no packets.

    Each begins with a "G"; three of them in a row are no accident.
    """
    return next((step for first, step in ((0, 188), (4, 192)) if head[first::step][:3] == b"GGG"), None)


def _iso(file: BinaryIO, size: int) -> Container:
    """ISO/IEC 14496-12: boxes of a 32-bit size and a name, side by side; size 1: 64 bits follow; size 0: to the end."""
    offset, cut, fragmented = 0, False, False
    for _ in range(_MAX_STEPS):
        head = _at(file, offset, 16)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        fragmented = fragmented or kind == b"moof"
        if length < 8 or offset + length > size:
            cut = length >= 8 and kind in (b"mdat", b"moof", b"moov")  # others: what some cameras append
            break
        offset += length
    return Container("mp4", cut=cut, counted=not fragmented)


def _avi_cut(file: BinaryIO, size: int) -> bool:
    """RIFF: chunks of a name and a 32-bit size, padded to even; the frames are in lists called "movi"."""
    offset, end = 0, 0
    for _ in range(_MAX_STEPS):
        head = _at(file, offset, 12)
        if len(head) < 12:
            break
        after = offset + 8 + int.from_bytes(head[4:8], "little")
        if offset >= end:  # a RIFF; long files are several, one behind the other
            if head[:4] != b"RIFF":
                break
            end, offset = after, offset + 12
            continue
        if head[:4] == b"LIST" and head[8:] == b"movi" and after > size:
            return after <= end  # a recorder that was switched off leaves sizes that do not fit each other
        offset = after + after % 2
    return False


def _mkv_cut(file: BinaryIO, size: int) -> bool:
    """RFC 8794: elements of a name and a size; the frames are in clusters, the clusters in one segment."""
    found = _element(file, 0)
    if found is None or found[2] is None or found[1] + found[2] > size:
        return False
    segment = _element(file, found[1] + found[2])
    if segment is None or segment[0] != _SEGMENT or segment[2] is None or segment[1] + segment[2] <= size:
        return False  # of unknown size: a recording of something live
    last = b""
    for name, end in _elements(file, segment[1]):
        last = name
        if end > size:
            break
    return last == _CLUSTER  # an index or tags at the end may be missing, no frame is


def _elements(file: BinaryIO, offset: int) -> Iterator[tuple[bytes, int]]:
    """(name, where it ends) of elements side by side."""
    for _ in range(_MAX_STEPS):
        found = _element(file, offset)
        if found is None or found[2] is None:
            return
        offset = found[1] + found[2]
        yield found[0], offset


def _element(file: BinaryIO, offset: int) -> tuple[bytes, int, int | None] | None:
    """(name, where its content begins, the content's size or None where unknown) of the element at `offset`."""
    head = _at(file, offset, 12)
    if len(head) < 2 or head[0] < 0x10:
        return None
    names = 9 - head[0].bit_length()  # leading zeros say how many bytes follow
    if len(head) <= names or head[names] == 0:
        return None
    sizes = 9 - head[names].bit_length()
    value = int.from_bytes(head[names : names + sizes], "big") & ((1 << 7 * sizes) - 1)
    if len(head) < names + sizes:
        return None
    return head[:names], offset + names + sizes, None if value == (1 << 7 * sizes) - 1 else value
