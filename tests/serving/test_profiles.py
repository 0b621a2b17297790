"""Threshold profiles over reloads: read anew, and never the end of those that still fit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import toys

from graftsdk.errors import InputError
from graftsdk.plan import BranchDocument
from graftsdk.serving.profiles import load_profiles, reload_profiles

CLASSES = {"child": ("no", "yes"), "hat": ("no", "yes"), "age": ("young", "middle", "old")}
TEXT = "[lobby]\nchild = 0.7\nhat = 0.2\nage = { old = 0.3, young = 0.9 }\n"


def documents(**classes: tuple[str, ...]) -> dict[str, BranchDocument]:
    return {label: toys.branch(label, classes=names)[1] for label, names in (CLASSES | classes).items() if names}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "profiles.toml"
    path.write_text(TEXT, "utf-8")
    return path


def test_nothing_of_a_profile_changes(path: Path) -> None:
    found: Any = load_profiles(path, documents()).thresholds("lobby")
    with pytest.raises(TypeError):
        found["child"] = 0.1
    with pytest.raises(TypeError):
        found["age"]["old"] = 0.1


def test_the_file_is_read_anew(path: Path) -> None:
    before = load_profiles(path, documents())
    path.write_text("[garage]\nchild = 0.4\n", "utf-8")
    assert reload_profiles(path, documents(), before).names == ("garage",)


@pytest.mark.parametrize("text", [TEXT, "[lobby", "[lobby]\nchild = 2"])
def test_a_label_that_was_taken_back_ends_its_own_threshold_only(
    path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_profiles(path, documents())
    path.write_text(text, "utf-8")
    with caplog.at_level(logging.ERROR, "graftsdk.serving"):
        found = reload_profiles(path, documents(child=(), age=("young", "grown")), before)
    assert found.thresholds("lobby") == {"hat": 0.2, "age": {"young": 0.9}}
    assert len(caplog.records) == 1 and "profiles" in caplog.text


def test_a_threshold_of_two_classes_is_none_of_three(path: Path) -> None:
    before = load_profiles(path, documents())
    path.write_text("nothing", "utf-8")
    found = reload_profiles(path, documents(hat=("none", "cap", "helmet")), before)
    assert "hat" not in found.thresholds("lobby") and found.thresholds("lobby")["child"] == 0.7


def test_three_classes_want_the_class(path: Path) -> None:
    path.write_text("[lobby]\nage = 0.5\n", "utf-8")
    with pytest.raises(InputError, match=r"\[lobby\].*class"):
        load_profiles(path, documents())
