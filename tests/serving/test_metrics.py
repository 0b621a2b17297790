"""What Prometheus reads: labels as the plan has them, whatever was answered by another one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import toys

pytest.importorskip("prometheus_client", reason="needs graftsdk[serve]")

import numpy as np

from graftsdk.attribute import Attribute
from graftsdk.plan import BranchDocument
from graftsdk.prediction import Person, Prediction
from graftsdk.serving.metrics import Metrics

IMAGE = np.zeros((48, 64, 3), np.uint8)


def document(label: str, classes: tuple[str, ...] = ("no", "yes")) -> BranchDocument:
    return replace(toys.branch(label, classes=classes)[1], histogram={classes[-1]: (50,) * 20})


def answer(label: str, classes: tuple[str, ...], score: float) -> Prediction:
    rest = (1.0 - score) / (len(classes) - 1)
    scores = dict.fromkeys(classes, rest) | {classes[-1]: score}
    person = Person(0, [0, 0, 20, 40], None, {label: Attribute(label, classes, scores)})
    return Prediction((person,), IMAGE, timings={"engine": 20.0}, labels=(label,))


def metrics(*documents: BranchDocument) -> Metrics:
    return Metrics({each.label: each for each in documents}, lambda: 3, "one")


def value(of: Metrics, series: str) -> float | None:
    found = re.search(rf"^graftsdk_{re.escape(series)} (\S+)$", of.render().decode(), re.MULTILINE)
    return None if found is None else float(found[1])


def test_positives_persons_and_stages_are_counted() -> None:
    found = metrics(document("child"))
    for score in (0.2, 0.7, 0.8):
        found.prediction(answer("child", ("no", "yes"), score))
    assert value(found, 'label_persons_total{label="child"}') == 3
    assert value(found, 'label_positive_total{label="child",value="yes"}') == 2
    assert value(found, "persons_total") == 3 and value(found, "queue_images") == 3
    assert value(found, 'stage_seconds_sum{stage="engine"}') == pytest.approx(0.06)


def test_drift_is_told_once_there_are_enough_scores() -> None:
    found = metrics(document("child"))
    for _ in range(999):
        found.prediction(answer("child", ("no", "yes"), 0.97))
    assert value(found, 'label_psi{label="child"}') is None
    found.prediction(answer("child", ("no", "yes"), 0.97))
    drift = value(found, 'label_psi{label="child"}')
    assert drift is not None and drift > 2


def test_after_a_reload_the_labels_are_the_new_plan_s() -> None:
    found = metrics(document("child"), document("hat"))
    old = answer("child", ("no", "yes"), 0.9)
    found.prediction(old)
    found.prediction(answer("hat", ("no", "yes"), 0.9))
    found.shadow("child", agreed=False)
    found.follow({each.label: each for each in (document("hat"), document("child", ("absent", "present")))}, "two")
    found.prediction(old)  # was begun on the old plan: counted for no label, and no error
    found.shadow("strange", agreed=True)
    text = found.render().decode()
    assert 'label="child"' not in text and "strange" not in text
    assert value(found, 'label_persons_total{label="hat"}') == 1  # what stays goes on
    assert value(found, 'plan_info{digest="two"}') == 1 and 'digest="one"' not in text
    found.prediction(answer("child", ("absent", "present"), 0.9))
    assert value(found, 'label_positive_total{label="child",value="present"}') == 1


def test_refusals_by_reason_are_bounded() -> None:
    found = metrics(document("child"))
    for number in range(500):
        found.refused(f"code_{number}")
    found.refused("code_3")
    text = found.render().decode()
    assert len(re.findall(r"^graftsdk_refused_total\{", text, re.MULTILINE)) == 65
    assert value(found, 'refused_total{reason="code_3"}') == 2
    assert value(found, 'refused_total{reason="other"}') == 436


def test_several_services_in_one_process_count_apart() -> None:
    one, other = metrics(document("child")), metrics(document("child"))
    one.request("/v1/predict", 200, 0.1)
    assert value(one, 'requests_total{route="/v1/predict",status="200"}') == 1
    assert value(other, 'requests_total{route="/v1/predict",status="200"}') is None
