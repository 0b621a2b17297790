"""From an image to people: who is cut out, what is returned, in which order, and what survives."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import toys
from PIL import Image

from graftsdk import Predictor
from graftsdk.errors import (
    DTypeError,
    EngineClosed,
    EngineIncompatible,
    FingerprintMismatch,
    InputError,
    NonFiniteOutput,
    ShapeError,
)
from graftsdk.plan import open_plan
from graftsdk.plan.edit import create_plan, merge_plans
from graftsdk.preprocess import BoxMasks, mask_crop

LABELS = ("child", "gender", "backpack")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "engine.plan"
    toys.write(path, LABELS)
    return path


@pytest.fixture(scope="module")
def predictor(path: Path) -> Predictor:
    return Predictor(path)


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (120, 90, 3), np.uint8)


def masks_of(image: np.ndarray) -> np.ndarray:
    masks = np.zeros((2, *image.shape[:2]), bool)
    masks[0, 10:70, 5:40] = True
    masks[1, 40:110, 30:80] = True
    return masks


class TestWho:
    def test_without_anything_the_image_is_one_person(self, predictor: Predictor, image: np.ndarray) -> None:
        prediction = predictor.predict(image)
        assert len(prediction) == 1
        assert prediction[0].box.tolist() == [0, 0, 90, 120]
        assert prediction[0].mask is None
        assert prediction[0].score is None
        assert prediction.plan == predictor.plan.digest

    def test_masks_alone_give_their_own_boxes(self, predictor: Predictor, image: np.ndarray) -> None:
        masks = masks_of(image)
        prediction = predictor.predict(image, masks=masks)
        assert [person.box.tolist() for person in prediction] == [[5, 10, 40, 70], [30, 40, 80, 110]]
        assert all(np.array_equal(person.mask, mask) for person, mask in zip(prediction, masks, strict=True))

    def test_boxes_crop_and_masks_fill(self, predictor: Predictor, image: np.ndarray) -> None:
        boxes = np.array([[0, 0, 50, 100], [20, 20, 90, 120]], np.float32)
        prediction = predictor.predict(image, boxes=boxes, masks=masks_of(image))
        crops = mask_crop(image, boxes, masks_of(image), spec=toys.CROP)
        expected = predictor.run(crops)["child"]
        assert [person["child"].scores["yes"] for person in prediction] == expected[:, 1].tolist()

    def test_box_masks(self, predictor: Predictor, image: np.ndarray) -> None:
        masks = BoxMasks([np.ones((4, 4), bool)], np.array([[10, 10, 50, 90]], np.float32))
        person = predictor.predict(image, masks=masks)[0]
        assert person.mask is not None and person.mask.sum() == 40 * 80

    def test_more_than_a_thousand_are_cut_and_it_is_said(self, predictor: Predictor, image: np.ndarray) -> None:
        boxes = np.tile(np.array([[0, 0, 20, 20]], np.float32), (1001, 1))
        prediction = predictor.predict(image, boxes=boxes, labels=["child"])
        assert (len(prediction), prediction.truncated) == (1000, True)

    def test_nobody(self, predictor: Predictor, image: np.ndarray) -> None:
        prediction = predictor.predict(image, boxes=np.empty((0, 4), np.float32))
        assert (len(prediction), prediction.labels) == (0, LABELS)

    @pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 65])
    def test_every_person_gets_its_own_scores(self, predictor: Predictor, image: np.ndarray, count: int) -> None:
        boxes = np.array([[i % 40, i % 50, i % 40 + 30, i % 50 + 60] for i in range(count)], np.float32)
        together = predictor.predict(image, boxes=boxes)
        for index in {0, count // 2, count - 1}:
            alone = predictor.predict(image, boxes=boxes[index : index + 1])[0]
            assert alone["gender"].scores == together[index]["gender"].scores


class TestSources:
    def test_every_kind_of_source_gives_the_same(self, predictor: Predictor, image: np.ndarray, tmp_path: Path) -> None:
        picture = Image.fromarray(image[:, :, ::-1])
        file = tmp_path / "a.png"
        picture.save(file)
        encoded = file.read_bytes()
        expected = predictor.predict(image).to_dict()["persons"]
        for source in (file, str(file), encoded, io.BytesIO(encoded), picture):
            assert predictor.predict(source).to_dict()["persons"] == expected
        assert predictor.predict(image[:, :, ::-1], color="rgb").to_dict()["persons"] == expected

    def test_lists_and_folders_keep_their_order(
        self, predictor: Predictor, rng: np.random.Generator, tmp_path: Path
    ) -> None:
        images = [rng.integers(0, 256, (40 + i, 50, 3), np.uint8) for i in range(5)]
        for index, image in enumerate(images):
            Image.fromarray(image[:, :, ::-1]).save(tmp_path / f"{index}.png")
        alone = [predictor.predict(image)[0]["child"].scores for image in images]
        assert [p[0]["child"].scores for p in predictor.predict(images)] == alone
        folder = predictor.predict(tmp_path)
        assert [Path(p.source or "").name for p in folder] == [f"{i}.png" for i in range(5)]
        assert [p[0]["child"].scores for p in folder] == alone
        assert predictor.predict([]) == []

    def test_masks_of_a_list(self, predictor: Predictor, image: np.ndarray) -> None:
        found = predictor.predict([image, image], masks=[None, masks_of(image)])
        assert [len(prediction) for prediction in found] == [1, 2]
        with pytest.raises(InputError, match="one entry an image"):
            predictor.predict([image, image], masks=masks_of(image))

    def test_an_image_that_fails_is_named(self, predictor: Predictor, image: np.ndarray) -> None:
        with pytest.raises(InputError, match="image 1: "):
            predictor.predict([image, b"nothing"])

    def test_timings(self, predictor: Predictor, image: np.ndarray) -> None:
        timings = predictor.predict(image).timings
        assert set(timings) == {"decode", "segment", "crop", "engine", "total"}
        assert timings["total"] == pytest.approx(sum(timings.values()) - timings["total"])

    def test_results_survive_later_changes_to_the_input(self, predictor: Predictor, image: np.ndarray) -> None:
        prediction = predictor.predict(image)
        before = prediction.to_dict()["persons"]
        image[:] = 0
        assert prediction.to_dict()["persons"] == before


class TestRun:
    def test_keys_follow_the_call_else_the_plan(self, predictor: Predictor) -> None:
        crops = toys.crops(3)
        assert tuple(predictor.run(crops)) == LABELS
        assert tuple(predictor.run(crops, ["backpack", "child"])) == ("backpack", "child")
        found = predictor.run(crops)["gender"]
        assert (found.shape, found.dtype) == ((3, 3), np.float32)
        assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
        assert predictor.run(toys.crops(0))["child"].shape == (0, 2)

    @pytest.mark.parametrize(
        ("crops", "error"),
        [
            (toys.crops(1).astype(np.float64), DTypeError),
            (toys.crops(1).astype(">f4"), DTypeError),
            (toys.crops(1)[0], ShapeError),
            (toys.crops(1)[:, :, :31], ShapeError),
            (toys.crops(1).transpose(0, 2, 3, 1), ShapeError),
            ([[1.0]], DTypeError),
        ],
    )
    def test_refuses_other_crops(self, predictor: Predictor, crops: np.ndarray, error: type[Exception]) -> None:
        with pytest.raises(error, match="expected"):
            predictor.run(crops)

    @pytest.mark.parametrize("labels", [["x"], [], "child", ["child", "child"]])
    def test_refuses_other_labels(self, predictor: Predictor, labels: list[str]) -> None:
        with pytest.raises(InputError, match="labels"):
            predictor.run(toys.crops(1), labels)

    def test_two_labels_on_one_part_get_arrays_of_their_own(self, tmp_path: Path) -> None:
        stock = toys.trunk()
        create_plan(tmp_path / "p", stock, [toys.branch("a", 1, seed=5), toys.branch("b", 1, seed=5)])
        with Predictor(tmp_path / "p") as predictor:
            found = predictor.run(toys.crops(2))
        assert np.array_equal(found["a"], found["b"])
        assert not np.shares_memory(found["a"], found["b"])

    def test_a_score_that_is_not_finite_names_label_and_crop(self, predictor: Predictor) -> None:
        crops = toys.crops(3)
        crops[1, 0, 0, 0] = np.nan
        before = predictor.run(toys.crops(3))
        with pytest.raises(NonFiniteOutput, match=r"label 'child'.*crop 1"):
            predictor.run(crops)
        assert all(np.array_equal(before[label], found) for label, found in predictor.run(toys.crops(3)).items())


class TestOptions:
    def test_thresholds_override_class_by_class(self, path: Path, image: np.ndarray) -> None:
        with Predictor(path, thresholds={"child": 1.0, "gender": {"male": 0.0}}) as predictor:
            person = predictor.predict(image)[0]
        assert person["child"].present is False
        assert person["gender"].is_("male") is True
        assert dict(person["gender"].thresholds) == {"female": 0.4, "male": 0.0}

    @pytest.mark.parametrize(
        "options",
        [
            {"labels": ["nobody"]},
            {"labels": []},
            {"labels": "child"},
            {"labels": ["child", "child"]},
            {"thresholds": {"nobody": 0.5}},
            {"thresholds": {"gender": 0.5}},
            {"thresholds": {"gender": {"alien": 0.5}}},
            {"thresholds": {"child": 1.5}},
            {"thresholds": {"child": True}},
            {"layout": "mixed"},
            {"threads": 0},
            {"min_score": 2},
            {"device": "tpu"},
        ],
    )
    def test_refuses(self, path: Path, options: dict) -> None:
        with pytest.raises(InputError):
            Predictor(path, **options)

    def test_refuses_a_precision_that_the_plan_lacks(self, path: Path) -> None:
        with pytest.raises(EngineIncompatible, match="precision"):
            Predictor(path, precision="int8")  # type: ignore[arg-type]

    def test_labels_prune(self, path: Path) -> None:
        with Predictor(path, labels=["gender"]) as predictor:
            assert predictor.labels == ("gender",)
            with pytest.raises(InputError):
                predictor.run(toys.crops(1), ["child"])


class TestLife:
    def test_closed(self, path: Path, image: np.ndarray) -> None:
        with Predictor(path) as predictor:
            predictor.predict(image)
        with pytest.raises(EngineClosed):
            predictor.predict(image)
        predictor.close()

    def test_pickles_as_path_and_options(self, path: Path) -> None:
        with Predictor(path, labels=["gender"], layout="split") as predictor:
            twin = pickle.loads(pickle.dumps(predictor))
            assert twin.labels == ("gender",)
            assert np.array_equal(twin.run(toys.crops(2))["gender"], predictor.run(toys.crops(2))["gender"])

    def test_bytes_and_file_objects_open_but_do_not_pickle(self, path: Path) -> None:
        content = path.read_bytes()
        for source in (content, io.BytesIO(content)):
            with Predictor(source) as predictor:
                predictor.run(toys.crops(1))
                with pytest.raises(InputError, match="pickle"):
                    pickle.dumps(predictor)

    def test_many_threads_get_the_serial_bits(self, predictor: Predictor, image: np.ndarray) -> None:
        expected = predictor.predict(image, masks=masks_of(image)).to_dict()["persons"]
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(predictor.predict, image, masks=masks_of(image)) for _ in range(64)]
            assert all(job.result().to_dict()["persons"] == expected for job in jobs)

    def test_a_forked_child_gives_the_same_bits_and_exits(self, predictor: Predictor) -> None:
        crops = toys.crops(2)
        expected = predictor.run(crops)["child"].tobytes()
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if predictor.run(crops)["child"].tobytes() == expected else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert predictor.run(crops)["child"].tobytes() == expected

    def test_spawned_processes_take_a_pickled_predictor(self, predictor: Predictor) -> None:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply_async(predictor.run, (toys.crops(2),)).get(timeout=60)
        assert np.array_equal(found["child"], predictor.run(toys.crops(2))["child"])

    def test_a_second_start_compiles_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Predictor(path).close()
        monkeypatch.setattr("graftsdk.engines.layout.graft_group", None)  # calling it would fail
        with Predictor(path) as predictor:
            predictor.run(toys.crops(1))

    def test_a_changed_plan_is_refused_before_it_is_compiled(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # cold: a warm start reads nothing of what was changed
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        with pytest.raises(ValueError, match="changed"):
            Predictor(bytes(content))


class TestTrees:
    def test_two_trunks_in_one_plan_answer_as_they_do_alone(self, tmp_path: Path) -> None:
        toys.write(tmp_path / "a", ["child", "hat"], seed=0)
        toys.write(tmp_path / "b", ["bag", "suit"], seed=1)
        merge_plans(tmp_path / "a", tmp_path / "b", tmp_path / "both")
        crops = toys.crops(3)
        alone = {**Predictor(tmp_path / "a").run(crops), **Predictor(tmp_path / "b").run(crops)}
        for layout in ("merged", "split"):
            together = Predictor(tmp_path / "both", layout=layout).run(crops)
            assert list(together) == ["child", "hat", "bag", "suit"]
            assert all(np.array_equal(together[label], alone[label]) for label in alone)

    def test_a_branch_of_another_trunk_is_refused(self, tmp_path: Path) -> None:
        stranger = toys.branch("hat", 2, on=toys.trunk(seed=1)[1])
        with pytest.raises(FingerprintMismatch, match=r"wants a toy trunk.*graftsdk"):
            create_plan(tmp_path / "p", toys.trunk(), [stranger])
        assert list(tmp_path.iterdir()) == []

    def test_a_branch_that_overflows_is_named_and_the_others_answer(self, tmp_path: Path) -> None:
        part, document = toys.branch("huge", 2)
        own = {name: array.copy() for name, array in part.tensors.items()}
        own["own.weight"] *= np.float32(1e38)
        bad = type(part)(part.role, part.graph, own)
        create_plan(tmp_path / "p", toys.trunk(), [toys.branch("child", 1), (bad, document)])
        with Predictor(tmp_path / "p") as predictor:
            with pytest.raises(NonFiniteOutput, match="label 'huge'"):
                predictor.run(toys.crops(1))
            assert np.isfinite(predictor.run(toys.crops(1), ["child"])["child"]).all()


def test_a_plan_without_labels_says_so(tmp_path: Path) -> None:
    create_plan(tmp_path / "p", toys.trunk(), [])
    assert open_plan(tmp_path / "p").labels == ()
    with pytest.raises(InputError, match="the plan has none"):
        Predictor(tmp_path / "p")


def test_equal_parts_on_two_taps_are_two_branches(tmp_path: Path) -> None:
    low, high = toys.branch("low", 2, seed=5), toys.branch("high", 3, seed=5)
    assert low[0].digest == high[0].digest
    create_plan(tmp_path / "p", toys.trunk(), [low, high])
    create_plan(tmp_path / "q", toys.trunk(), [high])
    with Predictor(tmp_path / "p") as both, Predictor(tmp_path / "q") as alone:
        found = both.run(toys.crops(2))
        assert not np.array_equal(found["low"], found["high"])
        assert np.array_equal(found["high"], alone.run(toys.crops(2))["high"])
    with Predictor(tmp_path / "p", layout="split") as split:
        assert all(np.array_equal(scores, found[label]) for label, scores in split.run(toys.crops(2)).items())
