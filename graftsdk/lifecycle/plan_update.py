"""Branches of a registry that its plan lacks go into it, each to its own trunk; every other part keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graftsdk.errors import FingerprintMismatch
from graftsdk.lifecycle.changes import PlanChange, compare_manifests
from graftsdk.lifecycle.registry import Registry
from graftsdk.lifecycle.standing import branch_document, is_on, plan_manifest, stand, trunk_document
from graftsdk.plan import BranchDocument
from graftsdk.plan.edit import add_branches, merge_plans
from graftsdk.plan.onnx_part import read_onnx_part

__all__ = ["update_plan"]


def update_plan(
    registry: Registry, labels: Sequence[str], export_parts: Callable[..., Any], export_plan: Callable[..., Any]
) -> PlanChange | None:
    """What changed, None where the plan has the branches of all `labels` as they are.

    An edit for each trunk, each of them whole or not at all.

    Args:
        registry: it names checkpoints and plan.
        labels: those that are looked at.
        export_parts, export_plan: of graftsdk.export.

    Raises:
        FingerprintMismatch: the trunk of a branch is nowhere. GraftError, OSError: as export and edits do.
    """
    groups: dict[Path, list[Path]] = {}
    for one in stand(registry).labels:
        if one.label in labels and not one.problem and one.plan != "yes":
            document = branch_document(registry.branch(one.label), one.label)
            if document is not None:
                groups.setdefault(_home(registry, document), []).append(registry.branch(one.label))
    before = plan_manifest(registry.plan)
    for trunk, branches in groups.items():
        with TemporaryDirectory(prefix="graftsdk-") as folder:
            parts = export_parts(Path(folder), trunk, branches).parts
            _graft(registry, trunk, parts, Path(folder) / "tree.plan", export_plan)
    after = plan_manifest(registry.plan)
    if not groups or after is None:
        return None
    return compare_manifests(replace(after, trees=(), tensors={}) if before is None else before, after)


def _graft(
    registry: Registry, trunk: Path, parts: Sequence[Path], tree_plan: Path, export_plan: Callable[..., Any]
) -> None:
    """Put exported parts, the trunk's first, into the plan: to a tree that it has, as another tree, or as the first."""
    plan, manifest, fingerprints = registry.plan, plan_manifest(registry.plan), trunk_document(trunk).fingerprints
    if manifest is None:
        export_plan(plan, parts[0], parts[1:], registry.segmenter)
    elif any(tree.document.fingerprints == fingerprints for tree in manifest.trees):
        found = ((part, document) for part, document in map(read_onnx_part, parts[1:]))
        branches = [(part, document) for part, document in found if isinstance(document, BranchDocument)]
        add_branches(plan, branches, replace_labels=True)
    else:
        export_plan(tree_plan, parts[0], parts[1:])
        merge_plans(plan, tree_plan, plan, replace_labels=True)


def _home(registry: Registry, branch: BranchDocument) -> Path:
    """The checkpoint of the trunk that a branch was trained on."""
    former = sorted(path for path in registry.trunks.glob("*.safetensors") if not path.name.startswith("next-"))
    for path in (registry.trunk, *former):
        if is_on(branch, trunk_document(path)):
            return path
    raise FingerprintMismatch(
        f"{registry.branch(branch.label)}: expected its trunk, fingerprint({branch.tap}) "
        f"{branch.trunk_fingerprint[:16]}, at {registry.trunk} or in {registry.trunks}, found others; put it there, or "
        f"delete the branch, and it is trained anew"
    )
