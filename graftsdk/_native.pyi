from typing import Any

import numpy as np
import numpy.typing as npt

def all_finite(values: npt.NDArray[np.float32]) -> bool: ...
def covering(
    values: npt.NDArray[np.float32],
    shapes: npt.NDArray[np.int64],
    extents: npt.NDArray[np.float32],
    height: int,
    width: int,
) -> npt.NDArray[np.bool_]: ...
def cpu_features() -> list[str]: ...
def mask_crop(
    image: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float64],
    masks: npt.NDArray[Any] | None = None,
    arrays: tuple[npt.NDArray[Any], ...] | None = None,
    extents: npt.NDArray[np.float32] | None = None,
    *,
    size: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    fill: int,
    reverse: bool,
    antialias: bool,
    letterbox: bool,
    pad: float,
    threads: int = 1,
    out: npt.NDArray[np.float32] | None = None,
    level: str | None = None,
) -> npt.NDArray[np.float32]: ...
def mask_crop_levels() -> list[str]: ...
def prototype_masks(
    prototypes: npt.NDArray[np.float32], coefficients: npt.NDArray[np.float32], windows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]: ...
def resize_table(
    source: int, target: int, antialias: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...
def suppress(boxes: npt.NDArray[np.float64], iou_threshold: float, limit: int) -> npt.NDArray[np.int64]: ...
def suppress_fast(
    boxes: npt.NDArray[np.float64], iou_threshold: float, top: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...
