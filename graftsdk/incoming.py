"""Images as they are handed in: decoded on the host, or taken where they lie on a GPU.

Nothing of a GPU is imported here: a predictor on a CPU starts without it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from graftsdk.engines.feeds import on_device
from graftsdk.errors import InputError
from graftsdk.preprocess.ahead import Decoded, decode_ahead, decode_timed
from graftsdk.preprocess.image import Color

if TYPE_CHECKING:
    from graftsdk.device_scene import DeviceFrames

__all__ = ["decode_or_take", "decode_or_take_ahead"]

_CPU = 1  # DLDeviceType


def decode_or_take(source: Any, color: Color, reduce: int, frames: DeviceFrames | None) -> Decoded:
    """One image as `decode_timed` gives it, or an array of another library as `frames` takes it.

    Args:
        source, color, reduce: as for `Predictor.predict`.
        frames: None where the engine does not run on TensorRT: such arrays are refused, and it is said what to do.
    """
    if not on_device(source):
        return decode_timed(source, color, reduce)
    return Decoded(source, _refused(source), 0.0) if frames is None else frames.take(source, color, reduce)


def decode_or_take_ahead(
    sources: Sequence[Any], color: Color, reduce: int, frames: DeviceFrames | None
) -> Generator[Decoded]:
    """As `decode_or_take`, of several, in order; images of the host are decoded ahead. Close it where left early."""
    on_host = [source for source in sources if not on_device(source)]
    with closing(decode_ahead(on_host, color, reduce)) as ahead:
        for source in sources:
            yield decode_or_take(source, color, reduce, frames) if on_device(source) else next(ahead)


def _refused(source: Any) -> InputError:
    """What a predictor says to such an array where it does not run on TensorRT."""
    kind = type(source).__name__
    try:
        on_host = not hasattr(source, "__cuda_array_interface__") and source.__dlpack_device__()[0] == _CPU
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        on_host = False
    if on_host:
        return InputError(f"image: expected a NumPy array uint8[H, W, 3], found {kind} in host memory; use np.asarray")
    return InputError(
        f"image: expected an image in host memory, found {kind} on a device; pass frame.cpu().numpy() or its like, or "
        f"open the predictor with engine='tensorrt', which takes frames where they are"
    )
