"""Which adapter reads which network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NotRequired, TypedDict

from graftsdk.errors import InputError
from graftsdk.segment.base import Adapter
from graftsdk.segment.maskrcnn import MaskRcnnAdapter
from graftsdk.segment.shapes import Match, Shapes, Size, show
from graftsdk.segment.yolact import YolactAdapter
from graftsdk.segment.yolo import YoloAdapter

if TYPE_CHECKING:
    from graftsdk.plan.manifest import SegmenterInfo

__all__ = ["ADAPTERS", "SegmenterFields", "open_adapter", "recognise"]

_CLASSES: tuple[type[Adapter], ...] = (YoloAdapter, YolactAdapter, MaskRcnnAdapter)
ADAPTERS: Mapping[str, type[Adapter]] = {adapter.family: adapter for adapter in _CLASSES}

_SAY_SIZE = "segmenter_size=(H, W) (--segmenter-size H W)"


class SegmenterFields(TypedDict):
    """What a manifest's SegmenterInfo needs of a network, beside the part's name; the rest has defaults."""

    family: str
    input: str
    input_size: Size
    outputs: tuple[str, ...]
    person_class: int
    score_threshold: float
    iou_threshold: float
    nms: str
    batched: NotRequired[bool]


def open_adapter(info: SegmenterInfo) -> Adapter:
    """The adapter of a plan's segmenter.

    Raises:
        InputError: a family that this version does not know, or one that does not suppress as the plan says.
    """
    adapter = _adapter(info.family, "update graftsdk")
    if info.nms not in adapter.nms:
        raise InputError(
            f"segmenter: expected nms {' or '.join(map(repr, adapter.nms))} for family {info.family!r}, "
            f"found {info.nms!r}"
        )
    return adapter(info)


def recognise(
    inputs: Shapes, outputs: Shapes, family: str | None = None, input_size: Size | None = None
) -> SegmenterFields:
    """What is needed to run an unknown ONNX file as a segmenter, told by the shapes of its inputs and outputs.

    The person's class, the thresholds and the suppression are the family's own: a caller who knows better replaces
    them.

    Args:
        inputs: name -> shape; a free dimension is a string or None; a shape of which nothing is known is empty.
        outputs: likewise.
        family: what the network is, where its shapes leave it open. What they do say must fit.
        input_size: (H, W) to run it at, where the sides of its input are free.

    Raises:
        InputError: no family has these shapes, or they leave open which family it is or at which size it runs; lists
            what was found and what is known, and tells how to say it.
    """
    asked = ADAPTERS if family is None else {family: _adapter(family, "say one of these, or leave it to the shapes")}
    found = {name: match for name, one in asked.items() if (match := one.match(inputs, outputs, input_size))}
    told = {name: match for name, match in found.items() if not match.open_family}
    found = told or found  # shapes that say what they are leave nothing to those that say little
    if not found:
        wanted = "a known family's shapes" if family is None else f"the shapes of family {family!r}"
        size = "" if input_size is None else f" at {list(input_size)}"
        raise InputError(
            f"segmenter: expected {wanted}{size}, {_found(inputs, outputs)}; "
            f"export it in one of these forms, or bring masks or boxes"
        )
    name, match = next(iter(found.items()))
    advice = [_say(found)] * (family is None and (match.open_family or len(found) > 1)) + [_SAY_SIZE] * match.open_size
    if advice:
        raise InputError(
            f"segmenter: expected shapes that tell family and size, {_found(inputs, outputs)}; if it is "
            f"{' or '.join(found)}, say so: {' and '.join(advice)}"
        )
    return _fields(ADAPTERS[name], match)


def _fields(adapter: type[Adapter], match: Match) -> SegmenterFields:
    fields = SegmenterFields(
        family=adapter.family,
        input=match.input,
        input_size=match.input_size,
        outputs=match.outputs,
        person_class=adapter.person_class,
        score_threshold=adapter.score_threshold if match.score_threshold is None else match.score_threshold,
        iou_threshold=adapter.iou_threshold if match.iou_threshold is None else match.iou_threshold,
        nms=adapter.nms[0],
    )
    if not match.batched:
        fields["batched"] = False
    return fields


def _adapter(family: str, advice: str) -> type[Adapter]:
    found = ADAPTERS.get(family)
    if found is None:
        known = ", ".join(map(repr, ADAPTERS))
        raise InputError(f"segmenter: expected a family among {known}, found {family!r:.80}; {advice}")
    return found


def _say(families: Mapping[str, Match]) -> str:
    return " or ".join(f"segmenter_family={name!r} (--segmenter-family {name})" for name in families)


def _found(inputs: Shapes, outputs: Shapes) -> str:
    known = "; ".join(f"{name} ({adapter.shapes})" for name, adapter in ADAPTERS.items())
    return f"found inputs {show(inputs)} and outputs {show(outputs)}; known: {known}"
