"""Many callers share batches: each has its own answer or its own error, and no place in the queue is lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import toys

from graftsdk import Predictor, shared_batch
from graftsdk.batching import Batcher, BatchRecord
from graftsdk.errors import DecodeError, EngineClosed, EngineError, GraftError, InputError, Overloaded, ShapeError
from graftsdk.plan import CropSpec

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)


def boxes(count: int, first: int = 0) -> list[list[int]]:
    return [[i % 8, i % 5, 20 + i % 11, 30 + i % 13] for i in range(first, first + count)]


ENCODED = cv2.imencode(".png", IMAGE)[1].tobytes()


def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        threading.Event().wait(0.005)
    pytest.fail("it never came to that")


def failing(error: BaseException, times: int = 1000) -> Callable[..., Any]:
    left = [error] * times

    def fail(*_: Any, **__: Any) -> None:
        if left:
            raise left.pop()

    return fail


@pytest.fixture
def predictor(tmp_path: Path) -> Iterator[Predictor]:
    toys.write(tmp_path / "engine.plan")
    with Predictor(tmp_path / "engine.plan", threads=1, layout="split") as opened:
        yield opened


class Gate:
    """The engine's runs wait here until it is opened; `rows` tells each run's, `outputs` what was asked for."""

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Semaphore(0)
        self.rows: list[int] = []
        self.outputs: list[list[str]] = []
        self.spoil: Any = lambda values: values
        run = predictor._loaded.engine.run

        def gated(feeds: Any, outputs: Any = None) -> Any:
            self.reached.release()
            assert self.open.wait(20)
            self.rows.append(len(feeds["crops"]))
            self.outputs.append(list(outputs))
            return self.spoil(run(feeds, outputs))

        monkeypatch.setattr(predictor._loaded.engine, "run", gated)

    def occupy(self, batcher: Batcher) -> Future[Any]:
        """One image whose computing waits at the gate: what comes behind it waits in the queue."""
        future = batcher.submit(IMAGE, boxes=boxes(1))
        assert self.reached.acquire(timeout=20)
        return future


@pytest.fixture
def gate(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(predictor, monkeypatch)
    yield gate
    gate.open.set()


def people(prediction: Any) -> Any:
    return prediction.to_dict()["persons"]


def test_five_persons_and_four_are_one_batch_of_nine(predictor: Predictor, gate: Gate) -> None:
    with predictor.batcher() as batcher:
        records: list[BatchRecord] = []
        batcher.observe = records.append
        first = gate.occupy(batcher)
        futures = [batcher.submit(IMAGE, boxes=boxes(5)), batcher.submit(IMAGE, boxes=boxes(4, 5))]
        assert batcher.waiting == 2
        gate.open.set()
        found = [future.result(20) for future in futures]
        assert gate.rows == [1, 9] and len(first.result(20)) == 1
        assert [(record.images, record.crops) for record in records] == [(1, 1), (2, 9)]
        assert all(record.waited_s >= 0 < record.compute_s for record in records)
    for prediction, expected in zip(found, predictor.predict([IMAGE] * 2, boxes=[boxes(5), boxes(4, 5)]), strict=True):
        for person, other in zip(prediction, expected, strict=True):
            assert person.box.tolist() == other.box.tolist()
            for attribute in person:  # batches of other sizes differ by rounding
                wanted = other[attribute.label]
                assert attribute.scores == pytest.approx(wanted.scores, abs=1e-5)
        assert prediction.plan == predictor.plan.digest


def test_batches_are_full_and_persons_of_one_image_may_be_in_two(predictor: Predictor, gate: Gate) -> None:
    with predictor.batcher(max_batch=8) as batcher:
        gate.occupy(batcher)
        futures = [batcher.submit(IMAGE, boxes=boxes(5, i)) for i in range(4)]
        gate.open.set()
        assert [len(future.result(20)) for future in futures] == [5] * 4
    assert gate.rows == [1, 8, 8, 4]


def test_it_waits_for_more_as_long_as_it_is_told(predictor: Predictor, gate: Gate) -> None:
    gate.open.set()
    with predictor.batcher(max_batch=3, max_wait_ms=20_000) as batcher, ThreadPoolExecutor(3) as pool:
        assert all(len(found) == 1 for found in pool.map(lambda _: batcher.predict(IMAGE), range(3)))
    assert gate.rows == [3]


def test_each_has_its_own_labels_thresholds_and_persons(predictor: Predictor, gate: Gate) -> None:
    masks = np.zeros((1, 60, 50), bool)
    masks[0, 10:40, 5:30] = True
    options: list[dict[str, Any]] = [
        {"labels": ["gender"], "thresholds": {"gender": {"male": 0.9}}},
        {"labels": ["child"], "thresholds": {"child": 0.25}},
        {"masks": masks, "labels": ["child", "gender"]},
        {"color": "rgb", "labels": ["child"]},
    ]
    with predictor.batcher() as batcher:
        gate.occupy(batcher)
        futures = [batcher.submit(IMAGE, **each) for each in options]
        gate.open.set()
        found = [future.result(20) for future in futures]
    for prediction, each in zip(found, options, strict=True):
        expected = predictor.predict(IMAGE, **each)
        assert prediction.labels == expected.labels == tuple(each["labels"])
        for attribute in prediction[0]:
            wanted = expected[0][attribute.label]
            assert attribute.thresholds == wanted.thresholds
            assert attribute.scores == pytest.approx(wanted.scores, abs=1e-5)
    assert dict(found[0][0]["gender"].thresholds) == {"female": 0.4, "male": 0.9}
    assert len(gate.rows) == 1 + 1 + 4 and gate.rows[1] == 4
    assert len(gate.outputs[1]) == 2  # of three labels, the two that somebody asked for


def test_what_cannot_be_used_fails_alone(predictor: Predictor, gate: Gate) -> None:
    class Rude:
        def read(self, size: int = -1) -> bytes:
            raise ZeroDivisionError

    with predictor.batcher() as batcher:
        gate.occupy(batcher)
        bad = [
            (batcher.submit(b"no image"), DecodeError),
            (batcher.submit("/nowhere.jpg"), InputError),
            (batcher.submit(IMAGE, boxes=[[0, 0, float("nan"), 9]]), InputError),
            (batcher.submit(IMAGE, masks=np.zeros((1, 3, 3), bool)), ShapeError),
            (batcher.submit(Rude()), Exception),
        ]
        good = [batcher.submit(IMAGE, boxes=boxes(2)) for _ in range(3)]
        gate.open.set()
        assert [len(future.result(20)) for future in good] == [2] * 3
        for future, kind in bad:
            assert isinstance(future.exception(20), kind)
        for wrong in ({"labels": ["nobody"]}, {"thresholds": {"child": 7}}, {"color": "hsv"}, {"timeout": "soon"}):
            with pytest.raises(InputError):
                batcher.submit(IMAGE, **wrong)
        assert batcher.waiting == 0


def test_a_branch_that_is_no_number_fails_those_who_asked_for_it(predictor: Predictor, gate: Gate) -> None:
    name = predictor._loaded._score_names["child"]

    def spoil(values: Any) -> Any:
        return {key: value * (2 if key == name else 1) for key, value in values.items()}  # sums of 2

    with predictor.batcher() as batcher:
        gate.occupy(batcher)
        gate.spoil = spoil
        good, bad = batcher.submit(IMAGE, labels=["gender"]), batcher.submit(IMAGE, labels=["child"])
        gate.open.set()
        assert len(good.result(20)) == 1
        assert "'child'" in str(bad.exception(20)) and isinstance(bad.exception(), GraftError)


def test_an_engine_that_fails_fails_the_batch_and_no_more(predictor: Predictor, gate: Gate) -> None:
    def spoil(_: Any) -> Any:
        raise EngineError("out of order")

    with predictor.batcher() as batcher:
        first = gate.occupy(batcher)
        gate.spoil = spoil
        gate.open.set()
        assert isinstance(first.exception(20), EngineError)
        gate.spoil = lambda values: values
        assert len(batcher.predict(IMAGE)) == 1


def test_a_full_queue_refuses_at_once(predictor: Predictor, gate: Gate) -> None:
    with predictor.batcher(queue=3) as batcher:
        gate.occupy(batcher)
        futures = [batcher.submit(IMAGE) for _ in range(3)]
        with pytest.raises(Overloaded, match="fewer than 3 waiting"):
            batcher.submit(IMAGE)
        with pytest.raises(Overloaded):
            batcher.submit_crops(toys.crops(1))
        assert futures[1].cancel()  # its place is free
        futures[1] = batcher.submit(IMAGE)
        gate.open.set()
        assert all(len(future.result(20)) == 1 for future in futures)
        assert batcher.waiting == 0


def test_what_is_cancelled_or_late_is_not_computed(predictor: Predictor, gate: Gate) -> None:
    with predictor.batcher() as batcher:
        gate.occupy(batcher)
        late = batcher.submit(IMAGE, boxes=boxes(7), timeout=0.01)
        dropped = batcher.submit(IMAGE, boxes=boxes(3))
        kept = batcher.submit(IMAGE, boxes=boxes(2))
        dropped.cancel()
        with pytest.raises(Overloaded, match=r"within 0\.01 s"):
            batcher.predict(IMAGE, timeout=0.01)  # does not wait for the gate
        gate.open.set()
        assert len(kept.result(20)) == 2
        assert isinstance(late.exception(20), Overloaded) and dropped.cancelled()
    assert gate.rows == [1, 2]


def test_rows_of_a_dropped_image_leave_the_batch(predictor: Predictor, gate: Gate) -> None:
    """It was cut out already when its caller went away; the rows behind it move up."""
    gate.open.set()
    with predictor.batcher(max_batch=8, max_wait_ms=20_000) as batcher:
        dropped = batcher.submit(IMAGE, boxes=boxes(3))
        kept = batcher.submit(IMAGE, boxes=boxes(2, 3))
        until(lambda: batcher.waiting == 0)
        dropped.cancel()
        last = batcher.submit(IMAGE, boxes=boxes(3, 5))
        found = kept.result(20), last.result(20)
    expected = predictor.predict([IMAGE, IMAGE], boxes=[boxes(2, 3), boxes(3, 5)])
    assert gate.rows[0] == 5
    for prediction, wanted in zip(found, expected, strict=True):
        assert [person["child"].score for person in prediction] == pytest.approx(
            [person["child"].score for person in wanted], abs=1e-5
        )


def test_crops_are_answered_as_by_run(predictor: Predictor, gate: Gate) -> None:
    crops = toys.crops(5)
    with predictor.batcher() as batcher:
        gate.occupy(batcher)
        one, two = batcher.submit_crops(crops[:2]), batcher.submit_crops(crops[2:], ["gender"])
        none = batcher.submit_crops(crops[:0])
        gate.open.set()
        found, expected = one.result(20), predictor.run(crops)
        assert gate.rows[1] == 5
        for label, scores in found.items():
            np.testing.assert_allclose(scores, expected[label][:2], atol=1e-5)
            scores[...] = 7  # the caller's own
        assert list(two.result(20)) == ["gender"]
        np.testing.assert_allclose(two.result()["gender"], expected["gender"][2:], atol=1e-5)
        assert none.result(20)["gender"].shape == (0, 3)
        with pytest.raises(ShapeError):
            batcher.submit_crops(crops[:, :2])


def test_crops_that_are_made_when_their_turn_comes_are_those_of_the_plan_that_answers(
    predictor: Predictor, gate: Gate
) -> None:
    crops, asked = toys.crops(3), []

    def make(spec: CropSpec, wanted: Callable[[], bool]) -> Any:
        asked.append((spec, wanted()))
        return crops

    gate.open.set()
    first = predictor.plan
    with predictor.batcher() as batcher:
        found = batcher.submit_crops(make, ["gender"]).result(20)
        assert asked == [(first.manifest.crop, True)] and found.plan is first
        np.testing.assert_allclose(found["gender"], predictor.run(crops)["gender"], atol=1e-5)
        with pytest.raises(ShapeError):
            batcher.submit_crops(lambda *_: crops[:, :2]).result(20)
        assert batcher.submit_crops(crops[:0]).result(20).plan is first


def test_who_makes_crops_is_told_that_nobody_waits(predictor: Predictor) -> None:
    begun, go, told = threading.Event(), threading.Event(), []

    def make(_: CropSpec, wanted: Callable[[], bool]) -> Any:
        begun.set()
        assert go.wait(20)
        told.append(wanted())
        return toys.crops(1)

    with predictor.batcher() as batcher:
        future = batcher.submit_crops(make)
        assert begun.wait(20)
        future.cancel()
        go.set()
        until(lambda: bool(told))
        assert told == [False]
        assert len(batcher.submit_crops(toys.crops(2)).result(20)["child"]) == 2


def test_a_thousand_tasks_of_which_a_part_is_cancelled(predictor: Predictor) -> None:
    async def main(batcher: Batcher) -> list[Any]:
        async def one(index: int) -> int:
            while True:
                try:
                    return len(await batcher.apredict(IMAGE, boxes=boxes(index % 3)))
                except Overloaded:
                    await asyncio.sleep(0.001)

        tasks = [asyncio.create_task(one(index)) for index in range(1000)]
        for place, task in enumerate(tasks):
            if place == 500:
                await asyncio.sleep(0)  # the rest is cancelled in the queue, in work, refused and waiting to try again
            if place % 10 < 3:
                task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with predictor.batcher(queue=32) as batcher:
        found = asyncio.run(main(batcher))
        cancelled = [isinstance(each, asyncio.CancelledError) for each in found]
        assert [each for each in found if not isinstance(each, asyncio.CancelledError)] == [
            index % 3 for index, gone in enumerate(cancelled) if not gone
        ]
        assert 250 < sum(cancelled) <= 300 and batcher.waiting == 0 and not batcher._open
        assert len(batcher.predict(IMAGE)) == 1
        until(lambda: predictor._loaded._holds == 0)


def test_close_finishes_what_was_taken(predictor: Predictor, gate: Gate) -> None:
    batcher = predictor.batcher()
    gate.occupy(batcher)
    futures = [batcher.submit(IMAGE) for _ in range(5)]
    threading.Timer(0.05, gate.open.set).start()
    batcher.close()
    assert all(len(future.result(0)) == 1 for future in futures)
    with pytest.raises(EngineClosed):
        batcher.submit(IMAGE)
    batcher.close()
    assert not any(thread.is_alive() for thread in batcher._threads)


def test_close_with_a_timeout_fails_what_is_left(predictor: Predictor, gate: Gate) -> None:
    batcher = predictor.batcher()
    futures = [gate.occupy(batcher), *(batcher.submit(IMAGE) for _ in range(3))]
    batcher.close(0.01)
    assert all(isinstance(future.exception(0), EngineClosed) for future in futures)
    gate.open.set()
    for thread in batcher._threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in batcher._threads) and predictor._loaded._holds == 0


def test_a_callback_may_close(predictor: Predictor) -> None:
    batcher = predictor.batcher()
    closed = threading.Event()
    batcher.submit(IMAGE).add_done_callback(lambda _: (batcher.close(), closed.set()))
    assert closed.wait(20)


def test_a_closed_predictor_takes_nothing_and_ends_what_it_took(predictor: Predictor, gate: Gate) -> None:
    with predictor.batcher() as batcher:
        future = gate.occupy(batcher)
        predictor.close()
        with pytest.raises(EngineClosed):
            batcher.submit(IMAGE)
        gate.open.set()
        assert len(future.result(20)) == 1
    assert predictor._loaded._holds == 0


def test_an_answered_image_is_held_by_nobody(predictor: Predictor) -> None:
    class Array(np.ndarray):
        pass

    gc.collect()
    gc.disable()  # nothing may wait for it: between its runs hundreds of images come and go
    try:
        with predictor.batcher() as batcher:
            image, wrong = IMAGE.copy().view(Array), IMAGE.copy().view(Array)
            alive = weakref.ref(image), weakref.ref(wrong)
            wait([batcher.submit(image), batcher.submit(wrong, boxes=[[5, 5, 1, 1]])], 20)
            del image, wrong
            batcher.predict(IMAGE)
            batcher.predict(IMAGE)
            assert [each() for each in alive] == [None, None]
    finally:
        gc.enable()


def test_what_observes_and_fails_harms_nobody(predictor: Predictor) -> None:
    with predictor.batcher() as batcher:
        batcher.observe = lambda record: 1 / 0
        assert len(batcher.predict(IMAGE)) == 1


@pytest.mark.parametrize(
    "options", [{"max_batch": 0}, {"max_batch": True}, {"queue": 0}, {"queue": 1.5}, {"max_wait_ms": -1}]
)
def test_options_that_make_no_sense(predictor: Predictor, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        predictor.batcher(**options)


def test_a_cancelled_image_makes_room_for_decoding(predictor: Predictor, gate: Gate) -> None:
    """One that waits decoded holds back the next; once it is cancelled, nothing else comes to wake the decoders."""
    with predictor.batcher(max_batch=1) as batcher:
        gate.occupy(batcher)
        decoded = batcher.submit(ENCODED)
        until(lambda: len(batcher._ready) == 1)
        last = batcher.submit(ENCODED)
        decoded.cancel()
        gate.open.set()
        assert len(last.result(20)) == 1


def test_what_needs_no_decoding_holds_up_nobodys(predictor: Predictor, gate: Gate) -> None:
    with predictor.batcher(max_batch=1) as batcher:
        gate.occupy(batcher)
        for _ in range(5):
            batcher.submit(IMAGE)
        batcher.submit(ENCODED)
        until(lambda: len(batcher._ready) == 6)  # decoded, though five wait before it
        gate.open.set()


def test_a_batch_that_no_memory_is_left_for_is_its_callers_error(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with predictor.batcher() as batcher:
        with monkeypatch.context() as patch:
            patch.setattr(shared_batch, "CropBatch", failing(MemoryError("no room")))
            with pytest.raises(MemoryError, match="no room"):
                batcher.predict(IMAGE)
        assert len(batcher.predict(IMAGE)) == 1


def test_a_future_that_is_ending_while_the_batcher_closes(predictor: Predictor, gate: Gate) -> None:
    batcher = predictor.batcher(max_batch=1)
    gate.occupy(batcher)
    ending, waiting = batcher.submit(IMAGE), batcher.submit(ENCODED)
    (request,) = (each for each in batcher._open if each.future is ending)
    assert request._claim()  # as the computing thread does right before it hands the answer out
    batcher.close(0.01)
    assert isinstance(waiting.exception(0), EngineClosed)
    request.future.set_result("an answer")
    assert ending.result(0) == "an answer"
    gate.open.set()


def test_threads_that_the_system_has_no_room_for_are_started_later(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with predictor.batcher() as batcher:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", failing(RuntimeError("can't start new thread")))
            with pytest.raises(EngineError, match="can't start new thread"):
                batcher.predict(IMAGE)
        assert batcher.waiting == 0
        assert len(batcher.predict(ENCODED)) == 1


def test_an_interrupt_while_an_image_is_handed_in(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    with predictor.batcher() as batcher:
        batcher.predict(IMAGE)
        with monkeypatch.context() as patch:
            patch.setattr(batcher._to_compute, "notify", failing(KeyboardInterrupt(), times=1))
            with pytest.raises(KeyboardInterrupt):
                batcher.submit(IMAGE)
        assert batcher.waiting == 0
        until(lambda: predictor._loaded._holds == 0)  # an answer is there shortly before its hold is given back
        assert len(batcher.predict(IMAGE)) == 1


def test_a_wait_for_more_leaves_time_to_compute(predictor: Predictor) -> None:
    with predictor.batcher(max_wait_ms=20_000) as batcher:
        assert len(batcher.predict(IMAGE, timeout=1.0)) == 1


def test_a_wait_for_more_is_over_once_however_many_came_meanwhile(predictor: Predictor) -> None:
    with predictor.batcher(max_wait_ms=300) as batcher:
        records: list[BatchRecord] = []
        batcher.observe = records.append
        first = batcher.submit(IMAGE)
        others = []
        while not first.done():
            others.append(batcher.submit(IMAGE))
            threading.Event().wait(0.1)
        assert len(others) < 16  # 32 fill the batch
        assert records[0].images == records[0].crops >= 2


def test_whatever_a_callers_object_raises_its_thread_goes_on(predictor: Predictor) -> None:
    class Leaves:
        def read(self, *_: Any) -> bytes:
            raise SystemExit("out of a decoder")

        def __array__(self, *_: Any, **__: Any) -> Any:
            raise SystemExit("out of the computing thread")

    with predictor.batcher() as batcher:
        for arguments in ((Leaves(), None), (IMAGE, Leaves())):
            future = batcher.submit(arguments[0], boxes=arguments[1])
            assert isinstance(future.exception(20), (SystemExit, InputError))
        future = batcher.submit(IMAGE)
        future.add_done_callback(failing(SystemExit("out of a callback")))
        assert len(batcher.predict(IMAGE)) == len(batcher.predict(ENCODED)) == 1


def test_a_callback_may_close_while_somebody_closes_with_a_timeout(predictor: Predictor, gate: Gate) -> None:
    batcher = predictor.batcher()
    gate.occupy(batcher)
    futures = [batcher.submit(IMAGE) for _ in range(2)]
    closing = threading.Thread(target=batcher.close, args=(0.01,))
    futures[0].add_done_callback(lambda _: batcher.close(0.0))
    futures[1].add_done_callback(lambda _: batcher.close(0.0))
    closing.start()
    assert all(isinstance(future.exception(20), EngineClosed) for future in futures)
    gate.open.set()
    closing.join(20)
    assert not closing.is_alive()


def test_awaited_crops_are_not_awaited_beyond_their_time(predictor: Predictor, gate: Gate) -> None:
    crops = toys.crops(2)

    async def ask(batcher: Batcher) -> None:
        with pytest.raises(Overloaded, match=r"within 0\.05 s"):
            await batcher.arun(crops, timeout=0.05)
        with pytest.raises(Overloaded, match=r"within 0\.05 s"):
            await batcher.apredict(IMAGE, timeout=0.05)
        gate.open.set()
        assert len((await batcher.arun(crops))["child"]) == 2

    with predictor.batcher() as batcher:
        gate.occupy(batcher)
        asyncio.run(ask(batcher))
