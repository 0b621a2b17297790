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

from graftsdk.engines.feeds import Port
from graftsdk.engines.record import (
    EngineRecord,
    Profile,
    check_engine_file,
    engine_name,
    read_engine_file,
    read_record,
    record_of,
    write_record,
)
from graftsdk.engines.refittable import Refittable
from graftsdk.errors import PlanCorrupt, PlanError, PlanPathError, PlanTruncated, PlanVersionError

CONTENT = b"vtrt" + bytes(range(256)) * 20
KEY = "ab" * 32


def record(**changes: Any) -> EngineRecord:
    whole = EngineRecord(
        role="trunk",
        graph=KEY,
        plan="cd" * 32,
        labels=("child", "rucksack à dos"),
        parts={"0123456789abcdef": ("ef" * 32, "fp16")},
        runtime="tensorrt_rtx",
        version="1.7.1.116",
        targets=("8.9", "12.0"),
        precision="fp16",
        batches=(1, 8, 32),
        profiles=(Profile(1, 8, 32),),
        inputs=(Port("crops", np.dtype("float32"), (None, 3, 32, 32)),),
        outputs=(Port("0123456789abcdef/tap_1", np.dtype("float32"), (None, 24, 8, 8)),),
        file=f"trunk-{KEY[:16]}.engine",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        seconds=1.25,
        peak_bytes=10**9,
        when="2026-11-25T17:00:00Z",
        layers=("Convolution conv0", "relu"),
    )
    return replace(whole, **changes)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine with its record beside it."""
    path = tmp_path / f"trunk-{KEY[:16]}.engine"
    path.write_bytes(CONTENT)
    path.chmod(0o644)
    write_record(record(), tmp_path)
    return path


@pytest.mark.parametrize("layers", [None, (), ("one",)])
def test_what_is_written_is_read(tmp_path: Path, layers: tuple[str, ...] | None) -> None:
    path = write_record(record(layers=layers), tmp_path)
    assert path.name == f"trunk-{KEY[:16]}.json" == f"{engine_name('trunk', KEY)}.json"
    assert read_record(path) == record(layers=layers)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("role", "layout"), [("merged", "merged"), ("branch", "split"), ("segmenter", "any")])
def test_a_role_tells_its_layout(role: str, layout: str) -> None:
    assert record(role=role).to_dict()["layout"] == record(role=role).layout == layout


def changed(field: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda told: told | {field: value}


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], type[PlanError], str]] = {
    "a newer format": (changed("format", 2), PlanVersionError, "expected record format 1, found 2"),
    "a field more": (changed("extra", 1), PlanCorrupt, "unknown field 'extra'"),
    "a field less": (lambda told: {k: v for k, v in told.items() if k != "sha256"}, PlanCorrupt, "'sha256' is missing"),
    "another layout": (changed("layout", "merged"), PlanCorrupt, "layout"),
    "another runtime": (changed("runtime", "onnxruntime"), PlanCorrupt, "expected one of tensorrt, tensorrt_rtx"),
    "a path": (changed("file", "../trunk.engine"), PlanCorrupt, "file"),
    "another file": (changed("file", f"trunk-{'0' * 16}.engine"), PlanCorrupt, f"expected the file trunk-{KEY[:16]}"),
    "a short digest": (changed("sha256", "ab"), PlanCorrupt, "sha256"),
    "no targets": (changed("targets", []), PlanCorrupt, "targets"),
    "a number as target": (changed("targets", ["89"]), PlanCorrupt, "targets"),
    "a profile that falls": (changed("profiles", [[8, 1, 32]]), PlanCorrupt, "least <= best <= most"),
    "a dtype": (changed("inputs", [{"name": "x", "dtype": "object", "shape": []}]), PlanCorrupt, "dtype"),
    "a negative side": (changed("outputs", [{"name": "x", "dtype": "int8", "shape": [-1]}]), PlanCorrupt, "size"),
    "NaN": (changed("seconds", float("nan")), PlanCorrupt, "strict JSON"),
    "a list": (lambda told: [told], PlanCorrupt, "expected a JSON object"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_refused(tmp_path: Path, name: str) -> None:
    damage, kind, says = DAMAGE[name]
    path = write_record(record(), tmp_path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(kind) as caught:
        read_record(path)
    assert says in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1, 100, -2])
def test_a_truncated_record_is_refused(tmp_path: Path, cut: int) -> None:
    path = write_record(record(), tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(PlanCorrupt, match="strict JSON"):
        read_record(path)


def test_no_record_and_records_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to(write_record(record(), tmp_path))
    for name in ("none.json", "pipe.json", "link.json", "."):
        with pytest.raises(PlanPathError, match="expected a record"):
            read_record(tmp_path / name)
    (tmp_path / "long.json").write_bytes(b" " * (1 << 22) + b"{}")
    with pytest.raises(PlanCorrupt, match="at most 4194304 bytes"):
        read_record(tmp_path / "long.json")


def test_a_sound_engine(engine: Path) -> None:
    check_engine_file(record_of(engine), engine)
    assert read_engine_file(record_of(engine), engine) == CONTENT


def test_what_was_hashed_is_what_is_given(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever still has the file open writes into it between the two."""

    def write(*_: object, **__: object) -> Any:
        found = hashed(engine.read_bytes())
        engine.write_bytes(bytes(len(CONTENT)))
        return found

    hashed, wanted = hashlib.sha256, record()
    monkeypatch.setattr(hashlib, "sha256", write)
    monkeypatch.setattr(hashlib, "file_digest", write)
    assert read_engine_file(wanted, engine) == CONTENT


@pytest.mark.parametrize("at", [0, 24, len(CONTENT) // 2, len(CONTENT) - 1])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit(engine: Path, at: int, bit: int) -> None:
    content = bytearray(CONTENT)
    content[at] ^= 1 << bit
    engine.write_bytes(content)
    with pytest.raises(PlanCorrupt, match="expected the bytes that were built"):
        check_engine_file(record(), engine)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"", PlanTruncated), (CONTENT[:64], PlanTruncated), (CONTENT[:-1], PlanTruncated), (CONTENT + b"x", PlanCorrupt)],
)
def test_another_length(engine: Path, content: bytes, kind: type[PlanError]) -> None:
    engine.write_bytes(content)
    with pytest.raises(kind, match=f"expected {len(CONTENT)} bytes, found {len(content)}"):
        check_engine_file(record(), engine)


def test_what_others_can_write_is_refused(engine: Path) -> None:
    engine.chmod(0o664)
    with pytest.raises(PlanPathError, match="others may write"):
        check_engine_file(record(), engine)
    check_engine_file(record(), engine, ours=False)


REFITTABLE = Refittable("12" * 32, {"0123456789abcdef.0123456789abcdef": f"{0:016x}"}, 1.5e-5, "34" * 32)


def test_records_of_refittable_engines(tmp_path: Path) -> None:
    assert "refittable" not in record().to_dict()  # as those that were written before there were such
    for each in (REFITTABLE, replace(REFITTABLE, refitted_from=None)):
        whole = record(refittable=each)
        assert read_record(write_record(whole, tmp_path)) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"structure": "12"},
        {"names": {}},
        {"names": {"child": f"{0:016x}"}},
        {"names": {"0123456789abcdef": "child"}},
        {"names": {"0123456789abcdef": f"{0:016x}", "1123456789abcdef": f"{0:016x}"}},
        {"golden": -1.0},
        {"golden": None},
        {"refitted_from": "34"},
        {"more": 1},
    ],
)
def test_damaged_records_of_refittable_engines(change: dict[str, Any]) -> None:
    value = {**record().to_dict(), "refittable": {**REFITTABLE.to_dict(), **change}}
    with pytest.raises(PlanCorrupt, match="r.json.refittable"):
        EngineRecord.from_dict(value, "r.json")


def test_what_belongs_to_another_user_is_refused(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PlanPathError, match=f"a file of user {os.getuid()}"):
        check_engine_file(record(), engine)


def test_links_and_missing_engines(engine: Path) -> None:
    link = engine.with_name("link.engine")
    link.symlink_to(engine)
    for path in (link, engine.with_name("none.engine"), engine.parent):
        with pytest.raises(PlanPathError, match="expected the engine that its record names"):
            check_engine_file(record(), path)
