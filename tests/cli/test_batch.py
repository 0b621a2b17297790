from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import toys
from PIL import Image

from graftsdk.cli import batch
from graftsdk.errors import InputError, MissingDependency
from graftsdk.offline.parts import Parts


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    toys.write(tmp_path / "engine.plan", ["child", "gender"])
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(np.full((40, 36, 3), 80 * index, np.uint8)).save(folder / f"{index}.png")
    (folder / "bad.jpg").write_bytes(b"")
    (folder / "note.txt").write_bytes(b"")
    return [str(tmp_path / "engine.plan"), str(folder), "-o", str(tmp_path / "out.parquet")]


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="graftsdk batch")
    batch.configure(parser)
    args = parser.parse_args(words)
    code: int = args.run(args)
    return code


def test_a_folder(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow; pip install 'graftsdk[batch]'")
    assert _run([*command, "--chunk", "2", "--labels=gender", "--threshold", "gender.male=0.9"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{tmp_path}/images/bad.jpg: DecodeError: expected JPEG" in told.err
    assert "out.parquet: 4 images, 3 persons, 1 could not be used" in told.err
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png", "2.png", "bad.jpg"]
    assert list(rows[0]["persons"][0]["attributes"]) == ["gender"]


def test_interrupted(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow; pip install 'graftsdk[batch]'")
    write = Parts.write

    def interrupted(self: Parts, chunk: int, rows: list[object]) -> None:
        if chunk:
            raise KeyboardInterrupt
        write(self, chunk, rows)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", interrupted)
        assert _run([*command, "--chunk", "3"]) == 130
    assert "interrupted: 3 of 4 images are done and kept; run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "out.parquet").exists()
    assert _run([*command, "--chunk", "3"]) == 0
    assert (tmp_path / "out.parquet").exists()


def test_refused(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="expected --ray with them"):
        _run([*command, "--actors", "2"])
    with pytest.raises(InputError, match="expected at least 1"):
        _run([*command, "--ray", "--actors", "0"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r'pip install "graftsdk\[batch\]"'):
        _run(command)
