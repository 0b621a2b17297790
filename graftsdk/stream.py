"""`Stream`: predictions, one frame after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graftsdk.errors import GraftError, InputError, NonFiniteOutput
from graftsdk.prediction import Prediction
from graftsdk.preprocess.frames import Frame, Frames

if TYPE_CHECKING:
    from graftsdk.tracking import Event, Tracked

__all__ = ["Stream"]


class Stream(Iterator[Prediction]):
    """The predictions of a source's frames, in order, each with `frame` (its index), `timestamp` and `source`.

    For one thread of the process that opened it: a forked child gets an InputError. Several streams may share a
    predictor. Memory does not grow with the number of frames, or of failures. The end, an error, a Ctrl-C that comes
    while it works, `close()` and garbage collection end the reading threads and close files and cameras; a `with` block
    does so too where the interrupt comes in the loop's own body.

    What happens where a frame cannot be used: of a folder or a list, that image alone is left out, with a warning and
    an entry in `failures`. In a video it is an error, which ends the stream. What a tracker or `on_event` raises ends
    it whatever is read: no image is to blame for that.

    Args:
        frames: what is read; the stream closes it.
        predict: the prediction of one frame, with its `source`.
        tracked: what knows the events of the newest prediction; None in a stream without tracks.

    Attributes:
        lag_ms: of a live source, the age of the newest prediction's frame when it was handed out; else 0.
    """

    lag_ms: float

    def __init__(self, frames: Frames, predict: Callable[[Frame], Prediction], tracked: Tracked | None = None) -> None:
        self._frames = frames
        self._predict = predict
        self._tracked = tracked
        self.lag_ms = 0.0

    @property
    def live(self) -> bool:
        """The newest frame is given; else every frame."""
        return self._frames.live

    @property
    def rate(self) -> float | None:
        """Frames a second, as a video or camera states it; None where it states nothing."""
        return self._frames.rate

    @property
    def count(self) -> int | None:
        """How many frames a video states to have, those between strides too; None where it states nothing."""
        return self._frames.count

    @property
    def dropped(self) -> int:
        """How many frames of a live source were read and replaced by a newer one before they could be used."""
        return self._frames.dropped

    @property
    def failures(self) -> dict[str, GraftError]:
        """Source (or "image 3", its place in the list) -> error, of the last 1000 images that were left out.

        A source that fails again is named with its place, as in "a.jpg (image 3)".
        """
        return self._frames.failures

    @property
    def failed(self) -> int:
        """How many images were left out."""
        return self._frames.failed

    @property
    def events(self) -> tuple[Event, ...]:
        """What was decided, about whom, with the newest prediction; () in a stream without `track`."""
        return () if self._tracked is None else self._tracked.events

    def __next__(self) -> Prediction:
        try:
            while True:
                frame = next(self._frames)
                try:
                    prediction = self._predict(frame)
                except (InputError, NonFiniteOutput) as error:
                    if not self._frames.separate or (self._tracked is not None and self._tracked.misled):
                        raise
                    self._frames.leave_out(frame.index, frame.source, error)
                    continue
                if self.live:
                    self.lag_ms = 1e3 * (time.monotonic() - frame.read_at)
                return replace(prediction, frame=frame.index, timestamp=frame.timestamp)
        except BaseException:  # the end and Ctrl-C too
            self.close()
            raise

    def close(self) -> None:
        """End reading; no prediction comes any more. May be called again."""
        self._frames.close()

    def __repr__(self) -> str:
        return f"Stream({self._frames!r}, dropped={self.dropped}, lag_ms={self.lag_ms:.0f})"

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
