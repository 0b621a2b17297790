"""Who is in a lift: answers about a person are smoothed over the snapshots in which that person is seen.

Who is who from one snapshot to the next is said by ByteTrack (`pip install trackers`): people in a lift stand, so that
boxes two seconds apart overlap. It is not told the time: speeds made of two snapshots would lead it astray. After a
long gap everybody is new. A number means nothing beyond the ride, and leaves the process nowhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from decide import Passenger
from schema import Timing
from supervision import Detections
from trackers import ByteTrackTracker

from graftsdk import Attribute
from graftsdk.tracking.votes import Vote

MEMORY = 0.8  # weight of an answer against the next one: a mean over five in effect; nobody changes in a lift


@dataclass(frozen=True)
class Seen:
    """A person of one snapshot: box float32[4], xyxy in pixels; the segmenter's score; label -> Attribute."""

    box: np.ndarray
    score: float
    attributes: Mapping[str, Attribute]


@dataclass
class _Track:
    at: float  # last seen, seconds
    votes: dict[str, Vote] = field(default_factory=dict)
    told: Passenger = field(default_factory=dict)

    def add(self, attributes: Mapping[str, Attribute], at: float) -> None:
        self.at = at
        for label, new in attributes.items():
            vote = self.votes.setdefault(label, Vote(MEMORY))
            vote.add(np.array([new.scores[name] for name in new.classes], np.float32))
            smoothed = dict(zip(new.classes, vote.mean.tolist(), strict=True))
            self.told[label] = Attribute(label, new.classes, smoothed, new.thresholds)


class Passengers:
    """Those of one lift.

    Attributes:
        count: how many there are: the most that a snapshot of the last `linger` seconds showed. Who walks across the
            lift between two snapshots is somebody new to ByteTrack, and among the passengers twice for a while.
    """

    count: int

    def __init__(self, timing: Timing) -> None:
        self._linger = timing.linger
        self.forget()

    def forget(self) -> None:
        self._tracks: dict[int, _Track] = {}
        self._counts: deque[tuple[float, int]] = deque()  # snapshots of the last `linger` seconds: when, how many
        self._at = 0.0
        self.count = 0
        self._tracker = ByteTrackTracker(
            lost_track_buffer=3,  # snapshots
            track_activation_threshold=0.0,  # the segmenter has left out whoever is unsure
            high_conf_det_threshold=0.0,
            minimum_consecutive_frames=1,
        )

    def update(self, people: Sequence[Seen], at: float) -> list[Passenger]:
        """The people of a snapshot come in, the passengers go out: also those who were seen a moment ago.

        A person has a number from the second snapshot on; the first answer counts as it is.
        """
        if at - self._at > self._linger or not (people or self._tracks):
            self.forget()
        self._at = at
        if not people and not self._tracks:
            return []  # most lifts, most of the time
        found = self._tracker.update(
            Detections(
                xyxy=np.array([person.box for person in people], np.float32).reshape(-1, 4),
                confidence=np.array([person.score for person in people], np.float32),
                data={"place": np.arange(len(people))},  # what comes back may be in another order
            )
        )
        new: list[Passenger] = []
        for place, number in zip(found.data.get("place", ()), found.tracker_id, strict=True):
            attributes = people[int(place)].attributes
            if number < 0:
                new.append(dict(attributes))
            else:
                self._tracks.setdefault(int(number), _Track(at)).add(attributes, at)
        self._tracks = {number: track for number, track in self._tracks.items() if at - track.at <= self._linger}
        passengers = [track.told for track in self._tracks.values()] + new
        self._counts.append((at, len(people)))
        while at - self._counts[0][0] > self._linger:
            self._counts.popleft()
        self.count = min(len(passengers), max(count for _, count in self._counts))
        return passengers
