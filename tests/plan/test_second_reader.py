"""Two readers of one format, written apart: of every damaged file both say the same."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from plan import forge, second_reader

from graftsdk.errors import PlanError
from graftsdk.plan import load_plan
from graftsdk.plan.manifest import Manifest


def ours(data: bytes) -> bool:
    try:
        load_plan(data).close()
    except PlanError:
        return False
    return True


def theirs(data: bytes) -> bool:
    try:
        second_reader.read(data)
    except second_reader.Refused:
        return False
    return True


def test_both_read_the_same(tmp_path: Path) -> None:
    data = forge.good(tmp_path)
    with load_plan(data) as plan:
        assert Manifest.from_json(forge.dump(second_reader.read(data))) == plan.manifest


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage of one of nine kinds: raw, or with the header's digest repaired; one of them is none."""
    header, manifest, body = forge.split(data)
    names = [name for name in header if name != "__metadata__"]
    one, two = rng.sample(names, 2)
    kind = rng.randrange(9)
    if kind == 0:
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[: rng.randrange(len(data))]
    if kind == 2:
        return data + rng.randbytes(rng.randrange(1, 9))
    if kind == 3:
        return struct.pack("<Q", rng.choice([0, 1, 7, 2**24 + 1, 2**63, len(data)])) + data[8:]
    if kind == 4:
        header[one]["data_offsets"][rng.randrange(2)] += rng.choice([-8, -4, 4, 8])
    elif kind == 5:
        header[one], header[two] = header[two], header[one]
    elif kind == 6:
        manifest["tensors"][one] = rng.randbytes(32).hex()
    elif kind == 7:
        at = rng.randrange(len(body))
        body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    else:
        header = {name: header[name] for name in ["__metadata__", *rng.sample(names, len(names))]}  # nothing is wrong
    return forge.join(header, manifest, body)


def test_300_mutations_are_judged_alike(tmp_path: Path) -> None:
    data = forge.good(tmp_path)
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    verdicts = []
    for index in range(300):
        damaged = mutate(data, rng)
        verdicts.append(ours(damaged))
        assert verdicts[-1] == theirs(damaged), f"seed {seed}, mutation {index}"
    assert any(verdicts)  # the harmless ones
    assert not all(verdicts)


@pytest.mark.parametrize("reader", [ours, theirs])
def test_a_good_plan_is_accepted(tmp_path: Path, reader) -> None:  # type: ignore[no-untyped-def]
    assert reader(forge.good(tmp_path))
