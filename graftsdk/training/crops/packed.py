"""The crops of one split of a sub-dataset, decoded once: uint8 in one file that is mapped into memory.

A crop is what serving cuts (`graftsdk.preprocess.read_crop`), rounded to whole values 0..255: at most half a step
of an 8-bit image from it. The file's name holds a digest of the crop specification, of the sub-dataset and of the
images in their order, so another set or another specification never meets it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from graftsdk.errors import InputError, PlanPathError
from graftsdk.files import atomic_write
from graftsdk.plan import CropSpec
from graftsdk.preprocess import read_crop
from graftsdk.text import reason
from graftsdk.training.labels import LabelledImage, LabelSet
from graftsdk.training.labels.sets import SPLITS

__all__ = ["PackedCrops", "normalised", "pack_crops", "packed_path", "whole_values"]

_VERSION = 2  # of the file's layout and of how a crop is rounded
_CHUNK = 64  # crops that are decoded ahead of the file: 100 MB at 720 x 720
_logger = logging.getLogger("graftsdk")


@dataclass(frozen=True, eq=False)
class PackedCrops:
    """One split of a sub-dataset, in the order in which the set has its images.

    Attributes:
        label, classes: of the sub-dataset, the positive class last.
        split: "train", "val" or "test".
        spec: what a crop is.
        pixels: uint8[N, H, W, 3], channels in the order `spec.order`; mapped from the file, read-only.
        targets: int64[N], indices of `classes`.
        identities, cameras: one for each crop.
    """

    label: str
    classes: tuple[str, ...]
    split: str
    spec: CropSpec
    pixels: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]
    identities: tuple[str, ...]
    cameras: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def counts(self) -> tuple[int, ...]:
        """How many crops each class has."""
        return tuple(np.bincount(self.targets, minlength=len(self.classes)).tolist())


def pack_crops(
    labels: LabelSet,
    split: str,
    spec: CropSpec,
    folder: str | os.PathLike[str],
    *,
    threads: int = 1,
    progress: bool = False,
) -> PackedCrops:
    """The split's crops from their file in `folder`, which is made where it is not there yet.

    The file is written whole or not at all; a killed writer leaves nothing that is read.

    Args:
        labels: the sub-dataset, `graftsdk.training.labels.open_label`.
        split: "train", "val" or "test".
        spec: what a crop is.
        folder: of the files; made where it is missing.
        threads: that decode images.
        progress: show a bar while images are decoded.

    Raises:
        InputError: no such split, or no image in it; an image that cannot be read or cut, by its path.
        PlanPathError: `folder` cannot be made or written.
        OSError: the disk is full; nothing is left behind.
    """
    if split not in SPLITS:
        raise InputError(f"split: expected one of {', '.join(SPLITS)}, found {split!r:.80}")
    images: Sequence[LabelledImage] = getattr(labels, split)
    if not images:
        raise InputError(f"{labels.label!r}: expected images in its split {split}, found none; add some, or leave it")
    path = packed_path(labels, split, spec, folder)
    shape = (len(images), *spec.size, 3)
    pixels = _mapped(path, shape)
    if pixels is None:
        _write(path, images, spec, shape, threads, f"{labels.label} {split}" if progress else None)
        pixels = _mapped(path, shape)
    if pixels is None:
        raise PlanPathError(f"{path}: expected the crops that were just written, found others; is the disk sound?")
    return PackedCrops(
        labels.label,
        tuple(labels.classes),
        split,
        spec,
        pixels,
        np.array([image.target for image in images], np.int64),
        tuple(image.identity for image in images),
        tuple(image.camera for image in images),
    )


def packed_path(labels: LabelSet, split: str, spec: CropSpec, folder: str | os.PathLike[str]) -> Path:
    """Where `pack_crops` keeps them."""
    # The set's digest knows names and sizes; the time of writing tells two images of one size apart.
    files = [("/".join(image.path.parts[-3:]), image.path.stat().st_mtime_ns) for image in getattr(labels, split)]
    document = [_VERSION, spec.to_dict(), labels.digest, split, files]
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
    plain = re.sub(r"[^0-9A-Za-z_-]+", "_", labels.label)[:40]  # for people who look into the folder
    return Path(folder) / f"{plain}.{split}.{digest[:32]}.npy"


def _mapped(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """The file's array; None where there is none, or one that was cut short."""
    try:
        pixels: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        _logger.warning("%s: expected packed crops, found a damaged file; it is made anew: %s", path, error)
        return None
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        _logger.warning("%s: expected uint8%s, found %s%s; it is made anew", path, shape, pixels.dtype, pixels.shape)
        return None
    return pixels


def _write(
    path: Path, images: Sequence[LabelledImage], spec: CropSpec, shape: tuple[int, ...], threads: int, bar: str | None
) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanPathError(
            f"{path.parent}: expected a folder for packed crops that can be made, found: {reason(error)}; "
            f"name another cache folder"
        ) from error
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (
        atomic_write(path) as file,
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(images), desc=bar, unit="crop", disable=bar is None, dynamic_ncols=True, leave=False) as line,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            for crop in pool.map(_reader(spec), (image.path for image in chunk)):
                file.write(crop.tobytes())
            line.update(len(chunk))


def _reader(spec: CropSpec) -> Callable[[Path], npt.NDArray[np.uint8]]:
    def read(path: Path) -> npt.NDArray[np.uint8]:
        return whole_values(read_crop(path, spec), spec)

    return read


def whole_values(crop: npt.NDArray[np.float32], spec: CropSpec) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3]: the nearest bytes to a crop float32[3, H, W] that `spec` has normalised."""
    std, mean = (np.array(values, np.float32)[:, None, None] for values in (spec.std, spec.mean))
    return np.ascontiguousarray(np.rint(255 * (crop * std + mean)).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def normalised(pixels: torch.Tensor, spec: CropSpec) -> torch.Tensor:
    """float32[N, 3, H, W], channels last, as the network wants it, of bytes uint8[N, H, W, 3]: (x / 255 - mean) / std.

    On the device of `pixels`.
    """
    mean, std = (torch.tensor(values, dtype=torch.float32, device=pixels.device) for values in (spec.mean, spec.std))
    scaled = pixels.float().mul_(1 / (255 * std)).sub_(mean / std)
    return scaled.permute(0, 3, 1, 2)  # NHWC in memory is what torch calls channels last
