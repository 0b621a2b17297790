"""All lifts: what waits to be looked at, what each of them shows, and who wants to hear of it.

Of each lift at most one snapshot waits: a newer one takes the older one's place, in the queue too. So the queue is as
long as there are lifts, never longer, and every lift has its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from decide import Passenger, Shown, decide
from passengers import Passengers, Seen
from recognise import Recogniser
from schema import Schema

from graftsdk.errors import GraftError, InputError, Overloaded

log = logging.getLogger("advertising")

AGES = 20_000  # of decisions, kept to tell of the last seconds


class Bell:
    """Wakes everybody who waits; who comes later waits for the next ring."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Until it rings, but not longer than that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)


@dataclass
class Lift:
    name: str
    passengers: Passengers
    shown: Shown
    bell: Bell = field(default_factory=Bell)  # rings when the advertisement changes
    version: int = 0  # of what the dashboard tells
    busy: bool = False  # a snapshot is being looked at
    snapshot_at: float | None = None  # when the newest one came
    known_at: float | None = None  # when the one came that is known about
    told: list[Passenger] = field(default_factory=list)
    problem: str | None = None
    screens: int = 0


@dataclass
class Totals:
    """Since the start."""

    received: int = 0
    answered: int = 0
    replaced: int = 0  # by a newer one while they waited
    unreadable: int = 0
    failed: int = 0  # by recognition's fault


class Fleet:
    """Raises Overloaded from `post`, `lift` and `room` where there is no room."""

    def __init__(
        self,
        schema: Schema,
        recogniser: Recogniser,
        *,
        most_lifts: int = 1000,
        in_flight: int = 8,
        most_bytes: int = 2**27,
    ) -> None:
        self.schema, self._recogniser = schema, recogniser
        self._most_lifts, self._in_flight, self._most_bytes = most_lifts, in_flight, most_bytes
        self.lifts: dict[str, Lift] = {}
        self.totals = Totals()
        self.bell = Bell()  # rings when anything changes
        self.closed = False
        self.streams = 0  # open ones: screens and dashboards
        self._waiting: dict[str, tuple[float, bytes]] = {}  # lift -> when it came, and the snapshot
        self._bytes = 0
        self._work = asyncio.Condition()
        self._ages: deque[tuple[float, float]] = deque(maxlen=AGES)  # when decided, how old the snapshot was
        self.version = 0  # goes up with each change of a tile
        self.removed = 0  # lifts

    # --------------------------------------------------------------------------------------------------- from outside

    def room(self, name: str) -> None:
        """Raises Overloaded where it is one lift too many."""
        if name not in self.lifts and len(self.lifts) >= self._most_lifts:
            raise Overloaded(f"expected at most {self._most_lifts} lifts, found another one; raise --most-lifts")

    def lift(self, name: str) -> Lift:
        self.room(name)
        found = self.lifts.get(name)
        if found is None:
            shown = decide(self.schema, None, (), time.monotonic(), datetime.now(self.schema.zone))
            found = self.lifts[name] = Lift(name, Passengers(self.schema.timing), shown)
            self._changed(found)
        return found

    async def post(self, name: str, jpeg: bytes) -> bool:
        """Whether it took the place of one that waited."""
        old = self._waiting.get(name)
        size = self._bytes + len(jpeg) - (len(old[1]) if old else 0)
        if size > self._most_bytes:
            raise Overloaded(f"expected at most {self._most_bytes} bytes of waiting snapshots, found more; try later")
        lift = self.lift(name)
        lift.snapshot_at = time.monotonic()
        self._bytes = size
        self._waiting[name] = (lift.snapshot_at, jpeg)  # a dict keeps the place of a key that it has
        self.totals.received += 1
        self.totals.replaced += old is not None
        self._changed(lift)
        async with self._work:
            self._work.notify()
        return old is not None

    def left(self, lift: Lift) -> None:
        """A screen went away. A lift that nobody sent a snapshot of was a name that somebody typed."""
        lift.screens -= 1
        if not lift.screens and lift.snapshot_at is None:
            del self.lifts[lift.name]
            self.removed += 1
            self.bell.ring()

    def close(self) -> None:
        """Ends what `bell` and the lifts' bells wake."""
        self.closed = True
        self.bell.ring()
        for lift in self.lifts.values():
            lift.bell.ring()

    # --------------------------------------------------------------------------------------------------------- inside

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            for _ in range(self._in_flight):
                group.create_task(self._look())

    async def _look(self) -> None:
        while True:
            async with self._work:
                await self._work.wait_for(lambda: self._next() is not None)
                name = self._next()
                at, jpeg = self._waiting.pop(name)
            self._bytes -= len(jpeg)
            lift = self.lifts[name]
            lift.busy = True
            people: Sequence[Seen] = ()
            try:
                people = await self._recogniser.people(jpeg, self.schema.labels)
            except InputError:
                self.totals.unreadable += 1
                self._trouble(lift, "unreadable snapshot")
            except Overloaded:  # the next one will do: nothing for the log
                self.totals.failed += 1
                lift.problem = "not looked at: too much to do"
                self._changed(lift)
            except GraftError as error:
                self.totals.failed += 1
                self._trouble(lift, str(error))
            except Exception:  # one snapshot must not end the service for all lifts
                log.exception("%s: a snapshot could not be looked at", name)
                self.totals.failed += 1
                self._trouble(lift, "internal error, see the log")
            else:
                lift.problem = None
                self._decide(lift, lift.passengers.update(people, at), at)
                self.totals.answered += 1
                self._ages.append((time.monotonic(), time.monotonic() - at))
            finally:
                lift.busy = False
                del jpeg, people  # nothing of it stays while this waits for work
            async with self._work:
                self._work.notify()  # a newer one of this lift may have waited for it

    def _next(self) -> str | None:
        """The lift that waits longest, of those that are not being looked at: answers of a lift come in order."""
        return next((name for name in self._waiting if not self.lifts[name].busy), None)

    def _decide(self, lift: Lift, passengers: list[Passenger], at: float) -> None:
        before = lift.shown
        lift.known_at, lift.told = at, passengers
        lift.shown = decide(self.schema, before, passengers, at, datetime.now(self.schema.zone), lift.passengers.count)
        if lift.shown.advertisement != before.advertisement:
            # What is logged, all of it: see docs/advertising.md.
            log.info("%s shows %s (%s)", lift.name, lift.shown.advertisement, lift.shown.rule or "default")
            lift.bell.ring()
        self._changed(lift)

    async def _watch(self) -> None:
        """Nothing is known any more of a lift whose camera is silent."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for lift in self.lifts.values():
                if lift.known_at is not None and now - lift.known_at > self.schema.timing.forget:
                    lift.passengers.forget()
                    at = lift.known_at
                    self._decide(lift, [], now)
                    lift.known_at = None if lift.shown.rule is None else at

    def _trouble(self, lift: Lift, problem: str) -> None:
        if lift.problem != problem:
            log.warning("%s: %s", lift.name, problem)
        lift.problem = problem
        self._changed(lift)

    def _changed(self, lift: Lift) -> None:
        self.version += 1
        lift.version = self.version
        self.bell.ring()

    # ------------------------------------------------------------------------------------------- what pages are told

    def changes(self, since: int) -> tuple[int, list[dict[str, Any]]]:
        """The version, and the tiles that changed after that one."""
        return self.version, [self._tile(lift) for lift in self.lifts.values() if lift.version > since]

    def _tile(self, lift: Lift) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "lift": lift.name,
            "advertisement": lift.shown.advertisement,
            "rule": lift.shown.rule,
            "count": lift.passengers.count,
            "people": [_told(passenger) for passenger in lift.told],
            "age": None if lift.snapshot_at is None else round(now - lift.snapshot_at, 2),
            "problem": lift.problem,
        }

    def summary(self, seconds: float = 10.0) -> dict[str, Any]:
        """Counts since the start; ages of the decisions of the last seconds."""
        now = time.monotonic()
        ages = sorted(age for at, age in self._ages if now - at <= seconds)
        return {
            **vars(self.totals),
            "lifts": len(self.lifts),
            "occupied": sum(bool(lift.told) for lift in self.lifts.values()),
            "waiting": len(self._waiting),
            "per_second": round(len(ages) / seconds, 2),
            "age_p50": _at(ages, 0.5),
            "age_p95": _at(ages, 0.95),
        }


def _told(passenger: Passenger) -> str:
    """What is worth telling, as in "child, hat"; of a person of whom nothing is, ""."""
    found = [each for attribute in passenger.values() if (each := attribute.finding()) is not None]
    return ", ".join(answer or label for label, answer in found if answer != "none")


def _at(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4) if ordered else None
