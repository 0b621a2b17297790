"""What a running service is watched by: metrics, drift, threshold profiles, the plan's file."""

from __future__ import annotations

import math
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

pytest.importorskip("prometheus_client", reason="needs graftsdk[serve]")

from starlette.testclient import TestClient

from graftsdk.errors import InputError
from graftsdk.plan import BranchDocument
from graftsdk.predictor import Predictor
from graftsdk.reloading import Reload
from graftsdk.serving.app import create_app
from graftsdk.serving.drift import Drift, psi
from graftsdk.serving.opening import open_service
from graftsdk.serving.profiles import load_profiles
from graftsdk.serving.settings import ServeSettings
from graftsdk.serving.shadow import Shadow
from graftsdk.serving.watch import PlanWatcher


@pytest.fixture
def plan(toy_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(toy_path, tmp_path / "engine.plan"))


@pytest.fixture
def documents(toy_path: Path) -> dict[str, BranchDocument]:
    with Predictor(toy_path, threads=1) as predictor:
        return {label: predictor.plan.manifest.find(label)[1].document for label in predictor.labels}  # type: ignore[index]


def test_psi_is_the_formula() -> None:
    expected, found = [10, 30, 60], [30, 30, 40]
    p, q = (np.array(counts) + 0.5 for counts in (expected, found))
    p, q = p / p.sum(), q / q.sum()
    assert math.isclose(psi(expected, found), float(((q - p) * np.log(q / p)).sum()))
    assert psi(expected, expected) == 0.0
    assert psi([0, 100], [100, 0]) > 5
    with pytest.raises(ValueError, match="as many bins"):
        psi([1], [1, 2])


def test_drift_tells_moved_scores_from_those_that_did_not(documents: dict[str, BranchDocument]) -> None:
    from dataclasses import replace

    label, document = next(iter(documents.items()))
    draws = np.random.default_rng(0).beta(2, 5, 4000)
    name = document.classes[-1]
    counts = tuple(int(count) for count in np.histogram(draws[:2000], 20, (0, 1))[0])
    known = {label: replace(document, histogram={name: counts})}
    same, moved, few = Drift(known), Drift(known), Drift(known)
    for score in draws[2000:]:
        same.add(label, {name: float(score)})
        moved.add(label, {name: float(1 - score)})
    for score in draws[:100]:
        few.add(label, {name: float(score)})
    same.add("another", {name: 0.5})
    assert same.values()[label] < 0.05 < 0.5 < moved.values()[label]
    assert few.values() == {}


def test_profiles(documents: dict[str, BranchDocument], tmp_path: Path) -> None:
    path = tmp_path / "profiles.toml"
    path.write_text("[lobby]\nchild = 0.7\n[garage]\nchild = 0.4\n", "utf-8")
    profiles = load_profiles(path, documents)
    assert profiles.names == ("lobby", "garage") and profiles.thresholds("lobby") == {"child": 0.7}
    with pytest.raises(InputError, match="lobby"):
        profiles.thresholds("roof")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[lobby]\nnobody = 0.5", r"\[lobby\].*nobody"),
        ("[lobby]\nchild = 1.5", r"\[lobby\].*1.5"),
        ("[lobby]\nchild = { maybe = 0.5 }", r"\[lobby\].*maybe"),
        ("lobby = 0.5", "expected a table"),
        ("[lobby", "expected TOML"),
    ],
)
def test_profiles_refused(documents: dict[str, BranchDocument], tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "profiles.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=said):
        load_profiles(path, documents)


def test_a_profile_is_chosen_by_the_request_and_metrics_count_it(plan: Path, tmp_path: Path, jpeg: bytes) -> None:
    path = tmp_path / "profiles.toml"
    path.write_text("[all]\nchild = 0.0\n[none]\nchild = 1.0\n", "utf-8")
    service = open_service(
        str(plan), ServeSettings(), {"threads": 1}, profiles=str(path), watch=None, own_process=False
    )
    with TestClient(create_app(service)) as client:
        assert client.get("/v1/plan").json()["profiles"] == ["all", "none"]
        told = {
            name: client.post(
                f"/v1/predict?profile={name}", content=jpeg, headers={"Content-Type": "image/jpeg"}
            ).json()
            for name in ("all", "none")
        }
        assert [told[name]["persons"][0]["attributes"]["child"]["present"] for name in told] == [True, False]
        text = client.get("/metrics").text
        assert 'graftsdk_requests_total{route="/v1/predict",status="200"} 2.0' in text
        assert 'graftsdk_label_persons_total{label="child"} 2.0' in text
        assert 'graftsdk_label_positive_total{label="child",value="yes"} 1.0' in text
        assert re.search(r"graftsdk_batch_images_count [23]\.0", text) and "graftsdk_queue_images 0.0" in text
        assert f'graftsdk_plan_info{{digest="{service.predictor.plan.digest}"}} 1.0' in text


class Count:
    def __init__(self) -> None:
        self.judged: list[tuple[str, bool]] = []
        self.left_out: list[str] = []

    def shadow(self, label: str, agreed: bool) -> None:
        self.judged.append((label, agreed))

    def shadow_left_out(self, reason: str) -> None:
        self.left_out.append(reason)


def test_a_shadow_of_the_same_plan_agrees_and_one_that_decides_otherwise_does_not(plan: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    boxes = [[x, y, x + 20, y + 30] for x in range(0, 100, 20) for y in (0, 25, 50)]
    masks = np.random.default_rng(1).random((len(boxes), 80, 120)) < 0.8
    toys.write(tmp_path / "fewer.plan", ["child", "gender"])
    same, other = Count(), Count()
    with Predictor(plan, threads=1, thresholds={"child": 1.0}) as predictor:
        answered = predictor.predict(image, boxes=boxes, masks=masks)
        shadows = [
            Shadow(plan, 1.0, same, {"threads": 1, "thresholds": {"child": 1.0}}, predictor.labels),
            Shadow(tmp_path / "fewer.plan", 1.0, other, {"threads": 1, "thresholds": {"child": 0.0}}, predictor.labels),
        ]
        for shadow in shadows:
            shadow.offer(answered)
            shadow.close()
    assert len(same.judged) == len(boxes) * len(predictor.labels) and all(agreed for _, agreed in same.judged)
    assert sorted(set(other.judged)) == [("child", False), ("gender", True)] and other.left_out == []


def test_a_shadow_that_is_busy_leaves_out_and_a_fraction_is_one(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    with Predictor(plan, threads=1) as predictor:
        answered = predictor.predict(image)
        count, some = Count(), Count()
        shadow = Shadow(plan, 1.0, count, {"threads": 1}, predictor.labels)
        hold, compare = threading.Event(), shadow._compare
        monkeypatch.setattr(shadow, "_compare", lambda *offered: hold.wait(30) and compare(*offered))
        for _ in range(20):
            shadow.offer(answered)
        hold.set()
        shadow.close()
        assert count.left_out.count("busy") >= 17 and len(count.judged) % len(predictor.labels) == 0
        tenth = Shadow(plan, 0.1, some, {"threads": 1}, predictor.labels)
        taken: list[Any] = []
        monkeypatch.setattr(tenth._waiting, "put_nowait", taken.append)
        for _ in range(2000):
            tenth.offer(answered)
        assert 150 < len(taken) < 250
        monkeypatch.undo()
        tenth.close()
        with pytest.raises(InputError, match="fraction"):
            Shadow(plan, 1.5, count, {}, predictor.labels)
        with pytest.raises(InputError, match="with some of"):
            Shadow(plan, 0.5, count, {"threads": 1}, ("nothing",))


def test_a_replaced_plan_serves_and_a_damaged_one_does_not(plan: Path, tmp_path: Path) -> None:
    done: list[Reload | None] = []
    with Predictor(plan, threads=1) as predictor:
        watcher = PlanWatcher(predictor, done.append, 3600.0)
        watcher.close()  # this test looks itself
        first = predictor.plan.digest
        watcher.look()
        assert done == [] and watcher.refused is None

        other = tmp_path / "other.plan"
        toys.write(other, [*predictor.labels, "added"])
        other.replace(plan)
        watcher.look()
        assert "added" in predictor.labels and predictor.plan.digest != first
        assert len(done) == 1 and done[0] is not None and done[0].added == ("added",)

        serving = predictor.plan.digest
        (tmp_path / "torn").write_bytes(plan.read_bytes()[:-1000])
        (tmp_path / "torn").replace(plan)
        watcher.look()
        watcher.look()  # tried once
        assert done[1:] == [None] and watcher.refused and predictor.plan.digest == serving
        plan.unlink()
        watcher.look()
        crops = np.zeros((1, 3, *predictor.plan.manifest.crop.size), np.float32)
        assert "added" in predictor.run(crops) and done[1:] == [None]

        toys.write(plan)
        watcher.look()
        assert watcher.refused is None and "added" not in predictor.labels


def test_a_plan_that_was_replaced_before_the_first_look_is_seen(plan: Path, tmp_path: Path) -> None:
    done: list[Any] = []
    with Predictor(plan, threads=1) as predictor:
        toys.write(tmp_path / "other.plan", [*predictor.labels, "added"])
        (tmp_path / "other.plan").replace(plan)
        PlanWatcher(predictor, done.append, 3600.0).close()  # its thread looks at once
        assert [each.added for each in done] == [("added",)]


def test_a_plan_of_bytes_is_not_watched(toy_path: Path) -> None:
    with Predictor(toy_path.read_bytes(), threads=1) as predictor, pytest.raises(InputError, match="made from a path"):
        PlanWatcher(predictor, print)
