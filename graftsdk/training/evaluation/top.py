"""Table 3 of the paper: what is wrong among the images that a head finds most positive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.training.evaluation.checks import Bools, Floats, checked_binary
from graftsdk.training.evaluation.exact_tests import mcnemar

__all__ = ["TopRow", "in_top", "top_rows"]


@dataclass(frozen=True)
class TopRow:
    """A row of Table 3: how many of the images that a head finds most positive are not.

    Attributes:
        head: its name. top: images taken. false_positives: of them, those without the attribute.
        share: false_positives / top. precision: 1 - share.
        only_first, only_this: images that only the first head, or only this one, decided right. p: `mcnemar` of them;
            NaN of the first head.
    """

    head: str
    top: int
    false_positives: int
    only_first: int
    only_this: int
    p: float

    @property
    def share(self) -> float:
        """False positives among the chosen images."""
        return self.false_positives / self.top

    @property
    def precision(self) -> float:
        """Right ones among the chosen images."""
        return 1.0 - self.share


def top_rows(
    targets: npt.ArrayLike, scores: Mapping[str, npt.ArrayLike], top: int | None = None, seed: int = 0
) -> tuple[TopRow, ...]:
    """Table 3 of the paper: false positives among the same number of top images, for several heads.

    The paper took 3344 and 3307 images; here every head gives the same number, or the counts could not be compared.

    Args:
        targets: bool[N]. scores: head -> float[N] on the same images; the others are tested against the first.
        top: images to take; None: as many as are positive.
        seed: of the order among equal scores, the same order for every head.

    Raises:
        InputError: no head, arrays that do not fit, NaN, or `top` outside 1..N.
    """
    if not scores:
        raise InputError("scores: expected one or more heads, found none")
    rows: list[TopRow] = []
    first: Bools | None = None
    for head, values in scores.items():
        truth, found = checked_binary(targets, values)
        chosen = in_top(found, int(truth.sum()) if top is None else top, seed)
        right = chosen == truth
        first = right if first is None else first
        only_first, only_this = int((first & ~right).sum()), int((right & ~first).sum())
        p = mcnemar(only_first, only_this) if rows else math.nan
        rows.append(TopRow(head, int(chosen.sum()), int((chosen & ~truth).sum()), only_first, only_this, p))
    return tuple(rows)


def in_top(scores: Floats, top: int, seed: int = 0) -> Bools:
    """Whether each image is among the `top` highest scores, bool[N].

    Equal scores come in an order drawn by `seed`, never in that of the files, whose folders sort by class.

    Raises:
        InputError: `top` outside 1..N.
    """
    if not 1 <= top <= len(scores):
        raise InputError(f"top: expected 1 to {len(scores)} images, found {top}")
    drawn = np.random.default_rng(seed).permutation(len(scores))
    chosen = np.zeros(len(scores), np.bool_)
    chosen[drawn[np.argsort(-scores[drawn], kind="stable")[:top]]] = True
    return chosen
