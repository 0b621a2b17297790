"""Sub-datasets: folders of crops that were annotated for one label only, `<root>/<label>/{train,val,test}/<class>/`."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.plan.documents import check_names
from graftsdk.preprocess import list_images
from graftsdk.text import counted, listed, reason
from graftsdk.training.labels.declared import GRAFT_TOML, declared_classes
from graftsdk.training.labels.draws import held_identities
from graftsdk.training.labels.identities import IDENTITIES, read_identities

__all__ = ["SPLITS", "LabelSet", "LabelledImage", "find_labels", "open_label"]

SPLITS = ("train", "val", "test")
_NO_YES = ("no", "yes")


@dataclass(frozen=True)
class LabelledImage:
    """One annotated crop.

    Attributes:
        path: the file.
        target: index of its class.
        identity: who is on it; where nobody said so, the image itself.
        camera: where it was taken; "" where nobody said so.
    """

    path: Path
    target: int
    identity: str
    camera: str


@dataclass(frozen=True)
class LabelSet:
    """The crops of one label.

    Attributes:
        label: its name.
        classes: in the order of the network's outputs, the positive one last.
        train, val, test: sorted by path; test is empty where there is no such folder.
        digest: SHA-256, 64 hex digits, over the names, sizes, splits, classes and identities of the files.
    """

    label: str
    classes: tuple[str, ...]
    train: tuple[LabelledImage, ...]
    val: tuple[LabelledImage, ...]
    test: tuple[LabelledImage, ...]
    digest: str

    def thinned(self, names: Iterable[str]) -> LabelSet:
        """With fewer training images: of the classes that `names` has images of, these alone.

        Args:
            names: files relative to the label's folder, as in the list of `graftsdk mine`.

        Raises:
            InputError: no name, one that is no training image, or images of all classes.
        """
        wanted = set(names)
        files = {f"train/{self.classes[image.target]}/{image.path.name}": image for image in self.train}
        if strangers := sorted(wanted - files.keys()):
            raise InputError(
                f"{self.label!r}: expected a list of its training images, found {listed(strangers[:3])}, which "
                f"{'is none' if len(strangers) == 1 else 'are none'}; mine this label again"
            )
        named = {files[name].target for name in wanted}
        if not 0 < len(named) < len(self.classes):
            raise InputError(
                f"{self.label!r}: expected a list of images of one class or more but not of all, found "
                f"{listed(self.classes[target] for target in sorted(named))} in it"
            )
        train = tuple(image for file, image in files.items() if image.target not in named or file in wanted)
        digest = _digest(self.classes, {"train": train, "val": self.val, "test": self.test})
        return replace(self, train=train, digest=digest)

    def counts(self, split: str) -> dict[str, int]:
        """Class -> how many images "train", "val" or "test" has of it."""
        if split not in SPLITS:
            raise InputError(f"split: expected {', '.join(SPLITS)}, found {split!r:.40}")
        found = Counter(image.target for image in getattr(self, split))
        return {name: found[index] for index, name in enumerate(self.classes)}


def find_labels(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The labels of a folder, sorted: the names of its folders that hold train, val or test.

    Raises:
        InputError: no such folder, or no label in it.
    """
    found = [path.name for path in _folders(Path(root)) if any((path / split).is_dir() for split in SPLITS)]
    if not found:
        raise InputError(f"{root}: expected folders LABEL/train/CLASS/ with images, found none")
    return tuple(found)


def open_label(
    root: str | os.PathLike[str],
    label: str,
    *,
    classes: Sequence[str] | None = None,
    val_share: float = 0.15,
    seed: int = 0,
) -> LabelSet:
    """The images of one label, checked but not decoded.

    The order of the classes is `no`, `yes` where those are the folders of train; otherwise `classes`, or what
    `graft.toml` in `root` says; never the alphabet's. Where there is no folder val, it is cut from train by identity:
    an identity's side depends on its name and the seed alone, so that images that are added later move no other.
    Images are the files that `list_images` finds; folders inside a class are not entered.

    Args:
        root: the folder of the labels.
        label: the folder's name in it.
        classes: their order, the positive one last.
        val_share: of the identities of train, where val is cut from it.
        seed: of that cut.

    Raises:
        InputError: a folder is missing or empty, there is one class only, a class of val or test is none of train,
            nobody says the order of the classes, an image that `identities.csv` does not name, or fewer than two
            identities in a class that has to be cut.
    """
    seed = whole_number("seed", seed, 0, 2**63 - 1)
    if not 0.0 < val_share < 1.0:
        raise InputError(f"val_share: expected a number above 0 and below 1, found {val_share!r}")
    folder = Path(root) / label
    if not label or Path(label).name != label or not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with train/CLASS/, found no folder of that name in {root}")
    order = _class_order(Path(root), folder, classes)
    known = read_identities(folder)
    splits = {split: _read_split(folder, split, order, known) for split in SPLITS}
    if not splits["train"]:
        raise InputError(f"{folder}: expected a folder train with a folder of images for each class, found none")
    if not splits["val"]:
        splits["train"], splits["val"] = _cut(folder, splits["train"], order, val_share, seed)
    return LabelSet(label, order, **splits, digest=_digest(order, splits))


def _class_order(root: Path, folder: Path, given: Sequence[str] | None) -> tuple[str, ...]:
    if not (folder / "train").is_dir():
        raise InputError(f"{folder}: expected a folder train, found none")
    found = [path.name for path in _folders(folder / "train")]
    if len(found) < 2:
        raise InputError(
            f"{folder / 'train'}: expected two classes or more, a folder each, found {listed(found)}; a label needs "
            f"images without it too"
        )
    said = declared_classes(root, folder.name) if given is None else tuple(given)
    where = f"graft.toml's classes of {folder.name!r}" if given is None else "classes"
    if said is None:
        if set(found) != set(_NO_YES):
            raise InputError(
                f"{folder}: expected the order of its classes {listed(found)}; name the folders no and yes, or write "
                f"[labels.{_key(folder.name)}] classes = [...], the positive class last, into {root / GRAFT_TOML}"
            )
        said = _NO_YES
    if sorted(said) != sorted(found):
        raise InputError(f"{where}: expected the folders of {folder / 'train'}, {listed(found)}, found {listed(said)}")
    if set(said) == set(_NO_YES) and said != _NO_YES:
        raise InputError(f"{where}: expected 'no', 'yes' in this order, found {listed(said)}; rename the folders")
    check_names(folder.name, said)
    return said


def _read_split(
    folder: Path, split: str, classes: tuple[str, ...], known: dict[str, tuple[str, str]] | None
) -> tuple[LabelledImage, ...]:
    """Sorted by path; none where there is no such folder."""
    home = folder / split
    if not home.is_dir():
        return ()
    strangers = [path.name for path in _folders(home) if path.name not in classes]
    if strangers:
        raise InputError(f"{home}: expected the classes of train, {listed(classes)}, found {listed(strangers[:5])} too")
    images: list[LabelledImage] = []
    for target, name in sorted(enumerate(classes), key=lambda entry: entry[1]):
        paths = list_images(home / name) if (home / name).is_dir() else []
        if not paths:
            raise InputError(f"{home / name}: expected images (JPEG, PNG), found none")
        for path in paths:
            file = f"{split}/{name}/{path.name}"
            if known is None:
                identity, camera = f"{folder.name}/{file}", ""
            elif file in known:
                identity, camera = known[file]
            else:
                raise InputError(f"{folder / IDENTITIES}: expected a row for every image, found none for {file!r}")
            images.append(LabelledImage(path, target, identity, camera))
    return tuple(images)


def _cut(
    folder: Path, train: tuple[LabelledImage, ...], classes: tuple[str, ...], share: float, seed: int
) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    """(train, val) by identity."""
    identities = {index: {image.identity for image in train if image.target == index} for index in range(len(classes))}
    for index, names in identities.items():
        if len(names) < 2:
            raise InputError(
                f"{folder / 'train' / classes[index]}: expected two identities or more, one of them for validation, "
                f"found {counted(len(names), 'identity', 'identities')}; add images, or a folder val"
            )
    held = held_identities(identities, share, seed)
    sides = tuple(tuple(image for image in train if (image.identity in held) is side) for side in (False, True))
    for side, split in zip(sides, SPLITS, strict=False):
        present = {image.target for image in side}
        for index, name in enumerate(classes):
            if index not in present:  # identities of several classes bind these together
                raise InputError(
                    f"{folder}: expected images of {name!r} for {split} after cutting validation from train by "
                    f"identity, found none; make a folder val, or take another seed"
                )
    return sides[0], sides[1]


def _digest(classes: tuple[str, ...], splits: dict[str, tuple[LabelledImage, ...]]) -> str:
    digest = hashlib.sha256(repr(classes).encode())
    for split, images in splits.items():
        for image in images:
            row = (split, image.target, os.path.basename(image.path), os.stat(image.path).st_size)
            digest.update(repr((*row, image.identity, image.camera)).encode())
    return digest.hexdigest()


def _folders(path: Path) -> Iterable[Path]:
    """Sorted by name, hidden ones left out."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path}: expected a readable folder, found: {reason(error)}") from error


def _key(label: str) -> str:
    """A key of a TOML table, quoted where it has to be."""
    bare = label.isascii() and label.replace("-", "").replace("_", "").isalnum()
    return label if bare else '"' + label.replace("\\", "\\\\").replace('"', '\\"') + '"'
