"""Reading what is to be exported, checkpoints and exported parts alike, and checking it before anything slow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from graftsdk.errors import InputError, MergeConflict, PlanCorrupt
from graftsdk.export.parts import branch_part, trunk_part
from graftsdk.export.validate import BranchSource, TrunkSource
from graftsdk.models import Branch, Trunk
from graftsdk.plan import BranchDocument, Part, Tree, TrunkDocument
from graftsdk.plan.manifest import MAX_LABELS, check_branch_fits
from graftsdk.plan.onnx_part import read_onnx_part

__all__ = ["BranchLike", "TrunkLike", "check_together", "read_branch", "read_trunk"]

_Path: TypeAlias = str | os.PathLike[str]
TrunkLike: TypeAlias = _Path | Trunk
BranchLike: TypeAlias = _Path | Branch


@dataclass(frozen=True)
class ReadTrunk:
    """A trunk that was read: a module to export, or a part that is exported already."""

    where: str
    document: TrunkDocument
    content: Trunk | Part

    def export(self) -> TrunkSource:
        """The part; traces and folds where it is a module. Raises as `trunk_part`."""
        if isinstance(self.content, Part):
            return TrunkSource(self.content, self.document, None)
        part, document = trunk_part(self.content)
        return TrunkSource(part, document, self.content)


@dataclass(frozen=True)
class ReadBranch:
    """A branch that was read: a module to export, or a part that is exported already."""

    where: str
    document: BranchDocument
    content: Branch | Part

    def export(self) -> BranchSource:
        """The part; traces and folds where it is a module. Raises as `branch_part`."""
        if isinstance(self.content, Part):
            return BranchSource(self.content, self.document, None)
        return BranchSource(branch_part(self.content), self.document, self.content)


def read_trunk(source: TrunkLike) -> ReadTrunk:
    """A trunk from a checkpoint, an exported part or memory. Raises PlanError leaves: the file cannot be trusted."""
    if isinstance(source, Trunk):
        return ReadTrunk("trunk", source.document(), source)
    if _kind(source, "trunk") == ".onnx":
        part, document = read_onnx_part(source)
        if not isinstance(document, TrunkDocument):
            raise PlanCorrupt(f"{source}: expected a trunk, found the branch {document.label!r}; give it as a branch")
        return ReadTrunk(str(source), document, part)
    trunk = Trunk.load(source)
    return ReadTrunk(str(source), trunk.document(), trunk)


def read_branch(source: BranchLike) -> ReadBranch:
    """A branch from a checkpoint, an exported part or memory. Raises PlanError leaves: the file cannot be trusted."""
    if isinstance(source, Branch):
        return ReadBranch(f"branch {source.label!r}", source.document(), source)
    if _kind(source, "branch") == ".onnx":
        part, document = read_onnx_part(source)
        if not isinstance(document, BranchDocument):
            raise PlanCorrupt(f"{source}: expected a branch, found a trunk ({document.arch}); give it as the trunk")
        return ReadBranch(str(source), document, part)
    branch = Branch.load(source)
    return ReadBranch(str(source), branch.document(), branch)


def check_together(trunk: ReadTrunk, branches: Sequence[ReadBranch]) -> None:
    """Prove that the branches belong on this trunk and that each answers its own question.

    Raises:
        FingerprintMismatch: a branch was trained on another trunk; says which, and how to repair it.
        MergeConflict: two branches with one label, whatever its case.
        InputError: more branches than a plan may hold.
    """
    if len(branches) > MAX_LABELS:
        raise InputError(f"branches: expected at most {MAX_LABELS}, found {len(branches)}")
    tree = Tree("", trunk.document)
    seen: dict[str, ReadBranch] = {}
    for branch in branches:
        check_branch_fits(tree, branch.document, branch.where)
        other = seen.setdefault(branch.document.label.casefold(), branch)
        if other is not branch:
            raise MergeConflict(
                f"two branches for one label: {other.document.label!r} in {other.where} and "
                f"{branch.document.label!r} in {branch.where}; rename or leave out one"
            )


def _kind(source: _Path, what: str) -> str:
    suffix = Path(source).suffix.lower()
    if suffix not in (".safetensors", ".onnx"):
        raise InputError(
            f"{source}: expected a {what} as a .safetensors checkpoint or an exported .onnx part, found {suffix!r}; "
            f"torchvision's .pth files become checkpoints with graftsdk import"
        )
    return suffix
