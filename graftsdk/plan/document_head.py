"""What every document begins and ends with: its kind, its version, and who made it from what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graftsdk.errors import PlanVersionError
from graftsdk.plan.strict_json import Fields

__all__ = [
    "DOCUMENT_KEY",
    "DOCUMENT_VERSION",
    "HEX64",
    "MAX_COUNT",
    "NAME",
    "Provenance",
    "any_number",
    "start_document",
]

DOCUMENT_KEY = "graftsdk"
DOCUMENT_VERSION = 1
HEX64 = "[0-9a-f]{64}"
NAME = "[a-z0-9][a-z0-9_.-]{0,63}"
MAX_COUNT = 2**53


@dataclass(frozen=True)
class Provenance:
    """Who made a part and from what.

    Attributes:
        licence, author: the author's own words, or "".
        data: SHA-256 digests (64 hex digits) of the data sets it saw.
    """

    licence: str = ""
    author: str = ""
    data: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"licence": self.licence, "author": self.author, "data": list(self.data)}

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Provenance:
        fields = Fields(value, where)
        found = cls(
            fields.text("licence", empty=True),
            fields.text("author", empty=True),
            fields.matchings("data", HEX64, count=(0, 256)),
        )
        fields.done()
        return found


def start_document(value: Any, where: str, kind: str) -> Fields:
    """The fields of a document whose kind and version are right. Raises PlanCorrupt or PlanVersionError."""
    fields = Fields(value, where)
    fields.choice("kind", (kind,))
    version = fields.integer("version", 0, MAX_COUNT)
    if version != DOCUMENT_VERSION:
        raise PlanVersionError(
            f"{where}: expected document version {DOCUMENT_VERSION}, found {version}; "
            f"export it again, or install the graftsdk that wrote it"
        )
    return fields


def any_number(value: Any, where: str) -> float:
    """A metric: any finite number of moderate size. Raises PlanCorrupt."""
    return Fields({"value": value}, where).number("value", -1e12, 1e12)
