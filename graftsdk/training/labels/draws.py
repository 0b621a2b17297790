"""Draws that depend on names, not on their number or order: what is added later moves nothing that was there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

__all__ = ["draw", "held_identities"]


def draw(seed: int, *names: str) -> float:
    """A number in [0, 1), always the same for a seed and names; others for all practical purposes independent."""
    key = "\0".join((str(seed), *names)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(key).digest()[:6]) / 2.0**48


def held_identities(classes: Mapping[int, Collection[str]], share: float, seed: int) -> set[str]:
    """The identities that validation takes from training: those whose draw is below `share`.

    A class that would have nobody on one side gives its identity with the smallest draw to validation, or keeps that
    with the greatest one. Nobody else is moved by that.

    Args:
        classes: class -> its identities, two at least; one identity may be of several classes.
        share: above 0, below 1.
        seed: of the draws.
    """
    draws = {name: draw(seed, name) for names in classes.values() for name in names}
    held = {name for name, value in draws.items() if value < share}
    for names in classes.values():
        order: Sequence[str] = sorted(names, key=draws.__getitem__)
        if held.isdisjoint(order):
            held.add(order[0])
        elif held.issuperset(order):
            held.discard(order[-1])
    return held
