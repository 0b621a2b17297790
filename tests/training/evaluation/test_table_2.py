"""The paper's own arithmetic, then every figure against scikit-learn, then what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics
from training.evaluation.paper_tables import TABLE_2

from graftsdk import Attribute
from graftsdk.errors import InputError
from graftsdk.training.evaluation import (
    Counts,
    Judged,
    camera_rows,
    confusion,
    decided,
    label_rows,
    summary,
    thresholds_of,
)
from graftsdk.training.evaluation.resampling import identity_draws

PRINTED = ("accuracy", "precision", "recall", "fpr")
GENDER = ("other", "female", "male")


def judged_of(truth: np.ndarray, scores: np.ndarray, **more: object) -> Judged:
    names = [str(index) for index in range(len(truth))]
    return Judged("bag", ("no", "yes"), truth.astype(int), np.stack([1 - scores, scores], 1), names, **more)


def drawn(rng: np.random.Generator, classes: tuple[str, ...], images: int = 300, label: str = "gender") -> Judged:
    targets = rng.integers(len(classes), size=images)
    logits = rng.normal(size=(images, len(classes)))
    logits[np.arange(images), targets] += 1.0
    persons, cameras = rng.integers(80, size=images), rng.integers(3, size=images)
    names = [f"person {index}" for index in persons], [f"cam {index}" for index in cameras]
    return Judged.from_logits(label, classes, targets, logits, *names)


@pytest.mark.parametrize("row", TABLE_2, ids=[row.label for row in TABLE_2])
def test_paper(row: object) -> None:
    hits, false = row.recall * row.positives, row.fpr * row.negatives
    counts = Counts(hits, false, row.positives - hits, row.negatives - false)
    for name in PRINTED:
        bound = 1e-4 if name in row.wrong else 1e-3
        assert getattr(counts, name) == pytest.approx(row.wrong.get(name, getattr(row, name)), abs=bound), name


def test_rows_of_the_paper_that_agree_with_themselves() -> None:
    agreeing = {row.label.partition(",")[0] for row in TABLE_2} - {
        row.label.partition(",")[0] for row in TABLE_2 if row.wrong or "Holding" in row.label
    }
    assert len(agreeing) == 13


@pytest.mark.parametrize("row", [row for row in TABLE_2 if row.label.startswith(("Suit", "Youth", "Pregnant"))])
def test_paper_image_by_image(row: object) -> None:
    hits, false = round(row.recall * row.positives), round(row.fpr * row.negatives)
    truth = np.arange(row.positives + row.negatives) < row.positives
    scores = np.full(len(truth), 0.25)
    scores[:hits] = scores[row.positives : row.positives + false] = 0.94
    (found,) = label_rows(judged_of(truth, scores), {"yes": 0.94}, draws=0)
    assert (found.positives, found.images) == (row.positives, row.positives + row.negatives)
    figures = found.figures()
    assert [figures[name] for name in PRINTED] == pytest.approx([getattr(row, name) for name in PRINTED], abs=1e-3)


@pytest.mark.parametrize("classes", [("no", "yes"), GENDER])
def test_row_against_sklearn(rng: np.random.Generator, classes: tuple[str, ...]) -> None:
    judged = drawn(rng, classes)
    thresholds = {name: 0.3 + 0.1 * index for index, name in enumerate(classes)}
    rows = label_rows(judged, thresholds, draws=20)
    assert [row.name for row in rows] == list(classes[-1:] if len(classes) == 2 else classes)
    for row in rows:
        truth, scores = judged.one(row.name)
        chosen, figures = scores >= thresholds[row.name], row.figures()
        assert figures == pytest.approx(
            {
                "threshold": thresholds[row.name],
                "accuracy": metrics.accuracy_score(truth, chosen),
                "precision": metrics.precision_score(truth, chosen),
                "recall": metrics.recall_score(truth, chosen),
                "fpr": 1 - metrics.recall_score(~truth, ~chosen),
                "f1": metrics.f1_score(truth, chosen),
                "mcc": metrics.matthews_corrcoef(truth, chosen),
                "balanced_accuracy": metrics.balanced_accuracy_score(truth, chosen),
                "auc": metrics.roc_auc_score(truth, scores),
                "ap": metrics.average_precision_score(truth, scores),
                "brier": metrics.brier_score_loss(truth, scores),
                "images": 300,
                "positives": truth.sum(),
                "identities": len(set(judged.identities)),
                **{name: value for name, value in figures.items() if name == "ece" or name.endswith(("_low", "_high"))},
            }
        )
        for name in ("auc", "ap", "accuracy", "precision", "recall", "fpr", "f1"):
            assert figures[f"{name}_low"] < figures[name] < figures[f"{name}_high"]


def test_intervals_of_decisions_are_those_of_a_slow_bootstrap(rng: np.random.Generator) -> None:
    judged = drawn(rng, ("no", "yes"), images=120)
    truth, scores = judged.one("yes")
    figures = label_rows(judged, {"yes": 0.4}, seed=2, draws=40)[0].figures()
    persons = np.unique(judged.identities, return_inverse=True)[1]
    found = []
    for times in np.concatenate(list(identity_draws(persons.max() + 1, 120, 40, seed=2))):
        images = [image for image, person in enumerate(persons) for _ in range(int(times[person]))]
        found.append(Counts.of(truth[images], scores[images] >= 0.4))
    for name in ("accuracy", "precision", "recall", "fpr", "f1"):
        expected = np.quantile([getattr(counts, name) for counts in found], [0.025, 0.975])
        assert (figures[f"{name}_low"], figures[f"{name}_high"]) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("classes", [("no", "yes"), GENDER])
def test_decisions_are_those_that_attributes_make(rng: np.random.Generator, classes: tuple[str, ...]) -> None:
    judged = drawn(rng, classes)
    thresholds = {classes[-1]: 0.37}
    answers = [
        Attribute("x", classes, dict(zip(classes, scores, strict=True)), thresholds) for scores in judged.probabilities
    ]
    assert [classes[index] for index in decided(judged, thresholds)] == [answer.name for answer in answers]
    row = label_rows(judged, thresholds, draws=0)[-1]
    chosen = np.array([answer.is_(classes[-1]) for answer in answers])
    assert row.counts == Counts.of(judged.one(classes[-1])[0], chosen)
    expected = metrics.confusion_matrix(judged.targets, decided(judged, thresholds))
    assert (confusion(judged, thresholds) == expected).all()


@pytest.mark.parametrize(
    ("threshold", "chosen"), [(0.0, 4), (0.25, 3), (np.nextafter(0.25, 1), 2), (1.0, 1), (None, 2)]
)
def test_score_at_its_threshold_counts(threshold: float | None, chosen: int) -> None:
    judged = judged_of(np.array([0, 1, 0, 1]), np.array([0.0, 0.25, 0.5, 1.0]))
    thresholds = {} if threshold is None else {"yes": threshold}
    counts = label_rows(judged, thresholds, draws=0)[0].counts
    assert decided(judged, thresholds).sum() == chosen
    assert counts.true_positives + counts.false_positives == chosen


def test_first_of_equally_likely_classes_is_the_answer() -> None:
    judged = Judged("age", ("a", "b", "c"), np.array([0, 1, 2]), np.full((3, 3), 1 / 3), ("p", "q", "r"))
    assert confusion(judged, {}).tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_class_without_threshold_has_ranks_only(rng: np.random.Generator) -> None:
    rows = label_rows(drawn(rng, GENDER), {"male": 0.4}, draws=0)
    assert [row.counts is None for row in rows] == [True, True, False]
    assert math.isnan(rows[0].figures()["recall"]) and rows[0].auc > 0.5


UNDEFINED = {
    # truth, scores, names of what is NaN
    "no positive": ([0, 0, 0], [0.1, 0.6, 0.2], {"recall", "mcc", "balanced_accuracy", "auc", "ap"}),
    "no negative": ([1, 1, 1], [0.1, 0.6, 0.2], {"fpr", "mcc", "balanced_accuracy", "auc", "ap"}),
    "nothing chosen": ([0, 1, 1], [0.1, 0.4, 0.2], {"precision", "mcc"}),
    "constant scores": ([0, 1, 1], [0.5, 0.5, 0.5], {"mcc"}),
    "nothing there, nothing chosen": ([0, 0], [0.1, 0.2], {"precision", "recall", "f1", "mcc", "balanced_accuracy"}),
}


@pytest.mark.parametrize("case", UNDEFINED)
def test_undefined_is_nan_and_never_a_guess(case: str) -> None:
    truth, scores, missing = UNDEFINED[case]
    figures = label_rows(judged_of(np.array(truth), np.array(scores)), {}, draws=0)[0].figures()
    ranks = {"auc", "ap"} if len(set(truth)) == 1 else set()
    undefined = {name for name, value in figures.items() if math.isnan(value)}
    assert {name for name in undefined if not name.endswith(("_low", "_high"))} == missing | ranks
    assert sum(name.endswith(("_low", "_high")) for name in undefined) == 14  # of no draw there is no interval


def test_cameras_part_the_images(rng: np.random.Generator) -> None:
    judged = drawn(rng, ("no", "yes"), label="hat")
    rows = camera_rows(judged, {"yes": 0.4}, draws=0)
    assert [row.camera for row in rows] == ["cam 0", "cam 1", "cam 2"]
    whole = label_rows(judged, {"yes": 0.4}, draws=0)[0].counts
    for name in ("true_positives", "false_positives", "false_negatives", "true_negatives"):
        assert sum(getattr(row.counts, name) for row in rows) == getattr(whole, name)
    own = [index for index, camera in enumerate(judged.cameras) if camera == "cam 1"]
    assert rows[1].auc == label_rows(judged.take(np.array(own)), {}, draws=0)[0].auc


def test_summary_names_the_worst(rng: np.random.Generator) -> None:
    good = judged_of(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    poor = judged_of(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]))
    none = judged_of(np.array([0, 0]), np.array([0.1, 0.6]))
    rows = [label_rows(judged, {}, draws=0)[0] for judged in (good, poor, none)]
    found = summary(rows)
    assert (found.auc, found.mean_accuracy, found.worst) == (pytest.approx(0.875), pytest.approx(0.75), rows[1])
    assert summary([]).worst is None and math.isnan(summary([]).auc)


GOOD = {
    "label": "bag",
    "classes": ("no", "yes"),
    "targets": np.array([0, 1]),
    "probabilities": np.array([[0.5, 0.5], [0.1, 0.9]]),
    "identities": ("a", "b"),
}
REFUSED = {
    "one class": ({"classes": ("yes",)}, "two or more"),
    "the same class twice": ({"classes": ("yes", "yes")}, "two or more"),
    "no image": ({"targets": np.array([], int), "probabilities": np.empty((0, 2))}, "N >= 1"),
    "another number of scores": ({"probabilities": np.full((2, 3), 1 / 3)}, "shapes"),
    "NaN": ({"probabilities": np.array([[0.5, 0.5], [np.nan, 0.9]])}, "sum is 1, found .* at 1"),
    "logits": ({"probabilities": np.array([[-2.0, 3.0], [0.1, 0.9]])}, "sum is 1"),
    "an unknown class": ({"targets": np.array([0, 2])}, "0 to 1"),
    "truth in floats": ({"targets": np.array([0.0, 1.0])}, "integers"),
    "identities of other images": ({"identities": ("a",)}, "identity"),
    "cameras of other images": ({"cameras": ("a",)}, "camera"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    change, message = REFUSED[case]
    Judged(**GOOD)
    with pytest.raises(InputError, match=message):
        Judged(**(GOOD | change))


@pytest.mark.parametrize("thresholds", [{"maybe": 0.5}, {"yes": 1.5}, {"yes": math.nan}])
def test_refused_thresholds(thresholds: dict[str, float]) -> None:
    with pytest.raises(InputError):
        thresholds_of(Judged(**GOOD), thresholds)


def test_refused_logits() -> None:
    with pytest.raises(InputError, match="finite"):
        Judged.from_logits("bag", ("no", "yes"), [0], [[0.0, math.nan]], ["a"])
