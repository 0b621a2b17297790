"""A registry of drawn crops, and tools that do in milliseconds what training and export do in days: toys stand in."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import safetensors.numpy
import toys

from graftsdk.lifecycle.inspection import checkpoint_document
from graftsdk.lifecycle.updating import Tools
from graftsdk.plan import Provenance
from graftsdk.plan.documents import DOCUMENT_KEY
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import read_onnx_part, write_onnx_part
from graftsdk.training.labels import open_label

TOML = """
[trunk]
arch = "toy"
size = [32, 32]
steps = 1

[defaults]
tap = 1
until = 2
"""


def write_label(root: Path, label: str, classes: tuple[str, ...] = ("no", "yes"), images: int = 2) -> None:
    """A sub-dataset; `images` of each class in train and in val."""
    for number, (split, name) in enumerate((split, name) for split in ("train", "val") for name in classes):
        folder = root / label / split / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(images):
            pixels = np.full((4, 4, 3), 10 * number + index + 1, np.uint8)
            pixels[0, 0] = list(zlib.crc32(label.encode()).to_bytes(4, "big"))[:3]  # no picture stands in two labels
            cv2.imwrite(str(folder / f"{index}.png"), pixels)


def write_registry(root: Path, labels: tuple[str, ...] = ("hat", "bag"), toml: str = TOML) -> Path:
    for label in labels:
        write_label(root, label)
    (root / "graft.toml").write_text(toml, encoding="utf-8")
    return root / "graft.toml"


def save(path: Path, document: object) -> None:
    """A checkpoint of which only the document can be read."""
    safetensors.numpy.save_file({"weight": np.zeros(1, np.float32)}, path, {DOCUMENT_KEY: document.to_json()})


@dataclass
class Workshop:
    """The tools.

    seed: of the next trunk. auc: label -> of its next branch. fails: label or "trunk" -> what its next training raises.
    did: what was called, in order.
    """

    seed: int = 0
    auc: dict[str, float] = field(default_factory=dict)
    fails: dict[str, BaseException] = field(default_factory=dict)
    did: list[str] = field(default_factory=list)

    @property
    def tools(self) -> Tools:
        return Tools(self.train_trunk, self.train_branch, self.export_parts, self.export_plan)

    def train_trunk(self, root, labels, output, options, *, trunk, cache, resume, progress):
        self.did.append(f"trunk {','.join(labels)}")
        output.with_name(f"{output.name}.state").write_text("state")
        if "trunk" in self.fails:
            raise self.fails.pop("trunk")
        data = tuple(open_label(root, label).digest for label in labels)
        save(output, replace(toys.trunk(self.seed)[1], exported=None, provenance=Provenance(data=data)))

    def train_branch(self, root, label, trunk, output, options, *, cache, progress):
        self.did.append(f"branch {label}")
        if label in self.fails:
            raise self.fails.pop(label)
        data, auc = open_label(root, label), self.auc.get(label, 0.9)
        document = toys.branch(label, options.tap, classes=data.classes, on=checkpoint_document(trunk))[1]
        metrics = {"auc": auc} if len(data.classes) == 2 else {f"{name}.auc": auc for name in data.classes[1:]}
        save(output, replace(document, exported=None, metrics=metrics, provenance=Provenance(data=(data.digest,))))

    def export_parts(self, folder, trunk, branches):
        document = checkpoint_document(trunk)
        seed = next(seed for seed in range(9) if toys.trunk(seed)[1].fingerprints == document.fingerprints)
        paths = [folder / "trunk.onnx"]
        write_onnx_part(paths[0], toys.trunk(seed)[0], replace(document, exported=toys.trunk(seed)[1].exported))
        for number, path in enumerate(branches):
            document = checkpoint_document(path)
            weights = int(1e6 * document.metrics.get("auc", 0.5)) + len(document.label)
            part, toy = toys.branch(document.label, document.tap, classes=document.classes, seed=weights)
            paths.append(folder / f"{number}.onnx")
            write_onnx_part(paths[-1], part, replace(document, exported=toy.exported))
        self.did.append(f"export {','.join(path.stem for path in branches)}")
        return SimpleNamespace(parts=tuple(paths))

    def export_plan(self, path, trunk, branches, segmenter=None):
        create_plan(path, read_onnx_part(trunk), [read_onnx_part(branch) for branch in branches])
