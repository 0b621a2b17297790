"""How often screens change over drawn rides, with and without smoothing and hysteresis. `python flicker.py [RIDES]`.

A change back is an advertisement that goes away for one snapshot and is there again: what a passenger sees as flicker.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from decide import decide
from passengers import Passengers
from recognise import InProcess
from rides import draw_ride
from schema import read_schema
from server import HERE, PLAN

FIRST = 100  # other rides than those that cameras.py shows
INTERVAL = 2.0  # seconds
NOON = datetime(2026, 3, 2, 12)


async def main(count: int) -> None:
    recogniser = InProcess(PLAN, in_flight=8)
    schema = read_schema(HERE / "schema.toml", recogniser.classes)
    timing = replace(schema.timing, hold=0.0, settle=0.0)
    hasty = replace(schema, timing=timing, rules=tuple(replace(rule, hold=0.0) for rule in schema.rules))
    changes, back, snapshots = {}, {}, 0
    for ride in range(FIRST, FIRST + count):
        seen = [await recogniser.people(jpeg, schema.labels) for jpeg in draw_ride(ride)]
        snapshots += len(seen)
        passengers = Passengers(schema.timing)
        raw = [([dict(person.attributes) for person in people], len(people)) for people in seen]
        smoothed = [(passengers.update(people, INTERVAL * at), passengers.count) for at, people in enumerate(seen)]
        for name, told, rules in (
            ("the newest answer", raw, hasty),
            ("smoothed", smoothed, hasty),
            ("hysteresis", raw, schema),
            ("smoothed, hysteresis", smoothed, schema),
        ):
            shown, line = None, []
            for at, (people, number) in enumerate(told):
                shown = decide(rules, shown, people, INTERVAL * at, NOON, number)
                line.append(shown.advertisement)
            changes[name] = changes.get(name, 0) + sum(a != b for a, b in pairwise(line))
            triples = zip(line, line[1:], line[2:], strict=False)
            back[name] = back.get(name, 0) + sum(a == c != b for a, b, c in triples)
    await recogniser.close()
    print(f"{count} rides, {snapshots} snapshots")
    for name in changes:
        print(f"{name:22} {changes[name]:4} changes, {back[name]:3} of them back")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
