"""PA-100K (Liu et al., HydraPlus-Net, ICCV 2017): `annotation.mat` with 26 attributes and a split of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.text import counted
from graftsdk.training.labels.annotated import NO, UNKNOWN, YES, AnnotatedSet, load_mat, texts

__all__ = ["read_pa100k"]

_FOLDERS = ("data", "release_data/release_data", "release_data", "images", ".")


def read_pa100k(folder: str | os.PathLike[str]) -> AnnotatedSet:
    """The images of `annotation.mat`, with the split that it gives (by tracklet; nobody says who is on an image).

    Raises:
        InputError: no such file or another content, or no image that it names.
    """
    root = Path(folder)
    mat = load_mat(root / "annotation.mat")
    attributes = texts(_variable(mat, "attributes", root))
    paths: list[Path] = []
    splits: list[str] = []
    values: list[npt.NDArray[np.int8]] = []
    missing: list[str] = []
    for split in ("train", "val", "test"):
        names = texts(_variable(mat, f"{split}_images_name", root))
        labels = np.asarray(_variable(mat, f"{split}_label", root))
        if labels.shape != (len(names), len(attributes)):
            raise InputError(
                f"{root / 'annotation.mat'}: expected {split}_label of {[len(names), len(attributes)]}, found "
                f"{list(labels.shape)}"
            )
        home = _home(root, names)
        for name, row in zip(names, labels, strict=True):
            if not name or Path(name).name != name or not (home / name).is_file():
                missing.append(f"{name!r} of {split}")
                continue
            paths.append(home / name)
            splits.append(split)
            values.append(np.select([row == 0, row == 1], [NO, YES], UNKNOWN).astype(np.int8))
    if not paths:
        raise InputError(f"{root}: expected the images that annotation.mat names in data/, found none")
    notes = (f"{counted(len(missing), 'image')} named and not there, the first {missing[0]}",) if missing else ()
    names_found = tuple(path.name for path in paths)
    return AnnotatedSet(
        source="PA-100K",
        paths=tuple(paths),
        names=names_found,
        identities=names_found,
        cameras=("",) * len(paths),
        units=names_found,
        splits=tuple(splits),
        attributes=tuple(attributes),
        values=np.stack(values),
        notes=notes,
    )


def _home(root: Path, names: list[str]) -> Path:
    """The folder that has the first of the images; the usual one where none has."""
    first = next((name for name in names if name and Path(name).name == name), "")
    return next((root / name for name in _FOLDERS if first and (root / name / first).is_file()), root / _FOLDERS[0])


def _variable(mat: Any, name: str, root: Path) -> Any:
    if name not in mat:
        known = sorted(key for key in mat if not key.startswith("__"))
        raise InputError(f"{root / 'annotation.mat'}: expected PA-100K's variable {name}, found {known[:8]}")
    return mat[name]
