"""Predictions of a stream's frames that know what was said of the same persons before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.prediction import Person, Prediction
from graftsdk.tracking.events import Event, decided
from graftsdk.tracking.identities import Tracker, check_ids, open_tracker
from graftsdk.tracking.look import Look
from graftsdk.tracking.options import Tracking
from graftsdk.tracking.schedule import Sighting, check_every, due, sighting
from graftsdk.tracking.votes import Vote

__all__ = ["Tracked", "tracked"]

Rows = Mapping[str, npt.NDArray[np.float32]]


@dataclass
class _Track:
    """What is known of one person."""

    first_frame: int
    seen: int  # the newest frame
    last: dict[str, Sighting] = field(default_factory=dict)
    votes: dict[str, Vote] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)


def tracked(
    labels: tuple[str, ...],
    *,
    split: bool,
    track: Any,
    every: Mapping[str, int] | None = None,
    tracking: Tracking | None = None,
    on_event: Callable[[Event], object] | None = None,
) -> Tracked | None:
    """What predicts a frame of a stream with tracks; None where `track` is None. See `Predictor.stream`.

    Raises:
        InputError: an argument, or one that needs `track` without it. MissingDependency: the tracker is absent.
    """
    if track is None:
        for name, value in (("every", every), ("tracking", tracking), ("on_event", on_event)):
            if value is not None:
                raise InputError(f"{name}: expected track= beside it, found none; say who is who: track='supervision'")
        return None
    if tracking is not None and not isinstance(tracking, Tracking):
        raise InputError(f"tracking: expected graftsdk.tracking.Tracking, found {type(tracking).__name__}")
    if on_event is not None and not callable(on_event):
        raise InputError(f"on_event: expected a function of an event, found {type(on_event).__name__}")
    schedule = check_every(every, labels)
    return Tracked(split, open_tracker(track), schedule, tracking or Tracking(), on_event)


class Tracked:
    """Predicts the frames of one stream, one after another.

    Args:
        split: labels that are not due cost nothing; else whoever is computed is computed whole, and every vote gains.
        tracker: who is who. every: label -> frames from one time to the next.
        options: see `Tracking`. on_event: called with each event before its prediction is handed out.

    Attributes:
        events: those of the newest frame.
        misled: an error came from the caller's functions, not from a frame.
    """

    def __init__(
        self,
        split: bool,
        tracker: Tracker,
        every: Mapping[str, int],
        options: Tracking,
        on_event: Callable[[Event], object] | None,
    ) -> None:
        self._split = split
        self._tracker = tracker
        self._every = every
        self._options = options
        self._on_event = on_event
        self._tracks: dict[int, _Track] = {}
        self._plan: str | None = None
        self.events: tuple[Event, ...] = ()
        self.misled = False

    @property
    def remembered(self) -> int:
        """How many tracks are known."""
        return len(self._tracks)

    def predict(self, look: Look, frame: int) -> Prediction:
        """The prediction of the next frame. `frame`: its place in the source.

        Raises:
            As `Predictor.predict`; ShapeError, InputError: a tracker's numbers. What a tracker or `on_event` raises.
        """
        self.events = ()
        boxes = look.boxes
        now = [sighting(frame, box) for box in boxes]  # before a tracker may write into the boxes
        started = time.perf_counter()
        with self._callers():
            ids = check_ids(self._tracker(boxes, look.scores, look.image), len(now))
        look.spend("track", 1e3 * (time.perf_counter() - started))
        if look.plan != self._plan:  # scores of another plan are not to be mixed; what was told stays told
            self._plan = look.plan
            for track in self._tracks.values():
                track.last, track.votes = {}, {}
        known = [None if number is None else self._track(number, frame) for number in ids]
        asked = [
            look.labels if track is None else due(look.labels, self._every, track.told, track.last, seen, self._options)
            for track, seen in zip(known, now, strict=True)
        ]
        answers = self._compute(look, asked)
        prediction = look.prediction(self._vote(look.labels, known, now, answers))
        persons = tuple(person.on_track(number) for person, number in zip(prediction, ids, strict=True))
        self.events = tuple(self._told(persons, known, answers, frame))
        self._forget(frame)
        if self._on_event is not None:
            with self._callers():
                for event in self.events:
                    self._on_event(event)
        return replace(prediction, persons=persons, tracked=True)

    @contextmanager
    def _callers(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.misled = True
            raise

    def _track(self, number: int, frame: int) -> _Track:
        track = self._tracks.setdefault(number, _Track(frame, frame))
        track.seen = frame
        return track

    def _compute(self, look: Look, asked: Sequence[tuple[str, ...]]) -> list[dict[str, npt.NDArray[np.float32]]]:
        """Of each person, label -> the new answer, float32[C]. Persons of whom the same is asked share batches."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for person, labels in enumerate(asked):
            if labels:
                groups.setdefault(labels if self._split else look.labels, []).append(person)
        answers: list[dict[str, npt.NDArray[np.float32]]] = [{} for _ in asked]
        for labels, persons in groups.items():
            found = look.score(persons, labels)
            for row, person in enumerate(persons):
                answers[person] = {label: found[label][row] for label in labels}
        return answers

    def _vote(
        self,
        labels: Sequence[str],
        known: Sequence[_Track | None],
        now: Sequence[Sighting],
        answers: Sequence[Rows],
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Label -> what is shown, [N, C]."""
        shown: dict[str, list[npt.NDArray[Any]]] = {label: [] for label in labels}
        for track, seen, answer in zip(known, now, answers, strict=True):
            for label in labels:
                if track is None:
                    shown[label].append(answer[label])
                    continue
                vote = track.votes.setdefault(label, Vote(self._options.memory))
                if label in answer:
                    vote.add(answer[label])
                    track.last[label] = seen
                shown[label].append(vote.mean)
        return {label: np.array(rows, np.float64) for label, rows in shown.items()}

    def _told(
        self, persons: Sequence[Person], known: Sequence[_Track | None], answers: Sequence[Rows], frame: int
    ) -> list[Event]:
        events = []
        for person, track, answer in zip(persons, known, answers, strict=True):
            if track is None or person.track is None:
                continue
            for label in answer:
                attribute, count, before = person[label], track.votes[label].answers, track.told.get(label)
                name = decided(attribute, count, before, self._options)
                if name is not None:
                    track.told[label] = name
                    events.append(
                        Event(person.track, label, name, attribute.score, count, track.first_frame, frame, before)
                    )
        return events

    def _forget(self, frame: int) -> None:
        gone = [number for number, track in self._tracks.items() if frame - track.seen >= self._options.forget]
        for number in gone:
            del self._tracks[number]
