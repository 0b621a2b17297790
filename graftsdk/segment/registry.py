"""Which adapter reads which network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from graftsdk.errors import InputError
from graftsdk.segment.base import Adapter
from graftsdk.segment.yolo import COEFFICIENTS, PROTOTYPE_STRIDE, STRIDES, YoloAdapter

if TYPE_CHECKING:
    from graftsdk.plan.manifest import SegmenterInfo

__all__ = ["FAMILIES", "SegmenterFields", "open_adapter", "recognise"]

Shape = Sequence[int | str | None]  # a name or None where a dimension is free

FAMILIES: Mapping[str, type[Adapter]] = {YoloAdapter.family: YoloAdapter}

_KNOWN = (
    "yolo (YOLOv8-seg and YOLO11-seg, exported without nms): input [1, 3, H, W], sides fixed and multiples of 32; "
    "outputs [1, 4 + classes + 32, A] and [1, 32, H / 4, W / 4]"
)


class SegmenterFields(TypedDict):
    """What a manifest's SegmenterInfo needs, all but the part's name."""

    family: str
    input: str
    input_size: tuple[int, int]
    outputs: tuple[str, ...]
    person_class: int
    score_threshold: float
    iou_threshold: float


def open_adapter(info: SegmenterInfo) -> Adapter:
    """The adapter of a plan's segmenter.

    Raises:
        InputError: a family that this version does not know.
    """
    family = FAMILIES.get(info.family)
    if family is None:
        known = ", ".join(map(repr, FAMILIES))
        raise InputError(f"segmenter: expected a family among {known}, found {info.family!r:.80}; update graftsdk")
    return family(info)


def recognise(inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> SegmenterFields:
    """What is needed to run an unknown ONNX file as a segmenter, told by the shapes of its inputs and outputs.

    The person is class 0 and the thresholds are the family's own (score 0.25, IoU 0.7): a caller who knows better
    replaces them.

    Args:
        inputs: name -> shape; a free dimension is a string or None.
        outputs: likewise.

    Raises:
        InputError: no known family has these shapes; lists what was found and what is known.
    """
    fields = _yolo(inputs, outputs)
    if fields is None:
        raise InputError(
            f"segmenter: expected a known family's shapes, found inputs {_text(inputs)} and outputs {_text(outputs)}; "
            f"known: {_KNOWN}"
        )
    return fields


def _yolo(inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> SegmenterFields | None:
    if len(inputs) != 1 or len(outputs) != 2:
        return None
    ((name, shape),) = inputs.items()
    if len(shape) != 4 or not _one_or_free(shape[0]) or shape[1] != 3:
        return None
    height, width = shape[2], shape[3]
    if (
        not isinstance(height, int)
        or not isinstance(width, int)
        or height < 32
        or width < 32
        or height % 32
        or width % 32
    ):
        return None
    anchors = sum((height // stride) * (width // stride) for stride in STRIDES)
    grid = [COEFFICIENTS, height // PROTOTYPE_STRIDE, width // PROTOTYPE_STRIDE]
    by_rank = {len(shape): name for name, shape in outputs.items()}
    if set(by_rank) != {3, 4}:
        return None
    predictions, prototypes = outputs[by_rank[3]], outputs[by_rank[4]]
    channels = predictions[1]
    if not isinstance(channels, int) or channels <= 4 + COEFFICIENTS or predictions[2] != anchors:
        return None
    if list(prototypes[1:]) != grid or not _one_or_free(predictions[0]) or not _one_or_free(prototypes[0]):
        return None
    return SegmenterFields(
        family=YoloAdapter.family,
        input=name,
        input_size=(height, width),
        outputs=(by_rank[3], by_rank[4]),
        person_class=0,
        score_threshold=0.25,
        iou_threshold=0.7,
    )


def _one_or_free(dimension: int | str | None) -> bool:
    return not isinstance(dimension, int) or dimension == 1


def _text(shapes: Mapping[str, Shape]) -> str:
    parts = [f"{name!r:.64} {['?' if d is None else d for d in shape]}" for name, shape in list(shapes.items())[:8]]
    return (", ".join(parts) or "none") + (", ..." if len(shapes) > 8 else "")
