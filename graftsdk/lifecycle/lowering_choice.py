"""What is asked of lowering a plan: arguments that can be used, and the labels whose branches are to be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from graftsdk.errors import InputError
from graftsdk.export.quantize import METHODS
from graftsdk.graft import joints_of
from graftsdk.plan import Plan
from graftsdk.plan.lowered import LOWER

__all__ = ["TOLERANCES", "checked_tolerance", "wanted_labels"]

# Of AUC. Rounding to fp16 or bf16 is a thousandth of a value or less, INT8 a hundredth.
TOLERANCES: Mapping[str, float] = {"int8": 0.005, "fp16": 0.001, "bf16": 0.001}


def checked_tolerance(
    precision: str, tolerance: float | None, method: str, labels: Sequence[str] | None, again: bool
) -> float:
    """The tolerance, of AUC. Raises InputError: an argument that cannot be used."""
    if precision not in LOWER:
        raise InputError(f"precision: expected one of {', '.join(LOWER)}, found {precision!r:.40}")
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, found {method!r:.40}")
    if again and labels is not None:
        raise InputError("again: expected all labels of the plan, found some; trunks are lowered anew and move all")
    allowed = TOLERANCES[precision] if tolerance is None else tolerance
    if isinstance(allowed, bool) or not isinstance(allowed, (int, float)) or not 0.0 <= allowed <= 1.0:
        raise InputError(f"tolerance: expected a number from 0 to 1, found {allowed!r:.40}")
    return float(allowed)


def wanted_labels(plan: Plan, precision: str, labels: Sequence[str] | None, again: bool) -> frozenset[str]:
    """The labels whose branches are to be lowered: with one of a part all of that part.

    Raises:
        InputError: the plan has no such label, or nothing is left to try.
    """
    entries = [entry for tree in plan.manifest.trees for entry in tree.branches]
    if labels is not None or again:
        named = set(joints_of(plan.manifest, labels))
        parts = {entry.part for entry in entries if entry.label in named}
    else:
        known = plan.manifest.lowered.get(precision, {})
        sharing = Counter(entry.part for entry in entries)  # a record does not say which of them it was made of
        parts = {name for name, count in sharing.items() if name not in known or count > 1}
    if not parts:
        raise InputError(
            f"labels: expected some that were not tried in {precision} yet, found none; name labels to try them again, "
            f"or begin anew with --again, which may move every label"
        )
    return frozenset(entry.label for entry in entries if entry.part in parts)
