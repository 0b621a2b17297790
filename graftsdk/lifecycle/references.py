"""What an engine is compared with: the plan's own parts without optimisation, or the checkpoints they came from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Graph
from graftsdk.engines.reference import open_reference
from graftsdk.errors import FingerprintMismatch, InputError
from graftsdk.graft import externalize, scores_names, tap_name
from graftsdk.lifecycle.cutting import BLOCK_INPUT, cut_block
from graftsdk.lifecycle.inspection import checkpoint_document, is_onnx
from graftsdk.plan import BranchDocument, Part, Plan, SegmenterDocument, Tree, TrunkDocument
from graftsdk.plan.onnx_part import model_from_part, read_onnx_part

__all__ = ["Reference"]

Floats = npt.NDArray[np.float32]
_Run = Callable[[Floats], Floats]


class Reference:
    """Taps and scores of a plan, computed block by block and branch by branch on a second way.

    The plan's own parts run in ONNX Runtime on the CPU with all optimisations off; a file of `against` takes the
    place of the part that it is the origin of: a checkpoint runs in torch, an exported part like the plan's own.

    Raises:
        InputError: a branch whose label the plan does not have, or one given twice.
        FingerprintMismatch: a trunk that is none of the plan's, or a branch for another trunk.
        PlanError: a file cannot be trusted. MissingDependency: a checkpoint without torch at hand.
    """

    def __init__(self, plan: Plan, against: Iterable[str | os.PathLike[str]] = ()) -> None:
        self._stack = ExitStack()
        self._trees = plan.manifest.trees
        self._names = scores_names(plan.manifest)
        self._trunks: dict[str, Sequence[_Run]] = {}  # part -> what makes tap 0, 1, …, each from the one before
        self._branches: dict[str, _Run] = {}
        self.files: tuple[str, ...] = tuple(os.fspath(path) for path in against)
        try:
            for path in self.files:
                self._take(path)
            for tree in (tree for tree in self._trees if tree.branches):
                if tree.trunk not in self._trunks:
                    self._trunks[tree.trunk] = self._trunk_part(plan.parts[tree.trunk], _deepest(tree))
                for entry in tree.branches:
                    if entry.label not in self._branches:
                        self._branches[entry.label] = self._branch_part(plan.parts[entry.part])
        except BaseException:
            self.close()
            raise

    def run(self, crops: Floats) -> dict[str, Floats]:
        """Value name, as in grafted graphs -> value: every tap up to the deepest, and all scores."""
        found: dict[str, Floats] = {}
        for tree in (tree for tree in self._trees if tree.branches):
            value = crops
            for k in range(_deepest(tree) + 1):
                value = self.tap(tree.trunk, k, value)
                found[tap_name(tree.trunk, k)] = value
            for entry in tree.branches:
                tap = found[tap_name(tree.trunk, entry.document.tap)]
                found[self._names[entry.label]] = self.scores(entry.label, tap)
        return found

    def tap(self, trunk: str, k: int, value: Floats) -> Floats:
        """Tap k of a trunk part, from tap k-1 (for k = 0: from crops)."""
        return self._trunks[trunk][k](value)

    def scores(self, label: str, tap: Floats) -> Floats:
        """A label's scores, from the tap that its branch reads."""
        return self._branches[label](tap)

    def close(self) -> None:
        """Let go of the engines."""
        self._stack.close()

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, path: str) -> None:
        part: Part | None = None
        document: TrunkDocument | BranchDocument | SegmenterDocument
        if is_onnx(path):
            part, document = read_onnx_part(path)
        else:
            document = checkpoint_document(path)
        if isinstance(document, TrunkDocument):
            tree = _tree_of(self._trees, document, path)
            _put(self._trunks, tree.trunk, self._trunk_part(part, _deepest(tree)) if part else _torch_trunk(path), path)
        elif isinstance(document, SegmenterDocument):
            raise InputError(f"{path}: expected a trunk or branch to compare with, found a segmenter; leave it out")
        else:
            _check_branch(self._trees, document, path)
            _put(self._branches, document.label, self._branch_part(part) if part else _torch_branch(path), path)

    def _trunk_part(self, part: Part, deepest: int) -> Sequence[_Run]:
        runs = []
        for k in range(deepest + 1):
            load = partial(_load_block, part, k)
            runs.append(self._open(f"{part.digest}/{k}", BLOCK_INPUT if k else "crops", f"tap_{k}", load))
        return runs

    def _branch_part(self, part: Part) -> _Run:
        return self._open(part.digest, "tap", "scores", partial(_load_branch, part))

    def _open(self, key: str, name: str, output: str, load: Any) -> _Run:
        digest = hashlib.sha256(key.encode()).hexdigest()
        graph = Graph(key=digest, inputs={name: name}, outputs=(output,), load=load)
        engine = self._stack.enter_context(open_reference([graph]))
        return lambda value: engine.run({name: value})[output]


def _load_block(part: Part, k: int) -> tuple[bytes, Mapping[str, npt.NDArray[Any]]]:
    return externalize(cut_block(part, k))


def _load_branch(part: Part) -> tuple[bytes, Mapping[str, npt.NDArray[Any]]]:
    return externalize(model_from_part(part))


def _torch_trunk(path: str) -> Sequence[_Run]:
    from graftsdk.models import Trunk

    trunk = Trunk.load(path)
    return [_in_torch(lambda crops: trunk.tap(crops, 0)), *(_in_torch(block) for block in trunk.blocks)]


def _torch_branch(path: str) -> _Run:
    from graftsdk.models import Branch

    branch = Branch.load(path)
    return _in_torch(lambda tap: (branch(tap) / branch.temperature).softmax(dim=1))


def _in_torch(module: Callable[[Any], Any]) -> _Run:
    import torch

    def run(value: Floats) -> Floats:
        with torch.inference_mode():
            found: Floats = module(torch.from_numpy(value)).numpy()
        return found

    return run


def _deepest(tree: Tree) -> int:
    return max(entry.document.tap for entry in tree.branches)


def _tree_of(trees: Sequence[Tree], document: TrunkDocument, path: str) -> Tree:
    for tree in trees:
        if tree.document.fingerprints == document.fingerprints:
            return tree
    have = ", ".join(f"{tree.document.arch} {tree.document.fingerprints[-1][:16]}…" for tree in trees)
    raise FingerprintMismatch(
        f"{path}: expected a trunk of the plan ({have}), found {document.arch} {document.fingerprints[-1][:16]}…; "
        f"name the checkpoint that the plan was exported from"
    )


def _check_branch(trees: Sequence[Tree], document: BranchDocument, path: str) -> None:
    """The label is in the plan, and both sides sit on one tap of one trunk and answer with the same classes."""
    known = {entry.label: entry.document for tree in trees for entry in tree.branches}
    own = known.get(document.label)
    if own is None:
        raise InputError(f"{path}: expected a label of the plan ({', '.join(known)}), found {document.label!r}")
    if (own.trunk_fingerprint, own.tap) != (document.trunk_fingerprint, document.tap):
        raise FingerprintMismatch(
            f"{path}: label {document.label!r} sits on tap {document.tap} of trunk {document.trunk_fingerprint[:16]}…, "
            f"the plan's on tap {own.tap} of {own.trunk_fingerprint[:16]}…; they cannot be compared"
        )
    if own.classes != document.classes:
        raise InputError(
            f"{path}: label {document.label!r} has the classes {list(document.classes)}, "
            f"the plan's {list(own.classes)}; they cannot be compared"
        )


def _put(where: dict[str, Any], name: str, run: Any, path: str) -> None:
    if name in where:
        raise InputError(f"{path}: a second file for {name!r}; name each trunk and label once")
    where[name] = run
