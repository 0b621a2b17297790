"""What the shapes of a network's inputs and outputs say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

__all__ = ["ImageInput", "Match", "Shape", "Shapes", "Size", "agree", "arranged", "image_input", "show"]

Shape = Sequence[int | str | None]  # a name or None where a dimension is free; empty where nothing is known
Shapes = Mapping[str, Shape]
Size = tuple[int, int]  # (H, W)


@dataclass(frozen=True)
class Match:
    """How a network whose shapes contradict nothing of a family is read as one.

    Attributes:
        input: its name. input_size: (H, W). outputs: names, in the adapter's order.
        batched: whether the input has a batch axis.
        open_size: whether the shapes leave the input's sides open; `input_size` means nothing then.
        open_family: whether they leave open that it is this family.
        score_threshold, iou_threshold: where they differ from the family's own.
    """

    input: str
    input_size: Size
    outputs: tuple[str, ...]
    batched: bool = True
    open_size: bool = False
    open_family: bool = False
    score_threshold: float | None = None
    iou_threshold: float | None = None


@dataclass(frozen=True)
class ImageInput:
    """The one input of a network that takes an image.

    Attributes:
        name, size: its name and (H, W); where a side is free and nobody said it, `open_size`, and the side is a guess.
        told: whether its channels are stated. batched: whether it has a batch axis.
    """

    name: str
    size: Size
    open_size: bool
    told: bool
    batched: bool


def image_input(inputs: Shapes, size: Size | None, *, multiple: int = 1, unbatched: bool = False) -> ImageInput | None:
    """The one input, [1, 3, H, W]; None where there are more or its shape is another.

    Args:
        inputs: name -> shape.
        size: (H, W) that the caller wants; None leaves it to the shape.
        multiple: what the sides must be multiples of; at least 32 they must be anyway.
        unbatched: whether [3, H, W] is one too.
    """
    if len(inputs) != 1:
        return None
    ((name, shape),) = inputs.items()
    batched = len(shape) != 3 or not unbatched
    wanted = (3, *(size or (None, None)))
    if not shape or not agree([shape], [(1, *wanted) if batched else wanted]):
        return None
    # Without a size any will do: the free shapes of an input whose sides are free contradict none.
    height, width = (
        stated if isinstance(stated, int) else given for stated, given in zip(shape[-2:], size or (32, 32), strict=True)
    )
    if min(height, width) < 32 or height % multiple or width % multiple:
        return None
    open_size = size is None and not all(isinstance(side, int) for side in shape[-2:])
    return ImageInput(name, (height, width), open_size, isinstance(shape[-3], int), batched)


def agree(shapes: Sequence[Shape], wanted: Sequence[Shape]) -> bool:
    """Whether what is known of some shapes does not contradict those that are wanted.

    Args:
        wanted: an int is a side's size, a name a size that is the same wherever it stands, None any size.
    """
    sizes: dict[str, int] = {}
    for shape, sides in zip(shapes, wanted, strict=True):
        if shape and len(shape) != len(sides):
            return False
        for found, side in zip(shape, sides if shape else (), strict=True):
            if not isinstance(found, int) or side is None:
                continue
            if found != (sizes.setdefault(side, found) if isinstance(side, str) else side):
                return False
    return True


def arranged(outputs: Shapes, wanted: Sequence[Shape]) -> tuple[str, ...] | None:
    """The outputs' names in the order in which their shapes are wanted, as `agree`; None where they do not fit.

    Where the shapes leave it open which is which, the outputs stand as they are given.
    """
    if len(outputs) != len(wanted):
        return None
    for names in permutations(outputs):
        if agree([outputs[name] for name in names], wanted):
            return names
    return None


def show(shapes: Shapes) -> str:
    """The first eight of them, for a message."""
    parts = [f"{name!r:.64} {['?' if d is None else d for d in shape]}" for name, shape in list(shapes.items())[:8]]
    return (", ".join(parts) or "none") + (", ..." if len(shapes) > 8 else "")
