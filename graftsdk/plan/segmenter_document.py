"""The JSON document that travels with a segmenter of our own: everything that its network and priors are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graftsdk.errors import PlanCorrupt
from graftsdk.plan.cropspec import MAX_SIDE
from graftsdk.plan.document_head import DOCUMENT_VERSION, NAME, Provenance, any_number, start_document
from graftsdk.plan.strict_json import dump_json

__all__ = ["LEVELS", "SCORE_THRESHOLD", "SegmenterDocument", "default_scales"]

LEVELS = 5  # P3..P7
SCORE_THRESHOLD = "score_threshold"  # among the metrics: the score from which a person is one, by validation data
LEAST_SIDE = 32  # C5 has one cell
MAX_KINDS = 255  # classes without the background
_BASE_SIDE = 550  # the original's input
_BASE_SCALES = (24.0, 48.0, 96.0, 192.0, 384.0)  # pixels of it, P3..P7
_FAMILIES = ("yolact",)


@dataclass(frozen=True)
class SegmenterDocument:
    """What is known of a segmenter.

    Attributes:
        arch: the backbone's registered name, "resnet50". width: share of its channels, 0 < width <= 1.
        input_size: (H, W) that images are stretched to, pixels.
        scales: of the priors of P3..P7, pixels of the input.
        classes: names, without the background.
        channels: of FPN, protonet and prediction head. prototypes: K, the number of masks that are combined.
        aspect_ratios: of each cell's priors, width : height.
        square_priors: priors as high as wide whatever the aspect ratio, as in the original's COCO configurations.
        norm: whether BatchNorm stands behind the convolutions of pyramid and protonet; the original has none.
        family: how its outputs are decoded, "yolact".
        metrics: name -> value on validation data.
    """

    arch: str
    width: float
    input_size: tuple[int, int]
    scales: tuple[float, ...]
    classes: tuple[str, ...] = ("person",)
    channels: int = 256
    prototypes: int = 32
    aspect_ratios: tuple[float, ...] = (1.0, 0.5, 2.0)
    square_priors: bool = True
    norm: bool = False
    family: str = "yolact"
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def score_threshold(self) -> float | None:
        """The score with the greatest F1 on validation data; None where nobody measured it."""
        found = self.metrics.get(SCORE_THRESHOLD)
        return found if found is not None and 0.0 < found <= 1.0 else None

    def to_dict(self) -> dict[str, Any]:
        """The document as JSON types."""
        return {
            "kind": "segmenter",
            "version": DOCUMENT_VERSION,
            "family": self.family,
            "arch": self.arch,
            "width": self.width,
            "channels": self.channels,
            "prototypes": self.prototypes,
            "classes": list(self.classes),
            "input_size": list(self.input_size),
            "scales": list(self.scales),
            "aspect_ratios": list(self.aspect_ratios),
            "square_priors": self.square_priors,
            "norm": self.norm,
            "metrics": dict(self.metrics),
            "provenance": self.provenance.to_dict(),
        }

    def to_json(self) -> str:
        """The document as it stands in a file."""
        return dump_json(self.to_dict())

    @classmethod
    def from_dict(cls, value: Any, where: str) -> SegmenterDocument:
        """The document in a file's JSON. Raises PlanCorrupt or PlanVersionError."""
        fields = start_document(value, where, "segmenter")
        height, width = fields.integers("input_size", LEAST_SIDE, MAX_SIDE, count=(2, 2))
        document = cls(
            family=fields.choice("family", _FAMILIES),
            arch=fields.matching("arch", NAME),
            width=fields.number("width", 1e-3, 1.0),
            channels=fields.integer("channels", 8, 1024),
            prototypes=fields.integer("prototypes", 1, 256),
            classes=fields.texts("classes", count=(1, MAX_KINDS)),
            input_size=(height, width),
            scales=fields.numbers("scales", 1e-3, 1e5, count=(LEVELS, LEVELS)),
            aspect_ratios=fields.numbers("aspect_ratios", 1e-2, 1e2, count=(1, 16)),
            square_priors=fields.boolean("square_priors"),
            norm=fields.boolean("norm"),
            metrics=fields.mapping("metrics", any_number, count=(0, 256)),
            provenance=Provenance.from_dict(fields.raw("provenance"), f"{where}.provenance"),
        )
        fields.done()
        if len({name.casefold() for name in document.classes}) != len(document.classes):
            raise PlanCorrupt(f"{where}.classes: expected different names, found {list(document.classes)!r:.200}")
        return document


def default_scales(input_size: tuple[int, int]) -> tuple[float, ...]:
    """Of the priors of P3..P7, pixels: the original's at 550, in proportion to the shorter side (H, W)."""
    return tuple(scale * min(input_size) / _BASE_SIDE for scale in _BASE_SCALES)
