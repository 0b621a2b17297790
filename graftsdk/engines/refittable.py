"""What a record says of an engine whose weights can be exchanged: its structure, and how parts are called inside.

Inside such an engine parts are named by their position, so that the engines of two plans that differ in weights alone
have one structure and the same names. Outside, in plans and graphs, they keep their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftsdk.errors import PlanCorrupt
from graftsdk.plan.strict_json import Fields

__all__ = ["Refittable", "renamed"]

_PART = "[0-9a-f]{16}([.][0-9a-f]{16})?"
_POSITION = "[0-9a-f]{16}"
_HEX64 = "[0-9a-f]{64}"


@dataclass(frozen=True)
class Refittable:
    """That an engine can be refitted.

    Attributes:
        structure: SHA-256 of its graph without weights. Graphs of one structure differ in weights alone.
        names: the plan's name of a part -> its name inside the engine, for all that the graph's values begin with.
        golden: greatest difference of a probability from the plan's golden scores, measured after the build.
        refitted_from: SHA-256 of the engine whose weights were exchanged; None where it was built in full.
    """

    structure: str
    names: Mapping[str, str]
    golden: float
    refitted_from: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "structure": self.structure,
            "names": dict(self.names),
            "golden": self.golden,
            "refitted_from": self.refitted_from,
        }

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Refittable:
        """What `to_dict` gave, checked field by field. Raises PlanCorrupt."""
        fields = Fields(value, where)
        found = cls(
            structure=fields.matching("structure", _HEX64),
            names=fields.mapping("names", _read_position, count=(1, 4096)),
            golden=fields.number("golden", 0.0, 1.0),
            refitted_from=fields.matching("refitted_from", _HEX64)
            if fields.has("refitted_from")
            else fields.null("refitted_from"),
        )
        fields.done()
        strange = [name for name in found.names if re.fullmatch(_PART, name, re.ASCII) is None]
        if strange or len(set(found.names.values())) != len(found.names):
            raise PlanCorrupt(f"{where}.names: expected parts, each with a position of its own, found {value!r:.200}")
        return found


def renamed(name: str, names: Mapping[str, str]) -> str:
    """`<part>/<own name>` with the part's other name; what belongs to no part, as `crops`, stays."""
    part, slash, own = name.partition("/")
    return f"{names.get(part, part)}{slash}{own}"


def _read_position(value: Any, where: str) -> str:
    return Fields({"position": value}, where).matching("position", _POSITION)
