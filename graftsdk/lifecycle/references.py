"""What an engine is compared with: the plan's own parts without optimisation, or the checkpoints they came from."""

from __future__ import annotations

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
from graftsdk.graft import externalize, scores_name, tap_name
from graftsdk.lifecycle.inspection import checkpoint_document, is_onnx
from graftsdk.plan import BranchDocument, Part, Plan, Tree, TrunkDocument
from graftsdk.plan.onnx_part import model_from_part, read_onnx_part

__all__ = ["Reference"]

Floats = npt.NDArray[np.float32]
_TrunkRun = Callable[[Floats], Sequence[Floats]]  # crops -> taps 0..B
_BranchRun = Callable[[Floats], Floats]  # tap -> scores


class Reference:
    """Taps and scores of a plan, computed part by part on a second way.

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
        self._trunks: dict[str, _TrunkRun] = {}
        self._branches: dict[str, _BranchRun] = {}
        self.files: tuple[str, ...] = tuple(os.fspath(path) for path in against)
        try:
            for path in self.files:
                self._take(path)
            for tree in (tree for tree in self._trees if tree.branches):
                if tree.trunk not in self._trunks:
                    self._trunks[tree.trunk] = self._trunk_part(plan.parts[tree.trunk], tree.document.blocks)
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
            taps = self._trunks[tree.trunk](crops)
            deepest = max(entry.document.tap for entry in tree.branches)
            found |= {tap_name(tree.trunk, k): taps[k] for k in range(deepest + 1)}
            for entry in tree.branches:
                found[scores_name(entry.part)] = self._branches[entry.label](taps[entry.document.tap])
        return found

    def close(self) -> None:
        """Let go of the engines."""
        self._stack.close()

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, path: str) -> None:
        part: Part | None = None
        if is_onnx(path):
            part, document = read_onnx_part(path)
        else:
            document = checkpoint_document(path)
        if isinstance(document, TrunkDocument):
            run = self._trunk_part(part, document.blocks) if part is not None else _torch_trunk(path)
            _put(self._trunks, _tree_of(self._trees, document, path).trunk, run, path)
        else:
            _check_branch(self._trees, document, path)
            branch = self._branch_part(part) if part is not None else _torch_branch(path)
            _put(self._branches, document.label, branch, path)

    def _trunk_part(self, part: Part, blocks: int) -> _TrunkRun:
        names = [f"tap_{k}" for k in range(blocks + 1)]
        return _engine_run(self._open(part, "crops", names), "crops", names)

    def _branch_part(self, part: Part) -> _BranchRun:
        run = _engine_run(self._open(part, "tap", ["scores"]), "tap", ["scores"])
        return lambda tap: run(tap)[0]

    def _open(self, part: Part, name: str, outputs: Sequence[str]) -> Any:
        load = partial(_load, part)
        graph = Graph(key=part.digest, inputs={name: name}, outputs=tuple(outputs), load=load)
        return self._stack.enter_context(open_reference([graph]))


def _load(part: Part) -> tuple[bytes, Mapping[str, npt.NDArray[Any]]]:
    return externalize(model_from_part(part))


def _engine_run(engine: Any, name: str, outputs: Sequence[str]) -> Callable[[Floats], list[Floats]]:
    def run(value: Floats) -> list[Floats]:
        found = engine.run({name: value})
        return [found[each] for each in outputs]

    return run


def _torch_trunk(path: str) -> _TrunkRun:
    import torch

    from graftsdk.models import Trunk

    trunk = Trunk.load(path)

    def run(crops: Floats) -> list[Floats]:
        with torch.inference_mode():
            return [tap.numpy() for tap in trunk.taps(torch.from_numpy(crops))]

    return run


def _torch_branch(path: str) -> _BranchRun:
    import torch

    from graftsdk.models import Branch

    branch = Branch.load(path)

    def run(tap: Floats) -> Floats:
        with torch.inference_mode():
            scores: Floats = torch.softmax(branch(torch.from_numpy(tap)) / branch.temperature, dim=1).numpy()
        return scores

    return run


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
