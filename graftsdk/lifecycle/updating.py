"""What is due in a registry is done, in order: the trunk where that is asked for, branches, then the plan.

A kill at any moment leaves the plan as it was and whole checkpoints, and the next update goes on from those: a trunk
is trained under a name of its own, a branch as `tried`, and both take their places by rename. A branch on a new trunk
does so unless the label's AUC fell too far; then its old one stays, in the plan too, where the old trunk lives on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from graftsdk.errors import GraftError, InputError
from graftsdk.files import atomic_write, check_target
from graftsdk.lifecycle.changes import PlanChange
from graftsdk.lifecycle.plan_update import update_plan
from graftsdk.lifecycle.registry import Registry
from graftsdk.lifecycle.standing import (
    Standing,
    branch_document,
    keeps,
    plan_manifest,
    stand,
    trunk_document,
    validation_auc,
)
from graftsdk.plan import CropSpec
from graftsdk.text import listed
from graftsdk.training.labels import check_leaks, open_label

__all__ = ["Outcome", "Step", "Tools", "UpdateReport", "due_steps", "update"]

_logger = logging.getLogger("graftsdk")


@dataclass(frozen=True)
class Tools:
    """What does the work, see the functions of these names in graftsdk.training and graftsdk.export."""

    train_trunk: Callable[..., Any]
    train_branch: Callable[..., Any]
    export_parts: Callable[..., Any]
    export_plan: Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """Something that is due: "trunk"; "branch", to train one; "take", one that is trained; "plan". why: in words."""

    what: str
    label: str
    why: str


@dataclass(frozen=True)
class Outcome:
    """What became of a label's branch: "taken", "kept" (the old one, on its former trunk) or "failed".

    before, after: AUC on validation of the old and of the new branch. note: of a failure, why.
    """

    label: str
    result: str
    before: float | None
    after: float | None
    note: str = ""


@dataclass(frozen=True)
class UpdateReport:
    """What an update did. trunk: a new one was trained. change: of the plan, None where it did not change."""

    trunk: bool
    labels: tuple[Outcome, ...]
    change: PlanChange | None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        change = None if self.change is None else self.change.to_dict()
        return {"trunk": self.trunk, "labels": [asdict(one) for one in self.labels], "plan": change}


def due_steps(standing: Standing, only: Sequence[str] = (), trunk: bool = False) -> tuple[Step, ...]:
    """What an update would do.

    Args:
        standing: of the registry.
        only: labels whose branches are trained and put into the plan; none: all.
        trunk: train a new one too, where anything is new since it was trained.

    Raises:
        InputError: a label that the registry does not have or whose data cannot be used; no trunk and none wanted.
    """
    known = [one.label for one in standing.labels]
    if unknown := set(only).difference(known):
        raise InputError(f"expected labels of the registry, {listed(known)}, found {listed(sorted(unknown))}")
    chosen = [one for one in standing.labels if one.label in only or not only]
    for one in standing.labels if trunk else chosen:
        if one.problem:
            raise InputError(f"label {one.label!r}: {one.problem}")
    state, steps = standing.trunk, []
    if state.fingerprint is None and not trunk:
        raise InputError("expected a trunk, found none; train it with --trunk, or put its checkpoint there")
    anew = trunk and (state.due or bool(state.new))
    if anew:
        why = f"other {', '.join(state.differing)}" if state.differing else f"new to it: {', '.join(state.new)}"
        steps.append(Step("trunk", "", "there is none" if state.fingerprint is None else why))
    due = [one for one in chosen if anew or one.state in ("untrained", "stale")]
    for one in due:
        what = "branch" if anew or one.tried is None else "take"
        steps.append(Step(what, one.label, "new trunk" if anew else ", ".join(one.stale) or one.state))
    return (*steps, *(Step("plan", one.label, "") for one in chosen if one in due or one.plan != "yes"))


def update(
    registry: Registry,
    *,
    only: Sequence[str] = (),
    trunk: bool = False,
    tools: Tools | None = None,
    progress: bool = True,
) -> UpdateReport:
    """Do what is due. A label whose training fails keeps what it has, and the others go on.

    What such a training saved, as one does whose loss became infinite, is taken by the next update.

    Args:
        registry: as it was read.
        only, trunk: see `due_steps`.
        tools: None: those of graftsdk.
        progress: show bars.

    Raises:
        InputError: see `due_steps`; or a plan whose crops are others than the trunk's.
        FingerprintMismatch: a branch that the plan lacks was trained on a trunk that is nowhere.
        GraftError, KeyboardInterrupt, OSError: of the trunk's training and of export; of a branch's the last two.
    """
    tools = _tools() if tools is None else tools
    standing = stand(registry)
    steps = due_steps(standing, only, trunk)
    anew = any(step.what == "trunk" for step in steps)
    for path in (registry.plan, registry.trunk):
        check_target(path)
    _check_crop(registry, anew)
    # What one label trains on, no other is judged by: the trunk has seen it.
    check_leaks(*(open_label(registry.root, one.label) for one in standing.labels if not one.problem))
    if anew:
        _train_trunk(registry, tools, progress)
        standing = stand(registry)
        steps = due_steps(standing, only)
    brought = [_bring(registry, step, tools, progress) for step in steps if step.what in ("branch", "take")]
    labels = only or tuple(registry.labels)
    kept = [one for one in standing.labels if one.state == "kept" and one.label in labels]  # by a former update
    outcomes = (*brought, *(Outcome(one.label, "kept", one.auc, one.tried) for one in kept))
    change = update_plan(registry, labels, tools.export_parts, tools.export_plan)
    return UpdateReport(anew, outcomes, change)


def _tools() -> Tools:
    from graftsdk.export import export_parts, export_plan
    from graftsdk.training.branch.train import train_branch
    from graftsdk.training.trunk.train import train_trunk

    return Tools(train_trunk, train_branch, export_parts, export_plan)


def _network(registry: Registry) -> dict[str, Any]:
    """The trunk that training begins with, as fields of TrunkNetwork. What is not said stays as it is."""
    source = registry.start or registry.trunk
    network: dict[str, Any] = {"crop": None}
    if source.exists() or registry.start is not None:
        now = trunk_document(source)
        network = {"arch": now.arch, "width": now.width, "crop": now.crop}
    said = dict(registry.network)
    size = tuple(said.pop("size", ()))
    if size and (network["crop"] is None or size != network["crop"].size):
        network["crop"] = CropSpec(size) if network["crop"] is None else replace(network["crop"], size=size)
    return {**network, **said}


def _check_crop(registry: Registry, anew: bool) -> None:
    crop = _network(registry)["crop"] if anew else trunk_document(registry.trunk).crop
    manifest = plan_manifest(registry.plan)
    if manifest is not None and crop is not None and manifest.crop != crop:
        raise InputError(
            f"{registry.path}: expected a plan whose crops are the trunk's, found {manifest.crop} in "
            f"{registry.plan.name} and {crop}; one plan has one crop, so name a new plan"
        )


def _train_trunk(registry: Registry, tools: Tools, progress: bool) -> None:
    """A new trunk in the place of the old one, which goes to the former ones."""
    from graftsdk.training.curve import curve_path
    from graftsdk.training.training_state import state_path
    from graftsdk.training.trunk.options import SGD, TrunkNetwork, TrunkOptions

    try:
        options = TrunkOptions(**{**(SGD if registry.training.get("optimizer") == "sgd" else {}), **registry.training})
    except InputError as error:
        raise InputError(f"{registry.path}: trunk: {error}") from error
    start = registry.start or TrunkNetwork(**_network(registry))
    registry.trunks.mkdir(parents=True, exist_ok=True)
    # The name says what it learns from and how: only the same training is resumed.
    digests = [(label, open_label(registry.root, label).digest) for label in registry.labels]
    begun = None if registry.start is None else trunk_document(registry.start).fingerprints[-1]
    name = f"next-{hashlib.sha256(repr((start, begun, options.lasting(), digests)).encode()).hexdigest()[:16]}"
    for path in registry.trunks.glob("next-*"):
        if not path.name.startswith(name):
            path.unlink()
    target = registry.trunks / f"{name}.safetensors"
    tools.train_trunk(
        registry.root,
        tuple(registry.labels),
        target,
        options,
        trunk=start,
        cache=registry.cache,
        resume=state_path(target).exists(),
        progress=progress,
    )
    if registry.trunk.exists():
        former = registry.trunks / f"{trunk_document(registry.trunk).fingerprints[-1][:16]}.safetensors"
        with open(registry.trunk, "rb") as source, atomic_write(former) as copy:
            shutil.copyfileobj(source, copy)
    os.replace(target, registry.trunk)
    if curve_path(target).exists():
        os.replace(curve_path(target), curve_path(registry.trunk))
    state_path(target).unlink(missing_ok=True)


def _bring(registry: Registry, step: Step, tools: Tools, progress: bool) -> Outcome:
    """A label's new branch, trained or found trained, in the place of the old one or not."""
    label, entry = step.label, registry.labels[step.label]
    path, tried = registry.branch(label), registry.tried(label)
    old = branch_document(path, label)
    before = None if old is None else validation_auc(old)
    if step.what == "branch":
        tried.parent.mkdir(parents=True, exist_ok=True)
        _logger.info("%s: a branch is trained (%s)", label, step.why)
        try:
            tools.train_branch(
                registry.root, label, registry.trunk, tried, entry.options, cache=registry.cache, progress=progress
            )
        except GraftError as error:
            return Outcome(label, "failed", before, None, str(error))
    new = branch_document(tried, label)
    assert new is not None
    if old is not None and keeps(old, new, trunk_document(registry.trunk), entry.tolerance):
        return Outcome(label, "kept", before, validation_auc(new))
    os.replace(tried, path)
    return Outcome(label, "taken", before, validation_auc(new))
