"""Is a plan still what it was, and does what runs agree with what was exported?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Cache, Engine, open_engine
from graftsdk.engines.layout import graphs_of, partition
from graftsdk.errors import InputError, PlanCorrupt
from graftsdk.graft import Group, joints_of, merged_group, scores_names
from graftsdk.lifecycle.bisecting import Bisection, bisect_plan
from graftsdk.lifecycle.comparing import TOLERANCE, Comparison, ScoreTally
from graftsdk.lifecycle.references import Reference
from graftsdk.plan import CropSpec, Manifest, Plan, PlanSource, open_plan
from graftsdk.preprocess import decode_image, golden_crops, list_images, mask_crop

__all__ = ["PartCheck", "Samples", "Verification", "verify_plan"]

_AT_ONCE = 8  # crops compared at a time: all taps of them are held twice


@dataclass(frozen=True)
class PartCheck:
    """One part of the plan, hashed: its labels (none for parts that are kept for `revert`), and what is wrong."""

    part: str
    role: str
    labels: tuple[str, ...]
    nbytes: int
    problem: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "part": self.part,
            "role": self.role,
            "labels": list(self.labels),
            "bytes": self.nbytes,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Samples:
    """Images that were cut as whole persons: how many, and those that could not be read, with the reason."""

    read: int = 0
    unreadable: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Verification:
    """What `verify_plan` found.

    Attributes:
        path: the plan's file, or None. digest: the plan's. device, layout: what ran.
        parts: every part, hashed. cache: entries of the engine cache that were damaged (they are removed), with why.
        golden: each label's scores on the golden crops against those stored in the plan.
        reference: in words, what `scores` compares with. scores: each label, engine against reference, on golden and
            sample crops.
        bisection: where asked for. samples: the images.
    """

    path: str | None
    digest: str
    device: str
    layout: str
    parts: tuple[PartCheck, ...]
    cache: Mapping[str, str]
    golden: tuple[Comparison, ...]
    reference: str
    scores: tuple[Comparison, ...]
    bisection: Bisection | None
    samples: Samples

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each check that failed, worst first."""
        found = [f"{check.role} {check.problem}" for check in self.parts if check.problem]
        found += [f"label {each.name!r}: {each.difference:.1e} from its golden scores" for each in _bad(self.golden)]
        found += [f"label {each.name!r}: {each.difference:.1e} from the reference" for each in _bad(self.scores)]
        if self.bisection is not None:
            found += [f"{fault} is itself outside tolerance" for fault in self.bisection.faults]
        return (*found, *(f"engine cache entry {name[:16]}: {why}" for name, why in self.cache.items()))

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "ok": self.ok,
            "problems": list(self.problems),
            "path": self.path,
            "digest": self.digest,
            "device": self.device,
            "layout": self.layout,
            "tolerance": TOLERANCE,
            "parts": [check.to_dict() for check in self.parts],
            "cache_removed": dict(self.cache),
            "golden": [each.to_dict() for each in self.golden],
            "reference": self.reference,
            "scores": [each.to_dict() for each in self.scores],
            "bisection": None if self.bisection is None else self.bisection.to_dict(),
            "samples": {"read": self.samples.read, "unreadable": dict(self.samples.unreadable or {})},
        }


def verify_plan(
    source: PlanSource,
    *,
    samples: str | os.PathLike[str] | None = None,
    bisect: bool = False,
    against: Iterable[str | os.PathLike[str]] = (),
    layout: str = "merged",
    device: str = "auto",
    threads: int | None = None,
) -> Verification:
    """Hash every byte, recompute the golden scores, compare the engine that serves with a second way, in float32.

    Where a part's bytes are damaged nothing is run: the report names the part and its labels.

    Args:
        source: the plan.
        samples: a folder of images; each is one person, cut with the plan's crop specification.
        bisect: also compare every trunk block and branch alone, and name the first outside tolerance.
        against: checkpoints (torch) or exported parts that take the place of the plan's own in the reference.
        layout: as `Predictor`. device: of the engine; the reference runs on the CPU. threads: of the engine.

    Raises:
        PlanError: the plan's header cannot be trusted, or a file of `against`.
        InputError: an argument, or a folder without a readable image. EngineError: an engine cannot be opened.
    """
    with open_plan(source) as plan, ExitStack() as stack:
        parts = _hash_parts(plan)
        cache = {entry.name: entry.problem for entry in Cache().verify() if entry.problem is not None}
        crops, images = _sample_crops(samples, plan.manifest.crop)
        result = Verification(
            None if plan.path is None else str(plan.path),
            plan.digest, device, layout, parts, cache, (), "", (), None, images,
        )  # fmt: skip
        if any(check.problem for check in parts) or not plan.labels:
            return result
        joints = joints_of(plan.manifest)
        groups = partition(joints, layout)
        engine = stack.enter_context(open_engine(graphs_of(plan, groups), device=device, threads=threads))
        reference = stack.enter_context(Reference(plan, against))
        golden = golden_crops(plan.manifest.crop)
        pieces = list(_pieces(golden, crops))
        bisection = None
        if bisect:
            bisection = bisect_plan(plan.manifest, _exposed(plan, layout, device, threads, stack), reference, pieces)
        return replace(
            result,
            device=engine.device,
            golden=_against_stored(plan.manifest, engine, golden),
            reference=_describe(reference),
            scores=_against_reference(plan.manifest, engine, reference, pieces),
            bisection=bisection,
        )


def _hash_parts(plan: Plan) -> tuple[PartCheck, ...]:
    labels: dict[str, list[str]] = {name: [] for name in plan.manifest.parts}
    for tree in plan.manifest.trees:
        for entry in tree.branches:
            labels[entry.part].append(entry.label)
            labels[tree.trunk].append(entry.label)
    for records in plan.manifest.lowered.values():
        for name, record in records.items():
            if record.part:
                labels[record.part] += labels[name]
    found = []
    for name, info in plan.manifest.parts.items():
        problem = None
        try:
            plan.parts[name]
        except PlanCorrupt as error:
            problem = str(error)
        nbytes = sum(section.size for section in plan.sections(name).values())
        found.append(PartCheck(name, info.role, tuple(labels[name]), nbytes, problem))
    return tuple(found)


def _sample_crops(
    folder: str | os.PathLike[str] | None, spec: CropSpec
) -> tuple[list[npt.NDArray[np.float32]], Samples]:
    """Each image of the folder as one crop float32[1, 3, H, W]."""
    if folder is None:
        return [], Samples()
    crops, unreadable = [], {}
    for path in list_images(folder):
        try:
            image = decode_image(path)
        except InputError as error:
            unreadable[str(path)] = str(error)
            continue
        height, width = image.shape[:2]
        crops.append(mask_crop(image, np.array([[0, 0, width, height]], np.float32), spec=spec))
    if not crops:
        raise InputError(f"samples: expected a folder with readable images, found none in {Path(folder)}")
    return crops, Samples(len(crops), unreadable)


def _pieces(
    golden: npt.NDArray[np.float32], samples: Sequence[npt.NDArray[np.float32]]
) -> Iterator[npt.NDArray[np.float32]]:
    """All crops, a few at a time."""
    crops = [*np.split(golden, len(golden)), *samples]
    for start in range(0, len(crops), _AT_ONCE):
        yield np.concatenate(crops[start : start + _AT_ONCE])


def _exposed(plan: Plan, layout: str, device: str, threads: int | None, stack: ExitStack) -> Engine:
    """An engine of the same layout that also gives every tap up to the deepest."""
    joints = joints_of(plan.manifest)
    groups = partition(joints, layout)
    if layout == "split":
        return stack.enter_context(open_engine(graphs_of(plan, groups), device=device, threads=threads))
    merged = merged_group(joints)
    taps: list[tuple[str, int]] = []
    for trunk in merged.trunks:
        taps += [(trunk, k) for k in range(max(joint.tap for joint in merged.joints if joint.trunk == trunk) + 1)]
    group: Group = replace(merged, taps=tuple(taps))
    # Not into the cache: nothing but this check runs it.
    return stack.enter_context(open_engine(graphs_of(plan, (group,)), device=device, threads=threads, cache=False))


def _tallies(manifest: Manifest) -> dict[str, ScoreTally]:
    return {
        entry.label: ScoreTally(entry.label, entry.document.classes, entry.document.thresholds)
        for tree in manifest.trees
        for entry in tree.branches
    }


def _against_stored(manifest: Manifest, engine: Engine, golden: npt.NDArray[np.float32]) -> tuple[Comparison, ...]:
    tallies, found, names = _tallies(manifest), engine.run({"crops": golden}), scores_names(manifest)
    for tree in manifest.trees:
        for entry in tree.branches:
            assert entry.document.exported is not None  # the manifest's reader refuses others
            stored = np.array(entry.document.exported.scores, np.float64)
            tallies[entry.label].add(found[names[entry.label]], stored)
    return tuple(tally.result() for tally in tallies.values())


def _against_reference(
    manifest: Manifest, engine: Engine, reference: Reference, pieces: Iterable[npt.NDArray[np.float32]]
) -> tuple[Comparison, ...]:
    tallies = _tallies(manifest)
    names = scores_names(manifest)
    for crops in pieces:
        found = engine.run({"crops": crops}, list(dict.fromkeys(names.values())))
        wanted = reference.run(crops)
        for label, name in names.items():
            tallies[label].add(found[name], wanted[name])
    return tuple(tally.result() for tally in tallies.values())


def _describe(reference: Reference) -> str:
    own = "the same parts in ONNX Runtime on the CPU, optimisations off"
    return own if not reference.files else f"{', '.join(reference.files)}, and else {own}"


def _bad(comparisons: Iterable[Comparison]) -> list[Comparison]:
    return [each for each in comparisons if not each.ok]
