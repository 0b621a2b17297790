"""The queue of snapshots: short, fair, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from lifts import Fleet
from passengers import Seen
from schema import Classes, Schema, read_schema

from graftsdk.errors import DecodeError, Overloaded

EXAMPLE = Path(__file__).parents[2] / "examples" / "advertising"


@pytest.fixture(scope="module")
def schema(classes: Classes) -> Schema:
    return read_schema(EXAMPLE / "schema.toml", classes)


class Slow:
    """Notes what it is asked, and answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.go = asyncio.Semaphore(0)

    async def people(self, jpeg: bytes, labels: Sequence[str]) -> list[Seen]:
        self.asked.append(jpeg)
        await self.go.acquire()
        if jpeg == b"bad":
            raise DecodeError("no picture")
        if jpeg == b"bug":
            raise ZeroDivisionError
        if jpeg == b"more":
            raise Overloaded("too much")
        return []


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def finished(slow: Slow, running: asyncio.Task[None], answers: int) -> None:
    for _ in range(answers):
        slow.go.release()
        await settled()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_newer_snapshots_take_the_place_of_older_ones(schema: Schema) -> None:
    async def scene() -> None:
        slow = Slow()
        fleet = Fleet(schema, slow, in_flight=1)
        running = asyncio.create_task(fleet.run())
        replaced = []
        await fleet.post("a", b"a1")
        await settled()  # it is being looked at
        for name, jpeg in (("b", b"b1"), ("a", b"a2"), ("c", b"c1"), ("b", b"b2"), ("b", b"b3"), ("a", b"a3")):
            replaced.append(await fleet.post(name, jpeg))
        assert replaced == [False, False, False, True, True, True]
        assert fleet.summary()["waiting"] == 3
        await finished(slow, running, 4)
        assert slow.asked == [b"a1", b"b3", b"a3", b"c1"]  # the place in the queue is that of the first
        assert (fleet.totals.received, fleet.totals.answered, fleet.totals.replaced) == (7, 4, 3)

    asyncio.run(scene())


def test_of_a_lift_one_snapshot_at_a_time(schema: Schema) -> None:
    async def scene() -> None:
        slow = Slow()
        fleet = Fleet(schema, slow, in_flight=3)
        running = asyncio.create_task(fleet.run())
        for jpeg in (b"a1", b"a2"):
            await fleet.post("a", jpeg)
            await settled()
        await fleet.post("b", b"b1")
        await settled()
        assert slow.asked == [b"a1", b"b1"]
        await finished(slow, running, 3)
        assert slow.asked == [b"a1", b"b1", b"a2"]

    asyncio.run(scene())


def test_bad_snapshots_end_nothing(schema: Schema, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        slow = Slow()
        fleet = Fleet(schema, slow, in_flight=1)
        running = asyncio.create_task(fleet.run())
        problems = []
        for jpeg in (b"bad", b"bug", b"more", b"good"):
            await fleet.post("a", jpeg)
            slow.go.release()
            await settled()
            problems.append(fleet.lifts["a"].problem)
        assert problems == [
            "unreadable snapshot", "internal error, see the log", "not looked at: too much to do", None
        ]  # fmt: skip
        assert (fleet.totals.unreadable, fleet.totals.failed, fleet.totals.answered) == (1, 2, 1)
        await finished(slow, running, 0)

    asyncio.run(scene())


def test_there_is_an_end_to_lifts_and_bytes(schema: Schema) -> None:
    async def scene() -> None:
        fleet = Fleet(schema, Slow(), most_lifts=2, most_bytes=100)
        await fleet.post("a", bytes(60))
        with pytest.raises(Overloaded, match="bytes of waiting"):
            await fleet.post("b", bytes(60))
        await fleet.post("a", bytes(90))  # takes the place of its own
        await fleet.post("b", bytes(10))
        with pytest.raises(Overloaded, match="at most 2 lifts"):
            await fleet.post("c", b"")
        with pytest.raises(Overloaded, match="at most 2 lifts"):
            fleet.lift("c")

    asyncio.run(scene())


def test_a_silent_camera_says_nothing_about_anybody(schema: Schema) -> None:
    timing = replace(schema.timing, forget=0.0, settle=0.0, hold=0.0)
    rules = tuple(replace(rule, hold=0.0) for rule in schema.rules)

    async def scene() -> None:
        fleet = Fleet(replace(schema, timing=timing, rules=rules), Slow())
        lift = fleet.lift("a")
        lift.shown, lift.told, lift.known_at = replace(lift.shown, advertisement="wine", rule="friends"), [{}, {}], 0.0
        running = asyncio.create_task(fleet.run())
        await asyncio.wait_for(lift.bell.wait(10), 10)
        assert lift.shown.advertisement == schema.default and lift.told == []
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(scene())
