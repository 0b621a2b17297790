"""Toy plans whose stored golden scores are true, and parts that were tampered with before their digests were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import toys

from graftsdk.engines.layout import graphs_of, partition
from graftsdk.engines.reference import open_reference
from graftsdk.graft import joints_of, scores_name
from graftsdk.plan import BranchDocument, Part, TrunkDocument, open_plan
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import write_onnx_part
from graftsdk.preprocess import golden_crops

LABELS = {"child": 0, "gender": 1, "hat": 2, "bag": 2}  # label -> tap; the trunk has blocks 0..2 and taps 0..3

Branch = tuple[Part, BranchDocument]


def parts(seed: int = 0) -> tuple[tuple[Part, TrunkDocument], dict[str, Branch]]:
    """A trunk and its branches, each document with the scores that the branch really gives on the golden crops."""
    trunk = toys.trunk(seed)
    branches: dict[str, Branch] = {}
    for number, (label, tap) in enumerate(LABELS.items(), start=1):
        three = label == "gender"
        classes = ("other", "female", "male") if three else ("no", "yes")
        thresholds = {"female": 0.4, "male": 0.5} if three else {"yes": 0.5}
        branches[label] = toys.branch(label, tap, classes=classes, seed=number, on=trunk[1], thresholds=thresholds)
    return trunk, branches


def write(path: Path, *, tampered: Mapping[str, Part] | None = None, seed: int = 0) -> None:
    """A plan at `path`. `tampered` (label, or "trunk") takes a part's place; documents stay those of the true parts."""
    trunk, branches = parts(seed)
    create_plan(path, trunk, list(branches.values()))
    stored = _scores(path)
    changed = dict(tampered or {})
    scored = []
    for label, (part, document) in branches.items():
        assert document.exported is not None
        exported = replace(document.exported, scores=stored[label])
        scored.append((changed.get(label, part), replace(document, exported=exported)))
    path.unlink()
    create_plan(path, (changed.get("trunk", trunk[0]), trunk[1]), scored)


def write_parts(folder: Path, seed: int = 0) -> dict[str, Path]:
    """The true parts as ONNX files: label or "trunk" -> path."""
    trunk, branches = parts(seed)
    found = {}
    for name, (part, document) in {"trunk": trunk, **branches}.items():
        found[name] = folder / f"{name}.onnx"
        write_onnx_part(found[name], part, document)
    return found


def tamper(part: Part, tensor: str, factor: float = 1.05) -> Part:
    """The part with one weight tensor multiplied."""
    changed = part.tensors[tensor] * factor
    changed.setflags(write=False)
    return Part(part.role, part.graph, {**part.tensors, tensor: changed})


def flip_byte(path: Path, part: str) -> None:
    """Change one byte of a part's first weight tensor, as a bad disk would."""
    with open_plan(path) as plan:
        section = next(each for name, each in plan.sections(part).items() if name)
    content = bytearray(path.read_bytes())
    content[section.offset + section.size // 2] ^= 0x10
    path.write_bytes(content)


def _scores(path: Path) -> dict[str, tuple[tuple[float, ...], ...]]:
    with open_plan(path) as plan:
        joints = joints_of(plan.manifest)
        with open_reference(graphs_of(plan, partition(joints, "merged"))) as engine:
            values = engine.run({"crops": golden_crops(plan.manifest.crop)})
    return {label: _rows(values[scores_name(joint)].tolist()) for label, joint in joints.items()}


def _rows(values: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values)
