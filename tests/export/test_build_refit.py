"""A label that was trained again, put into a copy of its engine; the library is a stand-in, and no GPU was at hand."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from graftsdk.cli.main import main
from graftsdk.engines import open_engine, tensorrt
from graftsdk.engines.layout import built_groups, graphs_of, partition
from graftsdk.engines.record import EngineRecord, read_record
from graftsdk.engines.tensorrt import Library
from graftsdk.engines.tensorrt_engine import TensorRTEngine
from graftsdk.engines.trust import Wanted, load_engines
from graftsdk.errors import EngineBuildError, EngineIncompatible, EngineOutOfMemory, GraftError, InputError
from graftsdk.export import BuildReport, build_child, build_engine, parity
from graftsdk.export.build_child import Job, load_graph
from graftsdk.export.engine_list import check_refittable
from graftsdk.export.structure import Structure, in_plan_order, part_names, structure_of
from graftsdk.export.tensorrt import Wanted as Wish
from graftsdk.export.tensorrt import build_graph
from graftsdk.graft import joints_of, merged_group, scores_names
from graftsdk.plan import BranchDocument, Part, Plan, open_plan
from graftsdk.plan.edit import add_branches, create_plan
from graftsdk.preprocess import golden_crops
from tests.engines import fake_builder
from tests.engines.fake_builder import FakeBuilder

Branches = list[tuple[Part, BranchDocument]]
GENDER = ("other", "female", "male")


class InProcess:
    """The building process, without a process."""

    def __init__(self, job: Job) -> None:
        self.what, self.job, self.pieces = "", job, [b""]

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def frames(self) -> Iterator[dict[str, Any]]:
        sent: list[tuple[dict[str, Any], bytes]] = []

        def send(kind: str, content: bytes = b"", **values: Any) -> None:
            sent.append((json.loads(json.dumps({"kind": kind, "size": len(content), **values})), content))

        build_child._build(Job.from_json(self.job.to_json()), type("", (), {"send": staticmethod(send)})())  # type: ignore[arg-type]
        for frame, content in sent:
            self.pieces = [content]
            yield frame

    def piece(self, left: int) -> bytes:
        return self.pieces.pop()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeBuilder]:
    """A machine with a GPU of compute capability 8.9, and `tensorrt` on it."""
    made, lines = FakeBuilder(), list[str]()
    library = Library("tensorrt", "11.4.0", made, tensorrt._make_logger(made, lines), lines)  # type: ignore[arg-type]
    monkeypatch.setitem(tensorrt._found, "tensorrt", library)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for module in ("engines.tensorrt", "export.build", "export.engine_list"):
        monkeypatch.setattr(f"graftsdk.{module}.driver_problem", lambda: None)
    monkeypatch.setattr("graftsdk.export.engine_list.gpu_capabilities", lambda: ("8.9",))
    monkeypatch.setattr("graftsdk.export.build.Child", InProcess)
    monkeypatch.setattr("graftsdk.export.parity.open_device", made.open_device)
    yield made
    assert made.wrong == []


def write_plan(path: Path, branches: Branches) -> None:
    """A plan whose golden scores are those that its branches give."""
    create_plan(path, toys.trunk(), branches)
    with open_plan(path) as plan:
        scores = true_scores(plan, golden_crops(plan.manifest.crop))
    path.unlink()
    create_plan(path, toys.trunk(), [(part, with_golden(doc, scores[doc.label])) for part, doc in branches])


def with_golden(document: BranchDocument, scores: np.ndarray) -> BranchDocument:
    assert document.exported is not None
    rows = tuple(tuple(float(each) for each in row) for row in scores)
    return replace(document, exported=replace(document.exported, scores=rows))


def true_scores(plan: Plan, crops: np.ndarray) -> dict[str, np.ndarray]:
    names = scores_names(plan.manifest)
    graphs = graphs_of(plan, partition(joints_of(plan.manifest), "merged"))
    with open_engine(graphs, device="cpu", cache=False) as engine:
        found = engine.run({"crops": crops}, list(names.values()))
    return {label: found[name] for label, name in names.items()}


def train_again(path: Path, label: str, seed: int, tap: int = 2, classes: tuple[str, ...] = ("no", "yes")) -> None:
    """Put other weights of the same shapes in a label's place."""
    part, document = toys.branch(label, tap, classes=classes, seed=seed)
    other = path.with_name("other.plan")
    write_plan(other, [(part, document)])
    with open_plan(other) as plan:
        _, entry = plan.manifest.find(label) or pytest.fail(label)
        add_branches(path, [(part, entry.document)], replace_labels=True)
    other.unlink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "engine.plan"  # seeds 8, 19 and 30 give scores in the middle, where a change shows
    write_plan(found, [toys.branch("child", 2, seed=8), toys.branch("gender", 2, classes=GENDER, seed=2)])
    return found


def build(path: Path, **options: Any) -> BuildReport:
    return build_engine(path, **{"runtime": "tensorrt", "batches": (1, 4), "refittable": True} | options)


def served(path: Path, fake: FakeBuilder, layout: str, precision: str = "float32") -> dict[str, np.ndarray]:
    """The scores that a predictor would get from the folder."""
    library = tensorrt.find_library("tensorrt")
    with open_plan(path) as plan:
        manifest, names = plan.manifest, scores_names(plan.manifest)
        graphs = graphs_of(plan, built_groups(manifest, joints_of(manifest), layout, manifest.forms(precision)))
        loaded = load_engines(graphs, path.with_suffix(".engines"), library, Wanted(str(path), "8.9", layout=layout))
        device = fake.open_device()
        with TensorRTEngine(graphs, loaded.contents, library=library, device=device, names=loaded.names) as engine:
            found = engine.run({"crops": toys.crops(5)}, list(names.values()))
    return {label: found[name] for label, name in names.items()}


def assert_serves_the_plan(path: Path, fake: FakeBuilder, layout: str, tolerance: float = 1e-5) -> None:
    with open_plan(path) as plan:
        wanted = true_scores(plan, toys.crops(5))
    precision = "float32" if tolerance < 1e-3 else "fp16"
    for label, scores in served(path, fake, layout, precision).items():
        np.testing.assert_allclose(scores, wanted[label], atol=tolerance)


def of_child(report: BuildReport) -> EngineRecord:
    (found,) = [record for record in report.engines if "child" in record.labels]
    return found


def structure(plan: Plan, labels: list[str] | None = None) -> Structure:
    group = in_plan_order(merged_group(joints_of(plan.manifest, labels)), plan.manifest)
    return structure_of(*load_graph(plan, group), part_names(group))


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING and each.name == "graftsdk"]


# --------------------------------------------------------------------------------------------------------- structure


def test_graphs_of_one_structure_differ_in_weights_alone(path: Path) -> None:
    orders = set()
    with open_plan(path) as plan:
        before = structure(plan)
    for seed in range(20, 23):  # part names are digests: the order of the branches by name moves with the weights
        train_again(path, "child", seed)
        with open_plan(path) as plan:
            after = structure(plan)
            group = merged_group(joints_of(plan.manifest))
            orders.add([joint.branch for joint in group.joints].index(joints_of(plan.manifest)["child"].branch))
        assert (after.digest, set(after.weights)) == (before.digest, set(before.weights))
        assert after.names != before.names and sorted(after.names.values()) == sorted(before.names.values())
        changed = {name for name in after.weights if (after.weights[name] != before.weights[name]).any()}
        assert {name.partition("/")[2] for name in changed} == {"own.weight"}  # what is small stands in the bytes
        assert after.content != before.content
    assert orders == {0, 1}


def test_other_structures(path: Path) -> None:
    with open_plan(path) as plan:
        found = [structure(plan).digest, structure(plan, ["child"]).digest, structure(plan, ["gender"]).digest]
    for tap, classes in ((3, ("no", "yes")), (2, ("no", "yes", "maybe"))):
        train_again(path, "child", 9, tap, classes)
        with open_plan(path) as plan:
            found.append(structure(plan).digest)
    assert len(set(found)) == 5


# ------------------------------------------------------------------------------------------------------------- refit


@pytest.mark.parametrize(
    ("layout", "precision", "tolerance"),
    [("merged", "float32", 1e-5), ("split", "float32", 1e-5), ("split", "fp16", 0.02)],
)
def test_a_label_that_was_trained_again_is_refitted(
    path: Path, fake: FakeBuilder, caplog: pytest.LogCaptureFixture, layout: str, precision: str, tolerance: float
) -> None:
    first = build(path, layout=layout, precision=precision)
    assert_serves_the_plan(path, fake, layout, tolerance)
    old = of_child(first)
    assert old.refittable is not None and old.refittable.refitted_from is None and old.refittable.golden < tolerance
    assert [each.refittable is not None for each in first.engines] == [each.role != "trunk" for each in first.engines]
    engine = (first.folder / old.file).read_bytes()
    built = len(fake.builds)

    train_again(path, "child", 19)
    report = build(path, layout=layout, precision=precision)
    new = of_child(report)
    assert len(fake.builds) == built and len(fake.refits) == 1
    assert set(report.kept) == {each.name for each in report.engines} - {new.name}
    assert new.refittable is not None and new.refittable.refitted_from == old.sha256 != new.sha256
    assert new.refittable.structure == old.refittable.structure
    assert tensorrt.find_library("tensorrt").deserialize((first.folder / new.file).read_bytes()).refittable
    assert [port.name for port in new.outputs] != [port.name for port in old.outputs]
    assert (first.folder / old.file).read_bytes() == engine  # who runs it goes on
    assert_serves_the_plan(path, fake, layout, tolerance)
    assert warned(caplog) == []

    assert set(build(path, layout=layout, precision=precision).kept) == {each.name for each in report.engines}
    train_again(path, "child", 30)
    again = of_child(build(path, layout=layout, precision=precision))
    assert again.refittable is not None and again.refittable.refitted_from in (old.sha256, new.sha256)
    assert_serves_the_plan(path, fake, layout, tolerance)


def damage(fake: FakeBuilder, file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DOUBTS: list[tuple[Callable[[FakeBuilder, Path], object], str]] = [
    (lambda fake, file: setattr(fake, "refuses", "own.weight"), "own.weight'"),
    (lambda fake, file: fake.misses.append("fc.companion"), "found ['fc.companion'] missing"),
    (lambda fake, file: setattr(fake, "half_way", True), "an illegal memory access"),
    (lambda fake, file: setattr(fake, "leaves_out", True), "keeping its weights"),
    (
        lambda fake, file: setattr(fake, "ignores", True),
        "label 'child': expected the plan's golden scores within 0.001",
    ),
    (damage, "expected the bytes that were built"),
    (lambda fake, file: file.unlink(), "expected the engine that its record names"),
]


@pytest.mark.parametrize(("doubt", "says"), DOUBTS)
def test_any_doubt_is_a_full_build(
    path: Path, fake: FakeBuilder, caplog: pytest.LogCaptureFixture, doubt: Callable[..., object], says: str
) -> None:
    old = of_child(build(path))
    train_again(path, "child", 19)
    doubt(fake, path.with_suffix(".engines") / old.file)
    new = of_child(build(path))
    assert len(fake.builds) == 2 and new.refittable is not None and new.refittable.refitted_from is None
    (line,) = warned(caplog)
    assert line.startswith("the merged engine is built in full, not refitted: ") and says in line
    assert_serves_the_plan(path, fake, "merged")


def test_weights_that_did_not_arrive_are_seen_however_near_the_scores(
    path: Path, fake: FakeBuilder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(path, labels=["child"])
    train_again(path, "child", 19)
    monkeypatch.setitem(parity.TOLERANCES, "float32", 1.0)
    fake.ignores = True
    new = of_child(build(path, labels=["child"]))
    assert new.refittable is not None and new.refittable.refitted_from is None
    assert "expected other scores of other weights, found the same" in warned(caplog)[0]


def test_a_refit_that_loses_a_bias(path: Path, fake: FakeBuilder, caplog: pytest.LogCaptureFixture) -> None:
    build(path, layout="split")
    train_again(path, "child", 19)
    fake.loses_bias = True
    with pytest.raises(
        EngineBuildError, match="label 'child': expected the plan's golden scores.*without --refittable"
    ):
        build(path, layout="split")
    assert (
        "label 'child' is built in full, not refitted: label 'child': expected the plan's golden" in warned(caplog)[0]
    )
    assert len(list(path.with_suffix(".engines").glob("*.engine"))) == 3  # those of before
    build(path, layout="split", refittable=False)
    assert_serves_the_plan(path, fake, "split")


def test_what_is_no_source(path: Path, fake: FakeBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of another structure, of other options, that cannot be refitted, or that were not built here."""
    build(path, labels=["gender"])
    build(path, labels=["child"], batches=(1, 2))
    train_again(path, "child", 19)
    build(path, labels=["child"], refittable=False)
    assert fake.refits == [] and len(fake.builds) == 3
    report = build(path, labels=["child"])  # the same graph, but not as it was asked for
    assert report.kept == () and fake.refits == [] and len(fake.builds) == 4
    assert build(path, labels=["child"], refittable=False).kept == (of_child(report).name,)
    train_again(path, "child", 30)
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent / "elsewhere"))
    build(path, labels=["child"])
    assert fake.refits == [] and len(fake.builds) == 5


# ------------------------------------------------------------------------------------------------- refusals, records


def refused(path: Path, **options: Any) -> GraftError:
    with pytest.raises(GraftError) as caught:
        build(path, **options)
    assert not path.with_suffix(".engines").exists()
    return caught.value


def test_refusals(path: Path, fake: FakeBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(refused(path, precision="int8"), InputError)
    monkeypatch.setattr("graftsdk.export.engine_list.gpu_capabilities", lambda: ("8.6", "8.9"))
    with pytest.raises(EngineIncompatible, match=r"expected this machine's GPU alone \(8\.6, 8\.9\)"):
        check_refittable(tensorrt.find_library("tensorrt"), ("8.6", "8.9"), "float32")
    monkeypatch.undo()
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr("graftsdk.export.engine_list.driver_problem", lambda: "no NVIDIA driver")
    error = refused(path, runtime="tensorrt_rtx", targets=["8.9"])
    assert isinstance(error, EngineIncompatible) and "on the device only, found: no NVIDIA driver" in str(error)


def test_a_library_without_targets_builds_for_the_first_gpu(
    path: Path, fake: FakeBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftsdk.export.engine_list.gpu_capabilities", lambda: ("8.9", "12.0"))
    assert {each.targets for each in build(path, refittable=False).engines} == {("8.9",)}
    with pytest.raises(EngineIncompatible, match=r"its own machine only \(8\.9\), found 12\.0"):
        build(path, targets=["12.0"])


def test_a_runtime_that_is_none(fake: FakeBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the bindings tell of a driver that is too old; and none is kept that host code is not forbidden to."""
    library = tensorrt.find_library("tensorrt")

    def nothing(logger: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(fake, "Runtime", nothing)
    with pytest.raises(EngineIncompatible, match="the NVIDIA driver may be too old"):
        library.deserialize(b"")
    monkeypatch.setattr(fake, "Runtime", lambda logger: object())
    for _ in range(2):
        with pytest.raises(AttributeError, match="engine_host_code_allowed"):
            library.deserialize(b"")


class Inspector:
    def __init__(self, told: str | None) -> None:
        self.told = told

    def get_engine_information(self, form: object) -> str | None:
        return self.told


@pytest.fixture
def inspect(fake: FakeBuilder, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Sets how an engine makes its inspector."""
    monkeypatch.setattr(fake, "LayerInformationFormat", type("", (), {"ONELINE": 0}), raising=False)
    monkeypatch.setattr("graftsdk.export.tensorrt.driver_problem", lambda: None)

    def put(make: Callable[..., object]) -> None:
        monkeypatch.setattr(fake_builder.BuiltEngine, "create_engine_inspector", make, raising=False)

    return put


@pytest.mark.parametrize(
    ("inspector", "layers"),
    [(Inspector("Layers:\n conv 0 \n\n relu"), ("Layers:", "conv 0", "relu")), (Inspector(None), None), (None, None)],
)
def test_layers(path: Path, fake: FakeBuilder, inspect: Any, inspector: object, layers: tuple[str, ...] | None) -> None:
    inspect(lambda engine: inspector)
    report = build(path, refittable=False)
    assert [each.layers for each in report.engines] == [layers]
    assert read_record(report.folder / f"{report.engines[0].name}.json") == report.engines[0]


def test_an_inspector_that_fails_takes_no_engine_with_it(
    path: Path, fake: FakeBuilder, inspect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [EngineOutOfMemory("nothing left"), EngineBuildError("the building process: signal 11")]

    def fail(engine: object) -> object:
        folder = path.with_suffix(".engines")
        assert [len(list(folder.glob(each))) for each in ("*.engine", "*.json")] == [3, 3]
        raise errors.pop()

    inspect(fail)
    first = build(path, layout="split", refittable=False)
    assert len(first.engines) == 3 and all(each.layers is None for each in first.engines)
    assert "the engines are built, their layers are not known: the building process: signal 11" in warned(caplog)[0]
    assert set(build(path, layout="split", refittable=False).kept) == {each.name for each in first.engines}
    assert len(errors) == 1


def test_an_engine_that_is_too_large_to_be_opened_is_kept(
    path: Path, fake: FakeBuilder, inspect: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect(lambda engine: pytest.fail("it was not opened"))
    monkeypatch.setattr(Library, "deserialize", lambda *_: (_ for _ in ()).throw(EngineOutOfMemory("nothing left")))
    assert build(path, refittable=False).engines[0].layers is None
    assert warned(caplog) == []  # and the layers of other engines are still asked for


def test_command_and_info(path: Path, fake: FakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["build", str(path), "--runtime", "tensorrt", "--batch", "1,4", "--refittable"]
    assert main(words) == 0
    train_again(path, "child", 19)
    assert main(words) == 0
    assert "  refitted\n" in capsys.readouterr().out
    new = max(
        map(read_record, path.with_suffix(".engines").glob("*.json")),
        key=lambda each: str(each.to_dict()["refittable"]),
    )
    names = [main(["info", str(file)]) for file in sorted(path.with_suffix(".engines").glob("*.engine"))]
    shown = capsys.readouterr().out
    assert names == [0, 0] and new.refittable is not None
    assert f"refittable structure {new.refittable.structure[:16]}; built in full; golden scores within " in shown
    assert f"{new.refittable.structure[:16]}; refitted from " in shown


def test_the_real_library_takes_names_by_position(path: Path) -> None:
    real = pytest.importorskip("tensorrt_rtx")
    library = tensorrt.find_library("tensorrt_rtx")
    wanted = Wish(("8.9",), (1, 4), {f"{1:016x}": "label 'child'"}, "the merged engine")
    pieces: list[bytes] = []
    with open_plan(path) as plan:
        found = structure(plan)
        built = build_graph(library, found.content, found.weights, wanted, pieces.append, list[str]().append)
        assert [port.name for port in built.outputs] == [f"{1:016x}/scores", f"{2:016x}/scores"]
        assert b"".join(pieces)[:4] == b"vtrt"
        builder = real.Builder(library.logger)
        network = builder.create_network(1 << int(real.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = real.OnnxParser(network, library.logger)
        assert parser.load_model_proto(found.content, "")
        assert all(parser.load_initializer(name, a.ctypes.data, a.nbytes) for name, a in found.weights.items())
        assert parser.parse_model_proto()
        assert all(network.mark_weights_refittable(name) for name in found.weights)
        if tensorrt.driver_problem() is not None:
            with pytest.raises(EngineBuildError):
                build_graph(library, found.content, found.weights, replace(wanted, refittable=True), print, print)


def test_the_stand_in_has_nothing_that_the_library_lacks() -> None:
    real = pytest.importorskip("tensorrt_rtx")
    pairs = [
        (fake_builder.Builder, real.Builder),
        (fake_builder.BuilderConfig, real.IBuilderConfig),
        (fake_builder.Network, real.INetworkDefinition),
        (fake_builder.OptimizationProfile, real.IOptimizationProfile),
        (fake_builder.Refitter, real.Refitter),
        (fake_builder.SerializationConfig, real.ISerializationConfig),
        (fake_builder.BuiltEngine, real.ICudaEngine),
        (fake_builder.OnnxParser, real.OnnxParser),
        (fake_builder.OnnxParserRefitter, real.OnnxParserRefitter),
        (fake_builder._Loads, real.OnnxParserRefitter),
    ]
    for ours, theirs in pairs:
        names = {name for name in vars(ours) if not name.startswith("_")}
        assert names and not names - set(dir(theirs)), theirs
    for kind in ("BuilderFlag", "NetworkDefinitionCreationFlag", "SerializationFlag"):
        assert {each.name for each in getattr(fake_builder, kind)} <= set(getattr(real, kind).__members__)
    assert "refittable" in dir(real.ICudaEngine)
