"""Parts in lower precision: which were tried, how far their labels' scores moved, and which of them may be used.

FP16 and BF16 are a pass over a part's graph (`graftsdk.graft.floats`): a plan holds the verdict alone. An INT8 part is
calibrated, so it is a part of its own, beside the one in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from graftsdk.errors import InputError, PlanCorrupt
from graftsdk.plan.strict_json import Fields

if TYPE_CHECKING:
    from graftsdk.plan.manifest import Manifest

__all__ = ["LOWER", "PRECISIONS", "Lowered", "check_lowered", "forms_of", "read_lowered"]

PRECISIONS = ("float32", "fp16", "bf16", "int8")
LOWER = PRECISIONS[1:]
_MAX_RECORDS = 4096


@dataclass(frozen=True)
class Lowered:
    """What came of one part at one precision, against float32, on real crops.

    Of a trunk: over every label with its branch in float32, the worst of each. Of a branch: over its labels, on the
    trunk as it was lowered.

    Attributes:
        part: name of the INT8 part that stands in for it; "" where there is none.
        passed: whether the part may be computed so.
        samples: crops that were compared; 0 where nobody looked.
        largest, mean: difference of a probability, 0..1.
        flips: decisions that differ.
        auc_change: AUC minus AUC in float32, the one with the greatest amount; None without labelled images.
        tolerance: what `passed` was judged by.
    """

    part: str
    passed: bool
    samples: int
    largest: float
    mean: float
    flips: int
    auc_change: float | None
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Lowered:
        fields = Fields(value, where)
        part, passed = fields.matching("part", "([0-9a-f]{16})?"), fields.boolean("passed")
        samples, flips = fields.integer("samples", 0, 2**53), fields.integer("flips", 0, 2**53)
        largest, mean = fields.number("largest", 0.0, 1.0), fields.number("mean", 0.0, 1.0)
        change = fields.number("auc_change", -1.0, 1.0) if fields.has("auc_change") else fields.null("auc_change")
        found = cls(part, passed, samples, largest, mean, flips, change, fields.number("tolerance", 0.0, 1.0))
        fields.done()
        return found


def read_lowered(value: Any, where: str) -> dict[str, dict[str, Lowered]]:
    """The field `lowered` of a manifest: precision -> part in float32 -> its record. Raises PlanCorrupt."""
    fields = Fields(value, where)
    found = {
        precision: fields.mapping(precision, Lowered.from_dict, count=(1, _MAX_RECORDS))
        for precision in LOWER
        if fields.has(precision)
    }
    fields.done()
    return found


def check_lowered(manifest: Manifest, where: str) -> None:
    """Prove that every record is about a float32 part of the plan, and names an INT8 part of the same role.

    Raises:
        PlanCorrupt: one is not.
    """
    for precision, records in manifest.lowered.items():
        for name, record in records.items():
            of = manifest.parts.get(name)
            if of is None or of.precision != "float32" or of.role == "segmenter":
                raise PlanCorrupt(f"{where}.lowered.{precision}: expected a trunk or branch in float32, found {name!r}")
            form = manifest.parts.get(record.part)
            if precision != "int8":
                fits = not record.part
            elif form is None:
                fits = not record.part and not record.passed
            else:
                fits = (form.role, form.precision) == (of.role, "int8")
            if not fits:
                raise PlanCorrupt(
                    f"{where}.lowered.{precision}.{name}: expected "
                    f"{'an int8 part of the same role' if precision == 'int8' else 'no part of its own'}, "
                    f"found {record.part!r}"
                )


def forms_of(manifest: Manifest, precision: str) -> dict[str, str]:
    """Part -> "fp16", "bf16" or the name of its INT8 part, for the trunks and branches that are lowered.

    FP16 and BF16 lower every part but those whose record says that it did not pass; INT8 those that passed.

    Raises:
        InputError: another precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision: expected one of {', '.join(PRECISIONS)}, found {precision!r:.40}")
    if precision == "float32":
        return {}
    records: Mapping[str, Lowered] = manifest.lowered.get(precision, {})
    if precision == "int8":
        return {name: record.part for name, record in records.items() if record.passed}
    used = [part for tree in manifest.trees for part in (tree.trunk, *(branch.part for branch in tree.branches))]
    return {name: precision for name in dict.fromkeys(used) if name not in records or records[name].passed}
