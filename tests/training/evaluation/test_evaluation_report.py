"""What is written: texts that people read, files that programs read, pictures that open."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from graftsdk.errors import InputError, MissingDependency, PlanPathError
from graftsdk.text import file_names
from graftsdk.training.evaluation import (
    Judged,
    auc,
    compare,
    comparison_markdown,
    confusion_markdown,
    evaluation_text,
    fit_temperature,
    label_rows,
    markdown,
    mcnemar,
    plot_label,
    top_markdown,
    top_rows,
    write_csv,
    write_evaluation,
)

SIX = np.array([0, 0, 0, 0, 1, 1])
SCORES = np.array([0.1, 0.2, 0.3, 0.8, 0.7, 0.9])


def judged_of(label: str = "hat", targets: np.ndarray = SIX, scores: np.ndarray = SCORES) -> Judged:
    persons = [f"p{index}" for index in range(len(targets))]
    cameras = ["door", "door", "roof", "roof", "door", "roof"][: len(targets)]
    return Judged(label, ("no", "yes"), targets, np.stack([1 - scores, scores], axis=1), persons, cameras)


def gender() -> Judged:
    targets = np.array([0, 1, 2, 2])
    scores = np.array([[0.6, 0.2, 0.2], [0.1, 0.5, 0.4], [0.2, 0.1, 0.7], [0.2, 0.5, 0.3]])
    return Judged("gender", ("other", "female", "male"), targets, scores, "abcd")


def test_markdown_of_one_label() -> None:
    head, rule, line, *rest = markdown(label_rows(judged_of(), {"yes": 0.5}, draws=0)).splitlines()
    cells = dict(zip(*([cell.strip() for cell in row.strip("|").split("|")] for row in (head, line)), strict=True))
    assert cells == {
        **{"Label": "hat", "THR": "0.5000", "Acc.": "0.8333", "Prec.": "0.6667", "Rec.": "1.0000", "FPR": "0.2500"},
        **{"F1": "0.8000", "MCC": "0.7071", "BA": "0.8750", "AUC [95%]": "0.8750", "AP [95%]": "0.8333"},
        **{"ECE": "0.3000", "Brier": "0.1467", "Positive": "2", "Images": "6", "IDs": "6"},
    }
    assert len({len(text) for text in (head, rule, line)}) == 1 and rule.startswith("| ----- | -----: |")
    assert rest == ["", "1 row: mean AUC 0.8750, mean AP 0.8333, mA 0.8750; worst AUC 0.8750: hat"]


def test_markdown_says_what_is_undefined_and_bounded() -> None:
    rows = label_rows(judged_of(targets=np.zeros(6, int)), {}, draws=10)
    assert markdown(rows).splitlines()[2].count(" – ") == 5 and "worst" not in markdown(rows)  # Rec. MCC BA AUC AP
    (row,) = label_rows(judged_of(), {}, draws=100)
    assert f"0.8750 [{row.auc_low:.3f}, {row.auc_high:.3f}]" in markdown([row])


def test_names_of_others_stay_in_their_cell() -> None:
    text = markdown(label_rows(judged_of("a|b\nc"), {}, draws=0))
    assert "a\\|b\N{REPLACEMENT CHARACTER}c" in text and len(text.splitlines()) == 5


@pytest.mark.parametrize(
    ("label", "classes", "told"),
    [("hat", ("no", "yes"), "| hat "), ("hat", ("none", "Hat"), "| hat "), ("sex", ("f", "m"), "| sex: m ")],
)
def test_row_is_called_by_its_label_where_its_class_says_yes(label: str, classes: tuple[str, str], told: str) -> None:
    judged = Judged(label, classes, SIX, np.stack([1 - SCORES, SCORES], axis=1), "abcdef")
    assert told in markdown(label_rows(judged, {}, draws=0))


def test_confusion_text() -> None:
    lines = confusion_markdown(("a", "b"), np.array([[3, 1], [0, 0]])).splitlines()
    assert [line.replace(" ", "") for line in lines[2:]] == [
        "|a|3|1|0.7500|",
        "|b|0|0|–|",
        "|Prec.|1.0000|0.0000|0.7500|",
    ]


def test_top_text() -> None:
    rows = top_rows(SIX, {"GAP": SCORES, "bilinear": np.array([0, 0, 0, 0, 1, 1])})
    lines = [line.replace(" ", "") for line in top_markdown(rows).splitlines()[2:]]
    assert lines == ["|GAP|2|1|0.5000||||", "|bilinear|2|0|0.0000|0|2|0.5000|"]


def test_comparison_text() -> None:
    better = judged_of(scores=np.array([0.1, 0.2, 0.3, 0.4, 0.7, 0.9]))
    text = comparison_markdown(compare([judged_of()], [better], draws=0), "GAP", "bilinear").splitlines()
    assert [cell.strip() for cell in text[2].strip("|").split("|")] == ["hat", "0.8750", "1.0000", "+0.1250"]
    assert text[-1] == "bilinear is better in 1, worse in 0: sign test p = 1.0000"


def test_csv_holds_every_figure_in_full(tmp_path: Path) -> None:
    rows = [*label_rows(judged_of(), {"yes": 0.5}, draws=0), *label_rows(gender(), {"male": 0.6}, draws=0)]
    write_csv(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["label"], row["class"]) for row in read][:2] == [("hat", "yes"), ("gender", "other")] and len(
        read
    ) == 4
    for row, line in zip(rows, read, strict=True):
        for name, value in row.figures().items():
            assert line[name] == "" if math.isnan(value) else float(line[name]) == value


def test_evaluation_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    judged = replace(gender(), label="帽 子", cameras=("door", "roof", "door", "roof"))
    written = write_evaluation(folder, [judged], {"帽 子": {"male": 0.6}}, by_camera=True, draws=10)
    names = ["evaluation.md", "evaluation.csv", "roc.png", "帽-子.png"]
    assert [path.name for path in written] == names
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    text = written[0].read_text()
    assert text.startswith("# Evaluation\n") and "## 帽 子: confusion" in text and "| door " in text
    assert len(written[1].read_text().splitlines()) == 1 + 3 + 2 * 3  # head, classes, classes of each camera
    curves, panels = (cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) for path in written[2:])
    assert curves.std() > 10 and panels.std() > 10
    assert panels.shape[:2] == (3 * 418, 1320)  # a row of panels for each class


def test_pictures_of_like_labels_have_names_of_their_own() -> None:
    names = file_names(["hat", "Hat!", "ROC", "a/b", "../x", "!"], ["roc"])
    assert names == ["hat", "hat-2", "roc-2", "a-b", "x", "label"]


def test_evaluation_without_pictures(tmp_path: Path) -> None:
    assert len(write_evaluation(tmp_path, [judged_of()], {}, plots=False, draws=0)) == 2
    assert "By camera" not in (tmp_path / "evaluation.md").read_text()


def test_same_seed_same_text() -> None:
    one, again, other = (evaluation_text([judged_of()], {}, seed=seed, draws=50)[0] for seed in (1, 1, 2))
    assert one == again and one != other


def test_label_of_one_class_is_drawn(tmp_path: Path) -> None:
    plot_label(tmp_path / "one.svg", judged_of("$x_1", np.zeros(6, int)), {})
    assert b"<!-- one class only -->" in (tmp_path / "one.svg").read_bytes()


@pytest.mark.parametrize(
    ("labels", "thresholds", "message"),
    [([], {}, "one or more"), (["a", "a"], {}, "different labels"), (["a"], {"b": {}}, "thresholds: expected labels")],
)
def test_refused(labels: list[str], thresholds: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluation_text([judged_of(label) for label in labels], thresholds)


def test_refused_paths(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanPathError, match="name another"):
        write_evaluation(tmp_path / "file", [judged_of()], {})
    with pytest.raises(InputError, match="picture"):
        plot_label(tmp_path / "hat.bmp", judged_of(), {})


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("sklearn.metrics", lambda: auc(SIX, SCORES)),
        ("scipy.stats", lambda: mcnemar(1, 2)),
        ("scipy.optimize", lambda: fit_temperature(np.stack([-SCORES, SCORES], 1), [1, 0, 0, 1, 1, 1])),
    ],
)
def test_missing_package_is_told_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, package: str, call: object
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=r"pip install 'graftsdk\[train\]'"):
        call()
