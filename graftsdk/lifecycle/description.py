"""What a plan, part or checkpoint says of itself, as JSON types: `graftsdk info` prints this and nothing else."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from graftsdk.lifecycle.inspection import PartFile
from graftsdk.lifecycle.timing import PlanTiming
from graftsdk.plan import BranchDocument, BranchEntry, Plan, Provenance, SegmenterDocument, Tree, TrunkDocument
from graftsdk.plan.cost import plan_cost
from graftsdk.plan.documents import GOLDEN_COUNT, GOLDEN_SEED
from graftsdk.plan.lowered import Lowered
from graftsdk.prediction import reported_labels

__all__ = ["describe_cost", "describe_part", "describe_plan"]


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Labels, trunks, crop, segmenter, sizes, digests; from the header alone, no part is read."""
    manifest = plan.manifest
    used = {tree.trunk for tree in manifest.trees}
    used |= {entry.part for tree in manifest.trees for entry in tree.branches}
    used |= {record.part for records in manifest.lowered.values() for name, record in records.items() if name in used}
    segmenter = None
    if manifest.segmenter is not None:
        used.add(manifest.segmenter.part)
        segmenter = {**manifest.segmenter.to_dict(), **_part(plan, manifest.segmenter.part)}
    return {
        "kind": "plan",
        "path": None if plan.path is None else str(plan.path),
        "digest": plan.digest,
        "bytes": plan.nbytes,
        "labels": [_label(plan, tree, entry) for tree in manifest.trees for entry in tree.branches],
        "trunks": [_trunk(plan, tree) for tree in manifest.trees],
        "crop": manifest.crop.to_dict(),
        "segmenter": segmenter,
        "lowered": _lowered(plan),
        "golden": {"seed": GOLDEN_SEED, "count": GOLDEN_COUNT},
        "history": len(manifest.history),
        "kept_for_revert": sorted(manifest.parts.keys() - used),
    }


def _lowered(plan: Plan) -> list[dict[str, Any]]:
    """What is known of the plan's trunks and branches in lower precisions, in the order of trunks and labels.

    A branch on a lowered trunk that nobody looked at has a row too, without figures: its trunk moves it.
    """
    whose: dict[str, list[str]] = {}
    for tree in plan.manifest.trees:
        whose.setdefault(tree.trunk, ["trunk"])
        for entry in tree.branches:
            whose.setdefault(entry.part, []).append(entry.label)
    unknown = {**dict.fromkeys(field.name for field in fields(Lowered)), "part": ""}
    rows = []
    for precision, records in plan.manifest.lowered.items():
        forms = plan.manifest.forms(precision)
        moved = {entry.part for tree in plan.manifest.trees if tree.trunk in forms for entry in tree.branches}
        for name in whose:
            if name in records or name in moved:
                told = records[name].to_dict() if name in records else unknown
                tried = {"float32_part": name, "tried": name in records}
                rows.append({"precision": precision, "of": whose[name], **tried, **told})
    return rows


def describe_part(file: PartFile) -> dict[str, Any]:
    """The document of a trunk, branch or segmenter that stands in a file of its own."""
    document = file.document
    told = document.to_dict()
    found: dict[str, Any] = {
        "kind": f"{told['kind']} {file.form}",
        "path": str(file.path),
        "bytes": file.nbytes,
        "digest": file.digest,
    }
    if isinstance(document, SegmenterDocument):
        own = {name: value for name, value in told.items() if name not in ("kind", "version", "provenance")}
        return {**found, **own, **_provenance(document.provenance)}
    if isinstance(document, TrunkDocument):
        found |= _trunk_document(document)
    else:
        found |= {**_branch_document(document), "arch": document.arch, "trunk_width": document.trunk_width}
        found["trunk_fingerprint"] = document.trunk_fingerprint
    found |= {"crop": document.crop.to_dict(), **_provenance(document.provenance)}
    found["exported"] = None if document.exported is None else asdict(document.exported)
    return found


def describe_cost(plan: Plan, timing: PlanTiming) -> dict[str, Any]:
    """The price of each label and of all: counted from the documents, and measured here."""
    cost = plan_cost(plan.manifest, reported_labels)
    entries = {entry.label: entry for tree in plan.manifest.trees for entry in tree.branches}
    labels = [
        {
            "label": row.label,
            "parameters": row.parameters,
            "macs": row.macs,
            "share": row.share,
            "bytes": _nbytes(plan, entries[row.label].part),
            **asdict(timing.labels[row.label]),
        }
        for row in cost.labels
    ]
    trees = [tree for tree in plan.manifest.trees if tree.branches]
    trunks = [
        {
            "trunk": tree.trunk,
            "arch": row.arch,
            "tap": row.tap,
            "parameters": row.parameters,
            "macs": row.macs,
            "share": row.share,
            "bytes": _nbytes(plan, tree.trunk),
            # A part that sits on two trunks is computed on one of them; the other may then not run at all.
            **(asdict(timing.trunks[tree.trunk]) if tree.trunk in timing.trunks else {}),
        }
        for tree, row in zip(trees, cost.trunks, strict=True)
    ]
    measured = {"device": timing.device, "threads": timing.threads, "repeats": timing.repeats, "cpu": list(timing.cpu)}
    return {
        "trunks": trunks,
        "labels": labels,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "networks": cost.networks,
        "separate_networks": cost.separate,
        "saving": cost.saving,
        "measured": measured,
    }


def _label(plan: Plan, tree: Tree, entry: BranchEntry) -> dict[str, Any]:
    exported = entry.document.exported
    assert exported is not None  # the manifest's reader refuses others
    checked = {
        "torch_difference": exported.torch_difference,
        "samples": exported.samples,
        "flips": exported.flips,
    }
    return {**_branch_document(entry.document), "trunk": tree.trunk, **_part(plan, entry.part), "checked": checked}


def _trunk(plan: Plan, tree: Tree) -> dict[str, Any]:
    return {**_trunk_document(tree.document), **_part(plan, tree.trunk)}


def _branch_document(document: BranchDocument) -> dict[str, Any]:
    return {
        "label": document.label,
        "classes": list(document.classes),
        "reports": list(reported_labels(document.label, document.classes, document.thresholds)),
        "thresholds": dict(document.thresholds),
        "temperature": document.temperature,
        "tap": document.tap,
        "until": document.until,
        "pooling": document.pooling,
        "width": document.width,
        "metrics": dict(document.metrics),
    }


def _trunk_document(document: TrunkDocument) -> dict[str, Any]:
    return {
        "arch": document.arch,
        "width": document.width,
        "blocks": document.blocks,
        "fingerprint": document.fingerprints[-1],
    }


def _part(plan: Plan, name: str) -> dict[str, Any]:
    info = plan.manifest.parts[name]
    return {
        "part": name,
        "digest": info.digest,
        "precision": info.precision,
        "bytes": _nbytes(plan, name),
        **_provenance(info.provenance),
    }


def _provenance(provenance: Provenance) -> dict[str, Any]:
    return {"licence": provenance.licence, "author": provenance.author}


def _nbytes(plan: Plan, part: str) -> int:
    return sum(section.size for section in plan.sections(part).values())
