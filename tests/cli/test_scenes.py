from __future__ import annotations

import json
from pathlib import Path

import pytest

from graftsdk.cli.main import main

SMALL = ("--count", "3", "--size", "90", "120")


def test_draws_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "-o", str(tmp_path / "drawn"), *SMALL, "--seed", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("3 scenes of 120x90 with ")
    assert out.endswith(f"annotations: {tmp_path / 'drawn' / 'annotations' / 'instances_scenes.json'}\n")
    assert sorted(path.name for path in (tmp_path / "drawn/scenes").iterdir()) == [f"00000{i}.jpg" for i in range(3)]


def test_json_says_what_was_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "-o", str(tmp_path / "drawn"), *SMALL, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    document = json.loads(Path(told["annotations"]).read_bytes())
    assert (told["count"], told["seed"], told["size"]) == (3, 0, [90, 120])
    assert told["generator"] == document["info"]["generator"]
    assert told["persons"] == len(document["annotations"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--count", "0"), "count: expected an integer from 1 to 999999, found 0"),
        (("--size", "10", "20"), "size: expected (height, width), each 64 to 1300 pixels, found (10, 20)"),
        (("--workers", "0"), "workers: expected an integer from 1"),
        (("--seed", "-1"), "seed: expected an integer from 0"),
    ],
)
def test_wrong_numbers_are_told_in_one_line(
    tmp_path: Path, words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scenes", "-o", str(tmp_path / "drawn"), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert text in err
    assert err.count("\n") == 1
    assert not (tmp_path / "drawn").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["scenes", "-o", str(tmp_path), *SMALL]) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("-o",), ("-o", "x", "--count", "many"), ("-o", "x", "--size", "90")])
def test_wrong_words(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scenes", *words])
    assert ended.value.code == 2
    assert "usage: graftsdk scenes" in capsys.readouterr().err
