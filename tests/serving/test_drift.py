"""Scores of live traffic against the validation histogram: what fades, what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import toys

from graftsdk.serving.drift import Drift


def drift(histogram: dict[str, tuple[int, ...]], classes: tuple[str, ...] = ("no", "yes")) -> Drift:
    return Drift({"child": replace(toys.branch("child", classes=classes)[1], histogram=histogram)})


def test_what_is_long_past_fades() -> None:
    found = drift({"yes": (0,) * 10 + (100,) * 10})
    for _ in range(5000):
        found.add("child", {"no": 0.9, "yes": 0.1})
    began = found.values()["child"]
    for number in range(100_000):
        found.add("child", {"no": 0.0, "yes": 0.5 + (number % 500) / 1000})
    assert began > 5 and found.values()["child"] < 0.25


def test_a_score_of_one_is_in_the_last_bin() -> None:
    found = drift({"yes": (0,) * 19 + (5000,)})
    for _ in range(2000):
        found.add("child", {"no": 0.0, "yes": 1.0})
    assert found.values()["child"] == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("histogram", [{}, {"yes": (0,) * 20}])
def test_without_validation_data_there_is_no_drift(histogram: dict[str, tuple[int, ...]]) -> None:
    found = drift(histogram)
    for _ in range(2000):
        found.add("child", {"no": 0.5, "yes": 0.5})
    assert found.values() == {}


def test_scores_of_other_classes_are_left_out() -> None:
    found = drift({"yes": (5,) * 20})
    for _ in range(2000):
        found.add("child", {"absent": 0.5, "present": 0.5})
    assert found.values() == {}
