"""Whose box is whose: numbers from the package `trackers`, or from the caller."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError, MissingDependency, ShapeError

__all__ = ["Tracker", "check_ids", "open_tracker"]

# boxes float32[N, 4] (xyxy, pixels), scores float32[N], frame uint8[H, W, 3] BGR -> int[N], -1 for none
Tracker = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.uint8]], npt.ArrayLike]


def open_tracker(track: Any) -> Tracker:
    """The caller's tracker, or of "supervision" a new ByteTrack.

    supervision gave its own ByteTrack up in release 0.30; the package `trackers`, of the same makers, has it.

    Raises:
        InputError: neither. MissingDependency: `trackers` or supervision is absent.
    """
    if callable(track):
        return track  # type: ignore[no-any-return]
    if not isinstance(track, str) or track != "supervision":
        raise InputError(
            f"track: expected 'supervision' or a function (boxes, scores, frame) -> ids, found {track!r:.80}"
        )
    try:
        library, makers = import_module("supervision"), import_module("trackers")
    except ImportError as error:
        raise MissingDependency(
            f"track='supervision': expected the packages supervision and trackers, found {error}; pip install trackers"
        ) from error
    byte_track = makers.ByteTrackTracker()

    def numbers(boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], _: Any) -> npt.NDArray[np.int64]:
        # The order of what comes back may be another: each detection carries its place.
        places = {"place": np.arange(len(boxes))}
        found = byte_track.update(library.Detections(xyxy=boxes, confidence=scores, data=places))
        ids = np.full(len(boxes), -1, np.int64)
        if len(found):
            ids[found.data["place"]] = found.tracker_id
        return ids

    return numbers


def check_ids(ids: Any, count: int) -> list[int | None]:
    """One number a person, None for -1.

    Raises:
        ShapeError: another number of them. InputError: no whole numbers, below -1, or one twice in a frame.
    """
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise ShapeError(f"track: expected {count} ids, one a person, found {ids!r:.200}") from error
    if array.shape != (count,):
        raise ShapeError(f"track: expected {count} ids, one a person, found shape {array.shape}")
    if count and not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"track: expected integers, found {array.dtype}; -1 stands for none")
    known = [int(value) for value in array if value != -1]
    if any(value < 0 for value in known) or len(set(known)) < len(known):
        raise InputError(f"track: expected ids from 0 on, each once, -1 for none, found {array.tolist()!s:.200}")
    return [None if value == -1 else int(value) for value in array]
