"""FORMAT.md, byte by byte: what is written, by whom it can be read, and that it is written alike everywhere."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import toys
from plan import forge, golden

import graftsdk.plan
from graftsdk.errors import PlanCorrupt
from graftsdk.graft import graft
from graftsdk.plan import BranchEntry, Event, Manifest, Part, SegmenterInfo, load_plan, open_plan, write_plan
from graftsdk.plan.edit import create_plan
from graftsdk.plan.lowered import Lowered
from graftsdk.plan.writer import tensor_hashes

TESTS = Path(__file__).parents[1]


def test_golden_bytes_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", golden.EPOCH)
    golden.write(tmp_path / "engine.plan")
    assert (tmp_path / "engine.plan").read_bytes() == golden.FILE.read_bytes()


def test_golden_bytes_are_read() -> None:
    with load_plan(golden.FILE) as plan:
        assert plan.labels == ("enfant à vélo",)
        trunk, branch = (plan.parts[name] for name in sorted(plan.parts, key=lambda n: plan.parts[n].role)[::-1])
        assert (trunk.role, branch.role) == ("trunk", "branch")
        weight = trunk.tensors["weight"]
        assert weight.shape == (4, 4, 5, 5)
        assert weight.reshape(-1)[:8].tolist() == [-0.375, -0.25, -0.125, 0, 0.125, 0.25, 0.375, -0.375]
        assert not weight.flags.writeable
        assert branch.tensors == {}
        assert [value.name for value in graft(plan).graph.outputs] == [f"{branch.name}/scores"]


def test_format_md_states_the_golden_digests() -> None:
    text = (Path(graftsdk.plan.__file__).parent / "FORMAT.md").read_text("utf-8")
    data = golden.FILE.read_bytes()
    with load_plan(golden.FILE) as plan:
        stated = {
            "bytes": str(len(data)),
            "SHA-256 of the file": hashlib.sha256(data).hexdigest(),
            "header_sha256": plan.digest,
            **{f"{part.role} digest": part.digest for part in plan.parts.values()},
        }
    for name, value in stated.items():
        assert re.search(rf"\| {name} \| `{value}` \|", text), f"FORMAT.md does not say: | {name} | `{value}` |"


def test_every_field_of_a_manifest_stands_in_format_md(tmp_path: Path) -> None:
    text = (Path(graftsdk.plan.__file__).parent / "FORMAT.md").read_text("utf-8")

    def names(value: object) -> set[str]:
        if isinstance(value, dict):
            free = {"tensors", "parts", "thresholds", "metrics", "histogram", "lowered"}
            return set(value) | {n for key, item in value.items() if key not in free for n in names(item)}
        return {n for item in value for n in names(item)} if isinstance(value, list) else set()

    _, manifest, _ = forge.split(forge.good(tmp_path))
    part = next(iter(manifest["parts"].values()))
    segmenter = SegmenterInfo("0" * 16, "yolo", "images", (64, 64), ("a",), nms="fast", batched=False).to_dict()
    lowered = Lowered("", True, 0, 0.0, 0.0, 0, None, 0.0).to_dict()
    missing = [
        name
        for name in sorted(names(manifest) | names(part) | names(segmenter) | set(lowered))
        if f"`{name}`" not in text
    ]
    assert not missing


def segmenter_fields(**changes: object) -> dict[str, object]:
    return SegmenterInfo("0" * 16, "yolo", "images", (64, 64), ("a",), max_persons=20).to_dict() | changes


def test_a_plan_from_before_the_limit_of_persons_has_300() -> None:
    fields = segmenter_fields()
    assert SegmenterInfo.from_dict(fields, "segmenter").max_persons == fields.pop("max_persons") == 20
    found = SegmenterInfo.from_dict(fields, "segmenter")
    assert found.max_persons == 300 and found.to_dict() == segmenter_fields(max_persons=300)


@pytest.mark.parametrize(
    ("family", "nms", "written"),
    [
        ("yolo", "greedy", None),
        ("yolo", "fast", "fast"),
        ("yolact", "fast", None),
        ("yolact", "greedy", "greedy"),
        ("maskrcnn", "greedy", None),
    ],
)
@pytest.mark.parametrize("batched", [True, False])
def test_what_older_plans_mean_is_not_written(family: str, nms: str, written: str | None, batched: bool) -> None:
    info = SegmenterInfo("0" * 16, family, "images", (64, 64), ("a",), nms=nms, batched=batched)
    fields = info.to_dict()
    assert (fields.get("nms"), fields.get("batched")) == (written, None if batched else False)
    assert SegmenterInfo.from_dict(fields, "segmenter") == info
    assert SegmenterInfo("0" * 16, family, "images", (64, 64), ("a",)).to_dict().keys() == segmenter_fields().keys()


@pytest.mark.parametrize(
    "change",
    [
        {"max_persons": 0},
        {"max_persons": 1001},
        {"max_persons": None},
        {"max_persons": True},
        {"max_persons": 20.0},
        {"max_person": 20},
        {"family": "sam"},
        {"nms": "slow"},
        {"nms": ""},
        {"nms": None},
        {"batched": 0},
        {"batched": None},
        {"input_size": [64]},
        {"person_class": -1},
        {"score_threshold": 1.5},
        {"iou_threshold": -0.1},
        {"outputs": []},
    ],
)
def test_a_segmenter_that_is_none(change: dict[str, object]) -> None:
    with pytest.raises(PlanCorrupt, match=f"^segmenter.*{next(iter(change))}"):
        SegmenterInfo.from_dict(segmenter_fields(**change), "segmenter")


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_bytes_do_not_depend_on_the_hash_seed(tmp_path: Path, seed: str) -> None:
    code = "import sys; from pathlib import Path; import toys; toys.write(Path(sys.argv[1]))"
    env = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": golden.EPOCH, "PYTHONPATH": str(TESTS)}
    subprocess.run([sys.executable, "-c", code, tmp_path / "theirs.plan"], env=env, check=True)
    env["PYTHONHASHSEED"] = "7"
    subprocess.run([sys.executable, "-c", code, tmp_path / "ours.plan"], env=env, check=True)
    assert (tmp_path / "theirs.plan").read_bytes() == (tmp_path / "ours.plan").read_bytes()


def test_safetensors_reads_a_plan(tmp_path: Path) -> None:
    data = forge.good(tmp_path)
    theirs = safetensors.numpy.load(data)
    with load_plan(data) as plan:
        assert set(theirs) == set(plan.manifest.tensors)
        for part in plan.parts.values():
            assert theirs[part.name].tobytes() == part.graph
            for name, array in part.tensors.items():
                assert theirs[f"{part.name}/{name}"].dtype == array.dtype
                np.testing.assert_array_equal(theirs[f"{part.name}/{name}"], array)


def test_tensors_lie_in_the_order_of_safetensors(tmp_path: Path) -> None:
    data = forge.good(tmp_path)
    header, _, body = forge.split(data)
    again = safetensors.numpy.save(safetensors.numpy.load(data), header["__metadata__"])
    theirs, _, their_body = forge.split(again)
    del header["__metadata__"], theirs["__metadata__"]
    assert theirs == header
    assert their_body == body


def test_what_is_read_can_be_written_again_to_the_byte(tmp_path: Path) -> None:
    data = forge.good(tmp_path)
    with load_plan(data) as plan:
        write_plan(tmp_path / "again.plan", plan.manifest, list(plan.parts.values()))
        assert Manifest.from_json(plan.manifest.to_json()) == plan.manifest
    assert (tmp_path / "again.plan").read_bytes() == data


@pytest.mark.parametrize("how", ["path", "text", "bytes", "bytearray", "memoryview", "file"])
def test_sources(tmp_path: Path, how: str) -> None:
    data = forge.good(tmp_path)
    path = tmp_path / "good.plan"
    with path.open("rb") as file:
        made = {
            "path": path, "text": str(path), "bytes": data, "bytearray": bytearray(data),
            "memoryview": memoryview(data), "file": file,
        }  # fmt: skip
        with load_plan(made[how]) as plan:  # type: ignore[arg-type]
            assert plan.labels == ("child", "gender")
            assert plan.nbytes == len(data)


def test_open_plan_hashes_a_part_when_it_is_handed_out(tmp_path: Path) -> None:
    data = bytearray(forge.good(tmp_path))
    data[-1] ^= 1  # the last tensor's
    with open_plan(bytes(data)) as plan:
        refused = 0
        for name in plan.parts:
            try:
                plan.parts[name]
            except PlanCorrupt:
                refused += 1
        assert refused == 1


def test_a_plan_swapped_by_rename_is_still_the_one_that_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    toys.write(path, ("old",))
    with open_plan(path) as plan:
        toys.write(path, ("new",), seed=5)
        assert plan.labels == ("old",)
        plan.check()


DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"]


def test_every_dtype_and_an_odd_number_of_bytes(tmp_path: Path) -> None:
    part, document = toys.trunk()
    more = {name: np.arange(1031).astype(np.dtype(name)).reshape(1031, 1) for name in DTYPES}
    more |= {"scalars": np.zeros((1, 1, 1024), np.uint8), "odd": np.ones(2049, np.uint8)}
    stock = Part("trunk", part.graph, {**part.tensors, **more})
    path = tmp_path / "engine.plan"
    create_plan(path, (stock, document), [])
    with load_plan(path) as plan:
        read = plan.parts[stock.name]
        assert set(read.tensors) == set(stock.tensors)
        for name, array in stock.tensors.items():
            assert read.tensors[name].dtype == array.dtype
            assert read.tensors[name].tobytes() == array.tobytes()
            assert read.tensors[name].flags.aligned
    assert set(safetensors.numpy.load_file(path)) == {stock.name, *(f"{stock.name}/{name}" for name in stock.tensors)}
    header, _, _ = forge.split(path.read_bytes())
    again, _, _ = forge.split(safetensors.numpy.save(safetensors.numpy.load_file(path), header["__metadata__"]))
    assert list(again) == list(header)


@pytest.mark.parametrize("dtype", [">f4", "c8", "M8[s]"])
def test_weights_that_a_plan_cannot_hold(dtype: str) -> None:
    with pytest.raises(KeyError):
        _ = Part("trunk", b"", {"w": np.zeros(1024, np.dtype(dtype))}).digest


def test_the_digest_of_a_part_as_format_md_defines_it() -> None:
    part = toys.branch("child")[0]
    weights = {
        name: ["F32", list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
        for name, array in sorted(part.tensors.items())
    }
    graph = hashlib.sha256(part.graph).hexdigest()
    text = forge.dump({"graph": graph, "role": "branch", "tensors": weights})
    assert part.digest == hashlib.sha256(text.encode()).hexdigest()
    assert part.name == part.digest[:16]


def test_the_same_model_gives_the_same_part() -> None:
    assert toys.branch("a", seed=4)[0].digest == toys.branch("b", seed=4)[0].digest
    assert toys.branch("a", seed=4)[0].digest != toys.branch("a", seed=5)[0].digest


UNWRITABLE = {
    "label with a bidi mark": lambda m: label(m, "chi\u202eld"),
    "label not in NFC": lambda m: label(m, "e\u0301"),
    "label with a line break": lambda m: label(m, "a\nb"),
    "label with a lone surrogate": lambda m: label(m, "a\ud800"),
    "empty label": lambda m: label(m, ""),
    "label of 257 bytes": lambda m: label(m, "x" * 257),
    "metric that is no number": lambda m: document(m, metrics={"f1": float("nan")}),
    "metric that is no JSON": lambda m: document(m, metrics={"f1": b"1"}),
    "threshold above 1": lambda m: document(m, thresholds={"yes": 1.5}),
    "a class that the label lacks": lambda m: document(m, thresholds={"maybe": 0.5}),
    "a branch that was never exported": lambda m: document(m, exported=None),
    "a tensor too many": lambda m: replace(m, tensors={**m.tensors, f"{next(iter(m.parts))}/w": "0" * 64}),
    "a tensor of no part": lambda m: replace(m, tensors={**m.tensors, "0123456789abcdef/w": "0" * 64}),
    "history of another label": lambda m: replace(
        m, history=(Event("add", "other", "2026-01-01T00:00:00Z", "", m.trees[0].trunk, after=m.trees[0].branches[0]),)
    ),
}  # fmt: skip


def document(manifest: Manifest, **changes: object) -> Manifest:
    tree = manifest.trees[0]
    entry = tree.branches[0]
    changed = BranchEntry(entry.part, replace(entry.document, **changes))  # type: ignore[arg-type]
    return replace(manifest, trees=(replace(tree, branches=(changed,)),), history=())


def label(manifest: Manifest, text: str) -> Manifest:
    return document(manifest, label=text)


@pytest.mark.parametrize("case", UNWRITABLE)
def test_nothing_is_written_that_could_not_be_read(tmp_path: Path, case: str) -> None:
    part, trunk = toys.trunk()
    scion, branch = toys.branch("child", on=trunk)
    path = tmp_path / "engine.plan"
    create_plan(path, (part, trunk), [(scion, branch)])
    before = path.read_bytes()
    with open_plan(path) as plan, pytest.raises(PlanCorrupt):
        write_plan(path, UNWRITABLE[case](plan.manifest), [part, scion])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["engine.plan"]
    assert tensor_hashes([scion])
