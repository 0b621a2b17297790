"""Features of whole images for mining: the mean over the trunk's last tap (paper 3.4), kept on disk image by image.

Files of some thousand rows each lie in a folder that is named after the trunk's fingerprint, every row beside the
digest of its image. Images that come later are computed alone, whatever the order; a run that was killed loses at
most one file's rows; another trunk has another folder and never meets them.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from graftsdk.errors import FingerprintMismatch, GraftError, InputError, NonFiniteOutput
from graftsdk.files import atomic_write
from graftsdk.models import Trunk
from graftsdk.text import counted, one_line, reason

__all__ = ["FeatureRows", "FeatureStore", "ReadCrop"]

PART_ROWS = 4096  # images a file: 16 MiB at 2048 features
_TOLD = 5  # unreadable images that an error names
_DIGEST = 32
_FULL = (errno.ENOSPC, errno.EDQUOT)
_logger = logging.getLogger("graftsdk")

ReadCrop = Callable[[Path], npt.NDArray[np.float32]]
_Float = npt.NDArray[np.float32]
_Rows = npt.NDArray[Any]  # of (digest, features)


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """float32[N, D] that lies in mapped files; what is asked for is read, nothing else.

    It is indexed as an array is, by a slice or by whole numbers, and gives an array of its own each time.

    Attributes:
        maps: the files' rows.
        part: int32[N]: which of them a row is in.
        row: int32[N]: and where.
        width: D.
    """

    maps: tuple[_Rows, ...]
    part: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    width: int

    def __len__(self) -> int:
        return len(self.part)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self), self.width

    def only(self, index: slice | npt.NDArray[Any]) -> FeatureRows:
        """These rows, still in their files."""
        return FeatureRows(self.maps, self.part[index], self.row[index], self.width)

    def __getitem__(self, index: slice | npt.NDArray[Any]) -> _Float:
        part, row = self.part[index], self.row[index]
        taken = np.empty((len(part), self.width), np.float32)
        for number in np.unique(part):
            at = np.flatnonzero(part == number)
            taken[at] = self.maps[number]["features"][row[at]]
        return taken


class FeatureStore:
    """The features that one trunk gives, in a folder.

    Args:
        folder: of all trunks; made where it is not there.
        trunk: in eval mode, on the device that computes.

    Raises:
        InputError: the trunk is in training mode, or the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], trunk: Trunk) -> None:
        if trunk.training:
            raise InputError("trunk: expected one in eval mode, found training mode; call trunk.eval() first")
        self._trunk = trunk
        self._fingerprint = self._now()
        self.folder = Path(folder) / self._fingerprint
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder}: expected a folder that can be made, found: {reason(error)}; name another"
            ) from error

    def features(
        self, paths: Sequence[Path], read: ReadCrop, *, batch: int = 32, progress: bool = False
    ) -> FeatureRows:
        """One row an image, float32[N, D]; rows that the folder lacks are computed and written into it.

        Stored as float16, or as float32 where a file's values pass 65504. Images of equal bytes share a row.

        Args:
            paths: of the images.
            read: path -> the trunk's input, float32[3, H, W].
            batch: crops at once.
            progress: show bars.

        Raises:
            InputError: images that cannot be read or cut; names the first of them. All others are stored by then.
            NonFiniteOutput: a feature that is NaN or infinite; names the image.
            FingerprintMismatch: the trunk was changed meanwhile.
            OSError: the disk is full; what was stored until then stays and is not computed again.
            KeyboardInterrupt: as above.
        """
        with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
            digests = list[bytes]()
            with tqdm(total=len(paths), unit="image", desc="reading", disable=not progress, leave=False) as line:
                for start in range(0, len(paths), PART_ROWS):  # a pool takes all that it is given at once
                    digests += pool.map(_digest, paths[start : start + PART_ROWS])
                    line.update(len(digests) - line.n)
            maps = self._maps()
            known = _places(maps)
            missing = {digest: path for digest, path in zip(digests, paths, strict=True) if digest not in known}
            self._check_room(len(missing))
            if missing:
                self._compute(list(missing.items()), read, batch, progress, pool)
        if missing:
            maps = self._maps()
            known = _places(maps)
        try:
            places = np.array([known[digest] for digest in digests], np.int32).reshape(-1, 2)
        except KeyError:
            raise OSError(
                errno.ESTALE, f"{self.folder}: expected the features just written, found others; run it again"
            ) from None
        return FeatureRows(maps, places[:, 0].copy(), places[:, 1].copy(), self._width)

    @property
    def _width(self) -> int:
        return self._trunk.channels(len(self._trunk.blocks))

    def _now(self) -> str:
        return self._trunk.fingerprint(len(self._trunk.blocks))

    def _maps(self) -> tuple[_Rows, ...]:
        found = (_open(path, self._width) for path in sorted(self.folder.glob("*.npy")))
        return tuple(rows for rows in found if rows is not None)

    def _check_room(self, count: int) -> None:
        needed = count * (_DIGEST + 2 * self._width)
        if needed > shutil.disk_usage(self.folder).free:
            raise _full(self.folder, errno.ENOSPC, needed)

    def _compute(
        self, missing: list[tuple[bytes, Path]], read: ReadCrop, batch: int, progress: bool, pool: ThreadPoolExecutor
    ) -> None:
        """Write the rows of these images, `PART_ROWS` a file."""
        failed: list[GraftError] = []
        done: list[tuple[bytes, _Float]] = []
        with tqdm(total=len(missing), unit="image", desc="features", disable=not progress, leave=False) as line:
            try:
                for some, crops in _crops(missing, read, batch, pool, failed):
                    rows = self._through(crops) if some else np.empty((0, self._width), np.float32)
                    for (digest, path), row in zip(some, rows, strict=True):
                        if not np.isfinite(row).all():
                            raise NonFiniteOutput(
                                f"{path}: expected finite features, found NaN or infinite ones; the trunk is damaged "
                                f"or diverged in training: look at its curve, use an earlier one"
                            )
                        done.append((digest, row))
                    while len(done) >= PART_ROWS:
                        self._write(done[:PART_ROWS])
                        del done[:PART_ROWS]
                    line.update(min(batch, len(missing) - line.n))
            finally:  # what is there is worth keeping, whatever ended the work
                if done:
                    self._write(done)
        if failed:
            named = "; ".join(one_line(str(error)) for error in failed[:_TOLD])
            more = f" and {len(failed) - _TOLD} more" if len(failed) > _TOLD else ""
            raise InputError(
                f"expected images that can be read, found {counted(len(failed), 'other')}: {named}{more}; remove or "
                f"replace them (the features of all others are stored)"
            )

    def _through(self, crops: _Float) -> _Float:
        """float32[n, D]: the mean of tap B over height and width."""
        device = next(self._trunk.parameters()).device
        with torch.inference_mode():
            tap = self._trunk(torch.from_numpy(crops).to(device))
            rows: _Float = tap.float().mean(dim=(2, 3)).cpu().numpy()
        return rows

    def _write(self, done: Sequence[tuple[bytes, _Float]]) -> None:
        now = self._now()
        if now != self._fingerprint:  # no row of another trunk is ever stored
            raise FingerprintMismatch(
                f"trunk: expected fingerprint {self._fingerprint[:16]} throughout, found {now[:16]}; its weights were "
                f"changed while features were computed: load it anew and run it again"
            )
        features = np.stack([row for _, row in done])
        kind = "<f2" if np.abs(features).max() <= np.finfo(np.float16).max else "<f4"
        rows = np.empty(len(done), [("digest", np.uint8, _DIGEST), ("features", kind, self._width)])
        rows["features"] = features
        rows["digest"] = np.frombuffer(b"".join(digest for digest, _ in done), np.uint8).reshape(-1, _DIGEST)
        content = io.BytesIO()
        np.save(content, rows, allow_pickle=False)
        name = hashlib.sha256(rows["digest"].tobytes()).hexdigest()[:32]
        try:
            with atomic_write(self.folder / f"{name}.npy") as file:
                file.write(content.getbuffer())
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise _full(self.folder, error.errno, rows.nbytes) from error


def _full(folder: Path, number: int | None, needed: int) -> OSError:
    return OSError(
        number,
        f"{folder}: expected room for {max(needed / 1e6, 0.1):.1f} MB of features, found a full disk; make room or "
        f"name another folder, and run it again: what is stored is not computed again",
    )


def _open(path: Path, width: int) -> _Rows | None:
    """The rows of a file, mapped; None, with a line in the log, where it is damaged: its images are computed anew."""
    try:
        rows: _Rows = np.load(path, mmap_mode="r", allow_pickle=False)
        names = rows.dtype.names
        good = rows.ndim == 1 and names == ("digest", "features")
        good = good and rows.dtype["digest"].shape == (_DIGEST,) and rows.dtype["digest"].base == np.uint8
        good = good and rows.dtype["features"].shape == (width,)
        good = good and rows.dtype["features"].base in (np.dtype("<f2"), np.dtype("<f4"))
    except (OSError, ValueError, EOFError):
        good = False
    if not good:
        _logger.warning("%s: no whole file of features; its images are computed again", one_line(str(path)))
        return None
    return rows


def _places(maps: Sequence[_Rows]) -> dict[bytes, tuple[int, int]]:
    """Digest -> (file, row)."""
    places: dict[bytes, tuple[int, int]] = {}
    for number, rows in enumerate(maps):
        packed = rows["digest"].tobytes()
        for row in range(len(rows)):
            places[packed[row * _DIGEST : (row + 1) * _DIGEST]] = number, row
    return places


def _digest(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be read, found: {reason(error)}") from error


def _crops(
    images: Sequence[tuple[bytes, Path]], read: ReadCrop, batch: int, pool: ThreadPoolExecutor, failed: list[GraftError]
) -> Iterator[tuple[list[tuple[bytes, Path]], _Float]]:
    """Batches of images and their crops, the next one being read while the last is worked on."""

    def crop(path: Path) -> _Float | GraftError:
        try:
            return read(path)
        except InputError as error:
            return error if str(path) in str(error) else InputError(f"{path}: {error}")

    def submitted(start: int) -> list[Any]:
        return [pool.submit(crop, path) for _, path in images[start : start + batch]]

    ahead = submitted(0)
    for start in range(0, len(images), batch):
        waiting, ahead = ahead, submitted(start + batch)
        some, crops = list[tuple[bytes, Path]](), list[_Float]()
        for image, result in zip(images[start : start + batch], (each.result() for each in waiting), strict=True):
            if isinstance(result, GraftError):
                failed.append(result)
            else:
                some.append(image)
                crops.append(result)
        yield some, np.stack(crops) if crops else np.empty(0, np.float32)
