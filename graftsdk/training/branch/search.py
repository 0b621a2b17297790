"""Which branches to try for a label, cheapest first, and which of them to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graftsdk.errors import InputError
from graftsdk.models import Branch, Trunk, branch_cost
from graftsdk.training.branch.options import AUTO, BranchOptions

__all__ = ["Candidate", "Tried", "candidates", "chosen", "default_taps", "enough", "new_branch"]

BACK = (0, 1, 2, 3, 5, 7)  # blocks before B that the search taps at: of InceptionV3 11, 10, 9, 8, 6 and 4
WIDTHS = (0.25, 0.5, 1.0)
PATIENCE = 4  # dearer branches in a row that were not better: the AUC over the cost has become flat


@dataclass(frozen=True)
class Candidate:
    """A branch that could be trained. macs, parameters: of its own blocks, pooling and classifier, for one crop."""

    tap: int
    width: float
    macs: int
    parameters: int


@dataclass(frozen=True)
class Tried:
    """A branch that was trained.

    Attributes:
        candidate: what it is.
        auc: of its best epoch on the validation data.
        best_epoch, epochs: that one, and how many there were.
        seconds: of training.
    """

    candidate: Candidate
    auc: float
    best_epoch: int
    epochs: int
    seconds: float


def candidates(trunk: Trunk, label: str, classes: Sequence[str], options: BranchOptions) -> tuple[Candidate, ...]:
    """What the options ask for, by cost, the cheapest first: from the head alone at tap B to own blocks from early on.

    Raises:
        InputError: a tap that the trunk does not have, or none that could be tried.
    """
    last = trunk.check_tap(len(trunk.blocks) if options.until is None else options.until, "until")
    wanted = (options.search_taps or default_taps(last)) if options.tap == AUTO else (options.tap,)
    taps = sorted({trunk.check_tap(tap) for tap in wanted if tap <= last or options.tap != AUTO}, reverse=True)
    if not taps:
        raise InputError(f"search_taps: expected some from 0 to until = {last}, found {list(wanted)}")
    found = {}
    for tap in taps:
        for width in WIDTHS if options.width == AUTO else (options.width,):
            alike = (tap, 1.0 if tap == last else width)  # without own blocks there is no width
            if alike not in found:
                branch = new_branch(trunk, label, classes, *alike, options)
                found[alike] = Candidate(*alike, *branch_cost(branch))
    return tuple(sorted(found.values(), key=lambda one: (one.macs, one.parameters, -one.tap)))


def default_taps(last: int) -> tuple[int, ...]:
    """What "auto" tries where the last tap is `last`, from it downwards."""
    return tuple(dict.fromkeys(max(0, last - back) for back in BACK))


def new_branch(
    trunk: Trunk, label: str, classes: Sequence[str], tap: int, width: float, options: BranchOptions
) -> Branch:
    """The branch as training begins. Raises what `Branch.create` raises."""
    return Branch.create(
        trunk,
        label,
        classes,
        tap=tap,
        until=options.until,
        pooling=options.pooling,
        width=width,
        init=options.init,
        seed=options.seed,
    )


def enough(tried: Sequence[Tried], tolerance: float) -> bool:
    """Whether the last `PATIENCE` of them, each dearer than the one before, brought nothing beyond the tolerance."""
    before, late = tried[:-PATIENCE], tried[-PATIENCE:]
    return bool(before) and max(one.auc for one in late) <= max(one.auc for one in before) + tolerance


def chosen(tried: Sequence[Tried], tolerance: float) -> Tried:
    """The cheapest whose AUC lies within `tolerance` of the best; `tried` is by cost."""
    best = max(one.auc for one in tried)
    return next(one for one in tried if one.auc >= best - tolerance)
