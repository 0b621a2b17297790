"""The plan: one file with trees, a segmenter and the manifest. FORMAT.md is the normative text."""

from graftsdk.plan.cropspec import CropSpec
from graftsdk.plan.documents import BranchDocument, ExportedBranch, ExportedTrunk, Provenance, TrunkDocument
from graftsdk.plan.manifest import BranchEntry, Event, Manifest, PartInfo, SegmenterInfo, Tree
from graftsdk.plan.part import Part
from graftsdk.plan.reader import Plan, PlanSource, load_plan, open_plan
from graftsdk.plan.segmenter_document import SegmenterDocument
from graftsdk.plan.writer import write_plan

__all__ = [
    "BranchDocument",
    "BranchEntry",
    "CropSpec",
    "Event",
    "ExportedBranch",
    "ExportedTrunk",
    "Manifest",
    "Part",
    "PartInfo",
    "Plan",
    "PlanSource",
    "Provenance",
    "SegmenterDocument",
    "SegmenterInfo",
    "Tree",
    "TrunkDocument",
    "load_plan",
    "open_plan",
    "write_plan",
]
