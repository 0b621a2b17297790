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

Shape = Sequence[int | str | None]  # a name or None where a dimension is free; empty where nothing is known
Size = tuple[int, int]

FAMILIES: Mapping[str, type[Adapter]] = {YoloAdapter.family: YoloAdapter}

_KNOWN = (
    "yolo (YOLOv8-seg and YOLO11-seg, exported without nms): input [1, 3, H, W], sides multiples of 32; "
    "outputs [1, 4 + classes + 32, A] and [1, 32, H / 4, W / 4]"
)


class SegmenterFields(TypedDict):
    """What a manifest's SegmenterInfo needs of a network, beside the part's name; the rest has defaults."""

    family: str
    input: str
    input_size: Size
    outputs: tuple[str, ...]
    person_class: int
    score_threshold: float
    iou_threshold: float


def open_adapter(info: SegmenterInfo) -> Adapter:
    """The adapter of a plan's segmenter.

    Raises:
        InputError: a family that this version does not know.
    """
    return _adapter(info.family, "update graftsdk")(info)


def recognise(
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    family: str | None = None,
    input_size: Size | None = None,
) -> SegmenterFields:
    """What is needed to run an unknown ONNX file as a segmenter, told by the shapes of its inputs and outputs.

    The person is class 0 and the thresholds are the family's own (score 0.25, IoU 0.7): a caller who knows better
    replaces them.

    Args:
        inputs: name -> shape; a free dimension is a string or None; a shape of which nothing is known is empty.
        outputs: likewise.
        family: what the network is, where its shapes leave it open. What they do say must fit.
        input_size: (H, W) to run it at, where the sides of its input are free.

    Raises:
        InputError: no family has these shapes, or they leave open which family it is or at which size it runs; lists
            what was found and what is known, and tells how to say it.
    """
    if family is not None:
        _adapter(family, "say one of these, or leave it to the shapes")
    where = f"found inputs {_text(inputs)} and outputs {_text(outputs)}"
    found = _yolo(inputs, outputs, input_size)
    if found is None:
        wanted = "a known family's shapes" if family is None else f"the shapes of family {family!r}"
        size = "" if input_size is None else f" at {list(input_size)}"
        raise InputError(
            f"segmenter: expected {wanted}{size}, {where}; known: {_KNOWN}; "
            f"export it in that form, or bring masks or boxes"
        )
    fields, open_size, open_family = found
    advice = [_SAY_FAMILY] * (open_family and family is None) + [_SAY_SIZE] * open_size
    if advice:
        raise InputError(
            f"segmenter: expected shapes that tell family and size, {where}; known: {_KNOWN}; if it is that, "
            f"say so: {' and '.join(advice)}"
        )
    return fields


_SAY_FAMILY = f"segmenter_family={YoloAdapter.family!r} (--segmenter-family {YoloAdapter.family})"
_SAY_SIZE = "segmenter_size=(H, W) (--segmenter-size H W)"


def _adapter(family: str, advice: str) -> type[Adapter]:
    found = FAMILIES.get(family)
    if found is None:
        known = ", ".join(map(repr, FAMILIES))
        raise InputError(f"segmenter: expected a family among {known}, found {family!r:.80}; {advice}")
    return found


def _yolo(
    inputs: Mapping[str, Shape], outputs: Mapping[str, Shape], size: Size | None
) -> tuple[SegmenterFields, bool, bool] | None:
    """Fields, whether the size is open, whether the family is; None where a shape contradicts it."""
    if len(inputs) != 1 or len(outputs) != 2:
        return None
    ((name, image),) = inputs.items()
    if len(image) != 4 or not _agree(image, (1, 3, *(size or (None, None)))):
        return None
    # Without a size any will do: the free shapes of an input whose sides are free contradict none.
    height, width = (
        stated if isinstance(stated, int) else given for stated, given in zip(image[2:], size or (32, 32), strict=True)
    )
    if min(height, width) < 32 or height % 32 or width % 32:
        return None
    anchors = sum((height // stride) * (width // stride) for stride in STRIDES)
    grid = (height // PROTOTYPE_STRIDE, width // PROTOTYPE_STRIDE)
    open_size = size is None and not all(isinstance(side, int) for side in image[2:])
    places: tuple[int | None, ...] = (None, None, None) if open_size else (anchors, *grid)
    for predictions, prototypes in (tuple(outputs), tuple(outputs)[::-1]):
        shapes = outputs[predictions], outputs[prototypes]
        if not _agree(shapes[0], (1, None, places[0])) or not _agree(shapes[1], (1, COEFFICIENTS, *places[1:])):
            continue
        channels = shapes[0][1] if shapes[0] else None
        if isinstance(channels, int) and channels <= 4 + COEFFICIENTS:
            continue
        told = [image[1], *shapes[0][1:], *shapes[1][1:]]
        fields = SegmenterFields(
            family=YoloAdapter.family,
            input=name,
            input_size=(height, width),
            outputs=(predictions, prototypes),
            person_class=0,
            score_threshold=0.25,
            iou_threshold=0.7,
        )
        return fields, open_size, len(told) < 6 or not all(isinstance(side, int) for side in told)
    return None


def _agree(shape: Shape, wanted: Sequence[int | None]) -> bool:
    """Whether what is known of a shape does not contradict `wanted`, where None fits any size."""
    return not shape or (
        len(shape) == len(wanted)
        and all(not isinstance(side, int) or size in (None, side) for side, size in zip(shape, wanted, strict=True))
    )


def _text(shapes: Mapping[str, Shape]) -> str:
    parts = [f"{name!r:.64} {['?' if d is None else d for d in shape]}" for name, shape in list(shapes.items())[:8]]
    return (", ".join(parts) or "none") + (", ..." if len(shapes) > 8 else "")
