"""What comes out: a `Prediction` of one image and its persons. What is said about each of them is an `Attribute`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from graftsdk import tables
from graftsdk.attribute import DEFAULT_THRESHOLD, Attribute, decisions, reported_labels, shortest
from graftsdk.drawing.pictures import PICTURES, check_suffix, write_picture
from graftsdk.errors import InputError, ShapeError
from graftsdk.text import counted, listed, one_line

if TYPE_CHECKING:
    import pandas
    import supervision

__all__ = ["DEFAULT_THRESHOLD", "PICTURES", "Attribute", "Person", "Prediction", "decisions", "reported_labels"]

_SUMMARY_PERSONS = 8  # more of them and a summary is no longer read

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Person:
    """One person of an image.

    Attributes:
        index: its place in `Prediction.persons`.
        score: the segmenter's, or None where none ran.
        track: which person of a stream this is, the same in all frames; None outside tracks.
    """

    index: int
    score: float | None
    track: int | None
    _attributes: Mapping[str, Attribute] | Callable[[], Mapping[str, Attribute]]
    _box: Array
    _mask: Array | Callable[[], Array] | None

    def __init__(
        self,
        index: int,
        box: npt.ArrayLike,
        score: float | None,
        attributes: Mapping[str, Attribute] | Callable[[], Mapping[str, Attribute]],
        mask: Array | Callable[[], Array] | None = None,
        track: int | None = None,
    ) -> None:
        """A person.

        Args:
            index: its place among the image's persons.
            box: float32[4], xyxy in pixels of the original image, half-open. Copied.
            score: the segmenter's, 0..1.
            attributes: label -> Attribute, or a function that makes it when it is first asked for.
            mask: [H, W] over the whole image, not copied, or a function that makes it when it is asked for, as
                `graftsdk.preprocess.LazyMask` of one of `BoxMasks`, which also pickles and is drawn without
                making the whole of it.
            track: which person of a stream this is.

        Raises:
            ShapeError: a box of another shape. InputError: a box that is not finite.
        """
        corners = np.array(box, dtype=np.float32)
        if corners.shape != (4,):
            raise ShapeError(f"person {index}: expected a box of shape (4,), found {corners.shape}")
        if not np.isfinite(corners).all():
            raise InputError(f"person {index}: expected a finite box, found {corners.tolist()}")
        own = object.__setattr__
        own(self, "index", int(index))
        own(self, "score", None if score is None else float(score))
        own(self, "track", None if track is None else int(track))
        own(self, "_attributes", attributes if callable(attributes) else MappingProxyType(dict(attributes)))
        own(self, "_box", corners)
        own(self, "_mask", mask)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, self._box, self.score, dict(self.attributes), self._mask, self.track)

    def on_track(self, track: int | None) -> Person:
        """The same person, known to be the one of that track."""
        return Person(self.index, self._box, self.score, self._attributes, self._mask, track)

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """Label -> Attribute, in the order of the plan or of the call."""
        kept = self._attributes
        if callable(kept):
            kept = MappingProxyType(dict(kept()))
            object.__setattr__(self, "_attributes", kept)
        return kept

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """float32[4], xyxy in pixels of the original image, half-open; a copy."""
        return self._box.copy()

    @property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """bool[H, W] over the whole image, made anew each time it is asked for; None where there is none."""
        mask = self._frame()
        if mask is None:
            return None
        return mask.copy() if mask.dtype == np.bool_ else mask > 0.5

    def _frame(self) -> Array | None:
        """The mask as it was given or made, [H, W]: bool, or another dtype in which > 0.5 counts; not a copy."""
        if self._mask is None:
            return None
        mask = np.asarray(self._mask() if callable(self._mask) else self._mask)
        if mask.ndim != 2:
            raise ShapeError(f"person {self.index}: expected a mask [H, W], found shape {mask.shape}")
        return mask

    def __getitem__(self, label: str) -> Attribute:
        """The attribute. Raises InputError where there is none of that label."""
        try:
            return self.attributes[label]
        except KeyError:
            found = listed(self.attributes)
            raise InputError(f"person {self.index}: expected one of the labels {found}, found {label!r}") from None

    def __contains__(self, label: object) -> bool:
        return label in self.attributes

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.attributes.values())

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """JSON types. `masks`: with the mask, run-length coded as COCO does (column-major, zeros first)."""
        found: dict[str, Any] = {
            "index": self.index,
            **({} if self.track is None else {"track": self.track}),
            "box": [round(float(value), 2) for value in self._box],
            "score": None if self.score is None else shortest(self.score),
            "attributes": {label: attribute.to_dict() for label, attribute in self.attributes.items()},
        }
        if masks:
            found["mask"] = self._run_lengths()
        return found

    def _run_lengths(self) -> dict[str, Any] | None:
        from graftsdk.preprocess.boxmasks import LazyMask  # with it come OpenCV and Pillow

        lazy = self._mask
        if isinstance(lazy, LazyMask):  # a frame for each person would be most of the work
            return _run_lengths(*lazy.window(), lazy.size)
        mask = self.mask
        return None if mask is None else _run_lengths(mask, 0, 0, mask.shape)

    def __repr__(self) -> str:
        told = [(found, attribute) for attribute in self if (found := attribute.finding()) is not None]
        texts = (f"{' '.join(filter(None, found))} {attribute.scores[attribute.name]:.2f}" for found, attribute in told)
        track = "" if self.track is None else f" (track {self.track})"
        return f"{self.index}{track}: {', '.join(texts) or 'nothing to tell'}"


class _Image:
    """The field `Prediction.image`: an array, or a function with its `shape` that makes it when it is asked for."""

    def __get__(self, prediction: Prediction | None, owner: Any = None) -> npt.NDArray[np.uint8]:
        if prediction is None:
            raise AttributeError("image")  # of the class: the field has no default
        kept = prediction.__dict__["image"]
        image: npt.NDArray[np.uint8] = kept if isinstance(kept, np.ndarray) else kept()
        prediction.__dict__["image"] = image
        return image

    def __set__(self, prediction: Prediction, image: Any) -> None:
        prediction.__dict__["image"] = image


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The persons of one image and what is said about them. Iterates, indexes and counts as its persons.

    Attributes:
        persons: in the order in which they were given or found, the surest first.
        image: uint8[H, W, 3], BGR: the original, not a copy. Of a frame on a device: fetched when it is first asked
            for (also to plot or pickle), with the pixels that the frame holds then, and kept; to be asked for before
            the predictor is closed. Until then the prediction holds on to the frame's memory there.
        source: the image's path, or None.
        timings: stage -> milliseconds.
        truncated: there were more persons than the limit, and the least sure were left out.
        plan: hex digest of the plan that answered.
        labels: those that were asked for, also where nobody was found.
        frame: the image's place in its source, from 0; every frame counts, those left out too. None outside streams.
        timestamp: seconds, of a file from its beginning, of a camera Unix time of reading. None outside streams.
        tracked: it is of a stream with tracks; who is on none yet has `track` None.

    Raises:
        ShapeError: an image of another shape.
    """

    persons: tuple[Person, ...]
    image: _Image = _Image()
    source: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False
    plan: str = ""
    labels: tuple[str, ...] = ()
    frame: int | None = None
    timestamp: float | None = None
    tracked: bool = False

    def __post_init__(self) -> None:
        shape = self.__dict__["image"].shape  # asked for by nobody yet
        if len(shape) != 3 or shape[2] != 3:
            raise ShapeError(f"expected an image of shape (H, W, 3), found {shape}")
        own = object.__setattr__
        own(self, "persons", tuple(self.persons))
        own(self, "timings", MappingProxyType(dict(self.timings)))
        own(self, "labels", tuple(self.labels) or tuple(dict.fromkeys(k for p in self.persons for k in p.attributes)))

    def __reduce__(self) -> tuple[Any, ...]:
        kept = (getattr(self, each.name) for each in fields(self))
        return type(self), tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in kept)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        height, width, _ = self.__dict__["image"].shape
        return int(height), int(width)

    def __len__(self) -> int:
        return len(self.persons)

    def __iter__(self) -> Iterator[Person]:
        return iter(self.persons)

    @overload
    def __getitem__(self, index: int) -> Person: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Person, ...]: ...
    def __getitem__(self, index: int | slice) -> Person | tuple[Person, ...]:
        return self.persons[index]

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """JSON types only. `masks`: with each person's mask, run-length coded as COCO does."""
        moment = {
            "frame": self.frame,
            "timestamp": None if self.timestamp is None else round(float(self.timestamp), 6),
        }
        return {
            "source": self.source,
            **{name: value for name, value in moment.items() if value is not None},
            "size": list(self.size),
            "plan": self.plan,
            "labels": list(self.labels),
            "truncated": self.truncated,
            "timings": {stage: round(float(ms), 3) for stage, ms in self.timings.items()},
            "persons": [person.to_dict(masks) for person in self.persons],
        }

    def to_json(self, indent: int | None = None, masks: bool = False) -> str:
        """`to_dict` as JSON text that any UTF-8 file takes; letters of all scripts stand as they are."""
        text = json.dumps(self.to_dict(masks), indent=indent, ensure_ascii=False, allow_nan=False)
        # A path that is not UTF-8 reaches Python as lone surrogates: JSON can escape them, UTF-8 cannot hold them.
        return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)

    @property
    def columns(self) -> tuple[str, ...]:
        """The keys of every row of `to_rows`, in order; they follow from the labels, also where nobody was found."""
        return tables.columns(self)

    def to_rows(self) -> list[dict[str, str | int | float | bool | None]]:
        """One flat row a person, with the keys of `columns`.

        source, frame, timestamp, person (its index), x0, y0, x1, y1 (pixels of the image, half-open), score (the
        segmenter's), then of each label what was decided, as in "gender": "male", and "gender.score": its `score`.
        A label whose column is taken ("score", "frame", "class_name") has an underscore at its end. Of a stream with
        tracks, "track" stands behind "person".
        """
        return tables.rows(self)

    def to_pandas(self, classes: bool = False) -> pandas.DataFrame:
        """A data frame with one row a person and the columns of `to_rows`; that of nobody has them too.

        The columns of all predictions of the same labels have the same kinds, so that `pandas.concat` takes them
        together: string for names, Int64 for frame, int64 for person, float64 for timestamp and box, float32 for
        scores. What is not known is missing (`isna`).

        Args:
            classes: with the probability of every class of the labels with three or more, as in "age.adult". Which
                there are is known from the persons: nobody has none.

        Raises:
            MissingDependency: pandas is absent; pip install "graftsdk[results]".
        """
        return tables.to_pandas(self, classes)

    def to_supervision(self, masks: bool = True) -> supervision.Detections:
        """`supervision.Detections` of the persons, for its annotators, trackers, zones and sinks.

        xyxy float32[N, 4]; mask bool[N, H, W], or None where a person has none; confidence float32[N], or None where
        a person has none; class_id 0. `data`: "class_name" ("person"), and of each label an array of what was decided
        and one of scores, named as the columns of `to_rows` ("gender", "gender.score"); "" and NaN where a person
        lacks the label. tracker_id of a stream with tracks, -1 where there is none. To write attributes beside persons:
        `LabelAnnotator(color_lookup=ColorLookup.INDEX, smart_position=True, max_line_length=24)
        .annotate(image, found, labels=[str(person) for person in prediction])`.

        Args:
            masks: with masks, which take N * H * W bytes.

        Raises:
            MissingDependency: supervision is absent; pip install "graftsdk[results]".
        """
        return tables.to_supervision(self, masks)

    def plot(
        self,
        *,
        labels: Sequence[str] | None = None,
        masks: bool = True,
        boxes: bool = True,
        tags: bool = True,
        font_size: int | None = None,
        side: int | None = None,
    ) -> npt.NDArray[np.uint8]:
        """A copy of the image with its persons drawn on it, uint8[h, w, 3], BGR.

        Args:
            labels: tell these only; None tells all. An absent yes/no label is not told.
            masks: draw them, translucent and with an outline.
            boxes: draw them.
            tags: write number, score and what is decided. Tags that find no free place become shorter; in a crowd
                those that would hide others are left out.
            font_size: in pixels; None fits it to the picture and the number of persons.
            side: pixels of the longer side of the picture, on which lines and letters are drawn as large as ever; a
                small image gets room for its tags so. None leaves the image's size.

        Raises:
            InputError: a label that the prediction has not; a font size or side that is no whole number from 1 to 1000
                or 16384.
        """
        from graftsdk.drawing.draw import Look, draw

        return draw(self, Look(labels, masks, boxes, tags, font_size, side))

    def save(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write `plot(**options)` to a picture file, whole or not at all; the suffix says which kind.

        Raises:
            InputError: as `plot`; a suffix other than .jpg, .jpeg, .png, .webp, .bmp, or a picture that the kind
                cannot hold.
            PlanPathError: a path that must not be written.
        """
        target = check_suffix(path)  # before anything is drawn
        write_picture(target, self.plot(**options))

    def _repr_html_(self) -> str:
        """What a notebook shows by itself: a picture of bounded size and a table of the persons."""
        from graftsdk.drawing.notebook import html

        return html(self)

    def __repr__(self) -> str:
        height, width = self.size
        count = len(self.persons)
        name = one_line(Path(self.source).name if self.source else "image")
        name += "" if self.frame is None else f" frame {self.frame}"
        text = f"{name} {width}x{height}: {counted(count, 'person')}"
        told = [repr(person) for person in self.persons[:_SUMMARY_PERSONS]]
        if count > _SUMMARY_PERSONS:
            told.append(f"and {count - _SUMMARY_PERSONS} more")
        return "; ".join((text, *told))


def _run_lengths(window: npt.NDArray[np.bool_], y0: int, x0: int, frame: tuple[int, ...]) -> dict[str, Any]:
    """COCO's uncompressed RLE: lengths of runs down the columns, of zeros and ones in turn, zeros first.

    Args:
        window: the mask from row y0 and column x0 on; it covers nothing else of the frame. frame: (height, width).
    """
    rows, columns = window.shape
    height, width = frame
    step = rows + (rows < height)  # a zero below each column parts it from the next one, unless the columns are whole
    flat = np.zeros(columns * step + 2, np.bool_)  # zeros at both ends: the first run may be empty
    flat[1:-1].reshape(columns, step)[:, :rows] = window.T
    across, down = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), step)
    turns = (x0 + across) * height + y0 + down
    counts = np.diff(np.concatenate(([0], turns[turns < height * width], [height * width])))
    return {"size": [int(side) for side in frame], "counts": counts.tolist()}
