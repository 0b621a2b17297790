"""Which negatives stay: the clusters near the positives whole, of the others a random share (paper 3.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError

__all__ = ["Decision", "Selection", "select"]

# Standard deviations of the floor. Clusters drawn from the positives themselves lay within 1 of it, 24 of 24 in a
# simulation (40 to 300 images, 40 a side); without a tolerance a third of them was missed.
TOLERANCE = 1.0


class Decision(Enum):
    """What becomes of a cluster."""

    KEPT = "kept"
    THINNED = "thinned"
    REVIEW = "review"


@dataclass(frozen=True, eq=False)
class Selection:
    """Indices of negatives, each list in ascending order; together they are all of them.

    Attributes:
        kept: trained on.
        dropped: not trained on.
        review: not trained on before a person has looked: as near to the positives as these are to one another.
        decisions: one for each cluster.
        counts: int64[K]: how many of each cluster are kept.
    """

    kept: npt.NDArray[np.int64]
    dropped: npt.NDArray[np.int64]
    review: npt.NDArray[np.int64]
    decisions: tuple[Decision, ...]
    counts: npt.NDArray[np.int64]


def select(
    labels: npt.NDArray[np.int64],
    emd: npt.ArrayLike,
    floor: float = 0.0,
    floor_spread: float = 0.0,
    *,
    keep: float = 0.4,
    rest: float = 0.1,
    seed: int = 0,
) -> Selection:
    """The nearest clusters whole until a share of the negatives is kept, and a random share of every other.

    Easy negatives stay, too, some of every cluster: without any of them false positives rise in the field. Clusters
    within one standard deviation of the floor, or below it, are probably positives with the wrong label: for review.

    Args:
        labels: int64[N], 0..K-1: each negative's cluster.
        emd: float[K], distances to the positives.
        floor, floor_spread: `Distances.floor` and `Distances.floor_spread`.
        keep: share of the negatives (without those for review) that whole clusters fill; the last one passes it.
        rest: share of each other cluster, one image at least; 0: none.
        seed: of the random share.

    Raises:
        InputError: shares outside 0 to 1, NaN distances, or nothing left to keep.
    """
    for name, share in (("keep", keep), ("rest", rest)):
        if not 0.0 <= share <= 1.0:
            raise InputError(f"{name}: expected a share from 0 to 1, found {share!r:.80}")
    distances = np.asarray(emd, np.float64)
    if not np.isfinite(distances).all():
        raise InputError("EMD: expected finite distances, found NaN or infinite ones")
    sizes = np.bincount(labels, minlength=len(distances))
    suspect = distances <= floor + TOLERANCE * floor_spread
    wanted, taken = keep * float(sizes[~suspect].sum()), 0
    decisions = [Decision.REVIEW] * len(distances)
    chosen: list[npt.NDArray[np.int64]] = []
    counts = np.zeros(len(distances), np.int64)
    for cluster in np.argsort(distances, kind="stable"):
        if suspect[cluster]:
            continue
        members = np.flatnonzero(labels == cluster)
        if taken < wanted:
            decisions[cluster] = Decision.KEPT
            taken += len(members)
        else:
            decisions[cluster] = Decision.THINNED
            rng = np.random.default_rng([seed, 4, int(cluster)])
            members = rng.choice(members, math.ceil(rest * len(members)), replace=False)
        chosen.append(members)
        counts[cluster] = len(members)
    kept = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    if len(kept) == 0:
        found = "all of them as near as the positives are to one another" if suspect.all() else f"{keep=}, {rest=}"
        raise InputError(f"expected negatives to keep, found {found}; another trunk or other shares would leave some")
    of_review = suspect[labels]
    dropped = ~of_review
    dropped[kept] = False
    return Selection(kept, np.flatnonzero(dropped), np.flatnonzero(of_review), tuple(decisions), counts)
