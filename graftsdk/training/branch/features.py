"""What a frozen trunk gives at a tap: kept on disk, one file for each tap and view, or computed when it is asked for.

A frozen trunk is a pure function, so each view of an image passes through it once, however many epochs follow
(paper 3.2 trains a branch on a fixed trunk). A file's name holds the digest of everything that its numbers follow
from: the trunk's fingerprint at the tap, the images, what a view is, and the precision. Another trunk, other images
or another augmentation are another name, never a wrong hit.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from graftsdk.errors import InputError, NonFiniteOutput
from graftsdk.files import atomic_write
from graftsdk.models import Trunk
from graftsdk.plan.strict_json import dump_json
from graftsdk.text import reason

__all__ = [
    "Crops",
    "Features",
    "LiveFeatures",
    "Precision",
    "StoredFeatures",
    "feature_path",
    "frozen",
    "store_features",
]

FORMAT = 1
_FULL = (errno.ENOSPC, errno.EDQUOT)
_logger = logging.getLogger("graftsdk")

Precision = Literal["float16", "float32"]
_Indices = npt.NDArray[np.int64]


class Crops(Protocol):
    """Images as a trunk's input, in any number of views.

    Attributes:
        digest: of the images, their order and what was annotated of them.
        recipe: what a view is: augmentation and seed. Equal digest, recipe, view and index give equal crops.
    """

    digest: str
    recipe: str

    def __len__(self) -> int: ...

    def take(self, indices: npt.NDArray[np.int64], view: int) -> torch.Tensor:
        """float32[n, 3, H, W]: view `view` of these images. View 0 is the image as serving cuts it."""


class Features(Protocol):
    """Features at a tap of `len` images in `views` views."""

    views: int

    def __len__(self) -> int: ...

    def take(self, indices: _Indices, views: _Indices) -> torch.Tensor:
        """float32[n, C, H, W] on the CPU: image indices[i] in view views[i]."""


class StoredFeatures:
    """Features in memory-mapped files; what is drawn is read, nothing else."""

    def __init__(self, maps: Sequence[npt.NDArray[Any]]) -> None:
        """Args: maps: one array [N, H, W, C] a view, float16 or float32."""
        self.views = len(maps)
        self._maps = tuple(maps)

    def __len__(self) -> int:
        return int(self._maps[0].shape[0])

    @property
    def nbytes(self) -> int:
        """Of all views."""
        return sum(array.nbytes for array in self._maps)

    def take(self, indices: _Indices, views: _Indices) -> torch.Tensor:
        """float32[n, C, H, W], channels last: image indices[i] in view views[i]."""
        taken = np.empty((len(indices), *self._maps[0].shape[1:]), np.float32)
        for row, (index, view) in enumerate(zip(indices, views, strict=True)):
            taken[row] = self._maps[view][index]
        return torch.from_numpy(taken).permute(0, 3, 1, 2)


class LiveFeatures:
    """The same through the trunk, each time anew: for data whose features no disk holds."""

    def __init__(self, trunk: Trunk, tap: int, crops: Crops, views: int) -> None:
        """Args: trunk: frozen, in eval mode."""
        self.views = views
        self._trunk, self._tap, self._crops = trunk, trunk.check_tap(tap), crops

    def __len__(self) -> int:
        return len(self._crops)

    def take(self, indices: _Indices, views: _Indices) -> torch.Tensor:
        """float32[n, C, H, W]: image indices[i] in view views[i]."""
        crops = torch.empty(len(indices), 3, *self._trunk.input_size)
        for view in np.unique(views):
            rows = np.flatnonzero(views == view)
            crops[torch.from_numpy(rows)] = self._crops.take(indices[rows], int(view))
        return _through(self._trunk, crops, (self._tap,))[0].float().cpu()


def feature_path(folder: Path, trunk: Trunk, tap: int, crops: Crops, view: int, precision: Precision) -> Path:
    """Where the features of one tap and view lie, or would."""
    follows = {
        "format": FORMAT,
        "fingerprint": trunk.fingerprint(tap),  # of the crop specification too
        "tap": tap,
        "data": crops.digest,
        "images": len(crops),
        "recipe": crops.recipe,
        "view": view,
        "precision": precision,
    }
    digest = hashlib.sha256(dump_json(follows).encode()).hexdigest()
    return folder / f"tap{tap}-view{view}-{digest[:32]}.npy"


def store_features(
    trunk: Trunk,
    taps: Sequence[int],
    crops: Crops,
    views: int,
    folder: Path,
    *,
    precision: Precision = "float16",
    batch: int = 32,
    stop: threading.Event | None = None,
    progress: bool = False,
    what: str = "features",
) -> dict[int, StoredFeatures]:
    """Features of `crops` at each tap, from the files in `folder` where they are there, else written now.

    What is missing of one view is computed in one pass for all taps, and its files appear together at the end of the
    pass, whole or not at all.

    Args:
        trunk: frozen, in eval mode.
        taps: of the trunk.
        crops: what goes through it.
        views: how many views of each crop.
        folder: made where it is not there.
        precision: of the files; float16 halves them, and is how most engines would hand a tap on.
        batch: crops at once.
        stop: set to interrupt.
        progress: show a bar.
        what: the bar's text.

    Raises:
        KeyboardInterrupt: `stop` was set.
        InputError: the folder cannot be made; or an image cannot be read.
        NonFiniteOutput: features that are not finite, or pass float16's 65504.
        OSError: the disk is full or fails; nothing is left of the pass.
    """
    _make(folder)
    paths = {
        (tap, view): feature_path(folder, trunk, tap, crops, view, precision) for tap in taps for view in range(views)
    }
    shapes = {tap: _shape(trunk, tap, crops) for tap in taps}
    found = {key: _open(path, shapes[key[0]], precision) for key, path in paths.items()}
    missing = [key for key, array in found.items() if array is None]
    size = np.dtype(precision).itemsize
    needed = sum(size * int(np.prod(shapes[tap])) for tap, _ in missing)
    if needed > shutil.disk_usage(folder).free:
        raise _full(folder, needed, errno.ENOSPC)
    passes = sorted({view for _, view in missing})
    with tqdm(total=len(passes) * len(crops), unit="crop", desc=what, disable=not (progress and passes)) as bar:
        for view in passes:
            wanted = [tap for tap in taps if (tap, view) in missing]
            try:
                _write(trunk, wanted, crops, view, [paths[tap, view] for tap in wanted], precision, batch, stop, bar)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise _full(folder, needed, error.errno) from error
    for key in missing:
        found[key] = _open(paths[key], shapes[key[0]], precision)
    arrays = {key: array for key, array in found.items() if array is not None}
    if len(arrays) < len(found):
        raise OSError(errno.ESTALE, f"{folder}: expected the features just written, found them changed; run it again")
    return {tap: StoredFeatures([arrays[tap, view] for view in range(views)]) for tap in taps}


def _write(
    trunk: Trunk,
    taps: Sequence[int],
    crops: Crops,
    view: int,
    paths: Sequence[Path],
    precision: Precision,
    batch: int,
    stop: threading.Event | None,
    bar: Any,
) -> None:
    dtype = np.dtype(precision).newbyteorder("<")
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_write(path)) for path in paths]
        for tap, file in zip(taps, files, strict=True):
            descr, shape = np.lib.format.dtype_to_descr(dtype), _shape(trunk, tap, crops)
            np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        for start in range(0, len(crops), batch):
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            indices = np.arange(start, min(start + batch, len(crops)), dtype=np.int64)
            outputs = _through(trunk, crops.take(indices, view), taps)
            for tap, file, output in zip(taps, files, outputs, strict=True):
                with np.errstate(over="ignore"):
                    array = output.permute(0, 2, 3, 1).cpu().numpy().astype(dtype)
                if not np.isfinite(array).all():
                    raise NonFiniteOutput(
                        f"features of tap {tap}: expected finite values within {precision}'s range, found others in "
                        f"images {indices[0]} to {indices[-1]}; keep them in float32, or look at the trunk"
                    )
                file.write(array.tobytes())
            bar.update(len(indices))


def frozen(trunk: Trunk) -> Trunk:
    """`trunk` in eval mode and without gradients: neither weights nor BatchNorm's statistics can move any more."""
    trunk.eval().requires_grad_(False)
    return trunk


def _through(trunk: Trunk, crops: torch.Tensor, taps: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """The taps of crops float32[n, 3, H, W]; blocks behind the last of them are not run."""
    if trunk.training:
        raise InputError("trunk: expected one in eval mode, found one that is training; freeze it with frozen(trunk)")
    x = crops.to(next(trunk.parameters()).device)
    outputs: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for name in trunk.backbone.stem:
            x = trunk.get_submodule(name)(x)
        for tap in range(max(taps) + 1):
            if tap in taps:
                outputs[tap] = x.clone()  # an inplace ReLU at the head of the next block must not reach it
            if tap < max(taps):
                x = trunk.blocks[tap](x)
    return tuple(outputs[tap] for tap in taps)


def _shape(trunk: Trunk, tap: int, crops: Crops) -> tuple[int, int, int, int]:
    """Of a file: channels last, as convolutions of few cells are faster on a CPU (1.7 times in a step)."""
    channels, height, width = trunk.tap_shape(tap)
    return len(crops), height, width, channels


def _open(path: Path, shape: tuple[int, ...], precision: Precision) -> npt.NDArray[Any] | None:
    """The array in a file, memory-mapped; None where there is none or it is not what it should be."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        _logger.info("%s: damaged, computed anew: %.200s", path, error)
        return None
    if array.shape != shape or array.dtype != np.dtype(precision):
        _logger.info("%s: holds something else, computed anew", path)
        return None
    return array  # type: ignore[no-any-return]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: expected a folder for features that can be made, found: {reason(error)}"
        ) from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: expected a folder that can be written; name another for the features")


def _full(folder: Path, needed: int, number: int) -> OSError:
    return OSError(
        number,
        f"{folder}: expected room for {needed / 1e6:.0f} MB of features, found the disk full; name another folder, "
        f"take fewer views or a later tap",
    )
