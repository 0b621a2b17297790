"""Answers of a trained branch on the views that another one learns from (Hinton et al. 2015)."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graftsdk.errors import FingerprintMismatch, InputError
from graftsdk.models import Branch, Trunk
from graftsdk.training.branch.features import Features
from graftsdk.training.branch.fitting import branch_logits

__all__ = ["answers", "load_teacher"]


def load_teacher(path: str | os.PathLike[str], trunk: Trunk, label: str, classes: Sequence[str]) -> Branch:
    """The branch in a checkpoint, if its answers can teach a branch of this trunk, label and classes.

    Raises:
        FingerprintMismatch: it was trained on another trunk.
        InputError: another label, other classes or another order of them.
        PlanError: the file cannot be trusted.
    """
    teacher = Branch.load(path)
    if (teacher.label, teacher.classes) != (label, tuple(classes)):
        raise InputError(
            f"{path}: expected a branch of {label!r} with the classes {list(classes)}, found one of {teacher.label!r} "
            f"with {list(teacher.classes)}"
        )
    tap = teacher.tap
    if tap > len(trunk.blocks) or teacher.trunk_fingerprint != trunk.fingerprint(tap):
        raise FingerprintMismatch(
            f"{path}: expected a branch that was trained on this trunk, found one of the trunk "
            f"{teacher.trunk_fingerprint[:16]} at tap {tap}; train it anew on this one first"
        )
    return teacher


def answers(
    teacher: Branch, features: Features, shift: npt.NDArray[np.float64], stop: threading.Event | None = None
) -> npt.NDArray[np.float32]:
    """float32[views, N, C]: calibrated logits of the teacher for every view.

    Args:
        teacher: its logits are those of the data's own shares of the classes.
        features: at the teacher's tap.
        shift: float64[C], `share_shift` of the draws, taken back: the learner sees classes as often as they are drawn.
        stop: set to interrupt.
    """
    views = [branch_logits(teacher, features, stop, view) for view in range(features.views)]
    return (np.stack(views) / teacher.temperature - shift).astype(np.float32)
