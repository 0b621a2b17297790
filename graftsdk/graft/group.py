"""A group: the parts that share one graph, and what goes into and comes out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graftsdk.errors import InputError
from graftsdk.plan import Manifest
from graftsdk.plan.strict_json import dump_json

__all__ = ["CROPS", "FLOATS", "Group", "Joint", "joints_of", "merged_group", "scores_name", "scores_names", "tap_name"]

CROPS = "crops"
FLOATS = ("fp16", "bf16")  # forms that are a pass over the graph, not a part of their own


@dataclass(frozen=True, order=True)
class Joint:
    """Where a branch sits: `branch` (part name) reads tap `tap` of `trunk` (part name).

    `name` is what its values are named by: its part's name, with the tap's fingerprint behind it where equal parts
    sit on different taps of the plan.
    """

    trunk: str
    tap: int
    branch: str
    name: str


@dataclass(frozen=True)
class Group:
    """Parts that are grafted into one graph.

    Attributes:
        trunks: trunks inside the group, part names.
        joints: branches whose trunk is inside.
        taps: (trunk, k) that the group hands out. Only with its trunk inside.
        loose: branches whose trunk is in another group; each reads its tap as an input.
        forms: how parts inside are computed that are not in float32: (part, "fp16", "bf16" or the name of the INT8
            part that stands in for it). Inputs and outputs are float32 all the same.
    """

    trunks: tuple[str, ...] = ()
    joints: tuple[Joint, ...] = ()
    taps: tuple[tuple[str, int], ...] = ()
    loose: tuple[Joint, ...] = ()
    forms: tuple[tuple[str, str], ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part inside, trunks first."""
        return (*self.trunks, *(joint.branch for joint in (*self.joints, *self.loose)))

    @property
    def inputs(self) -> dict[str, str]:
        """The graph's inputs, and the value that each is fed with."""
        found = {CROPS: CROPS} if self.trunks else {}
        for joint in self.loose:
            found[f"{joint.name}/tap"] = tap_name(joint.trunk, joint.tap)
        return found

    @property
    def outputs(self) -> tuple[str, ...]:
        """The values that the graph gives: taps, then scores."""
        taps = (tap_name(trunk, k) for trunk, k in self.taps)
        return (*taps, *(scores_name(joint) for joint in (*self.joints, *self.loose)))

    def lowered(self, forms: Mapping[str, str]) -> Group:
        """This group with those of its parts that `forms` names computed so; see `Manifest.forms`."""
        return replace(self, forms=tuple((part, forms[part]) for part in sorted(set(self.parts)) if part in forms))

    @property
    def precision(self) -> str:
        """What its parts are lowered to: "fp16", "bf16" or "int8"; "float32" where none is."""
        kinds = {form if form in FLOATS else "int8" for _, form in self.forms}
        return "+".join(sorted(kinds)) or "float32"

    def key(self, manifest: Manifest) -> str:
        """SHA-256 over the digests of the parts and how they are joined: 64 hex digits; labels play no part in it."""

        def digest(name: str) -> str:
            return manifest.parts[name].digest

        content: dict[str, Any] = {
            "trunks": [digest(name) for name in self.trunks],
            "joints": [[digest(joint.trunk), joint.tap, digest(joint.branch), joint.name] for joint in self.joints],
            "taps": [[digest(trunk), k] for trunk, k in self.taps],
            "loose": [[digest(joint.branch), joint.name] for joint in self.loose],
        }
        if self.forms:
            content["forms"] = [
                [digest(part), form if form in FLOATS else digest(form)] for part, form in sorted(self.forms)
            ]
        return hashlib.sha256(dump_json(content).encode("utf-8")).hexdigest()


def tap_name(trunk: str, k: int) -> str:
    """The value's name of tap k of a trunk part."""
    return f"{trunk}/tap_{k}"


def scores_name(joint: Joint) -> str:
    """The value's name of a branch's probabilities."""
    return f"{joint.name}/scores"


def scores_names(manifest: Manifest, labels: Sequence[str] | None = None) -> dict[str, str]:
    """Label -> name of the value that holds its probabilities. Arguments and errors as `joints_of`."""
    return {label: scores_name(joint) for label, joint in joints_of(manifest, labels).items()}


def joints_of(manifest: Manifest, labels: Sequence[str] | None = None) -> dict[str, Joint]:
    """Where the branch of each label sits, in the order asked for (None: every label, in the plan's order).

    Two labels may share one part; it is then computed once.

    Raises:
        InputError: no label is asked for, one is asked for twice, or the plan has no such label.
    """
    if isinstance(labels, str):
        raise InputError(f"expected a list of labels, found the text {labels!r}; write [{labels!r}]")
    if labels is not None and not isinstance(labels, Iterable):
        raise InputError(f"expected a list of labels, found {type(labels).__name__}")
    wanted = manifest.labels if labels is None else tuple(labels)
    if not all(isinstance(label, str) for label in wanted):
        raise InputError(f"expected labels that are texts, found {list(wanted)!r:.200}")
    if not wanted:
        raise InputError("expected at least one label; " + ("the plan has none" if labels is None else "found none"))
    if len(set(wanted)) != len(wanted):
        raise InputError(f"expected each label once, found {list(wanted)}")
    for label in wanted:
        if manifest.find(label) is None:
            raise InputError(f"the plan has no label {label!r}; it has {', '.join(manifest.labels) or 'none'}")
    seats = [(tree.trunk, branch) for tree in manifest.trees for branch in tree.branches]
    taps: dict[str, set[str]] = {}
    for _, branch in seats:
        taps.setdefault(branch.part, set()).add(branch.document.trunk_fingerprint)
    homes: dict[tuple[str, str], Joint] = {}
    found: dict[str, Joint] = {}
    for trunk, branch in seats:
        part, fingerprint = branch.part, branch.document.trunk_fingerprint
        name = part if len(taps[part]) == 1 else f"{part}.{fingerprint[:16]}"
        # One fingerprint is one tap, whichever trunk it is computed by: the first home serves all. The first of the
        # plan, not of the labels that are asked for: in INT8 two trunks give one tap by ranges of their own.
        home = Joint(trunk, branch.document.tap, part, name)
        found[branch.label] = homes.setdefault((part, fingerprint), home)
    return {label: found[label] for label in wanted}


def merged_group(joints: Mapping[str, Joint]) -> Group:
    """One group of everything that these labels need."""
    ordered = tuple(sorted(set(joints.values())))
    return Group(trunks=tuple(sorted({joint.trunk for joint in ordered})), joints=ordered)
