"""Files, folders and lists as frames: the right ones in the right order, and one clear error each for the others."""

from __future__ import annotations

import io
import logging
import os
import struct
import subprocess
import sys
import threading
import time
from collections import Counter

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image
from stream import movies

from graftsdk.errors import DecodeError, ImageTooLarge, ImageTooSmall, InputError
from graftsdk.preprocess import capture, decode_image
from graftsdk.preprocess.container import check_container
from graftsdk.preprocess.frames import open_frames
from graftsdk.text import public_name

pytestmark = pytest.mark.usefixtures("nothing_left")

# The codecs that OpenCV's wheels can write. mpg2 has frames that are stored in another order than they are shown in.
VIDEOS = {
    "a.mp4": "mp4v", "a.mov": "mp4v", "a.avi": "MJPG", "xvid.avi": "XVID", "a.mkv": "mp4v", "jpeg.mkv": "MJPG",
    "a.webm": "VP80", "a.ts": "mpg2", "a.mpg": "mpg2", "a.flv": "FLV1", "b.mkv": "mpg2", "b.mp4": "mpg2",
}  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """name -> path; each has forty frames of 160x120, twenty a second."""
    folder = tmp_path_factory.mktemp("videos")
    found = {name: movies.write(folder / name, codec) for name, codec in VIDEOS.items()}
    found["web.mp4"] = movies.index_first(folder / "web.mp4", found["a.mp4"])
    return found


def read(source, **options):
    """(frames, the error that ended them or None)"""
    frames, opened = [], iter(())
    try:
        opened = open_frames(source, **options)
        for frame in opened:
            frames.append(frame)
    except InputError as error:
        assert list(opened) == []  # over is over
        return frames, error
    assert list(opened) == []
    return frames, None


# --- videos ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*VIDEOS, "web.mp4"])
def test_every_frame_of_each_container(videos, name, caplog):
    frames, error = read(videos[name])
    assert error is None and caplog.messages == []
    assert [frame.index for frame in frames] == [movies.number(frame.image) for frame in frames] == list(range(40))
    assert [frame.timestamp for frame in frames] == pytest.approx([at / movies.RATE for at in range(40)], abs=1e-3)
    for frame in frames:
        assert frame.image.shape == (120, 160, 3) and frame.image.dtype == np.uint8
        assert frame.source == str(videos[name]) and frame.decode_ms > 0
        frame.image[:] = 7  # belongs to whoever took it


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv"])
@pytest.mark.parametrize("stride", [2, 7, 39, 40, np.int64(3)])
def test_stride_counts_all_frames(videos, name, stride):
    frames, error = read(videos[name], stride=stride)
    assert error is None
    assert [frame.index for frame in frames] == [movies.number(frame.image) for frame in frames]
    assert [frame.index for frame in frames] == list(range(0, 40, stride))
    assert frames[-1].timestamp == pytest.approx(frames[-1].index / movies.RATE, abs=1e-3)


def test_any_name_will_do(videos, tmp_path):
    for name in ("with no suffix", "%03d.mp4", "film.jpg", "film.m3u8"):
        path = tmp_path / name
        path.write_bytes(videos["a.avi"].read_bytes())
        assert len(read(path)[0]) == 40


def test_reduced_frames_are_averages(videos):
    whole, _ = read(videos["a.avi"])
    small, _ = read(videos["a.avi"], reduce=4)
    assert small[5].image.shape == (30, 40, 3)
    expected = whole[5].image.reshape(30, 4, 40, 4, 3).mean(axis=(1, 3))
    assert np.abs(small[5].image - expected).max() <= 0.51
    with pytest.raises(ImageTooSmall, match="20 x 15"):
        list(open_frames(videos["a.avi"], reduce=8))


def test_odd_sides_are_rounded_up(tmp_path):
    movies.write(tmp_path / "odd.avi", "MJPG", 2, size=(66, 130))
    assert read(tmp_path / "odd.avi", reduce=4)[0][0].image.shape == (17, 33, 3)


def test_a_variable_rate_is_told_as_it_is(tmp_path):
    times = np.cumsum([0, *np.random.default_rng(0).integers(10, 400, 39)]).tolist()
    frames, error = read(movies.mkv(tmp_path / "a.mkv", times))
    assert error is None and [movies.number(frame.image) for frame in frames] == list(range(40))
    assert [frame.timestamp for frame in frames] == pytest.approx([at / 1e3 for at in times])


def test_a_film_that_was_taken_sideways_is_upright(videos, tmp_path):
    data = videos["a.mp4"].read_bytes()
    level, turned = (1, 0, 0, 0, 1, 0), (0, 1, 0, -1, 0, 0)  # a track's matrix, 16.16
    one, other = (struct.pack(">6i", *(value << 16 for value in matrix)) for matrix in (level, turned))
    at = data.index(one, data.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(data[:at] + other + data[at + len(one) :])
    upright, lying = next(open_frames(tmp_path / "a.mp4")), next(open_frames(videos["a.mp4"]))
    assert (upright.image == np.rot90(lying.image, -1)).all()


def test_a_live_file_is_played_at_its_own_pace(videos):
    started = time.monotonic()
    with open_frames(videos["a.mp4"], live=True) as frames:
        assert frames.live
        seen = [next(frames)]
        time.sleep(0.5)
        seen += frames
    assert time.monotonic() - started >= 39 / movies.RATE
    indices = [frame.index for frame in seen]
    assert indices == sorted(set(indices)) and indices[-1] == 39
    assert frames.dropped >= 5 and len(seen) + frames.dropped == 40
    assert seen[-1].timestamp == pytest.approx(1.95)


def test_memory_does_not_grow(tmp_path):
    movies.write(tmp_path / "long.avi", "MJPG", 200, size=(480, 640))
    count, process, most = 0, psutil.Process(), 0
    for frame in open_frames(tmp_path / "long.avi"):
        if count == 20:
            before = process.memory_info().rss
        most = max(most, process.memory_info().rss)
        count = frame.index + 1
    assert count == 200 and most - before < 64 * 2**20  # all frames: 184 MB


# --- videos that are cut off, or damaged -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["web.mp4", "a.avi", "xvid.avi", "a.mkv", "jpeg.mkv", "b.mkv", "a.webm"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.97])
def test_a_cut_video_gives_its_whole_frames_then_an_error(videos, name, part, tmp_path, caplog):
    data = videos[name].read_bytes()
    if name == "web.mp4" or part < 0.97:
        end = int(len(data) * part)
    else:
        end = data.rindex(b"idx1" if name.endswith("avi") else b"\x1c\x53\xbb\x6b") - 300  # within the last frames
    path = tmp_path / name
    path.write_bytes(data[:end])
    expected = [frame.image for frame in read(videos[name])[0]]
    frames, error = read(path)
    assert 0.2 * part * 40 < len(frames) < 40
    if name != "b.mkv":  # the last one before a gap is shown as if the missing one had been
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert all((frame.image == image).all() for frame, image in zip(frames, expected, strict=False))
    about = "about " if path.suffix in (".mkv", ".webm") else ""
    assert type(error) is DecodeError and f"cut off: {len(frames)} of {about}40 frames came" in str(error)
    assert caplog.messages == []


def test_a_stride_does_not_change_what_is_said_of_a_cut_video(videos, tmp_path):
    data = videos["web.mp4"].read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    frames, error = read(tmp_path / "cut.mp4")
    some, same = read(tmp_path / "cut.mp4", stride=3)
    assert [frame.index for frame in some] == [frame.index for frame in frames][::3] and str(same) == str(error)
    played, same = read(tmp_path / "cut.mp4", live=True)
    assert played[-1].index == frames[-1].index and str(same) == str(error)


@pytest.mark.parametrize("keep", ["no index", "half an index"])
def test_a_video_whose_index_is_missing(videos, keep, tmp_path):
    data = videos["a.mp4"].read_bytes()
    start, length = movies.boxes(data)[b"moov"]
    (tmp_path / "cut.mp4").write_bytes(data[: start + (length // 2 if keep == "half an index" else 0)])
    with pytest.raises(DecodeError, match="cut.mp4: expected a whole video, found"):
        open_frames(tmp_path / "cut.mp4")


def _rest(data):
    return data + struct.pack(">I4s", 2**31 - 1, b"SEFH") + bytes(100)


def _endless(data):
    start, _ = movies.boxes(data)[b"mdat"]  # a size of 0: until the end of the file
    return data[:start] + bytes(4) + data[start + 4 :]


INTACT = {
    "a camera's own bytes behind the film": ("a.mp4", _rest),
    "zeros behind the film": ("a.mp4", lambda data: data + bytes(5000)),
    "frames up to the end": ("web.mp4", _endless),
    "no index behind the frames": ("a.avi", lambda data: data[: data.rindex(b"idx1") + 40]),
    "a recorder switched off": ("a.avi", lambda data: data[:4] + bytes(4) + data[8:]),
    "no cues": ("a.mkv", lambda data: data[: data.rindex(b"\x1c\x53\xbb\x6b") + 10]),
}  # fmt: skip


@pytest.mark.parametrize("case", INTACT)
def test_what_has_all_its_frames_is_never_accused(videos, case, tmp_path, caplog):
    name, change = INTACT[case]
    data = videos[name].read_bytes()
    changed = change(data)
    assert changed != data
    (tmp_path / name).write_bytes(changed)
    frames, error = read(tmp_path / name)
    assert error is None and len(frames) == 40 and caplog.messages == []


@pytest.mark.parametrize("known", [True, False])
def test_a_cut_matroska_is_known_by_its_length_only(known, tmp_path):
    path = movies.mkv(tmp_path / "a.mkv", list(range(0, 2000, 50)), known, index=movies.CUES)
    data = path.read_bytes()
    for end, whole in ((len(data) - 30, True), (len(data) * 2 // 3, False)):
        path.write_bytes(data[:end])
        frames, error = read(path)
        assert (error is None) == (whole or not known) and (len(frames) == 40) == whole


def test_missing_pixels_in_the_middle_are_told(videos, tmp_path, caplog):
    data = bytearray(videos["a.avi"].read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)  # as of a download with a hole
    (tmp_path / "hole.avi").write_bytes(data)
    frames, error = read(tmp_path / "hole.avi")
    assert error is None and 10 < len(frames) < 40
    assert f"its header lists 40 frames, {len(frames)} came" in caplog.text


# --- what is no video ------------------------------------------------------------------------------------------------


PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash": b'<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-live:2011"></MPD>',
    "text": b"hello\n",
    "sdp in flv": b"FLV\x01\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "sdp in ts": (b"G\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n".ljust(188) + b"G".ljust(188) * 8),
    "matroska that is none": b"\x1a\x45\xdf\xa3\nc=IN IP4 127.0.0.1\n",
    "webp": b"RIFF\0\0\0\0WAVEfmt ",
    "gif": b"GIF89a" + bytes(30),
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "sdp"])
def test_files_that_name_others_are_not_opened(name, suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "_open", lambda *_: pytest.fail("FFmpeg must not see it"))
    path = tmp_path / f"film.{suffix}"
    path.write_bytes(PLAYLISTS[name])
    with pytest.raises(DecodeError, match="play lists and addresses in files are not followed"):
        open_frames(path)


def test_what_was_checked_is_what_is_opened(videos, tmp_path, monkeypatch):
    path = tmp_path / "film.mp4"
    path.write_bytes(videos["a.mp4"].read_bytes())

    def swap(file, name):
        found = check_container(file, name)
        path.unlink()
        path.write_bytes(PLAYLISTS["hls"])
        return found

    monkeypatch.setattr(capture, "check_container", swap)
    assert len(read(path)[0]) == 40


def test_containers_without_a_film(tmp_path):
    for name, data in (
        ("a.mp4", struct.pack(">I4s", 20, b"ftyp") + b"isom\0\0\2\0isom"),
        ("a.mkv", bytes.fromhex("1a45dfa38b") + b"\x42\x82\x88matroska" + bytes(40)),
        ("a.mkv", bytes.fromhex("1a45dfa301fffffffffffffe4282886d6174726f736b61") + bytes(40)),
        ("a.avi", b"RIFF\x04\0\0\0AVI "),
        ("a.avi", b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xffmovi"),
        ("a.mpg", b"\x00\x00\x01\xba" + bytes(60)),
        ("a.mp4", struct.pack(">I4sQ", 1, b"mdat", 2**63) + bytes(60)),
        ("a.mp4", struct.pack(">I4s", 8, b"free") * 300_000),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DecodeError, match=f"{name}: expected a whole video, found"):
            open_frames(tmp_path / name)


def test_any_bytes_are_a_video_or_an_error(videos, tmp_path, rng):
    seeds = [path.read_bytes() for path in videos.values()]
    ends = Counter()
    for turn in range(1000):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 6)):
            at = rng.integers(200 if rng.random() < 0.5 else len(data))
            if rng.random() < 0.7:
                data[at : at + rng.choice((1, 8))] = bytes(rng.choice((0, 1, 127, 255), 1)) * rng.choice((1, 8))
            else:
                del data[at : at + rng.integers(64)]
        try:
            check_container(io.BytesIO(data), "film")
        except DecodeError:
            continue
        if turn % 20 == 0:
            (tmp_path / "film").write_bytes(data)
            ends[type(read(tmp_path / "film")[1])] += 1
    assert set(ends) <= {type(None), DecodeError, ImageTooLarge, ImageTooSmall} and len(ends) > 1


@pytest.mark.parametrize("side", [8192, 16384, 60000])
def test_frames_too_large_are_refused_before_there_are_pixels(side, tmp_path):
    data = movies.write(tmp_path / "a.avi", "MJPG", 3).read_bytes()
    for form in ("<II", ">HH"):  # the header's, and that of each JPEG
        size = (160, 120) if form == "<II" else (120, 160)
        assert struct.pack(form, *size) in data
        data = data.replace(struct.pack(form, *size), struct.pack(form, side, side))
    (tmp_path / "a.avi").write_bytes(data)
    before = psutil.Process().memory_info().rss
    with pytest.raises(ImageTooLarge if side == 8192 else DecodeError) as caught:  # FFmpeg refuses the others itself
        list(open_frames(tmp_path / "a.avi"))
    assert side != 8192 or "8192 x 8192" in str(caught.value)
    assert psutil.Process().memory_info().rss - before < 64 * 2**20


def test_frames_too_small_are_refused(tmp_path):
    with pytest.raises(ImageTooSmall, match="32 x 8"):
        open_frames(movies.write(tmp_path / "a.avi", "MJPG", 2, size=(8, 32)))


class Pathlike:
    """A path, or what is called one."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


BAD = {
    "nothing": None, "empty": "", "missing": "no/such.mp4", "bytes": b"film.mp4", "number": 1.5, "bool": True,
    "negative": -1, "no camera": 63, "no camera by name": "/dev/video63", "object": object(), "dict": {"a": 1},
    "one image": np.zeros((32, 32, 3), np.uint8), "one PIL image": Image.new("RGB", (32, 32)),
    "open file": io.BytesIO(b""), "pipe": "/dev/null", "NUL": "a\0b", "bytes path": os.fsencode("/"),
    "file address": "file:///etc/passwd", "no such scheme": "gopher://host/film", "nested": "crypto+http://host/a",
    "no host": "http://", "space": "http://ho st/", "line": "http://host/\nfile", "concat": "concat:a.mp4|b.mp4",
    "path of a number": Pathlike(3), "path of bytes": Pathlike(b"/"), "two": "file:http://host/a.mp4",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_other_sources(name, monkeypatch):
    monkeypatch.setattr(capture, "_open", lambda *_: pytest.fail("OpenCV must not see it"))
    with pytest.raises(InputError, match="source: expected") as caught:
        open_frames(BAD[name])
    assert type(caught.value) is InputError and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"stride": 0}, {"stride": -1}, {"stride": True}, {"stride": 2.0}, {"stride": "2"}, {"stride": None}]
    + [{"stride": 2**31}, {"stride": 10**30}, {"stride": np.uint64(2**40)}]
    + [{"live": 1}, {"live": "yes"}, {"live": np.True_}]
    + [{"reduce": 3}, {"reduce": 0}, {"reduce": 16}, {"reduce": True}, {"reduce": 2.0}],
    ids=str,
)
def test_other_options(options, videos):
    with pytest.raises(InputError, match=f"{next(iter(options))}: expected"):
        open_frames(videos["a.mp4"], **options)
    with pytest.raises(InputError, match=f"{next(iter(options))}: expected"):
        open_frames([], **options)


def test_numbers_of_numpy_and_the_longest_stride(videos):
    data = cv2.imencode(".jpg", movies.picture(3))[1].tobytes()
    for source in (videos["a.avi"], [data] * 3):
        (only,), _ = read(source, stride=np.int64(2**31 - 1), reduce=np.int64(2))
        assert only.image.shape == (60, 80, 3) and movies.number(only.image) == (3 if isinstance(source, list) else 0)


def test_special_and_empty_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a special file"):
        open_frames(tmp_path / "pipe")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(DecodeError, match="empty.mp4: expected a video, found an empty file"):
        open_frames(tmp_path / "empty.mp4")


def test_images_cannot_be_live(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), movies.picture(1))
    for source in (tmp_path, tmp_path / "a.png", [tmp_path / "a.png"]):
        with pytest.raises(InputError, match="no pace of their own"):
            open_frames(source, live=True)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://host:554/a/b", "rtsp://host:554/a/b"),
        ("rtsp://[::1]:554/a", "rtsp://[::1]:554/a"),
        ("rtsp://me:secret@host:554/a", "rtsp://host:554/a"),
        ("rtsp://me:secret@secret@host/a", "rtsp://host/a"),
        ("rtsp://me:secret/secret@host/a", "rtsp://...@host/a"),
        ("rtsp://me:secret@host/a@b", "rtsp://...@b"),
        ("rtsp://me:secret?secret@host/a", "rtsp://..."),
        ("rtsp://me:secret#secret@host/a", "rtsp://..."),
        ("rtsp://me:secret;secret@host/a", "rtsp://..."),
        ("rtsp://me:sec=ret@host/a", "rtsp://host/a"),
        ("http://host/a?user=me&password=secret", "http://host/a?..."),
        ("http://host/a?password=secret@secret", "http://..."),
        ("http://host?secret", "http://host?..."),
        ("http://host/a#secret", "http://host/a#..."),
        ("http://host/a?b?user=secret#c", "http://host/a?..."),
        ("http://host/a|Authorization=Basic%20secret", "http://host/a|..."),
        ("rtsp://host:554/user=me&password=secret&channel=1&stream=0.sdp?real", "rtsp://host:554/..."),
        ("rtsp://host/user=me_password=secret/a", "rtsp://host/..."),
        ("rtmp://host/app/a pubUser=me pubPasswd=secret", "rtmp://host/app/a ..."),
        ("http://host/a\nsecret", "http://host/a\n..."),
        ("me:secret@ftp://host/a", "ftp://host/a"),
        ("a film @ home?=1.mp4", "a film @ home?=1.mp4"),
    ],
)
def test_names_of_addresses_hold_nothing_secret(url, shown):
    assert public_name(url) == shown
    with pytest.raises(InputError) as caught:
        open_frames(url.replace("rtsp:", "ftp:").replace("http:", "ftp:"))
    assert "secret" not in str(caught.value)


def test_nothing_is_written_to_stderr_and_the_environment_stays(videos, tmp_path):
    data = videos["web.mp4"].read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "none.mp4").write_bytes(data[:50])
    code = """
import os, sys
import cv2  # sets some for its windows
from graftsdk.errors import DecodeError
from graftsdk.preprocess.frames import open_frames
before, level = dict(os.environ), getattr(cv2.utils, "logging", cv2).getLogLevel()
for path in sys.argv[1:]:
    try:
        list(open_frames(path))
    except DecodeError:
        print("refused")
assert dict(os.environ) == before
assert getattr(cv2.utils, "logging", cv2).getLogLevel() == level
frames = open_frames(sys.argv[3])  # the interpreter ends while it is read
next(frames)
"""
    arguments = [sys.executable, "-c", code, tmp_path / "none.mp4", tmp_path / "cut.mp4", videos["a.mkv"]]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n" * 2, "")


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Ten images, and other files among them."""
    for at in range(10):
        cv2.imwrite(str(tmp_path / f"{at:02d}.{('png', 'jpg', 'bmp', 'webp')[at % 4]}"), movies.picture(at))
    (tmp_path / "notes.txt").write_text("none of these")
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def test_a_folder_in_the_order_of_its_names(folder, caplog):
    frames, error = read(folder)
    assert error is None and caplog.messages == []
    assert [frame.index for frame in frames] == [movies.number(frame.image) for frame in frames] == list(range(10))
    assert [frame.timestamp for frame in frames] == [None] * 10
    assert frames[3].source == str(folder / "03.webp") and frames[3].decode_ms > 0
    assert [frame.index for frame in read(folder, stride=4)[0]] == [0, 4, 8]
    assert read(folder, reduce=2)[0][1].image.tobytes() == decode_image(folder / "01.jpg", reduce=2).tobytes()


def test_an_image_that_cannot_be_read_is_left_out(folder, caplog):
    caplog.set_level(logging.WARNING, "graftsdk")
    (folder / "04.png").write_bytes(b"no image")
    with open_frames(folder) as frames:
        assert [frame.index for frame in frames] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
        assert list(frames.failures) == [str(folder / "04.png")]
        error = frames.failures[str(folder / "04.png")]
    assert type(error) is DecodeError and error.__traceback__ is None and error.__context__ is None
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith(f"{folder / '04.png'} is left out: image:")


def test_a_list_of_every_kind(folder):
    path, array = folder / "03.webp", movies.picture(3)
    with path.open("rb") as file, Image.open(path) as image:
        frames, error = read([str(path), path, path.read_bytes(), array, file, image, 3, None, np.zeros((4, 4))])
    assert error is None and [frame.index for frame in frames] == list(range(6))
    assert [movies.number(frame.image) for frame in frames] == [3] * 6
    assert [frame.source for frame in frames] == [str(path)] * 2 + [None] * 4
    assert frames[3].image is array
    assert read([])[0] == []


def test_what_has_no_name_fails_under_its_place(folder):
    with open_frames(source for source in (b"none", folder / "00.png", None)) as frames:
        assert [frame.index for frame in frames] == [1]
        assert {name: type(error) for name, error in frames.failures.items()} == {
            "image 0": DecodeError,
            "image 2": InputError,
        }


def test_paths_of_a_list_may_be_any_path(folder):
    bad, good = (Pathlike(os.fsencode(folder / name)) for name in ("notes.txt", "00.png"))
    with open_frames([Pathlike(3), bad, good]) as frames:
        assert [frame.source for frame in frames] == [str(folder / "00.png")]
        assert list(frames.failures) == ["image 0", str(folder / "notes.txt")]


def test_arrays_are_drawn_when_it_is_their_turn():
    drawn = []

    def sources():
        for at in range(5):
            drawn.append(at)
            yield movies.picture(at)

    with open_frames(sources()) as frames:
        for frame in frames:
            assert drawn[-1] == frame.index


def test_an_iterator_that_fills_one_array_again_and_again():
    def sources():
        array = np.empty((32, 32, 3), np.uint8)
        for at in range(30):
            array[:] = movies.picture(at, array.shape[:2])
            yield array

    assert [movies.number(frame.image) for frame in open_frames(sources())] == list(range(30))


def test_a_list_is_drawn_a_few_ahead_only(folder):
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield folder / "00.png"

    with open_frames(endless(), stride=2) as frames:
        for at in range(20):
            assert next(frames).index == 2 * at
            assert drawn <= 2 * (at + 9)


def test_an_iterator_that_fails_is_told_after_what_it_gave(folder):
    def sources():
        yield folder / "00.png"
        yield folder / "01.jpg"
        raise ZeroDivisionError("the caller's own")

    frames = open_frames(sources())
    assert [next(frames).index, next(frames).index] == [0, 1]
    with pytest.raises(ZeroDivisionError, match="the caller's own"):
        next(frames)
    assert list(frames) == []


def test_one_image_file_is_one_frame(folder):
    frames, error = read(folder / "01.jpg")
    assert error is None and [(frame.index, frame.timestamp) for frame in frames] == [(0, None)]
    data = (folder / "01.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(data[: len(data) // 2])
    assert type(read(folder / "half.jpg")[1]) is DecodeError  # alone: nothing would come at all


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="a folder with images in it"):
        open_frames(tmp_path)


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "twice", "with", "collected", "unused"])
def test_nothing_stays_behind_an_unfinished_source(how, videos, folder):  # `nothing_left` looks
    for source in (videos["a.mp4"], folder):
        frames = open_frames(source)
        if how != "unused":
            next(frames)
        if how in ("close", "twice"):
            frames.close()
        if how == "twice":
            frames.close()
            assert list(frames) == []
        if how == "with":
            with frames:
                pass
            assert list(frames) == []
        del frames


def test_what_happens_in_the_thread_reaches_the_consumer(videos, monkeypatch):
    def fail(self):
        raise MemoryError("no more")

    monkeypatch.setattr(capture.Capture, "retrieve", fail)
    with pytest.raises(MemoryError, match="no more"):
        list(open_frames(videos["a.mp4"]))
    monkeypatch.setattr(capture.Capture, "retrieve", lambda self: None)
    with pytest.raises(DecodeError, match=r"a.mp4: frame 0: expected pixels"):
        list(open_frames(videos["a.mp4"]))


def test_a_child_of_the_process_ends_as_it_should(videos, folder):
    with open_frames(videos["a.mp4"]) as film, open_frames(folder) as images:
        next(film), next(images)
        held, forked = threading.Event(), threading.Event()

        def hold():
            with film._handover._changed:
                held.set()
                forked.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        child = os.fork()
        if child == 0:  # what its thread held is nobody's here
            refused = 0
            try:
                for frames in (film, images):
                    for _ in range(2):
                        with pytest.raises(InputError, match="found a forked child; open the source there"):
                            next(frames)
                        refused += 1
                    frames.close()
            finally:
                os._exit(0 if refused == 4 else 1)
        forked.set()
        holder.join()
        deadline = time.monotonic() + 20
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.02)
        if done == (0, 0):
            os.kill(child, 9)
            os.waitpid(child, 0)
        assert done == (child, 0)
        assert next(film).index == next(images).index == 1
