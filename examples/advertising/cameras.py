"""Cameras of many lifts, simulated: `python cameras.py --lifts 5`, or with pictures of your own: `--source FOLDER`.

Each lift posts a snapshot every `--interval` seconds: of an empty lift, then of a ride, then of an empty lift again, so
long that a share of `--empty` of all lifts is empty on the average. Pictures of your own are posted one after another.
All lifts are one process that mostly waits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
from tqdm import tqdm

from graftsdk.errors import GraftError, InputError
from graftsdk.preprocess.frames import open_frames

MOST = 300  # snapshots of a source that are kept


@dataclass
class Counts:
    sent: int = 0
    refused: int = 0
    lost: int = 0  # nobody answered


def drawn_rides(count: int) -> list[list[bytes]]:
    from rides import draw_ride  # the only part that needs graftsdk's drawings

    return [draw_ride(index) for index in tqdm(range(count), "drawing rides", unit="ride", file=sys.stderr)]


def replayed(source: str, stride: int) -> list[bytes]:
    """JPEGs of a folder or an image, or every `stride`-th frame of a video."""
    pictures = []
    stride = 1 if Path(source).is_dir() else stride
    with contextlib.closing(open_frames(source, stride=stride, live=False)) as frames:
        for frame in frames:
            pictures.append(cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
            if len(pictures) == MOST:
                break
    if not pictures:
        raise InputError(f"--source: expected pictures that can be read, found none in {source}")
    return pictures


def snapshots(rides: Sequence[list[bytes]], empty: float, chance: random.Random) -> Iterator[bytes]:
    """A lift's, without end. A drawn ride begins with the empty lift, which is what is seen while nobody rides."""
    first = True
    while True:
        ride = chance.choice(rides)
        if empty < 1:
            pause = round(len(ride) * empty / (1 - empty) * chance.uniform(0.5, 1.5))
            journey = ride[:1] * pause + ride
        else:
            journey = ride[:1]
        if first:  # lifts are somewhere on their way when all this begins
            first = False
            journey = journey[chance.randrange(len(journey)) :]
        yield from journey


async def lift(
    client: httpx.AsyncClient,
    name: str,
    pictures: Iterator[bytes],
    interval: float,
    chance: random.Random,
    counts: Counts,
) -> None:
    """Posts until cancelled. What is late is left out, not made up for."""
    due = time.monotonic() + chance.random() * interval
    for picture in pictures:
        await asyncio.sleep(due - time.monotonic())
        due = max(due + interval, time.monotonic())
        counts.sent += 1
        try:
            answer = await client.post(
                f"/lifts/{name}/snapshot", content=picture, headers={"Content-Type": "image/jpeg"}
            )
            counts.refused += answer.status_code != 202
        except httpx.TransportError:
            counts.lost += 1


async def simulate(
    address: str, rides: Sequence[list[bytes]], lifts: int, interval: float, empty: float, seconds: float | None
) -> Counts:
    counts = Counts()
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
    async with httpx.AsyncClient(base_url=address, timeout=10.0, limits=limits, trust_env=False) as client:
        tasks = []
        for number in range(1, lifts + 1):
            chance = random.Random(number)
            pictures = snapshots(rides, empty, chance)
            tasks.append(asyncio.create_task(lift(client, f"lift-{number:03d}", pictures, interval, chance, counts)))
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    for each in ended:
        if not isinstance(each, (asyncio.CancelledError, type(None))):
            raise each
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", default="http://127.0.0.1:8010", metavar="URL")
    parser.add_argument("--lifts", type=int, default=5)
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between the snapshots of a lift")
    parser.add_argument(
        "--empty", type=float,
        help="share of the lifts that are empty, 0 to 1: 0.5 with drawn rides; with sources 0, or their first picture "
        "stands for the empty lift",
    )  # fmt: skip
    parser.add_argument(
        "--source", action="append", metavar="PATH", help="folder, image or video, instead of drawn rides"
    )
    parser.add_argument("--stride", type=int, default=1, help="take every N-th frame of a video")
    parser.add_argument("--rides", type=int, default=12, help="how many to draw")
    parser.add_argument("--seconds", type=float, help="how long; until Ctrl-C if left out")
    arguments = parser.parse_args()
    if arguments.empty is None:
        arguments.empty = 0.0 if arguments.source else 0.5
    if not (arguments.lifts >= 1 and arguments.interval > 0 and 0 <= arguments.empty <= 1 and arguments.rides >= 1):
        parser.error("expected --lifts and --rides from 1, --interval above 0, --empty from 0 to 1")
    try:
        if arguments.source:
            rides = [replayed(each, arguments.stride) for each in arguments.source]
        else:
            rides = drawn_rides(arguments.rides)
        print(
            f"{arguments.lifts} lifts post to {arguments.to} every {arguments.interval:g} s; Ctrl-C ends it", flush=True
        )
        with contextlib.suppress(KeyboardInterrupt):
            counts = asyncio.run(
                simulate(arguments.to, rides, arguments.lifts, arguments.interval, arguments.empty, arguments.seconds)
            )
            print(f"{counts.sent} snapshots, {counts.refused} refused, {counts.lost} lost")
    except GraftError as error:
        sys.exit(f"cameras.py: {error}")


if __name__ == "__main__":
    main()
