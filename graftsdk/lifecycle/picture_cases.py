"""Pictures to be measured, stage by stage: drawn ones whose persons are given, or files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from graftsdk.errors import InputError
from graftsdk.lifecycle.drawn_scene import draw_scene
from graftsdk.lifecycle.turns import Spread, spread
from graftsdk.prediction import Prediction
from graftsdk.predictor import Predictor
from graftsdk.preprocess import decode_image

__all__ = ["AT_ONCE", "MOST_PICTURES", "STAGES", "PictureCase", "PictureRow", "drawn_cases", "file_cases"]

STAGES = ("decode", "segment", "crop", "engine", "rest")
AT_ONCE = 8  # pictures handed over in one list
MOST_PICTURES = 12  # rows that are still read


@dataclass(frozen=True)
class PictureRow:
    """Pictures to attributes, milliseconds a picture.

    Attributes:
        name: of the picture. size: (height, width) in pixels. persons: in it.
        stages: stage -> time; "rest" is everything that is none of the others; empty where several pictures went in
            together, as their stages overlap.
        total: of one picture. at_once: pictures that went in together.
    """

    name: str
    size: tuple[int, int]
    persons: float
    stages: Mapping[str, Spread]
    total: Spread
    at_once: int = 1


@dataclass(frozen=True)
class Run:
    """One run of a case: (height, width) of the picture, persons of all its pictures, milliseconds of each stage."""

    size: tuple[int, int]
    persons: int
    stages: Mapping[str, float]


@dataclass(frozen=True)
class PictureCase:
    """A picture, or several in one list; `predict` calls the predictor and returns all that came of it."""

    name: str
    predict: Callable[[], list[Prediction]]
    at_once: int = 1

    def run(self) -> Run:
        """Predict; keep no picture."""
        started = time.perf_counter()
        found = self.predict()
        total = 1e3 * (time.perf_counter() - started)
        stages = {stage: sum(prediction.timings[stage] for prediction in found) for stage in STAGES[:-1]}
        stages["rest"] = max(0.0, total - sum(stages.values()))
        return Run(found[0].size, sum(len(prediction) for prediction in found), stages)

    def row(self, taken: Sequence[float], runs: Sequence[Run]) -> PictureRow:
        """Milliseconds of the runs, and what they gave, to a row."""
        stages = {}
        if self.at_once == 1:
            stages = {stage: spread([run.stages[stage] for run in runs]) for stage in STAGES}
        persons = runs[0].persons / self.at_once
        return PictureRow(self.name, runs[0].size, persons, stages, spread(taken, self.at_once), self.at_once)


def drawn_cases(predictor: Predictor, persons: Sequence[int]) -> list[PictureCase]:
    """A drawn picture for each number of persons, who are given; then a list of pictures with the fewest, but some.

    With a segmenter every picture is predicted twice: as it is, which decodes it and should find nobody; then, decoded,
    with its persons given. Together that is what a photograph of as many takes, but for the decoding of their masks.
    """
    finds = predictor.plan.manifest.segmenter is not None

    def case(count: int, at_once: int) -> PictureCase:
        scene = draw_scene(count)
        boxes, masks = [scene.boxes] * at_once, [scene.masks] * at_once

        def predict() -> list[Prediction]:
            if not finds:
                return predictor.predict([scene.encoded] * at_once, boxes=boxes, masks=masks)
            found = predictor.predict([scene.encoded] * at_once)
            images = [prediction.image for prediction in found]
            return [*found, *(predictor.predict(images, boxes=boxes, masks=masks) if count else ())]

        def predict_one() -> list[Prediction]:
            if not finds:
                return [predictor.predict(scene.encoded, boxes=scene.boxes, masks=scene.masks)]
            found = predictor.predict(scene.encoded)
            if not count:
                return [found]
            return [found, predictor.predict(found.image, boxes=scene.boxes, masks=scene.masks)]

        if at_once == 1:
            return PictureCase("drawn", predict_one)
        return PictureCase(f"drawn, {at_once} in one list", predict, at_once)

    fewest = min((count for count in persons if count), default=0)
    return [*(case(count, 1) for count in persons), case(fewest, AT_ONCE)]


def file_cases(predictor: Predictor, paths: Sequence[Path]) -> tuple[list[PictureCase], dict[str, str]]:
    """(A picture for each file, then a list of the first ones; file -> what is wrong with it, where it is left out).

    The files are read here. Of more than MOST_PICTURES so many are chosen, evenly; for a bad one the next is taken.

    Raises:
        InputError: none of the files can be used.
    """
    count = min(len(paths), MOST_PICTURES)
    starts = [index * len(paths) // count for index in range(count)]
    contents: list[tuple[str, bytes]] = []
    unreadable: dict[str, str] = {}
    for start, end in zip(starts, [*starts[1:], len(paths)], strict=True):
        for path in paths[start:end]:
            try:
                decode_image(path)  # looks at the size of the file before it is read
                contents.append((path.name, path.read_bytes()))
                break
            except (InputError, OSError) as error:
                unreadable[str(path)] = str(error).removeprefix("image: ")
    if not contents:
        name, why = next(iter(unreadable.items()))
        raise InputError(f"pictures: expected one that can be used, found none of {len(paths)}; {name}: {why}")

    def one(content: bytes) -> list[Prediction]:
        return [predictor.predict(content)]

    cases = [PictureCase(name, partial(one, content)) for name, content in contents]
    first = [content for _, content in contents[:AT_ONCE]]
    if len(first) > 1:
        which = "all" if len(first) == len(contents) else "the first"
        cases.append(PictureCase(f"{which} {len(first)} in one list", partial(predictor.predict, first), len(first)))
    return cases, unreadable
