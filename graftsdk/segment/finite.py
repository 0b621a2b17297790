"""NaN and infinity in a network's outputs: every adapter looks for them before it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk import _native
from graftsdk.errors import NonFiniteOutput

__all__ = ["ADVICE", "check_finite"]

ADVICE = "check the segmenter's weights with graftsdk verify"


def check_finite(names: Sequence[str], outputs: Sequence[npt.NDArray[Any]]) -> None:
    """Refuse outputs that are not finite.

    Args:
        names: of the outputs, for the message.
        outputs: floats of any shape; contiguous float32 is read at the speed of memory.

    Raises:
        NonFiniteOutput: names the output.
    """
    for name, output in zip(names, outputs, strict=True):
        plain = output.dtype == np.float32 and output.dtype.isnative and output.flags.carray
        if not (_native.all_finite(output) if plain else np.isfinite(output).all()):
            raise NonFiniteOutput(f"segmenter output {name!r}: expected finite values, found NaN or infinity; {ADVICE}")
