"""Changing a plan: labels are added, replaced, removed, taken back; two plans become one.

A plan is never edited in place: a new file takes its place by rename, every other tensor's bytes as they were.
A part stays in the file after its label was removed or replaced, so that `revert` can bring it back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from graftsdk.errors import FingerprintMismatch, InputError, MergeConflict
from graftsdk.plan.documents import BranchDocument, TrunkDocument
from graftsdk.plan.edit_lowered import joined_lowered
from graftsdk.plan.editing import check_digests, editing, now
from graftsdk.plan.manifest import BranchEntry, Event, Manifest, PartInfo, SegmenterInfo, Tree, check_branch_fits
from graftsdk.plan.part import Part
from graftsdk.plan.reader import Plan, open_plan
from graftsdk.plan.writer import tensor_hashes, write_plan

__all__ = [
    "add_branches",
    "create_plan",
    "merge_plans",
    "remove_label",
    "revert_label",
]

_Path = str | os.PathLike[str]


def create_plan(
    path: _Path,
    trunk: tuple[Part, TrunkDocument],
    branches: Sequence[tuple[Part, BranchDocument]],
    segmenter: tuple[Part, SegmenterInfo, PartInfo] | None = None,
) -> None:
    """Write a new plan with one tree.

    Raises:
        FingerprintMismatch: a branch that was trained on another trunk. MergeConflict: one label twice.
        PlanPathError, OSError: the file cannot be written; nothing of it remains.
    """
    trunk_part, document = trunk
    entries = tuple(BranchEntry(part.name, branch) for part, branch in branches)
    tree = Tree(trunk_part.name, document, entries)
    _check_new(tree, entries, ())
    parts = [trunk_part, *(part for part, _ in branches)]
    infos = {trunk_part.name: PartInfo("trunk", trunk_part.digest, provenance=document.provenance)}
    infos |= {part.name: PartInfo("branch", part.digest, provenance=branch.provenance) for part, branch in branches}
    segmenter_info = None
    if segmenter is not None:
        segmenter_part, segmenter_info, info = segmenter
        parts.append(segmenter_part)
        infos[segmenter_part.name] = info
    when = now()
    history = tuple(Event("add", entry.label, when, "", tree.trunk, after=entry) for entry in entries)
    manifest = Manifest(document.crop, (tree,), segmenter_info, infos, tensor_hashes(parts), history)
    write_plan(path, manifest, parts)


def add_branches(
    path: _Path,
    branches: Sequence[tuple[Part, BranchDocument]],
    *,
    replace_labels: bool = False,
    output: _Path | None = None,
) -> None:
    """Add exported branches to the plan at `path`, each to the tree whose trunk it was trained on.

    Args:
        path: the plan.
        branches: parts and their documents.
        replace_labels: a label that the plan already has is replaced; its old part stays for `revert_label`.
        output: where to write; None replaces the plan itself.

    Raises:
        FingerprintMismatch: no tree of the plan has that trunk. MergeConflict: the label is there already.
    """
    with editing(path) as plan:
        manifest, events, when = plan.manifest, [], now()
        for part, document in branches:
            tree = _home(manifest, document, str(path))
            entry = BranchEntry(part.name, document)
            found = manifest.find(document.label)
            if found is None:
                _check_new(tree, (entry,), manifest.labels)
            elif not replace_labels:
                raise MergeConflict(
                    f"{path}: label {document.label!r} is there already (part {found[1].part}); "
                    f"say --replace to put part {part.name} in its place, or graftsdk plan remove it first"
                )
            before = found[1] if found else None
            if found is not None and found[0].trunk != tree.trunk:  # the label moves to another trunk
                manifest = _put(manifest, found[0].trunk, document.label, None)
            manifest = _put(manifest, tree.trunk, document.label, entry)
            action = "replace" if before else "add"
            events.append(Event(action, document.label, when, plan.digest, tree.trunk, before, entry))
            info = PartInfo("branch", part.digest, provenance=document.provenance)
            check_digests(manifest, {part.name: info}, str(path))
            manifest = replace(manifest, parts={**manifest.parts, part.name: info})
        parts = [part for part, _ in branches]
        manifest = replace(
            manifest,
            tensors={**manifest.tensors, **tensor_hashes(parts)},
            history=(*manifest.history, *events),
        )
        write_plan(output or path, manifest, parts, base=plan)


def remove_label(path: _Path, label: str, *, output: _Path | None = None) -> None:
    """Remove a label from the plan at `path`; its part stays for `revert_label`. Raises InputError: no such label."""
    with editing(path) as plan:
        tree, entry = _existing(plan, label, str(path))
        event = Event("remove", label, now(), plan.digest, tree.trunk, before=entry)
        manifest = _put(plan.manifest, tree.trunk, label, None)
        write_plan(output or path, replace(manifest, history=(*manifest.history, event)), [], base=plan)


def revert_label(path: _Path, label: str, *, output: _Path | None = None) -> None:
    """Take back the last change of a label: an added one goes, a replaced or removed one comes back as it was.

    Taking back again goes one change further into the past.

    Raises:
        InputError: nothing of this label is left to take back.
        MergeConflict: a label of another spelling took its place.
    """
    with editing(path) as plan:
        open_events: list[Event] = []
        for event in plan.manifest.history:
            if event.label != label:
                continue
            if event.action != "revert":
                open_events.append(event)
            elif open_events:
                open_events.pop()
        if not open_events:
            known = sorted({event.label for event in plan.manifest.history})
            raise InputError(f"{path}: nothing of label {label!r} to take back; its history knows {', '.join(known)}")
        last = open_events[-1]
        found = plan.manifest.find(label)
        current = found[1] if found else None
        manifest = plan.manifest
        home = _home(manifest, last.before.document, str(path), last.trunk) if last.before is not None else None
        if found is not None and (home is None or found[0].trunk != home.trunk):
            manifest = _put(manifest, found[0].trunk, label, None)
        if home is not None and last.before is not None:
            if found is None:
                _check_new(home, (last.before,), manifest.labels)
            manifest = _put(manifest, home.trunk, label, last.before)
        event = Event("revert", label, now(), plan.digest, last.trunk, current, last.before)
        write_plan(output or path, replace(manifest, history=(*manifest.history, event)), [], base=plan)


def merge_plans(first: _Path, second: _Path, output: _Path, *, replace_labels: bool = False) -> None:
    """Put the trees of two plans into one, so that labels can move from an old trunk to a new one.

    Trees on the same trunk become one tree. Only the first plan's history is kept. The segmenter is the first plan's,
    the second's where it has none.

    Args:
        first: the plan whose labels come first.
        second: the plan that is added to it.
        output: where to write; may be one of the two.
        replace_labels: a label of both plans is taken from the second; else it is refused.

    Raises:
        InputError: the plans cut crops differently. MergeConflict: a label stands in both.
    """
    # A plan that is to be replaced is edited: nobody else may change it meanwhile.
    locked = _same_file(first, output)
    other = not locked and _same_file(second, output)
    with (editing if locked else _opened)(first) as old, (editing if other else _opened)(second) as new:
        if old.manifest.crop != new.manifest.crop:
            raise InputError(
                f"expected plans with one crop specification, found {old.manifest.crop} in {first} and "
                f"{new.manifest.crop} in {second}; one crop must serve all trees, so keep two plans"
            )
        manifest, when = old.manifest, now()
        events = []
        for tree in new.manifest.trees:
            if all(tree.trunk != other.trunk for other in manifest.trees):
                manifest = replace(manifest, trees=(*manifest.trees, replace(tree, branches=())))
            for entry in tree.branches:
                found = _folded(manifest, entry.label)
                if found is not None and found[1].part == entry.part and found[1].document == entry.document:
                    continue
                if found is not None and not (replace_labels and found[1].label == entry.label):
                    raise MergeConflict(
                        f"label {found[1].label!r} of {first} and {entry.label!r} of {second}: "
                        f"say --replace to take the second plan's, or remove one of them first"
                    )
                before = found[1] if found else None
                if found is not None and found[0].trunk != tree.trunk:
                    manifest = _put(manifest, found[0].trunk, entry.label, None)
                manifest = _put(manifest, tree.trunk, entry.label, entry)
                events.append(Event("merge", entry.label, when, new.digest, tree.trunk, before, entry))
        segmenter = old.manifest.segmenter or new.manifest.segmenter
        wanted = _referenced(manifest, events, segmenter)
        lowered = joined_lowered(old.manifest, new.manifest, wanted)
        wanted |= {record.part for records in lowered.values() for record in records.values()}
        check_digests(manifest, new.manifest.parts, str(second))
        infos = {
            name: info for name, info in new.manifest.parts.items() if name in wanted and name not in manifest.parts
        }
        parts = [new.parts[name] for name in infos]
        manifest = replace(
            manifest,
            segmenter=segmenter,
            parts={**manifest.parts, **infos},
            tensors={**manifest.tensors, **tensor_hashes(parts)},
            history=(*manifest.history, *events),
            lowered=lowered,
        )
        write_plan(output, manifest, parts, base=old)


def _opened(path: _Path) -> Plan:
    return open_plan(Path(path))


def _same_file(first: _Path, second: _Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return False


def _home(manifest: Manifest, document: BranchDocument, where: str, trunk: str = "") -> Tree:
    """The tree that a branch was trained on; where several share its blocks, the one on the part `trunk`."""
    for tree in sorted(manifest.trees, key=lambda tree: tree.trunk != trunk):
        known = tree.document
        if document.tap <= known.blocks and known.fingerprints[document.tap] == document.trunk_fingerprint:
            check_branch_fits(tree, document, where)
            return tree
    have = ", ".join(
        tree.document.fingerprints[min(document.tap, tree.document.blocks)][:16] + "…" for tree in manifest.trees
    )
    raise FingerprintMismatch(
        f"{where}: label {document.label!r} wants a {document.arch} trunk whose fingerprint({document.tap}) is "
        f"{document.trunk_fingerprint[:16]}…, the plan's trunks have {have}; export a plan with its own trunk "
        f"(graftsdk-export) and join the two (graftsdk plan merge), or train it again on this trunk"
    )


def _check_new(tree: Tree, entries: Sequence[BranchEntry], taken: Sequence[str]) -> None:
    seen = {label.casefold(): label for label in taken}
    for entry in entries:
        check_branch_fits(tree, entry.document, f"branch {entry.label!r}")
        other = seen.setdefault(entry.label.casefold(), entry.label)
        if other is not entry.label:
            raise MergeConflict(f"two branches for one label: {other!r} and {entry.label!r}; rename or leave out one")


def _existing(plan: Plan, label: str, where: str) -> tuple[Tree, BranchEntry]:
    found = plan.manifest.find(label)
    if found is None:
        raise InputError(f"{where}: no label {label!r}; the plan has {', '.join(plan.labels) or 'none'}")
    return found


def _folded(manifest: Manifest, label: str) -> tuple[Tree, BranchEntry] | None:
    for other in manifest.labels:
        if other.casefold() == label.casefold():
            return manifest.find(other)
    return None


def _put(manifest: Manifest, trunk: str, label: str, entry: BranchEntry | None) -> Manifest:
    """The manifest with one label of one tree set to `entry`, in its old place, or taken out."""
    trees = []
    for tree in manifest.trees:
        branches = tree.branches
        if tree.trunk == trunk:
            if entry is None:
                branches = tuple(branch for branch in branches if branch.label != label)
            elif any(branch.label == label for branch in branches):
                branches = tuple(entry if branch.label == label else branch for branch in branches)
            else:
                branches = (*branches, entry)
        trees.append(replace(tree, branches=branches))
    return replace(manifest, trees=tuple(trees))


def _referenced(manifest: Manifest, events: Sequence[Event], segmenter: SegmenterInfo | None) -> set[str]:
    names = {tree.trunk for tree in manifest.trees}
    names |= {branch.part for tree in manifest.trees for branch in tree.branches}
    names |= {entry.part for event in events for entry in (event.before, event.after) if entry is not None}
    return names | ({segmenter.part} if segmenter is not None else set())
