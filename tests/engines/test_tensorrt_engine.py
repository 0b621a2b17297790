"""Engines of the TensorRT family run on a device: buckets, lanes, one copy back, captured graphs, memory that ends."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import onnx
import pytest
import toys
from engine_graphs import (
    BRANCHES,
    HERE,
    branch_model,
    crops,
    graph,
    merged_model,
    model,
    reference,
    segmenter_model,
    trunk_model,
    value,
)
from fake_tensorrt import FakeTensorRT, engine_bytes
from onnx import helper, numpy_helper
from test_trust import store

from graftsdk.engines import Graph, open_engine, tensorrt, tensorrt_graph
from graftsdk.engines.buckets import Profile, bucket_sizes, profile_for, smallest_bucket
from graftsdk.engines.cuda.host import HostDevice
from graftsdk.engines.cuda.interop import DeviceArray
from graftsdk.engines.lanes import Options
from graftsdk.engines.layout import graphs_of, partition
from graftsdk.engines.tensorrt import Library
from graftsdk.engines.tensorrt_engine import TensorRTEngine
from graftsdk.engines.trust import Wanted, load_engines
from graftsdk.errors import (
    DTypeError,
    EngineClosed,
    EngineError,
    EngineIncompatible,
    EngineOutOfMemory,
    InputError,
    ShapeError,
)
from graftsdk.graft import joints_of, scores_name

NAMES = ["a/scores", "b/scores"]
PROFILES = ((1, 1, 1), (1, 2, 2), (1, 4, 4))


class Machine:
    """A host device, the stand-in for the library on it, and engines of both layouts."""

    def __init__(self, *, memory: int = 1 << 28, rtx: bool = False, can_capture: bool = True) -> None:
        self.device = HostDevice(memory=memory)
        self.device.can_capture = can_capture
        self.fake = FakeTensorRT(self.device, rtx=rtx)
        lines: Any = []
        self.library = Library("tensorrt_rtx" if rtx else "tensorrt", self.fake.__version__, self.fake, None, lines)
        self.library.logger = tensorrt._make_logger(self.fake, lines)

    def open(
        self, models: Sequence[tuple[onnx.ModelProto, dict[str, str] | None]], profiles: Any = PROFILES, **options: Any
    ) -> TensorRTEngine:
        aux = options.pop("aux_streams_built", 0)
        graphs = [graph(found, inputs) for found, inputs in models]
        contents = [engine_bytes(found, profiles, aux_streams=aux) for found, _ in models]
        return TensorRTEngine(graphs, contents, library=self.library, device=self.device, **options)

    def split(self, **options: Any) -> TensorRTEngine:
        return self.open(
            [(trunk_model(), None), *((branch_model(n, t), {f"{n}/tap": t}) for n, t in BRANCHES.items())], **options
        )

    def merged(self, **options: Any) -> TensorRTEngine:
        return self.open([(merged_model(BRANCHES), None)], **options)

    def copies(self) -> list[tuple[str, int]]:
        """(kind, bytes) of every copy that is enqueued from now on."""
        found: list[tuple[str, int]] = []
        original = self.device._memcpy

        def memcpy(kind: str, dst: int, src: int, nbytes: int, stream: Any, host: object) -> None:
            found.append((kind, nbytes))
            original(kind, dst, src, nbytes, stream, host)

        self.device._memcpy = memcpy  # type: ignore[method-assign]
        return found


@pytest.fixture(autouse=True)
def _driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "driver_problem", lambda: None)


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    assert made.fake.wrong == []


@cache
def expected(count: int, seed: int = 0) -> list[np.ndarray]:
    return reference(merged_model(BRANCHES), {"crops": crops(count, seed)})


@pytest.mark.parametrize("layout", ["merged", "split"])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_scores_agree_with_the_reference(layout: str, count: int, machine: Machine) -> None:
    with getattr(machine, layout)() as engine:
        for seed in range(4):  # run, captured, launched, launched again on other numbers
            found = engine.run({"crops": crops(count, seed)}, NAMES)
            for name, wanted in zip(NAMES, expected(count, seed), strict=True):
                np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)


def test_rows_go_into_the_smallest_bucket_that_holds_them(machine: Machine) -> None:
    with machine.merged() as engine:
        assert engine.buckets == (1, 2, 4)
        for count, buckets in ((1, [1]), (2, [2]), (3, [4]), (4, [4]), (5, [4, 1]), (11, [4, 4, 4])):
            machine.fake.runs.clear()
            assert engine.run({"crops": crops(count)})["a/scores"].shape == (count, 2)
            assert [rows for _, rows in machine.fake.runs] == buckets


def test_only_the_graphs_that_are_needed_run(machine: Machine) -> None:
    with machine.split() as engine:
        for asked, ran in ((["b/scores"], 2), (["t/tap_1"], 1), (NAMES, 3), ([], 0)):
            for _ in range(3):
                machine.fake.runs.clear()
                found = engine.run({"crops": crops(2)}, asked)
                assert list(found) == asked and len(machine.fake.runs) == ran


def test_taps_do_not_leave_the_device_and_scores_come_in_one_copy(machine: Machine) -> None:
    with machine.split() as engine:
        copies = machine.copies()
        for captured in (False, True):
            copies.clear()
            engine.run({"crops": crops(4)}, NAMES)
            assert copies == [("h2d", 4 * 3 * 12 * 12 * 4), ("d2h", 256 + 4 * 2 * 4)], captured
        copies.clear()
        engine.run({"crops": crops(4)}, NAMES)
        assert [kind for kind, _ in copies] == ["h2d"]  # the other one is in the captured graph
        engine.run({"crops": crops(3)}, ["a/scores"])
        assert copies[1:] == [("h2d", 3 * 3 * 12 * 12 * 4), ("d2h", 4 * 2 * 4)]


def test_taps_come_when_they_are_asked_for(machine: Machine) -> None:
    taps = reference(trunk_model(), {"crops": crops(3)})
    with machine.split() as engine:
        for _ in range(3):
            found = engine.run({"crops": crops(3)})
            assert list(found) == ["t/tap_1", "t/tap_2", *NAMES] == list(engine.outputs)
            np.testing.assert_allclose(found["t/tap_1"], taps[0], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found["t/tap_2"], taps[1], rtol=1e-5, atol=1e-5)


def test_one_graph_holds_trunk_and_branches(machine: Machine) -> None:
    with machine.split() as engine:
        engine.warm_up()
        before = machine.fake.executed
        for count in (1, 2, 3, 4):
            engine.run({"crops": crops(count)}, NAMES[::-1])
        assert machine.fake.executed == before  # launched, not enqueued
        engine.run({"crops": crops(4)})
        engine.run({"crops": crops(4)})
        assert machine.fake.executed == before + 6  # warm-up and capture of another set of outputs
        engine.run({"crops": crops(4)})
        assert machine.fake.executed == before + 6


@pytest.mark.parametrize("how", ["device", "option"])
def test_without_capture_everything_is_enqueued(how: str) -> None:
    machine = Machine(can_capture=how != "device")
    with machine.split(options=Options(capture=how != "option")) as engine:
        for seed in range(3):
            found = engine.run({"crops": crops(2, seed)}, NAMES)
            np.testing.assert_allclose(found["b/scores"], expected(2, seed)[1], rtol=1e-5, atol=1e-6)
    assert machine.fake.executed == 9 and machine.fake.wrong == []


@pytest.mark.parametrize(("how", "says"), [("refuses_capture", "not permitted"), ("allocates", "one that allocates")])
def test_an_engine_that_cannot_be_captured(
    machine: Machine, how: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with machine.merged() as engine:
        setattr(machine.fake, how, True)
        for seed in range(3):
            found = engine.run({"crops": crops(2, seed)})
            np.testing.assert_allclose(found["b/scores"], expected(2, seed)[1], rtol=1e-5, atol=1e-6)
    (said,) = [record.message for record in caplog.records if record.name == "graftsdk"]
    assert "CUDA graphs are off for batches of 2" in said and says in said


def test_rtx_compiles_for_a_shape_at_once_and_leaves_graphs_to_us() -> None:
    machine = Machine(rtx=True)
    with machine.split() as engine:
        for seed in range(3):
            found = engine.run({"crops": crops(3, seed)}, NAMES)
            np.testing.assert_allclose(found["a/scores"], expected(3, seed)[0], rtol=1e-5, atol=1e-6)
    assert machine.fake.wrong == [] and len(machine.fake.configs) == 3
    for config in machine.fake.configs:
        kind = config.dynamic_shapes_kernel_specialization_strategy.name
        assert (kind, config.cuda_graph_strategy.name) == ("EAGER", "DISABLED") and config.cache is not None


@pytest.mark.parametrize("call", ["create_runtime_config", "create_runtime_cache", "set_runtime_cache"])
def test_a_runtime_configuration_that_is_refused(call: str) -> None:
    machine = Machine(rtx=True)
    machine.fake.refuses.add(call)
    with pytest.raises(EngineError, match="build the engine again"):
        machine.merged()


def test_what_nobody_asked_for_stays_where_it_is(machine: Machine) -> None:
    """A large output between small ones, as a segmenter's prototypes are."""
    nodes = [
        helper.make_node("Relu", ["x"], ["one"]),
        helper.make_node("Expand", ["x", "shape"], ["large"]),
        helper.make_node("Neg", ["x"], ["two"]),
    ]
    outputs = [value("one", "n", 4), value("large", 500, "n", 4), value("two", "n", 4)]
    found = model(nodes, [value("x", "n", 4)], outputs, [helper.make_tensor("shape", 7, [3], [500, 1, 1])])
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    with machine.open([(found, None)]) as engine, engine.lease(4) as lease:
        lease.staging("x")[:] = x
        lease.upload("x")
        copies = machine.copies()
        values = lease.run(fetch=["two", "one"])
        np.testing.assert_array_equal(values["two"], -x)
        assert copies == [("d2h", 256 + 4 * 4 * 4)]


def test_a_context_that_does_not_know_its_scratch_memory_gets_the_most(machine: Machine) -> None:
    machine.fake.unsure = True
    with machine.split() as engine:
        np.testing.assert_allclose(
            engine.run({"crops": crops(4)}, NAMES)["a/scores"], expected(4)[0], rtol=1e-5, atol=1e-6
        )


def test_values_and_scratch_memory_are_aligned(machine: Machine) -> None:
    fillers = []
    with machine.split() as engine:
        for size in engine.buckets:
            fillers.append(machine.device.alloc(256))  # so that memory starts elsewhere
            with engine._lanes.lane() as lane:
                bucket = lane.bucket(size)
            assert not [region for region in bucket.regions.values() if region.start % 256]
            assert not [context for context in bucket._contexts if context._native.memory[0] % 512]


def test_streams_beside_the_main_one(machine: Machine) -> None:
    with machine.merged(aux_streams_built=2) as engine:
        engine.run({"crops": crops(1)})
    with machine.merged(aux_streams_built=2, options=Options(aux_streams=False)) as engine:
        engine.run({"crops": crops(1)})
    assert machine.fake.aux_given == [2, 0]


def test_eight_threads_give_what_one_gives(machine: Machine) -> None:
    feeds = [crops(1 + seed % 5, seed) for seed in range(20)]
    with machine.split(options=Options(lanes=3)) as engine:

        def work(order: int) -> list[bytes]:
            return [b"".join(a.tobytes() for a in engine.run({"crops": feed}, NAMES).values()) for feed in feeds]

        serial = work(0)
        with ThreadPoolExecutor(8) as pool:
            assert all(found == serial for found in pool.map(work, range(8)))
        # three buckets and three graphs in each of at most three lanes
        assert machine.fake.open_contexts <= 27


def test_results_belong_to_the_caller(machine: Machine) -> None:
    with machine.split() as engine:
        kept = [engine.run({"crops": crops(4)}, NAMES) for _ in range(4)]
        copies = [{name: array.copy() for name, array in result.items()} for result in kept]
        kept[0]["a/scores"][:] = -1
        engine.run({"crops": crops(4, 9)}, NAMES)
    for result, copy in zip(kept[1:], copies[1:], strict=True):
        for name, array in result.items():
            assert array.flags.owndata and array.flags.writeable
            assert array.tobytes() == copy[name].tobytes()


def test_no_rows_in_no_rows_out(machine: Machine) -> None:
    with machine.split() as engine:
        found = engine.run({"crops": crops(0)})
    assert {name: array.shape for name, array in found.items()}["t/tap_1"] == (0, 16, 12, 12)
    assert machine.fake.executed == 0


def test_a_segmenter_has_a_batch_of_its_own(machine: Machine) -> None:
    frames = np.random.default_rng(0).standard_normal((3, 3, 4, 4)).astype(np.float32)
    with machine.open([(segmenter_model(1), None)], profiles=()) as engine:
        for _ in range(3):
            found = engine.run({"frames": frames})
            np.testing.assert_array_equal(found["rows"], np.maximum(frames, 0))
            assert found["priors"].shape == (5, 4)
    with machine.open([(segmenter_model(2), None)], profiles=()) as engine, pytest.raises(ShapeError, match="own 2"):
        engine.run({"frames": frames})


# ------------------------------------------------------------------------------------------- memory that ends


def test_out_of_memory_splits_the_batch_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.fake.most_rows = 2
    with machine.split() as engine:
        found = engine.run({"crops": crops(7)}, NAMES)
        np.testing.assert_allclose(found["a/scores"], expected(7)[0], rtol=1e-5, atol=1e-6)
        assert [rows for names, rows in machine.fake.runs if names == ("a/scores",)] == [2, 2, 2, 2]
    assert "a batch of 4 is run in parts of 2" in caplog.text


def test_then_it_is_an_error_and_the_engine_stays_usable(machine: Machine) -> None:
    with machine.merged() as engine:
        machine.fake.most_rows = 1
        with pytest.raises(EngineOutOfMemory, match="out of memory"):
            engine.run({"crops": crops(4)})
        assert engine.run({"crops": crops(1)})["a/scores"].shape == (1, 2)
        machine.fake.most_rows = 0
        with pytest.raises(EngineOutOfMemory):
            engine.run({"crops": crops(1)})
        machine.fake.most_rows = None
        np.testing.assert_allclose(engine.run({"crops": crops(4)})["a/scores"], expected(4)[0], rtol=1e-5, atol=1e-6)


def test_memory_of_lanes_that_nobody_uses_is_given_back() -> None:
    """Two lanes hold buckets; the device then has no room for the next one but theirs."""
    machine = Machine(memory=1 << 20)
    with machine.merged() as engine:
        with engine._lanes.lane() as one, engine._lanes.lane() as two:
            for lane in (one, two):
                lane.bucket(1)
        held = machine.device.live_bytes
        room = machine.device.memory.total - machine.device.memory.used
        filler = machine.device.alloc(room - 256)
        assert engine.run({"crops": crops(4)})["a/scores"].shape == (4, 2)
        assert machine.device.live_bytes - filler.nbytes <= held
        filler.close()


def test_a_device_that_is_too_small() -> None:
    machine = Machine(memory=10_000)
    with machine.split() as engine, pytest.raises(EngineOutOfMemory):
        engine.run({"crops": crops(1)})
    assert machine.device.live_buffers == 0
    assert machine.fake.open_contexts == 0


def test_a_lane_whose_next_bucket_finds_no_memory_stays(machine: Machine) -> None:
    with machine.merged() as engine:
        engine.run({"crops": crops(2)})
        machine.fake.contexts_left = 0
        for _ in range(2):  # the bucket of 2 is still there
            np.testing.assert_allclose(
                engine.run({"crops": crops(4)})["a/scores"], expected(4)[0], rtol=1e-5, atol=1e-6
            )


def test_a_larger_bucket_makes_room_for_a_smaller_one(machine: Machine) -> None:
    with machine.merged() as engine:
        engine.run({"crops": crops(4)})
        filler = machine.device.alloc(machine.device.free_memory() - 256)
        assert engine.run({"crops": crops(1)})["a/scores"].shape == (1, 2)
        filler.close()


def test_the_pool_of_the_device_is_trimmed_when_lanes_are(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    live = []
    monkeypatch.setattr(machine.device, "trim", lambda: live.append(machine.device.live_buffers))
    with machine.merged() as engine:
        engine.run({"crops": crops(1)})
        engine._lanes.trim()
        assert live == [0]  # after the lanes' memory has come back


def test_no_context_can_be_made(machine: Machine) -> None:
    with machine.split() as engine:
        machine.fake.contexts_left = 2
        with pytest.raises(EngineOutOfMemory, match="making an execution context"):
            engine.run({"crops": crops(1)})
        machine.fake.contexts_left = None
        engine.run({"crops": crops(1)})


# ------------------------------------------------------------------------------------------------- lifetimes


def test_close_gives_everything_back(machine: Machine) -> None:
    engine = machine.split()
    engine.warm_up()
    assert machine.device.live_buffers > 0
    engine.close()
    engine.close()
    assert machine.device.live_buffers == 0 and machine.fake.open_contexts == 0
    with pytest.raises(EngineClosed, match="open another"):
        engine.run({"crops": crops(1)})


@pytest.mark.parametrize("first", ["engine", "device"])
def test_close_lets_go_of_the_engines_while_the_device_is_current(
    first: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[bool] = []
    depth = [0]
    monkeypatch.setattr(machine.device, "_push", lambda: depth.append(1))
    monkeypatch.setattr(machine.device, "_pop", depth.pop)
    engine = machine.split()
    engine.run({"crops": crops(1)})
    with engine.lease(1) as lease:  # which is kept to the end, as a caller may
        lease.start(NAMES)
    engines = [weakref.ref(each, lambda _: current.append(len(depth) > 1)) for each in engine._lanes._graphs]
    if first == "device":
        machine.device.close()
    engine.close()
    assert [each() for each in engines] == [None] * 3
    assert current == [first == "engine"] * 3  # a closed device cannot be made current
    del lease


def test_a_lane_gives_everything_back_although_parts_of_it_fail(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise EngineError("CUDA: an illegal memory access was encountered")

    with machine.merged(aux_streams_built=1) as engine:
        with engine._lanes.lane() as lane:
            buckets = [lane.bucket(1), lane.bucket(2)]
        for part in (lane.stream, buckets[0]._memory):
            monkeypatch.setattr(part, "close", broken)
        monkeypatch.setattr(lane.stream, "sync", broken)
        engine._lanes.trim()
    for part in (buckets[0]._pinned, buckets[1]._memory, buckets[1]._pinned, *lane._aux, lane.ready):
        with pytest.raises(EngineClosed):
            part.check_open()


def test_close_with_runs_in_flight(machine: Machine) -> None:
    wanted = expected(4)[0]
    engine = machine.split(options=Options(lanes=2))
    outcomes: list[str] = []
    started = threading.Barrier(5)

    def work() -> None:
        started.wait()
        try:
            while True:
                found = engine.run({"crops": crops(4)})["a/scores"]
                outcomes.append("right" if np.allclose(found, wanted, rtol=1e-5, atol=1e-6) else "wrong")
        except EngineClosed:
            outcomes.append("closed")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    while "right" not in outcomes:
        pass
    engine.close()
    for thread in threads:
        thread.join(30)
    assert outcomes.count("closed") == 4 and "wrong" not in outcomes
    assert machine.device.live_buffers == 0


def test_a_lane_whose_work_failed_is_not_used_again(machine: Machine) -> None:
    with machine.merged() as engine:
        engine.run({"crops": crops(1)})
        machine.fake.breaks = 1
        with pytest.raises(EngineError, match="an illegal memory access"):
            engine.run({"crops": crops(1)})
        np.testing.assert_allclose(engine.run({"crops": crops(2)})["a/scores"], expected(2)[0], rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("feeds", "error", "text"),
    [
        ({}, InputError, "missing 'crops'"),
        ({"crops": crops(1)[:, :2]}, ShapeError, r"float32\[n, 3, 12, 12\]"),
        ({"crops": crops(1).astype(np.float64)}, InputError, "found dtype <f8"),
    ],
)
def test_feeds_that_are_refused(feeds: Any, error: type[Exception], text: str, machine: Machine) -> None:
    with machine.merged() as engine, pytest.raises(error, match=text):
        engine.run(feeds)


def test_an_engine_of_another_graph(machine: Machine) -> None:
    content = engine_bytes(trunk_model(), PROFILES)
    with pytest.raises(EngineIncompatible, match="built from another plan"):
        TensorRTEngine([graph(merged_model(BRANCHES))], [content], library=machine.library, device=machine.device)


def test_an_engine_of_another_version(machine: Machine) -> None:
    content = engine_bytes(trunk_model(), PROFILES, version="11.3.0")
    with pytest.raises(EngineIncompatible, match=r"version tag 11.3.0 does not match.*build it again"):
        TensorRTEngine([graph(trunk_model())], [content], library=machine.library, device=machine.device)


def test_errors_of_one_thread_are_not_anothers(machine: Machine) -> None:
    library, severity = machine.library, machine.fake.ILogger.Severity
    library.forget_errors()
    library.logger.log(severity.ERROR, "mine")

    def other(told: str) -> list[str]:
        library.forget_errors()
        before = library.last_errors()
        library.logger.log(severity.ERROR, told)
        return [*before, str(library.failure("running", "try again", EngineError))]

    with ThreadPoolExecutor(1) as pool:
        before_and_after = pool.submit(other, "out of memory").result()
    assert len(before_and_after) == 1 and "found: out of memory" in before_and_after[0]
    assert library.last_errors() == ["mine"]
    library.forget_errors()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(library.logger.log, severity.ERROR, "from a thread of the library").result()
    assert library.last_errors() == ["from a thread of the library"]


def test_without_a_driver(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "driver_problem", lambda: "no NVIDIA driver")
    with pytest.raises(EngineIncompatible, match="no NVIDIA driver"):
        machine.merged()


def test_shapes_that_do_not_follow_from_the_batch(machine: Machine) -> None:
    found = model([helper.make_node("NonZero", ["x"], ["places"])], [value("x", "n", 2)], [], [])
    found.graph.output.append(helper.make_tensor_value_info("places", onnx.TensorProto.INT64, [2, "m"]))
    made = Graph("0" * 64, {"x": "x"}, ("places",), lambda: (b"", {}))
    content = engine_bytes(found, PROFILES)
    machine.fake.free_sides = True
    with (
        TensorRTEngine([made], [content], library=machine.library, device=machine.device) as engine,
        pytest.raises(EngineIncompatible, match=r"found \['places'\] free"),
    ):
        engine.run({"x": np.ones((2, 2), np.float32)})


def test_buckets_that_are_asked_for(machine: Machine) -> None:
    with machine.merged(buckets=[3]) as engine:
        engine.run({"crops": crops(7)})
        assert [rows for _, rows in machine.fake.runs] == [3, 3, 3]
    with pytest.raises(EngineIncompatible, match=r"found \[5\].*--batch 5"):
        machine.merged(buckets=[5])
    with pytest.raises(InputError, match="positive integers"):
        machine.merged(buckets=[0])


WIDE = [Profile(1, 8, 32)]


@pytest.mark.parametrize(
    ("graphs", "expected"),
    [
        ([WIDE], (8, 32)),
        ([[Profile(1, 1, 1), Profile(1, 8, 8), Profile(9, 32, 32)]], (1, 8, 32)),
        ([WIDE, [Profile(1, 4, 8)]], (4, 8)),
        ([WIDE, [Profile(2, 2, 2)]], (2,)),
    ],
)
def test_the_sizes_that_all_graphs_admit(graphs: list[list[Profile]], expected: tuple[int, ...]) -> None:
    assert bucket_sizes(graphs) == expected


def test_graphs_without_a_size_in_common() -> None:
    with pytest.raises(EngineIncompatible, match="1 to 32; 64 to 64.*one --batch"):
        bucket_sizes([WIDE, [Profile(64, 64, 64)]])


def test_the_profile_for_a_size() -> None:
    profiles = [Profile(1, 8, 32), Profile(1, 4, 4), Profile(1, 2, 8)]
    assert [profile_for(profiles, size) for size in (1, 2, 4, 8, 32)] == [1, 2, 1, 0, 0]
    assert [smallest_bucket(rows, (1, 8, 32)) for rows in (1, 2, 8, 9, 99)] == [1, 8, 8, 32, 32]


# ------------------------------------------------------------------------------------ arrays on the device


class OnDevice:
    """An array as another library has it: it only says how to be taken."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_arrays_on_the_device_are_fed_from_there(count: int, machine: Machine) -> None:
    with machine.split() as engine:
        for seed in range(3):
            copies = machine.copies()
            found = engine.run({"crops": OnDevice(crops(count, seed))}, NAMES)
            assert not [each for each in copies if each[0] == "h2d"]
            if count:
                np.testing.assert_allclose(found["a/scores"], expected(count, seed)[0], rtol=1e-5, atol=1e-6)
            else:
                assert found["a/scores"].shape == (0, 2)


def test_what_its_producer_enqueued_is_waited_for(machine: Machine) -> None:
    producer = machine.device.stream()
    source = machine.device.alloc(crops(2).nbytes)
    machine.device.memset(source, 0, source.nbytes, producer)
    machine.device.h2d(source, crops(2), source.nbytes, producer)
    ready = machine.device.event()
    ready.record(producer)
    array = DeviceArray(machine.device, source.ptr, (2, 3, 12, 12), np.float32, owner=source, ready=ready)
    with machine.merged() as engine:
        np.testing.assert_allclose(engine.run({"crops": array})["a/scores"], expected(2)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "error", "text"),
    [
        (OnDevice(crops(1).astype(np.float16)), DTypeError, "feed 'crops': expected elements float32, found float16"),
        (OnDevice(crops(1)[:, :2].copy()), ShapeError, r"expected shape \[any, 3, 12, 12\], found \[1, 2, 12, 12\]"),
        (OnDevice(crops(2)[..., ::2]), InputError, "feed 'crops'"),
    ],
)
def test_arrays_on_the_device_that_are_refused(
    array: OnDevice, error: type[Exception], text: str, machine: Machine
) -> None:
    with machine.merged() as engine, pytest.raises(error, match=text):
        engine.run({"crops": array})


# ---------------------------------------------------------------------------------------------------- leases


def test_crops_are_written_where_the_engine_reads_them(machine: Machine) -> None:
    with machine.split() as engine:
        for count in (1, 3, 4):
            for seed in range(3):
                with engine.lease(count) as lease:
                    made = lease.input("crops")
                    assert (made.shape, made.dtype, made.ptr % 256) == ((count, 3, 12, 12), np.float32, 0)
                    machine.device.h2d(made, crops(count, seed), made.nbytes, lease.stream)  # as a kernel would
                    copies = machine.copies()
                    found = lease.run(NAMES)
                    assert not [each for each in copies if each[0] == "h2d"]
                np.testing.assert_allclose(found["a/scores"], expected(count, seed)[0], rtol=1e-5, atol=1e-6)


def test_crops_may_be_made_in_pinned_memory(machine: Machine) -> None:
    with machine.merged() as engine, engine.lease(3) as lease:
        lease.staging("crops")[:] = crops(3)
        lease.upload("crops")
        np.testing.assert_allclose(lease.run()["b/scores"], expected(3)[1], rtol=1e-5, atol=1e-6)


def test_outputs_stay_on_the_device(machine: Machine) -> None:
    taps = reference(trunk_model(), {"crops": crops(3)})
    with machine.split() as engine, engine.lease(3) as lease:
        copies = machine.copies()
        lease.staging("crops")[:] = crops(3)
        lease.upload("crops")
        assert list(lease.run(["a/scores", "t/tap_2"], fetch=["a/scores"])) == ["a/scores"]
        assert [each for each in copies if each[0] == "d2h"] == [("d2h", 4 * 2 * 4)]
        tap = lease.output("t/tap_2")
        assert tap.shape == (3, 32, 5, 5)
        np.testing.assert_allclose(np.from_dlpack(tap), taps[1], rtol=1e-5, atol=1e-5)
        with pytest.raises(InputError, match="value that is computed"):
            lease.output("b/scores")


def test_a_run_may_be_started_and_read_where_it_is(machine: Machine) -> None:
    with machine.merged() as engine, engine.lease(3) as lease:
        lease.staging("crops")[:] = crops(3)
        lease.upload("crops")
        copies = machine.copies()
        for _ in range(3):  # run, captured, launched
            lease.start(["b/scores"])
        assert not copies and len(machine.fake.runs) < 3  # nobody waited
        lease.stream.sync()
        np.testing.assert_allclose(np.from_dlpack(lease.output("b/scores")), expected(3)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda lease: lease.input("a/scores"), "value that is fed \\('crops'\\)"),
        (lambda lease: lease.staging("t/tap_1"), "value that is fed"),
        (lambda lease: lease.upload("nope"), "value that is fed"),
        (lambda lease: lease.run(["nope"]), "outputs: expected"),
        (lambda lease: lease.run(["a/scores"], fetch=["b/scores"]), "value that is computed"),
    ],
)
def test_leases_refuse_other_names(use: Any, text: str, machine: Machine) -> None:
    with machine.split() as engine, engine.lease(1) as lease, pytest.raises(InputError, match=text):
        use(lease)


def test_leases_are_not_larger_than_the_largest_bucket(machine: Machine) -> None:
    with machine.merged() as engine:
        for rows in (0, 5, True):
            with pytest.raises(InputError, match="lease: rows"), engine.lease(rows):
                pass
    with pytest.raises(EngineClosed), engine.lease(1):
        pass


def test_a_lease_out_of_memory_leaves_the_engine_usable(machine: Machine) -> None:
    with machine.merged() as engine:
        machine.fake.contexts_left = 0
        with pytest.raises(EngineOutOfMemory), engine.lease(4):
            pass
        machine.fake.contexts_left = None
        with engine.lease(4) as lease:
            lease.run()


# ------------------------------------------------------------------------------- the stand-in, and real plans


def test_the_stand_in_has_nothing_that_the_library_lacks() -> None:
    real = pytest.importorskip("tensorrt_rtx")
    pairs = [
        (fake_tensorrt.Runtime, real.Runtime),
        (fake_tensorrt.Engine, real.ICudaEngine),
        (fake_tensorrt.Context, real.IExecutionContext),
        (fake_tensorrt.RuntimeConfig, real.IRuntimeConfig),
    ]
    own = {"fail", "compute", "cache", "strategy"}  # of the stand-in's inside
    for ours, theirs in pairs:
        names = {name for name in vars(ours) if not name.startswith("_")} - own
        assert names and not names - set(dir(theirs)), theirs
    for kind in ("TensorIOMode", "ExecutionContextAllocationStrategy", "DataType", "CudaGraphStrategy"):
        names = {each.name for each in getattr(fake_tensorrt, kind)}
        assert names <= set(getattr(real, kind).__members__), kind
    assert set(tensorrt_graph._DTYPES) <= set(real.DataType.__members__)


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_a_plan_from_its_engines(layout: str, machine: Machine, tmp_path: Path) -> None:
    """Grafts of a plan, built, recorded, found, opened, and held against the scores of ONNX Runtime."""
    folder = tmp_path / "toy.engines"
    folder.mkdir(mode=0o755)
    library = replace(machine.library, name="tensorrt", version="11.4.0")
    with toys.plan(tmp_path / "toy.plan") as plan:
        joints = joints_of(plan.manifest)
        graphs = graphs_of(plan, partition(joints, layout))
        for made in graphs:
            record = store(folder, made, "merged" if layout == "merged" else "branch", whole(made), **OURS)
            assert record.stat().st_size
        loaded = load_engines(graphs, folder, library, Wanted("toy.plan", "8.9", layout=layout))
        crop = toys.crops(5)
        names = [scores_name(joint) for joint in joints.values()]
        with (
            TensorRTEngine(graphs, loaded.contents, library=library, device=machine.device) as engine,
            open_engine(graphs, device="cpu", cache=False) as plain,
        ):
            wanted = plain.run({"crops": crop}, names)
            for _ in range(3):
                found = engine.run({"crops": crop}, names)
                for name in names:
                    np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


OURS = {"runtime": "tensorrt", "version": "11.4.0"}


def whole(made: Graph) -> bytes:
    """An engine of a graph, its weights inside."""
    content, weights = made.load()
    found = onnx.ModelProto.FromString(content)
    for tensor in found.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[tensor.name]), tensor.name))
    return engine_bytes(found, PROFILES)


def test_in_a_forked_child(python: Any) -> None:
    """It says what to do there, and nothing of the parent's is destroyed."""
    python(
        """
import os
from unittest import mock
from test_tensorrt_engine import *
from graftsdk.errors import EngineForked
with mock.patch.object(tensorrt, "driver_problem", lambda: None):
    machine = Machine()
    engine = machine.split()
engine.warm_up()
before = machine.fake.open_contexts
pid = os.fork()
if pid == 0:
    try:
        engine.run({"crops": crops(1)})
    except EngineForked as error:
        assert "spawn" in str(error)
        engine.close()
        if machine.fake.open_contexts == before:
            os._exit(0)
    os._exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert engine.run({"crops": crops(1)}, NAMES)["a/scores"].shape == (1, 2)
""",
        PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parent)]),
    )
