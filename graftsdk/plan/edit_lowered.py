"""Putting parts in lower precision into a plan, and carrying what is known of them from one plan to another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from graftsdk.errors import PlanCorrupt
from graftsdk.plan.editing import check_digests, editing
from graftsdk.plan.lowered import Lowered
from graftsdk.plan.manifest import Manifest, PartInfo
from graftsdk.plan.part import Part
from graftsdk.plan.writer import tensor_hashes, write_plan

__all__ = ["joined_lowered", "store_lowered"]

_Path = str | os.PathLike[str]


def store_lowered(
    path: _Path,
    precision: str,
    records: Mapping[str, Lowered],
    parts: Sequence[Part] = (),
    *,
    again: bool = False,
    output: _Path | None = None,
) -> None:
    """Write down what came of parts at a lower precision, and put INT8 parts beside those in float32.

    Nothing else of the plan changes. An INT8 part that no record names any more is dropped.

    Args:
        path: the plan. precision: "fp16", "bf16" or "int8".
        records: part in float32 -> its record; takes the place of one that is there.
        parts: the INT8 parts that the records name and the plan does not have.
        again: drop what was known at this precision, of parts that no label uses now too: it was judged on trunks that
            are lowered otherwise now.
        output: where to write; None replaces the plan itself.

    Raises:
        PlanCorrupt: a record that does not fit the plan; nothing is written.
    """
    with editing(path) as plan:
        manifest = plan.manifest
        named = {record.part: name for name, record in records.items() if name in manifest.parts}
        if odd := [part.name for part in parts if part.name not in named]:
            raise PlanCorrupt(f"{path}: expected parts that a record of the plan's own parts names, found {odd[0]}")
        infos = {
            part.name: PartInfo(part.role, part.digest, "int8", manifest.parts[named[part.name]].provenance)
            for part in parts
        }
        check_digests(manifest, infos, str(path))
        known = {} if again else manifest.lowered.get(precision, {})
        lowered = {name: each for name, each in manifest.lowered.items() if name != precision}
        if known or records:
            lowered[precision] = {**known, **records}
        kept = {record.part for each in lowered.values() for record in each.values()}
        held = {
            name: info
            for name, info in {**manifest.parts, **infos}.items()
            if info.precision == "float32" or name in kept
        }
        tensors = {**manifest.tensors, **tensor_hashes(parts)}
        manifest = replace(
            manifest,
            parts=held,
            tensors={name: sha256 for name, sha256 in tensors.items() if name.split("/", 1)[0] in held},
            lowered=lowered,
        )
        write_plan(output or path, manifest, parts, base=plan)


def joined_lowered(first: Manifest, second: Manifest, wanted: set[str]) -> dict[str, dict[str, Lowered]]:
    """The first plan's records, and the second's of the parts that come from it.

    A verdict holds on the trunk that it was made on: where both plans have a trunk and it is not lowered alike in them,
    what the second says of its branches is left out; they run in float32 until `graftsdk quantize` looks at them.
    """
    shared = {tree.trunk for tree in first.trees}
    found = {precision: dict(records) for precision, records in first.lowered.items()}
    for precision, records in second.lowered.items():
        mine = first.lowered.get(precision, {})
        for tree in second.trees:
            if tree.trunk in shared and _form(mine.get(tree.trunk)) != _form(records.get(tree.trunk)):
                continue
            for name in (tree.trunk, *(entry.part for entry in tree.branches)):
                if name in records and name in wanted:
                    found.setdefault(precision, {}).setdefault(name, records[name])
    return found


def _form(record: Lowered | None) -> tuple[str, bool] | None:
    return None if record is None else (record.part, record.passed)
