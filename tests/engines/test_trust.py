"""Engines are code: what is deserialised was built here, is what its record says, and fits; all else is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_graphs import branch_model, graph, trunk_model
from fake_tensorrt import engine_bytes

from graftsdk.engines import Graph
from graftsdk.engines.cache import Cache
from graftsdk.engines.feeds import Port
from graftsdk.engines.record import EngineRecord, Profile, engine_name, write_record
from graftsdk.engines.refittable import Refittable
from graftsdk.engines.tensorrt import Library
from graftsdk.engines.trust import Wanted, built_here, load_engines, remember_built
from graftsdk.errors import (
    EngineIncompatible,
    GraftError,
    PlanCorrupt,
    PlanPathError,
    PlanTruncated,
    PlanVersionError,
)

TRUNK = graph(trunk_model())
BRANCH = graph(branch_model("a", "t/tap_1"), {"a/tap": "t/tap_1"})
CONTENT = engine_bytes(trunk_model())
LIBRARY = Library("tensorrt_rtx", "1.7.1.116", None, None)
WANTED = Wanted("people.plan", "8.9", layout="split", precision="fp16")
COMMAND = "graftsdk build people.plan --for 8.9 --runtime tensorrt-rtx --precision fp16 --layout split --batch 1,8 -o "


def record_for(made: Graph, role: str, content: bytes, **changes: Any) -> EngineRecord:
    kind = np.dtype("float32")
    ports = [tuple(Port(name, kind, (None,)) for name in names) for names in (made.inputs, made.outputs)]
    found = EngineRecord(
        role=role, graph=made.key, plan="a" * 64, labels=("a",) if role == "branch" else (),
        parts={"t": ("b" * 64, "fp16")}, runtime="tensorrt_rtx", version="1.7.1.116", targets=("8.6", "8.9"),
        precision="fp16", batches=(1, 8), profiles=(Profile(1, 8, 8),), inputs=ports[0], outputs=ports[1],
        file=f"{engine_name(role, made.key)}.engine", size=len(content), sha256=hashlib.sha256(content).hexdigest(),
        seconds=1.0, peak_bytes=1, when="2026-11-27T06:00:00Z",
    )  # fmt: skip
    return replace(found, **changes)


def store(folder: Path, made: Graph = TRUNK, role: str = "trunk", content: bytes = CONTENT, **changes: Any) -> Path:
    """As `graftsdk build` leaves it; the engine's path."""
    folder.mkdir(mode=0o755, exist_ok=True)
    record = record_for(made, role, content, **changes)
    (folder / record.file).write_bytes(content)
    (folder / record.file).chmod(0o644)
    write_record(record, folder).chmod(0o644)
    remember_built(record)
    return folder / record.file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "people.engines"


def test_what_was_built_here_is_taken(folder: Path) -> None:
    store(folder)
    other = engine_bytes(branch_model("a", "t/tap_1"))
    store(folder, BRANCH, "branch", other)
    found = load_engines([TRUNK, BRANCH], folder, LIBRARY, WANTED)
    assert found.contents == (CONTENT, other) and not found.built
    assert [record.role for record in found.records] == ["trunk", "branch"]
    assert found.batches == (1, 8)


def test_the_batches_that_all_engines_were_built_for(folder: Path) -> None:
    store(folder, batches=(1, 8, 32))
    store(folder, BRANCH, "branch", b"x" * 100, batches=(1, 4, 8))
    assert load_engines([TRUNK, BRANCH], folder, LIBRARY, WANTED).batches == (1, 8)
    store(folder, BRANCH, "branch", b"x" * 100, batches=(64,))
    assert load_engines([TRUNK, BRANCH], folder, LIBRARY, WANTED).batches is None


def test_what_was_built_elsewhere_is_not(folder: Path, cache_root: Path) -> None:
    store(folder)
    Cache().clear()
    assert load_engines([TRUNK], folder, LIBRARY, WANTED).contents == (CONTENT,)  # compiled graphs are another matter
    for path in (cache_root / "built").iterdir():
        path.unlink()
    with pytest.raises(EngineIncompatible, match="of which the engine cache knows nothing") as refused:
        load_engines([TRUNK], folder, LIBRARY, WANTED)
    assert COMMAND + str(folder) in str(refused.value) and "trust_engines=True" in str(refused.value)
    assert load_engines([TRUNK], folder, LIBRARY, WANTED, trust_engines=True).contents == (CONTENT,)


def test_where_digests_are_noted(cache_root: Path) -> None:
    record = record_for(TRUNK, "trunk", CONTENT)
    assert not built_here(record)
    remember_built(record)
    remember_built(record)
    assert built_here(record) and not built_here(replace(record, sha256="0" * 64))
    assert (cache_root.stat().st_mode & 0o777, (cache_root / "built").stat().st_mode & 0o777) == (0o700, 0o700)
    (cache_root / "built").chmod(0o777)
    with pytest.raises(PlanPathError, match="mode 0777"):
        built_here(record)


def test_the_notes_are_not_read_through_a_link(folder: Path, cache_root: Path) -> None:
    store(folder)
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(folder.with_name("moved"))
    assert load_engines([TRUNK], folder, LIBRARY, WANTED).contents == (CONTENT,)  # each is one that was noted
    (cache_root / "built").rename(cache_root / "elsewhere")
    (cache_root / "built").symlink_to(cache_root / "elsewhere")
    with pytest.raises(PlanPathError, match="expected a folder, found a link"):
        load_engines([TRUNK], folder, LIBRARY, WANTED)
    with pytest.raises(PlanPathError, match="expected a folder, found a link"):
        remember_built(record_for(TRUNK, "trunk", CONTENT))


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"version": "1.6.0.9"}, r"expected tensorrt_rtx 1\.7\.1\.116, found 1\.6\.0\.9"),
    "runtime": ({"runtime": "tensorrt", "version": "11.4.0.1"}, "expected runtime tensorrt_rtx, found tensorrt"),
    "GPU": ({"targets": ("8.6", "12.0")}, r"expected compute capability 8\.9, found 8\.6, 12\.0"),
    "outputs": ({"outputs": ()}, "expected outputs 't/tap_1', 't/tap_2', found none"),
    "plan": ({"graph": TRUNK.key[:16] + "0" * 48}, f"expected graph {TRUNK.key[:24]}"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_does_not_fit_is_named_with_the_command(what: str, folder: Path) -> None:
    changes, text = MISFITS[what]
    store(folder)
    path = folder / f"{engine_name('trunk', TRUNK.key)}.json"
    said = {**json.loads(path.read_text()), **record_for(TRUNK, "trunk", CONTENT, **changes).to_dict()}
    if what == "outputs":
        said["outputs"] = json.loads(path.read_text())["inputs"]
        text = "expected outputs 't/tap_1', 't/tap_2', found 'crops'"
    path.write_text(json.dumps(said))
    for trust in (False, True):
        with pytest.raises(EngineIncompatible, match=text) as refused:
            load_engines([TRUNK], folder, LIBRARY, WANTED, trust_engines=trust)
        command = COMMAND.replace("--batch 1,8 ", "" if what == "runtime" else "--batch 1,8 ")
        assert str(refused.value).endswith(command + str(folder))


def test_several_misfits_are_all_named(folder: Path) -> None:
    store(folder, version="1.6.0.9", targets=("12.0",))
    with pytest.raises(EngineIncompatible, match=r"found 1\.6\.0\.9; compute capability 8\.9, found 12\.0"):
        load_engines([TRUNK], folder, LIBRARY, WANTED)


def test_what_is_built_anew_is_built_like_the_rest(folder: Path) -> None:
    def options() -> list[str]:
        words = WANTED.words(LIBRARY, folder)
        return words[words.index("split") + 1 : words.index("-o")]

    assert options() == []
    folder.mkdir()
    (folder / "notes.json").write_text("{}")
    store(folder, role="segmenter", batches=(1,))
    store(folder, graph(trunk_model(), {"crops": "other"}), "branch", batches=(2,), runtime="tensorrt")
    assert options() == []
    store(folder, role="merged", batches=(1, 2), precision="float32", when="2027-11-27T06:00:00Z")
    assert options() == ["--batch", "1,2"]
    store(folder, role="trunk", batches=(1, 4))
    assert options() == ["--batch", "1,4"]
    store(folder, BRANCH, "branch", batches=(1, 4), refittable=Refittable("c" * 64, {"b" * 16: "d" * 16}, 0.0))
    assert options() == ["--batch", "1,4", "--refittable"]


def test_an_engine_of_another_plan(folder: Path) -> None:
    store(folder, BRANCH, "branch")
    with pytest.raises(EngineIncompatible, match="found branch of 'a' in fp16 of plan aaaaaaaaaaaaaaaa; graft"):
        load_engines([TRUNK], folder, LIBRARY, WANTED)


def test_no_folder(folder: Path) -> None:
    with pytest.raises(EngineIncompatible, match=r"no folder that can be read \(No such file"):
        load_engines([TRUNK], folder, LIBRARY, WANTED)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def change(path: Path, old: str, new: str) -> None:
    record = path.with_suffix(".json")
    record.write_text(record.read_text().replace(old, new))


DAMAGE: dict[str, tuple[Callable[[Path], object], type[GraftError]]] = {
    "a bit flipped": (flip, PlanCorrupt),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), PlanTruncated),
    "empty": (lambda path: path.write_bytes(b""), PlanTruncated),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), PlanCorrupt),
    "gone": (lambda path: path.unlink(), PlanPathError),
    "a link": (link, PlanPathError),
    "for the group": (lambda path: path.chmod(0o664), PlanPathError),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), PlanPathError),
    "record cut": (lambda path: path.with_suffix(".json").write_text("{"), PlanCorrupt),
    "record of another format": (lambda path: change(path, '"format": 1', '"format": 9'), PlanVersionError),
    "record gone": (lambda path: path.with_suffix(".json").unlink(), EngineIncompatible),
    "record a link": (lambda path: link(path.with_suffix(".json")), PlanPathError),
    "record of another engine": (
        lambda path: change(path, hashlib.sha256(CONTENT).hexdigest(), "1" * 64),
        EngineIncompatible,
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_refused_and_built_again_where_that_was_asked_for(
    what: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage, error = DAMAGE[what]
    path = store(folder)
    damage(path)
    with pytest.raises(error) as refused:
        load_engines([TRUNK], folder, LIBRARY, WANTED)
    assert type(refused.value) is error
    calls: list[int] = []

    def build() -> None:
        calls.append(1)
        for each in folder.iterdir():
            each.unlink()
        store(folder)

    found = load_engines([TRUNK], folder, LIBRARY, WANTED, build=build)
    assert (found.contents, found.built, calls) == ((CONTENT,), True, [1])
    assert "building engines, which may take minutes" in caplog.text
    load_engines([TRUNK], folder, LIBRARY, WANTED, build=build)
    assert calls == [1]


def test_a_build_that_does_not_help(folder: Path) -> None:
    with pytest.raises(EngineIncompatible, match="expected an engine of graph"):
        load_engines([TRUNK], folder, LIBRARY, WANTED, build=lambda: folder.mkdir())


def test_a_folder_that_others_can_write_to(folder: Path) -> None:
    store(folder)
    folder.chmod(0o777)
    for build in (None, lambda: pytest.fail("nothing is built into it")):
        with pytest.raises(PlanPathError, match="mode 0777: others may have put code there") as refused:
            load_engines([TRUNK], folder, LIBRARY, WANTED, build=build)
        assert refused.value.code == "PlanPathError"
    assert load_engines([TRUNK], folder, LIBRARY, WANTED, trust_engines=True).contents == (CONTENT,)


def test_a_folder_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(folder)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PlanPathError, match="found one of user"):
        load_engines([TRUNK], folder, LIBRARY, WANTED)


def test_the_command_names_labels() -> None:
    wanted = Wanted("my plan", "9.0", labels=("child", "long hair"))
    assert wanted.command(LIBRARY, Path("out")).startswith("graftsdk build 'my plan' --for 9.0 --runtime tensorrt-rtx")
