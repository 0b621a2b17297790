"""Mining of one label's negatives: from its sub-dataset and a trunk to lists, a table and pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.models import Trunk
from graftsdk.text import listed, reason
from graftsdk.training.mining.features import FeatureRows, FeatureStore, ReadCrop
from graftsdk.training.mining.libraries import needed
from graftsdk.training.mining.mined import MiningOptions, mine_features
from graftsdk.training.mining.report import MiningReport, plot_clusters, write_list, write_report, write_table
from graftsdk.training.mining.sheets import draw_sheets

if TYPE_CHECKING:
    from graftsdk.training.labels import LabelledImage

__all__ = ["mine_negatives"]


def mine_negatives(
    root: str | os.PathLike[str],
    label: str,
    trunk: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: MiningOptions | None = None,
    *,
    positive: str | None = None,
    features: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> MiningReport:
    """Mine the training images of a label that are not of its positive class, and write what came of it.

    Into `output`: keep.txt, drop.txt and review.txt (paths relative to the label's folder), clusters.csv, mining.json,
    distances.png, and in sheets/ a contact sheet of each cluster that is kept whole or to be reviewed. Validation and
    test images are left alone: thresholds and calibration need the true mixture.

    Args:
        root: the folder of the sub-datasets.
        label: one of them.
        trunk: its checkpoint.
        output: a folder, made where it is not there.
        options: see `MiningOptions`.
        positive: the class that is looked for; None: the last one.
        features: the folder where features are kept; None: `output`/features.
        progress: show bars.

    Raises:
        InputError: no such label or class, images that cannot be read, and as `mine_features`.
        PlanError: the trunk's file cannot be trusted.
        NonFiniteOutput, FingerprintMismatch, OSError: as `FeatureStore.features`.
        MissingDependency: scikit-learn, SciPy, POT or matplotlib is not installed.
    """
    from graftsdk.training.labels import open_label, read_crop

    options = options or MiningOptions()
    needed("matplotlib.figure", "ot", "scipy.spatial", "sklearn.cluster")
    own, folder = Path(root) / label, Path(output)
    found = open_label(root, label)
    wanted = found.classes[-1] if positive is None else positive
    if wanted not in found.classes:
        raise InputError(f"positive: expected a class of {label!r}, {listed(found.classes)}, found {wanted!r}")
    sides = _sides(found.train, found.classes.index(wanted))
    if not sides[0] or not sides[1]:
        raise InputError(
            f"{label}: expected training images of {wanted!r} and of other classes, found {len(sides[0])} and "
            f"{len(sides[1])}"
        )
    _make(folder, own)
    network = Trunk.load(trunk)
    spec = network.crop

    def read(path: Path) -> npt.NDArray[np.float32]:
        return read_crop(path, spec)

    positives, negatives = _features(features or folder / "features", network, sides, read, options, progress)
    mined = mine_features(negatives, positives, options, progress=progress)
    report = MiningReport(
        folder,
        label,
        wanted,
        network.fingerprint(len(network.blocks)),
        len(sides[0]),
        len(sides[1]),
        len(mined.selection.kept),
        len(mined.selection.dropped),
        len(mined.selection.review),
        mined.rows,
        mined.floor,
        mined.floor_spread,
        mined.sample,
        mined.gamma,
        mined.reduced.variance,
        asdict(options),
    )
    names = [path.relative_to(own).as_posix() for path in sides[1]]
    for name in ("kept", "dropped", "review"):
        target = {"kept": "keep", "dropped": "drop"}.get(name, name)
        write_list(folder / f"{target}.txt", [names[index] for index in getattr(mined.selection, name)])
    write_table(folder / "clusters.csv", mined.rows)
    write_report(folder / "mining.json", report)
    plot_clusters(folder / "distances.png", report)
    draw_sheets(folder / "sheets", mined, report, sides)
    return report


def _sides(images: Sequence[LabelledImage], positive: int) -> tuple[list[Path], list[Path]]:
    """Paths of the positives and of the negatives, in the order of their names: draws do not depend on the reader."""
    paths = sorted((image.path, image.target == positive) for image in images)
    return [path for path, is_one in paths if is_one], [path for path, is_one in paths if not is_one]


def _make(folder: Path, label: Path) -> None:
    """Raises InputError: it cannot be made, or is in the sub-dataset, whose files are the user's."""
    if folder.resolve() == label.resolve() or label.resolve() in folder.resolve().parents:
        raise InputError(f"-o {folder}: expected a folder outside the sub-dataset {label}; name another")
    try:
        (folder / "sheets").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-o {folder}: expected a folder that can be made, found: {reason(error)}") from error


def _features(
    folder: str | os.PathLike[str],
    trunk: Trunk,
    sides: tuple[list[Path], list[Path]],
    read: ReadCrop,
    options: MiningOptions,
    progress: bool,
) -> tuple[FeatureRows, FeatureRows]:
    store = FeatureStore(folder, trunk)
    rows = store.features([*sides[0], *sides[1]], read, batch=options.batch, progress=progress)
    return rows.only(slice(len(sides[0]))), rows.only(slice(len(sides[0]), None))
