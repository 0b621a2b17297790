"""What a command line says of labels: which ones, and from which probability on each is reported."""

from __future__ import annotations

from collections.abc import Sequence

from graftsdk.errors import InputError
from graftsdk.plan import open_plan

__all__ = ["chosen_labels", "chosen_thresholds"]


def chosen_labels(words: Sequence[str] | None, plan: str) -> list[str] | None:
    """The labels that the words after `--labels` mean, `child gender` and `child,gender` alike; None for all.

    A label of the plan that holds a comma itself is taken as it is. Whether the others exist is not asked here.

    Raises:
        PlanError: the plan cannot be opened.
    """
    if words is None or not any("," in word for word in words):
        return None if words is None else list(words)
    with open_plan(plan) as opened:
        known = opened.labels
    found: list[str] = []
    for word in words:
        parts = [word] if word in known else [part.strip() for part in word.split(",")]
        found += [part for part in parts if part]  # none after the last comma, as in `child, gender`
    return found


def chosen_thresholds(texts: Sequence[str], plan: str) -> dict[str, float | dict[str, float]]:
    """`LABEL=X` and `LABEL.CLASS=X`; a label's own name may hold dots and equals signs.

    Raises:
        InputError: something else. PlanError: the plan cannot be opened.
    """
    if not texts:
        return {}
    with open_plan(plan) as opened:
        labels = opened.labels
    found: dict[str, float | dict[str, float]] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"--threshold: expected LABEL=X or LABEL.CLASS=X with a number X, found {text!r}")
        owners = [label for label in labels if name == label or name.startswith(f"{label}.")]
        if not owners:
            raise InputError(f"--threshold {text}: expected a label of {', '.join(labels)}, found {name!r}")
        owner = max(owners, key=len)
        if name == owner:
            if owner in found:
                raise InputError(f"--threshold {text}: {owner!r} has a threshold already; name it or its classes once")
            found[owner] = number
            continue
        classes = found.setdefault(owner, {})
        if not isinstance(classes, dict) or name[len(owner) + 1 :] in classes:
            raise InputError(f"--threshold {text}: {owner!r} has a threshold already; name it or its classes once")
        classes[name[len(owner) + 1 :]] = number
    return found
