"""Checkpoints of one small tree, and of a branch that belongs on another, written once."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from graftsdk.models import Branch, FewCellsWarning, Trunk
from graftsdk.plan import Provenance

SIZE = (64, 64)


@pytest.fixture(scope="session")
def trunk() -> Trunk:
    found = Trunk.create("resnet18", SIZE, width=0.25, seed=3)
    found.provenance = Provenance(licence="Apache-2.0", author="the tests")
    return found


@pytest.fixture(scope="session")
def branches(trunk: Trunk) -> dict[str, Branch]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewCellsWarning)
        child = Branch.create(trunk, "child", tap=5, until=6, pooling="bilinear", seed=1)
    gender = Branch.create(trunk, "gender", classes=("other", "female", "male"), tap=7, seed=2)
    gender.thresholds = {"female": 0.3, "male": 0.4}
    gender.temperature = 1.7
    return {"child": child, "gender": gender, "hat": Branch.create(trunk, "hat", tap=8, seed=4)}


@pytest.fixture(scope="session")
def files(trunk: Trunk, branches: dict[str, Branch], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trunk, child, gender, hat and, of another trunk, stranger."""
    folder = tmp_path_factory.mktemp("checkpoints")
    trunk.save(folder / "trunk.safetensors")
    for name, branch in branches.items():
        branch.save(folder / f"{name}.safetensors")
    other = Trunk.create("resnet18", SIZE, width=0.25, seed=4)
    Branch.create(other, "stranger", tap=8).save(folder / "stranger.safetensors")
    return folder
