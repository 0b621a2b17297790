"""What a stream reads: videos, cameras, network streams, folders and lists of images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.preprocess.capture import (
    SCHEMES,
    open_camera,
    open_network,
    open_regular,
    open_video,
)
from graftsdk.preprocess.decode import check_decoding, list_images
from graftsdk.preprocess.encoded import image_format
from graftsdk.preprocess.frame import Frame, Frames
from graftsdk.preprocess.separate import ImageFrames
from graftsdk.preprocess.video import VideoFrames
from graftsdk.text import public_name

__all__ = ["Frame", "Frames", "open_frames"]

_SOURCES = (
    "the path of a video, an image or a folder, a list of images, a camera's number or the address of a network stream"
)
_MAX_STRIDE = 2**31 - 1
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([!-~]*)\Z")
_CAMERA = re.compile(r"/dev/video[0-9]+\Z")


def open_frames(source: Any, *, stride: int = 1, live: bool | None = None, reduce: int = 1) -> Frames:
    """The frames of a source, in order, read ahead by threads in bounded memory. Close them.

    | source | frames |
    | --- | --- |
    | path of a video: mp4, mov, avi, mkv, webm, ts, mpg, flv, by content | every frame |
    | path of an image | one |
    | folder | its images, sorted by name; other files in it are passed over |
    | list, tuple, generator of what `decode_image` takes | each, in order |
    | camera: its number, or "/dev/video0" | the newest frame |
    | address: rtsp, rtsps, http, https, rtmp, rtmps, udp, rtp, tcp, srt | the newest frame |

    Where the newest frame is given, a thread reads all the time; frames that nobody took when the next one came are
    dropped and counted, and none is given twice. `live=False` gives every frame of a camera or address too: whoever
    is slower than the camera falls behind. `live=True` plays a file at its own pace, as if it were a camera.

    Paths and encoded images of a list are decoded ahead; its arrays, PIL images and open files are drawn one at a time,
    each when it is its turn. A separate image that cannot be used is left out, with a warning and an entry in
    `failures`.

    A video file that is cut off gives its whole frames, then a DecodeError; so does a camera that disappears. So ends a
    network source too, unless as many frames came as its header states: nothing else tells a whole film from a broken
    line. A whole film whose header states no number (ts, mpg) or estimates too many (mkv of a variable rate) gives all
    its frames and then that error; stream a copy of the file instead.

    Args:
        source: see the table.
        stride: give every so many frames; those between are not converted.
        live: True gives the newest frame, False every frame, None what the table says.
        reduce: 1, 2, 4 or 8: sides divided by it, rounded up. Scores of what is cut out of it are other ones.

    Raises:
        InputError: no such source, or a camera or address that does not open (within 10 s); a folder without images;
            another stride, live or reduce.
        DecodeError: neither a video nor an image, a video that cannot be decoded, or an image file that is damaged.
        ImageTooLarge, ImageTooSmall: frames beyond the limits of `check_image`.
    """
    stride = whole_number("stride", stride, 1, _MAX_STRIDE)
    if live is not None and not isinstance(live, bool):
        raise InputError(f"live: expected True, False or None, found {live!r:.40}")
    check_decoding("bgr", reduce)
    if isinstance(source, (int, np.integer)) and not isinstance(source, bool):
        if source < 0:
            raise InputError(f"source: expected a camera's number, from 0, found {source}")
        source = f"/dev/video{source}"
    if isinstance(source, (str, os.PathLike)):
        return _named(_path(source), stride, live, int(reduce))
    return _listed(source, stride, live, int(reduce))


def _path(source: str | os.PathLike[str]) -> str:
    try:
        return os.fspath(source)
    except TypeError as error:
        raise InputError(f"source: expected {_SOURCES}, found {type(source).__name__} whose path is no text") from error


def _named(name: str, stride: int, live: bool | None, reduce: int) -> Frames:
    if not isinstance(name, str) or not name:
        raise InputError(f"source: expected {_SOURCES}, found {name!r:.40}")
    if "://" in name:
        address = _ADDRESS.match(name)
        if address is None or address[1].lower() not in SCHEMES or not address[2]:
            raise InputError(
                f"source: expected an address that begins with {', '.join(SCHEMES)}, found "
                f"{public_name(name)!r:.200}; give a file as its path"
            )
        live = live is not False
        return VideoFrames(partial(open_network, name, live), stride=stride, live=live, reduce=reduce)
    if _CAMERA.match(name):
        return VideoFrames(partial(open_camera, name), stride=stride, live=live is not False, reduce=reduce)
    if os.path.isdir(name):
        _no_pace(live)
        images = list_images(name)
        if not images:
            raise InputError(f"source: expected a folder with images in it, found none in {name!r:.200}")
        return ImageFrames(images, stride=stride, reduce=reduce)
    if _is_image(name):
        _no_pace(live)
        return ImageFrames([name], stride=stride, reduce=reduce, strict=True)
    return VideoFrames(partial(open_video, name), stride=stride, live=live is True, reduce=reduce)


def _listed(sources: Any, stride: int, live: bool | None, reduce: int) -> Frames:
    if isinstance(sources, (np.ndarray, Image.Image)) or hasattr(sources, "read"):
        raise InputError("source: expected several images, found one; give it in a list, or to predict()")
    if isinstance(sources, (bytes, bytearray, memoryview, dict)) or not isinstance(sources, Iterable):
        raise InputError(f"source: expected {_SOURCES}, found {type(sources).__name__}")
    _no_pace(live)
    return ImageFrames(sources, stride=stride, reduce=reduce)


def _no_pace(live: bool | None) -> None:
    if live:
        raise InputError("live: expected None or False for images, which have no pace of their own, found True")


def _is_image(path: str) -> bool:
    """The file begins as `decode_image` wants it. Raises InputError where there is no regular file."""
    descriptor = open_regular(path)
    try:
        head = os.pread(descriptor, 16, 0)
    finally:
        os.close(descriptor)
    return image_format(head) is not None
