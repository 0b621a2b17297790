"""Frames that are images of their own: a folder's, or those of a list."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from graftsdk.errors import GraftError
from graftsdk.preprocess.ahead import decode_ahead
from graftsdk.preprocess.decode import source_name
from graftsdk.preprocess.frame import Frame, Frames

__all__ = ["ImageFrames"]


class ImageFrames(Frames):
    """The images of a folder or a list, in order, decoded ahead. See `open_frames` and `decode_ahead`.

    Args:
        sources: image sources, drawn in the consumer's thread; of paths and bytes a few ahead, else one at a time.
        stride: every how many one is given; the others are not decoded.
        reduce: sides are divided by it.
        strict: an image that cannot be used is an error; else it is left out.
    """

    separate = True

    def __init__(self, sources: Iterable[Any], *, stride: int, reduce: int, strict: bool = False) -> None:
        super().__init__()
        self._stride = stride
        self._strict = strict
        self._next = 0
        copied = not isinstance(sources, (list, tuple))
        self._images = decode_ahead(islice(sources, 0, None, stride), reduce=reduce, copy=copied)

    def _take(self) -> Frame:
        try:
            while True:
                decoded = next(self._images)
                index, self._next = self._next, self._next + self._stride
                source = source_name(decoded.source)
                if not isinstance(decoded.image, GraftError):
                    return Frame(decoded.image, index, None, source, decoded.spent_ms, time.monotonic())
                if self._strict:
                    raise decoded.image
                self.leave_out(index, source, decoded.image)
        except BaseException:  # the end and Ctrl-C too
            self.close()
            raise

    def close(self) -> None:
        self._images.close()
