"""What `graftsdk predict` does with each source: predict, draw, print, count, one after another."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from graftsdk.cli.formats import Format
from graftsdk.cli.output import problem
from graftsdk.cli.saving import Chosen
from graftsdk.cli.sources import Source
from graftsdk.drawing.video_file import LEAST_RATE, LIVE_RATE, USUAL_RATE, VideoFile
from graftsdk.errors import GraftError, InputError, NonFiniteOutput
from graftsdk.prediction import Prediction
from graftsdk.predictor import Predictor
from graftsdk.stream import Stream
from graftsdk.text import counted

__all__ = ["Times", "Work"]

MOST_AT_ONCE = 8  # images; each has a person or more, and the engine takes eight crops at once
AT_ONCE_BYTES = 256 * 2**20  # of their pixels
AT_ONCE_SECONDS = 0.5  # what comes later than that feels like nothing is coming


class Work:
    """Goes through the sources; what comes of each is printed, drawn and counted as soon as it is there."""

    def __init__(
        self,
        predictor: Predictor,
        form: Format,
        pictures: dict[Source, Path],
        chosen: Chosen | None,
        bar: Any,
        args: argparse.Namespace,
    ) -> None:
        self._predictor = predictor
        self._form = form
        self._pictures = pictures
        self._chosen = chosen
        self._bar = bar
        self._args = args
        self.times = Times()
        self.failed = 0

    def all(self, sources: Sequence[Source]) -> None:
        """In order; images that follow each other are handed over several at a time."""
        for still, some in groupby(sources, key=lambda source: source.kind == "image"):
            if still:
                self._images(list(some))
            else:
                for source in some:
                    self._video(source)

    def _images(self, sources: Sequence[Source]) -> None:
        at, count, largest = 0, 1, 1
        while at < len(sources):
            batch = sources[at : at + count]
            started = time.perf_counter()
            largest = max(largest, self._together(batch))
            spent = time.perf_counter() - started
            at += len(batch)
            # Several at once share batches of the engine, but nothing comes before all of them are done.
            count = 2 * count if spent < AT_ONCE_SECONDS / 2 else count if spent < AT_ONCE_SECONDS else count // 2
            count = max(1, min(count, MOST_AT_ONCE, AT_ONCE_BYTES // largest))

    def _together(self, sources: Sequence[Source]) -> int:
        """These images at once; bytes of the largest one's pixels."""
        places = [source.place for source in sources]
        results = self._predictor.predict(places, reduce=self._args.reduce, errors="return")
        for source, result in zip(sources, results, strict=True):
            if isinstance(result, GraftError):
                self._fail(source, result)
            else:
                if source in self._pictures:
                    with self.times.saving():
                        result.save(self._pictures[source])
                self._take(result)
            self._bar.update()
        return max(result.image.nbytes if isinstance(result, Prediction) else 0 for result in results)

    def _video(self, source: Source) -> None:
        options = {"stride": self._args.stride, "live": self._args.live, "reduce": self._args.reduce}
        try:
            with ExitStack() as stack:
                stream = stack.enter_context(self._predictor.stream(source.place, **options))
                video = self._opened(source, stream, stack)
                for prediction in stream:
                    if video is not None:
                        with self.times.saving():
                            video.add(prediction.plot(), prediction.timestamp)
                    self._take(prediction)
                    self._bar.update()
                if stream.dropped:
                    self._say(f"{source.name}: {counted(stream.dropped, 'frame')} dropped, the plan is slower")
        except (InputError, NonFiniteOutput) as error:
            self._fail(source, error)

    def _opened(self, source: Source, stream: Stream, stack: ExitStack) -> VideoFile | None:
        """Where the source's frames are drawn to, if they are to be; and the bar learns how many there will be."""
        stride = self._args.stride
        if stream.count and not stream.live and self._bar.total is not None:
            self._bar.total += -(-stream.count // stride)
        else:
            self._bar.total = None
        self._bar.refresh()
        if source not in self._pictures:
            return None
        rate = LIVE_RATE if stream.live else max((stream.rate or USUAL_RATE) / stride, LEAST_RATE)
        return stack.enter_context(VideoFile(self._pictures[source], rate, paced=stream.live))

    def _take(self, prediction: Prediction) -> None:
        self.times.add(prediction)
        if self._chosen is not None:
            self._chosen.offer(prediction)
        text = self._form(prediction)
        if text:
            self._bar.write(text, file=sys.stdout, end="")
            sys.stdout.flush()

    def _fail(self, source: Source, error: GraftError) -> None:
        self.failed += 1
        if error.source is None:  # of a video or a live source: the sheet names it
            error.source = source.name
        if self._chosen is not None:
            self._chosen.offer(error)
        self._say(problem(source.name, str(error)))

    def _say(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)


class Times:
    """Sums the stages' milliseconds over the images and frames."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._stages: dict[str, float] = {}
        self._images = 0
        self._frames = 0
        self._persons = 0
        self._saving = 0.0

    def add(self, prediction: Prediction) -> None:
        """One more."""
        if prediction.frame is None:
            self._images += 1
        else:
            self._frames += 1
        self._persons += len(prediction)
        for stage, spent in prediction.timings.items():
            self._stages[stage] = self._stages.get(stage, 0.0) + spent

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around drawing and writing pictures."""
        started = time.perf_counter()
        yield
        self._saving += 1e3 * (time.perf_counter() - started)

    def summary(self, ready: float, failed: int) -> str:
        """One line."""
        kinds = [counted(self._images, "image")] if self._images or not self._frames else []
        kinds += [counted(self._frames, "frame")] if self._frames else []
        counts = ", ".join((*kinds, counted(self._persons, "person"), *([f"{failed} not read"] if failed else [])))
        done = self._images + self._frames
        if not done:
            return f"{counts}; ready after {ready:.2f} s"
        spent = time.perf_counter() - self._began
        stages = {**self._stages, **({"save": self._saving} if self._saving >= 0.1 else {})}
        each = ", ".join(f"{stage} {ms / done:.1f}" for stage, ms in stages.items())
        unit = "image" if not self._frames else "frame" if not self._images else "picture"
        return f"{counts}; ready after {ready:.2f} s; {done / spent:.1f} {unit}s/s; ms {_article(unit)}: {each}"


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
