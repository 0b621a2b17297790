"""Engines of the TensorRT family, built and run here: ONNX Runtime's scores; what they promise and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import toys

from graftsdk import Predictor
from graftsdk.attribute import decisions
from graftsdk.engines.cuda.protocol import Device
from graftsdk.engines.golden import check_golden
from graftsdk.engines.lanes import Options
from graftsdk.engines.layout import built_groups, graphs_of
from graftsdk.engines.tensorrt_engine import TensorRTEngine
from graftsdk.errors import EngineClosed, EngineIncompatible, EngineOutOfMemory, GraftError
from graftsdk.graft import joints_of, scores_names
from graftsdk.plan import open_plan
from graftsdk.preprocess import decode_image, golden_crops

pytestmark = pytest.mark.gpu

DEMO = Path(__file__).parents[2] / "examples" / "demo.plan"
LABELS = ("child", "gender", "backpack")
# Of probabilities, against float32 on the CPU.
CLOSE = {"float32": 2e-5, "fp16": 2e-2, "bf16": 1e-1}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    toys.write(tmp_path / "toy.plan", LABELS)
    return tmp_path / "toy.plan"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engines"


def reference(plan: Path, crops: np.ndarray) -> dict[str, np.ndarray]:
    with Predictor(plan, device="cpu") as predictor:
        return predictor.run(crops)


def moved(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    return [label for label in one if one[label].tobytes() != other[label].tobytes()]


def difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(one[label] - other[label]).max()) for label in one)


@pytest.mark.parametrize("layout", ["merged", "split"])
@pytest.mark.parametrize("precision", CLOSE)
def test_scores_are_onnx_runtimes(
    trt: Any, plan: Path, folder: Path, precision: str, layout: str, note: Callable[[str], None]
) -> None:
    if trt.dry and precision == "bf16":
        pytest.skip("the stand-in computes no bf16")
    try:
        trt.build(plan, folder, precision=precision, layout=layout)
    except EngineIncompatible as error:  # Turing has no bf16
        pytest.skip(str(error))
    with trt.predictor(plan, folder, precision=precision, layout=layout) as predictor:
        for count in (1, 3, 4, 9):  # both buckets, padded and cut
            crops = toys.crops(count, seed=count)
            worst = difference(reference(plan, crops), predictor.run(crops))
            assert worst <= CLOSE[precision], (count, worst)
    note(f"{trt.name}, {precision}, {layout}, toy tree: scores within {worst:.1e} of float32 on the CPU")


def test_a_new_label_builds_one_engine_and_moves_nobody(trt: Any, plan: Path, folder: Path, tmp_path: Path) -> None:
    crops, more = toys.crops(4), tmp_path / "more.plan"
    toys.write(more, (*LABELS, "hat"))
    trt.build(plan, folder, layout="split")
    with trt.predictor(plan, folder, layout="split") as predictor:
        before = predictor.run(crops)
    report = trt.build(more, folder, layout="split")
    assert len(report.engines) - len(report.kept) == 1
    with trt.predictor(more, folder, layout="split") as predictor:
        after = predictor.run(crops)
        again = predictor.run(crops, labels=list(LABELS))
    assert moved(before, after) == [] and moved(before, again) == []
    assert after["hat"].shape == (4, 2)


def test_what_merged_moves_is_counted(
    trt: Any, plan: Path, folder: Path, tmp_path: Path, note: Callable[[str], None]
) -> None:
    crops, more = toys.crops(4), tmp_path / "more.plan"
    toys.write(more, (*LABELS, "hat"))
    found = []
    for each in (plan, more):
        trt.build(each, folder)
        with trt.predictor(each, folder) as predictor:
            found.append(predictor.run(crops))
    before, after = found
    note(
        f"{trt.name}, merged, a label added: {len(moved(before, after))} of {len(LABELS)} others have other bits, by "
        f"up to {difference(before, after):.1e}"
    )
    assert difference(before, after) <= CLOSE["float32"]


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_the_golden_crops_of_the_demo_plan(trt: Any, folder: Path, precision: str, note: Callable[[str], None]) -> None:
    trt.build(DEMO, folder, precision=precision)
    with trt.predictor(DEMO, folder, precision=precision) as predictor:
        manifest = predictor.plan.manifest
        changes = check_golden(predictor.run, manifest, golden_crops(manifest.crop), decisions)
    largest, flips = max(change.largest for change in changes), sum(change.flips for change in changes)
    note(f"{trt.name}, {precision}, golden crops of the demo plan: within {largest:.1e}, {flips} decisions flip")
    assert largest <= (1e-3 if precision == "float32" else 3e-2)


def test_people_of_a_picture_are_the_cpus(trt: Any, folder: Path) -> None:
    """The whole way, the segmenter in TensorRT too."""
    image = DEMO.with_name("lobby.jpg")
    trt.build(DEMO, folder)
    with Predictor(DEMO, device="cpu") as cpu, trt.predictor(DEMO, folder) as gpu:
        expected, found = cpu.predict(image), gpu.predict(image)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=1.0)
        for label in expected.labels:
            assert one[label].score == pytest.approx(other[label].score, abs=2e-2)


@pytest.mark.parametrize("given", ["boxes", "masks", "nothing"])
def test_frames_on_the_device_are_as_frames_of_the_host(
    trt: Any, folder: Path, device: Device, given: str, rng: np.random.Generator
) -> None:
    """A torch tensor in, nothing of it copied to the host: the same people, and scores within the kernels' rounding."""
    torch = pytest.importorskip("torch")
    frame = decode_image(DEMO.with_name("lobby.jpg"))
    lying = torch.tensor(frame, device="cpu" if device.kind == "host" else "cuda")
    options: dict[str, Any] = {}
    if given != "nothing":
        height, width = frame.shape[:2]
        options["boxes"] = np.array([[10, 20, width / 3, height - 9.5], [width / 3, 0, width, height]], np.float32)
    if given == "masks":
        options["masks"] = rng.random((2, *frame.shape[:2])) > 0.4
    trt.build(DEMO, folder)
    with trt.predictor(DEMO, folder) as predictor:
        here, there = predictor.predict(frame, **options), predictor.predict(lying, **options)
    assert len(here) == len(there) > 0
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=0.5)
        for label in here.labels:
            assert one[label].score == pytest.approx(other[label].score, abs=1e-2)


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_int8_is_near_the_cpus(
    trt: Any,
    plan: Path,
    folder: Path,
    tmp_path: Path,
    layout: str,
    rng: np.random.Generator,
    note: Callable[[str], None],
) -> None:
    """Symmetric activations here, asymmetric ones there: near, and not equal."""
    from graftsdk.lifecycle.lowering import lower_plan

    (tmp_path / "samples").mkdir()
    for index, pixels in enumerate(rng.integers(0, 256, (12, 40, 36, 3), np.uint8)):
        assert cv2.imwrite(str(tmp_path / "samples" / f"{index}.png"), pixels)
    lowered = tmp_path / "int8.plan"
    lower_plan(plan, "int8", tmp_path / "samples", output=lowered, tolerance=0.5)
    trt.build(lowered, folder, precision="int8", layout=layout)
    crops = toys.crops(8)
    with (
        Predictor(lowered, device="cpu", precision="int8") as cpu,
        trt.predictor(lowered, folder, precision="int8", layout=layout) as gpu,
    ):
        expected, found = cpu.run(crops), gpu.run(crops)
    worst, full = difference(expected, found), difference(reference(plan, crops), found)
    note(f"{trt.name}, int8, {layout}, toy tree: within {worst:.1e} of int8 and {full:.1e} of float32 on the CPU")
    assert worst <= 0.1 and full <= 0.1


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_a_label_that_was_trained_again_is_refitted(
    trt: Any, tmp_path: Path, folder: Path, layout: str, note: Callable[[str], None]
) -> None:
    """Refitted or, where anything is in doubt, built in full: the new scores either way. Which it was is noted."""
    if trt.dry:
        pytest.skip("refitting has a stand-in of its own, in tests/export/test_build_refit.py")
    from test_build_refit import GENDER, train_again, write_plan

    plan, crops = tmp_path / "engine.plan", toys.crops(4)
    write_plan(plan, [toys.branch("child", 2, seed=8), toys.branch("gender", 2, classes=GENDER, seed=2)])
    trt.build(plan, folder, layout=layout, refittable=True)
    with trt.predictor(plan, folder, layout=layout) as predictor:
        before = predictor.run(crops)
        train_again(plan, "child", 19)
        report = trt.build(plan, folder, layout=layout, refittable=True)
        with trt.predictor(plan, folder, layout=layout) as successor:
            after = successor.run(crops)
        assert moved(before, predictor.run(crops)) == []  # who is open goes on with what it has
    assert difference(reference(plan, crops), after) <= CLOSE["float32"]
    assert "child" in moved(before, after)
    if layout == "split":
        assert moved({"gender": before["gender"]}, after) == []
    (record,) = [each for each in report.engines if "child" in each.labels]
    how = "refitted" if record.refittable is not None and record.refittable.refitted_from else "built in full"
    note(f"{trt.name}, {layout}, a label trained again: its engine was {how} in {record.seconds:.1f} s")


def test_engines_for_another_gpu_are_refused(trt: Any, plan: Path, folder: Path) -> None:
    trt.build(plan, folder)
    (record,) = folder.glob("*.json")
    said = json.loads(record.read_text())
    other = next(each for each in (*trt.targets, "8.6", "8.9") if each != trt.capability)
    record.write_text(json.dumps({**said, "targets": [other]}))
    with pytest.raises(EngineIncompatible, match=f"compute capability {trt.capability}, found {other}"):
        trt.predictor(plan, folder)


def test_an_engine_built_for_another_gpu_is_refused_by_the_library(
    trt: Any, plan: Path, folder: Path, note: Callable[[str], None]
) -> None:
    """Its record says that it fits: the library is asked, and its refusal is ours."""
    from graftsdk.export import build_engine

    others = [each for each in trt.targets if each not in (trt.capability, "7.5")]
    if not others:
        pytest.skip(f"{trt.name} builds for this machine's GPU only")
    build_engine(plan, targets=others[:1], runtime=trt.name, output=folder, batches=(1,))
    (record,) = folder.glob("*.json")
    said = json.loads(record.read_text())
    record.write_text(json.dumps({**said, "targets": [trt.capability]}))
    try:
        with trt.predictor(plan, folder):
            note(f"{trt.name}: an engine built for {others[0]} opens on {trt.capability}")
    except EngineIncompatible as error:
        assert "build" in str(error)
        note(f"{trt.name}: an engine built for {others[0]} is refused on {trt.capability}")


def test_a_damaged_engine_never_reaches_the_library(trt: Any, plan: Path, folder: Path) -> None:
    trt.build(plan, folder)
    (engine,) = folder.glob("*.engine")
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    with pytest.raises(GraftError, match="SHA-256|digest"):
        trt.predictor(plan, folder)


def test_threads_get_the_bits_of_one(trt: Any, plan: Path, folder: Path) -> None:
    trt.build(plan, folder, layout="split")
    batches = [toys.crops(1 + seed % 4, seed) for seed in range(24)]
    with trt.predictor(plan, folder, layout="split") as predictor:
        alone = [predictor.run(crops) for crops in batches]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(predictor.run, batches))
    for one, other in zip(alone, together, strict=True):
        assert moved(one, other) == []


class Opened:
    """A plan's engines on a device of the test's own, by TensorRTEngine itself."""

    def __init__(self, trt: Any, plan: Path, folder: Path, *, layout: str = "split", batches: Sequence[int] = (1, 4)):
        from graftsdk.engines.cuda import open_device
        from graftsdk.engines.tensorrt import find_library

        trt.build(plan, folder, layout=layout, batches=batches)
        self.library, self.device = find_library(trt.name), open_device()
        self.plan = open_plan(plan)
        self.graphs = graphs_of(self.plan, built_groups(self.plan.manifest, joints_of(self.plan.manifest), layout))  # type: ignore[arg-type]
        self.names = list(scores_names(self.plan.manifest).values())
        paths = {json.loads(path.read_text())["graph"]: path for path in folder.glob("*.json")}
        self.contents = [paths[graph.key].with_suffix(".engine").read_bytes() for graph in self.graphs]

    def engine(self, **options: Any) -> TensorRTEngine:
        return TensorRTEngine(self.graphs, self.contents, library=self.library, device=self.device, **options)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.plan.close()
        self.device.close()


def test_captured_graphs_give_the_bits_of_enqueued_work(trt: Any, plan: Path, folder: Path) -> None:
    with Opened(trt, plan, folder) as opened:
        found = []
        for capture in (False, True):
            with opened.engine(options=Options(capture=capture)) as engine:
                for seed in range(3):  # run, captured, launched
                    found.append(engine.run({"crops": toys.crops(4, seed)}, opened.names))
        for one, other in zip(found[:3], found[3:], strict=True):
            assert moved(one, other) == []


def test_arrays_on_the_device_are_fed_from_there(trt: Any, plan: Path, folder: Path, device: Device) -> None:
    torch = pytest.importorskip("torch")
    crops = toys.crops(7)
    lying = torch.tensor(crops, device="cpu" if device.kind == "host" else "cuda")
    with Opened(trt, plan, folder) as opened, opened.engine() as engine:
        here = engine.run({"crops": crops}, opened.names)
        assert moved(here, engine.run({"crops": lying}, opened.names)) == []


def test_outputs_stay_on_the_device_when_asked(trt: Any, plan: Path, folder: Path) -> None:
    crops = toys.crops(4)
    with Opened(trt, plan, folder) as opened, opened.engine() as engine:
        expected = engine.run({"crops": crops}, opened.names)
        with engine.lease(4) as lease:
            np.copyto(lease.staging("crops"), crops)
            lease.upload("crops")
            assert lease.run(opened.names, fetch=[]) == {}
            for name in opened.names:
                array = lease.output(name)
                out = np.zeros(array.shape, array.dtype)
                opened.device.d2h(out.reshape(-1).view(np.uint8), array, array.nbytes, lease.stream)
                lease.stream.sync()
                assert out.tobytes() == expected[name].tobytes()


def test_a_device_without_room_runs_a_batch_in_parts(
    trt: Any, plan: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The large bucket does not fit beside what fills the device; the small one, which is there, does."""
    crops = toys.crops(256)
    with Opened(trt, plan, folder, batches=(1, 256)) as opened, opened.engine(buckets=(1, 256)) as engine:
        first = engine.run({"crops": crops[:1]}, opened.names)
        filling = []
        size = opened.device.free_memory()
        while size > 1 << 20:
            try:
                filling.append(opened.device.alloc(size))
            except EngineOutOfMemory:
                size //= 2
        found = engine.run({"crops": crops}, opened.names)
        for buffer in filling:
            buffer.close()
        assert "is run in parts of 1" in caplog.text
        for name in opened.names:
            assert found[name].shape[0] == 256 and found[name][:1].tobytes() == first[name].tobytes()
        assert engine.run({"crops": crops}, opened.names)[opened.names[0]].shape[0] == 256


def test_nothing_is_left_after_close(trt: Any, plan: Path, folder: Path) -> None:
    with Opened(trt, plan, folder) as opened:
        engine = opened.engine()
        engine.warm_up()
        assert opened.device.live_buffers > 0
        engine.close()
        engine.close()
        assert opened.device.live_buffers == 0
        with pytest.raises(EngineClosed):
            engine.run({"crops": toys.crops(1)})


def test_an_engine_without_a_target(
    note: Callable[[str], None], record_property: Callable[[str, object], None], device: Device
) -> None:
    """Whatever happens is written down, and is no failure: nothing of graftsdk makes such engines."""
    record_property("runtime", "tensorrt-rtx")
    if device.kind == "host":
        pytest.skip("a dry run")
    from gpu_untargeted import try_untargeted

    said = try_untargeted()
    if said.startswith("not tried"):
        pytest.skip(said)  # counted as a test of the runtime it would say that something of it ran
    note(f"an engine built without a target, on compute capability {device.compute_capability}: {said}")
