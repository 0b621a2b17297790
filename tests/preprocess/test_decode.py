"""Encoded images, right and wrong. More of both are in the table of bad input, tests/bad_images."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bad_images.files import BOMBS, UPRIGHT, scan_bomb
from PIL import Image, ImageFile

from graftsdk.errors import (
    DecodeError,
    DTypeError,
    ImageTooLarge,
    ImageTooSmall,
    InputError,
)
from graftsdk.preprocess import IMAGE_SUFFIXES, decode, decode_image, list_images

LOSSLESS = {"PNG": {}, "BMP": {}, "WEBP": {"lossless": True}}
FORMATS = {**LOSSLESS, "JPEG": {"quality": 95, "subsampling": 0}}


def encode(image, name, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, name, **options)
    return file.getvalue()


COARSE = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture
def rgb():
    """uint8[48, 64, 3], RGB: smooth enough for JPEG, no symmetry."""
    return np.asarray(Image.fromarray(COARSE).resize((64, 48)))


# --- right images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_from_each_source(rgb, name, tmp_path):
    data = encode(rgb, name, **FORMATS[name])
    path = tmp_path / "image.with.any.name"
    path.write_bytes(data)
    expected = decode_image(data)
    if name in LOSSLESS:
        assert (expected == rgb[:, :, ::-1]).all()
    else:
        assert np.abs(expected.astype(int) - rgb[:, :, ::-1]).mean() < 3  # decoders differ by version
    assert expected.flags.c_contiguous and expected.flags.writeable and expected.dtype == np.uint8
    with path.open("rb") as file, Image.open(path) as opened:
        for source in (path, str(path), bytearray(data), memoryview(data), file, io.BytesIO(data), opened):
            assert decode_image(source).tobytes() == expected.tobytes()


def test_arrays_and_pil_images(rgb):
    assert decode_image(rgb) is rgb
    assert (decode_image(rgb, color="rgb") == rgb[:, :, ::-1]).all()
    assert (decode_image(Image.fromarray(rgb)) == rgb[:, :, ::-1]).all()


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["PNG", "WEBP", "JPEG"])
def test_exif_orientation(rgb, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(rgb, name, exif=exif, **FORMATS[name])
    stored = decode_image(encode(rgb, name, **FORMATS[name]))
    assert (decode_image(data) == UPRIGHT[orientation](stored)).all()
    with Image.open(io.BytesIO(data)) as opened:
        assert (decode_image(opened) == UPRIGHT[orientation](stored)).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*garbage", b"Exif\0\0", b"Exif\0\0rubbish rubbish rubbish"])
def test_unreadable_exif_says_nothing(rgb, exif):
    assert (decode_image(encode(rgb, "JPEG", exif=exif)) == decode_image(encode(rgb, "JPEG"))).all()


def test_orientation_out_of_range(rgb):
    exif = Image.Exif()
    exif[0x0112] = 9
    assert (decode_image(encode(rgb, "PNG", exif=exif)) == rgb[:, :, ::-1]).all()


def test_cmyk(rgb):
    solid = Image.new("CMYK", (32, 32), (0, 255, 255, 0))  # red
    blue, green, red = decode_image(encode(solid, "JPEG")).reshape(-1, 3).T
    assert red.min() > 240 and green.max() < 15 and blue.max() < 15


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    grey = decode_image(encode(values, "PNG"))
    assert (grey == np.round(values / 257).astype(np.uint8)[:, :, None]).all()
    assert (decode_image(Image.fromarray(values)) == grey).all()
    assert (decode_image(Image.fromarray(values.astype(np.int32))) == grey).all()


def test_eight_and_one_bit_grey(rng):
    values = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    for name in ("PNG", "BMP"):
        assert (decode_image(encode(values, name)) == values[:, :, None]).all()
        bits = Image.fromarray(values > 127)
        assert (decode_image(encode(bits, name)) == np.uint8(255) * (values > 127)[:, :, None]).all()
    assert np.ptp(decode_image(encode(values, "JPEG")), axis=2).max() == 0


def test_palette(rgb):
    palette = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    expected = np.asarray(palette.convert("RGB"))[:, :, ::-1]
    for name in ("PNG", "BMP"):
        assert (decode_image(encode(palette, name)) == expected).all()


def test_palette_with_transparency(rgb):
    palette = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    decoded = decode_image(encode(palette, "PNG", transparency=3))
    clear = np.asarray(palette) == 3
    assert clear.any() and not decoded[clear].any()
    assert (decoded[~clear] == np.asarray(palette.convert("RGB"))[~clear][:, ::-1]).all()


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_alpha_is_blended_over_black(rgb, name, rng):
    alpha = rng.integers(0, 256, (48, 64, 1), dtype=np.uint8)
    data = encode(
        np.concatenate([rgb, alpha], axis=2), name, **({"exact": True, "lossless": True} if name == "WEBP" else {})
    )
    expected = np.round(rgb.astype(float) * alpha / 255)[:, :, ::-1]
    assert np.abs(decode_image(data) - expected).max() <= 1


def test_grey_with_alpha(rng):
    pixels = rng.integers(0, 256, (32, 32, 2), dtype=np.uint8)
    decoded = decode_image(encode(Image.fromarray(pixels, "LA"), "PNG"))
    assert np.abs(decoded - np.round(pixels[:, :, :1] * (pixels[:, :, 1:] / 255))).max() <= 1


@pytest.mark.parametrize(("mode", "key"), [("L", 77), ("RGB", (77, 77, 77)), ("I;16", 77 * 257)])
def test_a_transparent_colour_is_black(mode, key):
    values = np.full((32, 32), 77, np.uint8)
    values[:, :16] = 200
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(values).convert(mode)
    decoded = decode_image(encode(image, "PNG", transparency=key))
    assert (decoded[:, :16] == 200).all() and not decoded[:, 16:].any()


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation(rgb, name):
    frames = [Image.fromarray(np.roll(rgb, shift, 1)) for shift in (5, 9)]
    data = encode(Image.fromarray(rgb), name, save_all=True, append_images=frames, **LOSSLESS[name])
    assert (decode_image(data) == rgb[:, :, ::-1]).all()


def test_a_phones_multi_picture_jpeg(rgb):
    data = encode(Image.fromarray(rgb), "MPO", save_all=True, append_images=[Image.fromarray(rgb[::-1])])
    expected = decode_image(encode(rgb, "JPEG"))
    assert (decode_image(data) == expected).all()
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == "MPO" and (decode_image(opened) == expected).all()


def test_progressive_jpeg(rgb):
    smooth = decode_image(encode(rgb, "JPEG", progressive=True)).astype(int)
    assert np.abs(smooth - decode_image(encode(rgb, "JPEG"))).max() <= 4


# --- wrong images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("part", range(20))
def test_truncated(rgb, name, part):
    data = encode(rgb, name, **FORMATS[name])
    ends = [0, 1, 4, 12, 30, *(len(data) * i // 12 for i in range(1, 12)), *(len(data) - i for i in (30, 8, 2, 1))]
    with pytest.raises(DecodeError):
        decode_image(data[: ends[part]])


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_files_are_refused_though_another_library_lets_pillow_fill_them(rgb, name, monkeypatch):
    data = encode(rgb, name, **FORMATS[name])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DecodeError):
        decode_image(data[: len(data) * 2 // 3])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert decode_image(data).shape == (48, 64, 3)


def test_a_thread_that_ends_leaves_the_others_strict(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    one, other = decode._strict(), decode._strict()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    other.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_no_flipped_bit_of_a_png_changes_a_pixel():
    """Every bit of a small one: each chunk has a checksum, so that damage is refused or changes nothing."""
    small = encode(np.asarray(Image.fromarray(COARSE).resize((16, 16))), "PNG")
    expected = decode_image(small).tobytes()
    changed = []
    for bit in range(len(small) * 8):
        damaged = bytearray(small)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            if decode_image(bytes(damaged)).tobytes() != expected:
                changed.append(bit)
        except DecodeError:
            continue
    assert changed == []


@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_a_flipped_bit_of_the_size_is_another_picture_or_refused(rgb, name):
    """Nothing in these formats tells that it is another size: what comes out has the size that the header says."""
    data = encode(rgb, name)
    start = data.index(b"\xff\xc0") + 5 if name == "JPEG" else 26
    for bit in range(32):
        damaged = bytearray(data)
        damaged[start + bit // 8] ^= 1 << bit % 8
        high, low = struct.unpack(">HH" if name == "JPEG" else "<HH", damaged[start : start + 4])
        height, width = (high, low) if name == "JPEG" else (low & 0x3FFF, high & 0x3FFF)
        try:
            assert decode_image(bytes(damaged)).shape == (height, width, 3)
        except ImageTooLarge:
            assert max(height, width) > 16_384 or height * width > 50_000_000
        except ImageTooSmall:
            assert min(height, width) < 16
        except DecodeError:
            continue


@pytest.mark.parametrize("name", ["TIFF", "GIF"])
def test_a_pil_image_of_another_format_is_the_callers_to_convert(rgb, name):
    with Image.open(io.BytesIO(encode(rgb, name))) as opened:
        with pytest.raises(DecodeError, match=r'image.convert\("RGB"\)'):
            decode_image(opened)
        assert decode_image(opened.convert("RGB")).shape == (48, 64, 3)


@pytest.mark.parametrize(
    "image", [Image.new("F", (32, 32)), Image.new("I", (32, 32), 70000), Image.new("I", (32, 32), -1)]
)
def test_pixels_without_an_8_bit_meaning(image):
    with pytest.raises(DecodeError, match="scale"):
        decode_image(image)


def test_a_pil_image_whose_file_is_closed(rgb):
    file = io.BytesIO(encode(rgb, "PNG"))
    opened = Image.open(file)
    file.close()
    with pytest.raises(DecodeError):
        decode_image(opened)


def test_sizes():
    assert decode_image(encode(Image.new("RGB", (16, 16)), "PNG")).shape == (16, 16, 3)
    with pytest.raises(ImageTooSmall):
        decode_image(encode(Image.new("RGB", (15, 16)), "PNG"))
    with pytest.raises(ImageTooSmall):
        decode_image(Image.new("RGB", (16, 15)))
    with pytest.raises(ImageTooLarge):
        decode_image(Image.new("1", (16, 16385)))


# --- wrong sources ---------------------------------------------------------------------------------------------------


def closed_file():
    file = io.BytesIO(b"x")
    file.close()
    return file


def released():
    view = memoryview(b"x")
    view.release()
    return view


class Failing:
    def read(self, size):
        raise OSError("the disk is on fire")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "found NoneType"),
        (7, "found int"),
        ([1, 2], "found list"),
        ("", "image: expected"),
        ("no/such/image.jpg", "found nothing at 'no/such/image.jpg'"),
        (Path("no/such/image.jpg"), "found nothing at 'no/such/image.jpg'"),
        ("nul\0byte.jpg", "expected a readable file"),
        ("x" * 5000, "expected a readable file"),
        (io.StringIO("text"), "binary mode"),
        (closed_file(), "readable binary file"),
        (Failing(), "readable binary file"),
        (released(), "contiguous bytes"),
        (memoryview(b"xxxx")[::2], "contiguous bytes"),
        ("/dev/zero", "a special file"),
        (".", "a folder"),
    ],
)
def test_wrong_sources(source, message):
    with pytest.raises(InputError, match=message) as caught:
        decode_image(source)
    assert type(caught.value) is InputError


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    caught = []

    def decode():
        with pytest.raises(InputError, match="a special file") as error:
            decode_image(tmp_path / "pipe.jpg")
        caught.append(error)

    worker = threading.Thread(target=decode, daemon=True)
    worker.start()
    worker.join(5)
    assert len(caught) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "secret.png").touch(mode=0o000)
    with pytest.raises(InputError, match="expected a readable file"):
        decode_image(tmp_path / "secret.png")


def test_color_and_array_errors_pass_through(rgb):
    with pytest.raises(InputError, match="color"):
        decode_image(encode(rgb, "PNG"), color="RGB")
    with pytest.raises(DTypeError):
        decode_image(rgb.astype(np.float32))


def test_list_images(tmp_path):
    for name in ("b.JPG", "a.png", "c.webp", "notes.txt", "d.bmp", "e.jpeg", "noext"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG", "c.webp", "d.bmp", "e.jpeg"]
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
    for wrong in (tmp_path / "none", tmp_path / "a.png", "nul\0byte"):
        with pytest.raises(InputError, match="folder: expected"):
            list_images(wrong)


# --- bombs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("junk", [b"", b"\xff\x02\xff\xff", b"\0\0", b"\xff\xff\xff"])
def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded(junk, monkeypatch):
    bomb = scan_bomb(100, junk)
    monkeypatch.setattr(Image.Image, "load", None)  # calling it would fail otherwise
    with pytest.raises(DecodeError, match="at most 64 scans"):
        decode_image(bomb)


def test_scans_are_counted_in_the_picture_only():
    plain = scan_bomb(0)
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 65_000) + b"\xff\xda\0\2\0" * 13_000
    expected = decode_image(plain)
    for data in (scan_bomb(50), plain[:2] + thumbnail + plain[2:], plain + b"\xff\xda\0\2\0" * 1000):
        assert np.array_equal(decode_image(data), expected)


def test_a_long_buffer_is_not_copied_to_be_refused():
    buffer = bytearray(200 * 2**20)
    buffer[:2] = b"BM"
    tracemalloc.start()
    with pytest.raises(ImageTooLarge):
        decode_image(memoryview(buffer))
    assert tracemalloc.get_traced_memory()[1] < 25 * 2**20
    tracemalloc.stop()


IN_ANOTHER_PROCESS = """
import sys, resource, warnings
from graftsdk.errors import GraftError
from graftsdk.preprocess import decode_image
from PIL import Image, WebPImagePlugin
import io, cv2
warnings.simplefilter("error")
for name in ("PNG", "JPEG", "WEBP", "BMP"):
    file = io.BytesIO(); Image.new("RGB", (64, 64)).save(file, name); decode_image(file.getvalue())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        decode_image(path); print("None")
    except GraftError as error:
        print(type(error).__name__)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_bombs_are_refused_in_little_memory(tmp_path):
    paths = []
    for index, (bomb, _) in enumerate(BOMBS.values()):
        paths.append(tmp_path / str(index))
        paths[-1].write_bytes(bomb())
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, *map(str, paths)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *found, mebibytes = done.stdout.split()
    expected = [error.__name__ for _, error in BOMBS.values()]
    assert dict(zip(BOMBS, found, strict=True)) == dict(zip(BOMBS, expected, strict=True))
    assert int(mebibytes) < 64


# --- real photographs ------------------------------------------------------------------------------------------------

PHOTOS = {
    "bus.jpg": (1080, 810),
    "sergey.png": (600, 600),
    "attribute_human_demo.jpg": (2929, 3026),
    "mp_coco_446.jpg": (640, 480),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_real_photographs(shared, name):
    image = decode_image(shared / "data" / "photos" / name)
    assert image.shape == (*PHOTOS[name], 3)
    assert 20 < image.mean() < 220 and image.std() > 20


@pytest.mark.parametrize("address", ["rtsp://me:secret@host/a", "http://host/a.jpg?password=secret"])
def test_an_address_is_no_file_and_its_secrets_are_not_told(address):
    with pytest.raises(InputError, match=r"expected a file, found an address, '\w+://host/a") as caught:
        decode_image(address)
    assert "secret" not in str(caught.value)
