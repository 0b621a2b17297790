"""The promise: other labels, batches, threads and layouts move no bit of a label's scores (ONNX Runtime, CPU)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toys

from graftsdk import Predictor
from graftsdk.plan.edit import add_branches, remove_label, revert_label

MANY = tuple(f"label{i}" for i in range(32))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "engine.plan"
    toys.write(path, MANY)
    return path


@pytest.fixture(scope="module")
def expected(path: Path) -> dict[str, np.ndarray]:
    with Predictor(path) as predictor:
        found = predictor.run(toys.crops(9))
    assert len({scores.tobytes() for scores in found.values()}) == len(MANY)  # equal scores would prove nothing
    assert all(len(np.unique(scores[:, 1])) == 9 for scores in found.values())
    return found


@pytest.mark.parametrize("layout", ["merged", "split"])
@pytest.mark.parametrize("count", [1, 2, 8, 32])
def test_among_how_many(path: Path, expected: dict[str, np.ndarray], layout: str, count: int) -> None:
    with Predictor(path, labels=MANY[-count:], layout=layout) as predictor:
        found = predictor.run(toys.crops(9))
    assert all(found[label].tobytes() == expected[label].tobytes() for label in MANY[-count:])


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_in_which_order(path: Path, expected: dict[str, np.ndarray], layout: str) -> None:
    with Predictor(path, labels=MANY[::-1], layout=layout) as predictor:
        found = predictor.run(toys.crops(9))
    assert list(found) == list(MANY[::-1])
    assert all(found[label].tobytes() == expected[label].tobytes() for label in MANY)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_with_how_many_threads(path: Path, expected: dict[str, np.ndarray], threads: int) -> None:
    with Predictor(path, threads=threads) as predictor:
        found = predictor.run(toys.crops(9))
    assert all(found[label].tobytes() == expected[label].tobytes() for label in MANY)


def test_at_which_place_in_a_batch(path: Path, expected: dict[str, np.ndarray]) -> None:
    crops = toys.crops(9)
    with Predictor(path) as predictor:
        for row in range(9):
            found = predictor.run(crops[row : row + 1])
            assert all(found[label].tobytes() == expected[label][row].tobytes() for label in MANY)


def test_after_labels_came_and_went(tmp_path: Path) -> None:
    plan, crops = tmp_path / "engine.plan", toys.crops(4)
    toys.write(plan, MANY[:3])
    with Predictor(plan) as predictor:
        before = predictor.run(crops)
    add_branches(plan, [toys.branch("new", 2, seed=50), toys.branch("newer", 0, seed=51)])
    remove_label(plan, "label1")
    add_branches(plan, [toys.branch("new", 3, seed=52)], replace_labels=True)
    for layout in ("merged", "split"):
        with Predictor(plan, layout=layout) as predictor:
            after = predictor.run(crops)
        assert set(after) == {"label0", "label2", "new", "newer"}
        assert all(after[label].tobytes() == before[label].tobytes() for label in ("label0", "label2"))
    revert_label(plan, "label1")
    with Predictor(plan) as predictor:
        assert predictor.run(crops)["label1"].tobytes() == before["label1"].tobytes()
