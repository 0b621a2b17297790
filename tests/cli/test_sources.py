"""What a command line names: files, folders, patterns, videos, cameras, addresses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graftsdk.cli.sources import Source, find_images, find_sources
from graftsdk.errors import InputError

MP4 = b"\x00\x00\x00\x08ftyp" + b"\x00\x00\x00\x08moov"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: names alone decide, but for `film` and `7`."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.MP4", "in/c.png", "in/d.webm", "in/notes.txt", "in/deep/e.JPG", "[x].jpg", "7", "-o.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "film").write_bytes(MP4)
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.jpg"], ["image a.jpg"]),
        (["b.MP4"], ["video b.MP4"]),
        (["in"], ["image in/c.png", "video in/d.webm"]),  # not what is deeper, not what is neither
        (["in/*"], ["image in/c.png", "video in/d.webm"]),
        (["**/*.[jJ][pP][gG]"], ["image -o.jpg", "image [x].jpg", "image a.jpg", "image in/deep/e.JPG"]),
        (["in/**"], ["image in/c.png", "video in/d.webm", "image in/deep/e.JPG"]),
        (["in/*.txt"], ["image in/notes.txt"]),  # asked for by name: whoever reads it says what it is
        (["[x].jpg"], ["image [x].jpg"]),  # a file of that name comes before a pattern
        (["film"], ["video film"]),  # by content
        (["7"], ["image 7"]),  # a file
        (["0", "12"], ["live 0", "live 12"]),  # cameras
        (["/dev/video3"], ["live /dev/video3"]),
        (["rtsp://u:p@host/1", "HTTP://host/x.mp4"], ["live rtsp://u:p@host/1", "live HTTP://host/x.mp4"]),
        (["missing.mp4", "missing.jpg"], ["video missing.mp4", "image missing.jpg"]),
        (["a.jpg", "./a.jpg", "*.jpg"], ["image a.jpg", "image -o.jpg", "image [x].jpg"]),  # each once
        (["0", "0"], ["live 0"]),
    ],
    ids=str,
)
def test_sources(words: list[str], expected: list[str]) -> None:
    assert [f"{source.kind} {source.place}" for source in find_sources(words)] == expected


def test_a_pipe_is_not_waited_for(home: Path) -> None:
    os.mkfifo(home / "pipe")
    assert [source.kind for source in find_sources(["pipe"])] == ["image"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("empty", "expected a folder with images or videos"),
        ("*.gif", "found none that fit"),
        ("[", "found none that fit"),
    ],
)
def test_nothing_found(word: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        find_sources([word])


def test_images_only() -> None:
    assert find_images(["in", "0", "a.jpg"]) == [Path("in/c.png"), Path("a.jpg")]
    with pytest.raises(InputError, match="expected images"):
        find_images(["b.MP4"])


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (0, "camera 0"),
        ("rtsp://user:secret@host/1", "rtsp://host/1"),
        (Path("red\x1b[31m.jpg"), "red\N{REPLACEMENT CHARACTER}[31m.jpg"),
    ],
)
def test_names_in_messages(place: Path | int | str, name: str) -> None:
    assert Source("image", place).name == name


def test_a_suffix_of_two_kinds_of_file_is_looked_into(tmp_path: Path) -> None:
    folder = tmp_path / "two kinds"
    folder.mkdir()
    (folder / "app.ts").write_text("export const answer = 42;\n")
    (folder / "film.ts").write_bytes((b"\x47" + bytes(187)) * 8)  # packets of an MPEG transport stream
    (folder / "old.wmv").write_bytes(bytes(99))
    found = find_sources([str(folder)])
    assert [(source.kind, source.place) for source in found] == [("video", folder / "film.ts")]
