"""Bad input, case by case: the exact error or the right result, in two seconds and 64 MiB, and nothing is broken after.

Whatever a decoder or a crop refuses on its own is tested beside it; here it passes through a whole predictor.
"""

from __future__ import annotations

import io
import mmap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from PIL import Image

from graftsdk import Predictor
from graftsdk.errors import (
    DecodeError,
    DTypeError,
    GraftError,
    ImageTooLarge,
    ImageTooSmall,
    InputError,
    LayoutError,
    ShapeError,
)
from graftsdk.preprocess import BoxMasks

IMAGE = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
CROPS = toys.crops(4)


@pytest.fixture(scope="module", params=["merged", "split"])
def predictor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    path = tmp_path_factory.mktemp("plan") / "engine.plan"
    toys.write(path)
    with Predictor(path, layout=request.param) as predictor:
        predictor.predict(IMAGE)
        yield predictor


@pytest.fixture(autouse=True)
def _unharmed(predictor: Predictor) -> Iterator[None]:
    """The golden inference gives the same bits after each case as before; the case is quick and takes little memory.

    Time of the CPU: that of the wall depends on what else the machine does.
    """
    before = golden(predictor)
    reset_peak()
    resident, started = memory("VmRSS"), time.process_time()
    yield
    spent, rise = time.process_time() - started, memory("VmHWM") - resident
    assert spent < 2
    assert rise < 64 * 2**20
    assert golden(predictor) == before


def golden(predictor: Predictor) -> list[bytes]:
    people = str(predictor.predict(IMAGE, boxes=[[3, 4, 50, 99]]).to_dict()["persons"]).encode()
    return [scores.tobytes() for scores in predictor.run(CROPS).values()] + [people]


def memory(kind: str) -> int:
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(kind))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS


def refused(call: Callable[[], object], kind: type[Exception], text: str = "expected") -> None:
    with pytest.raises(GraftError, match=text) as caught:
        call()
    assert type(caught.value) is kind


def closed_mmap() -> mmap.mmap:
    found = mmap.mmap(-1, 4096)
    found.close()
    return found


def released() -> memoryview:
    view = memoryview(b"x")
    view.release()
    return view


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"no/such/image.jpg"


NO_IMAGES = {
    "None": (None, InputError),
    "number": (7, InputError),
    "mapping": ({}, InputError),
    "iterator": (iter([IMAGE]), InputError),
    "no such path": ("no/such/image.jpg", InputError),
    "no such path, as bytes": (BytesPath(), InputError),
    "empty path": ("", InputError),
    "path with NUL": ("a\0b.jpg", InputError),
    "path too long": ("x" * 5000, InputError),
    "path that is no text": ("\ud800.jpg", InputError),
    "device": ("/dev/zero", InputError),
    "text file": (io.StringIO("x"), InputError),
    "closed mmap": (closed_mmap(), InputError),
    "released buffer": (released(), InputError),
    "masked array": (np.ma.masked_array(IMAGE), InputError),
    "object array": (IMAGE.astype(object), DTypeError),
    "structured array": (np.zeros((20, 20), [("r", "u1"), ("g", "u1"), ("b", "u1")]), DTypeError),
    "0-d array": (np.array(7, np.uint8), ShapeError),
    "no bytes": (b"", DecodeError),
    "other bytes": (b"GIF89a" + bytes(99), DecodeError),
    "long buffer": (bytearray(21 * 2**20), ImageTooLarge),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_no_image(predictor: Predictor, name: str) -> None:
    source, kind = NO_IMAGES[name]
    refused(lambda: predictor.predict(source), kind)
    if name != "iterator":
        refused(lambda: predictor.predict([IMAGE, source]), kind, "^image 1: ")


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u2", "i2", "i4", "i8", "f2", "f4", "f8", "c8", ">u2", ">f4", "M8[s]", "U1"]
)
def test_dtype(predictor: Predictor, dtype: str) -> None:
    refused(lambda: predictor.predict(np.zeros((20, 20, 3), dtype)), DTypeError)


SHAPES = {
    (): ShapeError,
    (20,): ShapeError,
    (20, 20): ShapeError,
    (1, 20, 20, 3): ShapeError,
    (1, 1, 20, 20, 3): ShapeError,
    (20, 20, 0): ShapeError,
    (20, 20, 1): ShapeError,
    (20, 20, 2): ShapeError,
    (20, 20, 4): ShapeError,
    (20, 20, 5): ShapeError,
    (3, 20, 20): LayoutError,
    (3, 3, 3): ImageTooSmall,
    (1, 1, 3): ImageTooSmall,
    (3, 20, 3): ImageTooSmall,
    (20, 3, 3): ImageTooSmall,
    (0, 20, 3): ImageTooSmall,
    (20, 0, 3): ImageTooSmall,
    (15, 16, 3): ImageTooSmall,
    (16, 15, 3): ImageTooSmall,
    (1, 65535, 3): ImageTooSmall,
    (65535, 1, 3): ImageTooSmall,
    (16, 16385, 3): ImageTooLarge,
    (5000, 10001, 3): ImageTooLarge,
    (30000, 30000, 3): ImageTooLarge,
    (32768, 65536, 3): ImageTooLarge,
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape(predictor: Predictor, shape: tuple[int, ...]) -> None:
    image = np.broadcast_to(np.zeros((), np.uint8), shape)
    refused(lambda: predictor.predict(image), SHAPES[shape])


@pytest.mark.parametrize("shape", [(16, 16), (16, 16384), (16384, 16), (5000, 10000), (7071, 7071)])
def test_the_least_and_the_largest_size(predictor: Predictor, shape: tuple[int, int]) -> None:
    image = np.broadcast_to(np.array([9, 99, 199], np.uint8), (*shape, 3))
    small = predictor.predict(np.full((16, 16, 3), (9, 99, 199), np.uint8))
    found = predictor.predict(image)
    assert found[0].box.tolist() == [0, 0, shape[1], shape[0]]
    for label in predictor.labels:
        assert found[0][label].scores == pytest.approx(small[0][label].scores, abs=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_masks_over_a_large_image(predictor: Predictor, whole: bool) -> None:
    image = np.broadcast_to(np.array([9, 99, 199], np.uint8), (3000, 4000, 3))
    boxes = np.array([[0, 0, 4000, 3000]], np.float32)
    full = np.broadcast_to(np.ones((), bool), (1, 3000, 4000))
    masks = full if whole else BoxMasks([np.ones((8, 8), bool)], boxes)
    small = predictor.predict(np.ascontiguousarray(image[:16, :16]))
    found = predictor.predict(image, boxes=boxes, masks=masks)
    assert found[0]["child"].scores == pytest.approx(small[0]["child"].scores, abs=1e-5)


def unaligned() -> np.ndarray:
    store = np.empty(IMAGE.size + 1, np.uint8)
    view = store[1:].reshape(IMAGE.shape)
    view[:] = IMAGE
    return view


def read_only() -> np.ndarray:
    image = IMAGE.copy()
    image.setflags(write=False)
    return image


def memory_map(folder: Path) -> np.ndarray:
    np.save(folder / "image.npy", IMAGE)
    return np.load(folder / "image.npy", mmap_mode="r")


class Subclass(np.ndarray):
    pass


MEMORY: dict[str, Callable[[Path], np.ndarray]] = {
    "F order": lambda _: np.asfortranarray(IMAGE),
    "transposed": lambda _: IMAGE.transpose(1, 0, 2),
    "every second": lambda _: IMAGE[::2, ::2],
    "backwards": lambda _: IMAGE[::-1, ::-1],
    "channels backwards": lambda _: IMAGE[:, :, ::-1],
    "stride 0": lambda _: np.broadcast_to(IMAGE[:1], IMAGE.shape),
    "read-only": lambda _: read_only(),
    "unaligned": lambda _: unaligned(),
    "mapped": memory_map,
    "subclass": lambda _: IMAGE.view(Subclass),
    "slice": lambda _: IMAGE[10:100, 5:80],
    "<u1": lambda _: IMAGE.astype("<u1"),
}


@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize("name", MEMORY)
def test_any_memory_layout_gives_the_bits_of_a_copy(
    predictor: Predictor, name: str, color: Any, tmp_path: Path
) -> None:
    image = MEMORY[name](tmp_path)
    masks = np.zeros((2, *image.shape[:2]), bool)
    masks[0, 10:50, 5:30] = masks[1, 3:40] = True
    copy = np.ascontiguousarray(np.asarray(image))
    for options in ({}, {"masks": masks}, {"boxes": [[1, 2, 30, 40]]}):
        found = predictor.predict(image, color=color, **options).to_dict()["persons"]
        assert found == predictor.predict(copy, color=color, **options).to_dict()["persons"]


CONTENT = {
    "black": np.zeros_like(IMAGE),
    "white": np.full_like(IMAGE, 255),
    "noise": IMAGE,
    "checker": (np.indices(IMAGE.shape).sum(axis=0) % 2 * 255).astype(np.uint8),
    "gradient": np.indices(IMAGE.shape)[0].astype(np.uint8) * 2,
    "one hot pixel": np.where(np.indices(IMAGE.shape)[:2].sum(axis=0) == 0, 255, 0).astype(np.uint8),
}


@pytest.mark.parametrize("name", CONTENT)
def test_content(predictor: Predictor, name: str) -> None:
    for attribute in predictor.predict(CONTENT[name])[0]:
        assert sum(attribute.scores.values()) == pytest.approx(1)
        assert all(0 <= score <= 1 for score in attribute.scores.values())


# --- persons ---------------------------------------------------------------------------------------------------------


def boxes_of(count: int) -> np.ndarray:
    return np.array([[i % 40, i % 50, i % 40 + 30, i % 50 + 60] for i in range(count)], np.float32).reshape(count, 4)


@pytest.mark.parametrize("given", ["boxes", "masks", "both"])
@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 63, 64, 65, 1000, 1001])
def test_number_of_persons(predictor: Predictor, count: int, given: str) -> None:
    boxes = boxes_of(count)
    masks = BoxMasks([np.eye(3, dtype=bool)] * count, boxes)
    options = {"boxes": boxes if given != "masks" else None, "masks": masks if given != "boxes" else None}
    found = predictor.predict(IMAGE, labels=["gender"], **options)
    assert (len(found), found.truncated) == (min(count, 1000), count > 1000)
    for index in {0, 31, 32, 63, 64, len(found) - 1} & set(range(len(found))):
        own = {name: None if side is None else side[index : index + 1] for name, side in options.items()}
        alone = predictor.predict(IMAGE, labels=["gender"], **own)[0]
        assert found[index]["gender"].scores == alone["gender"].scores
        assert found[index].box.tolist() == alone.box.tolist()
        if given != "boxes":
            assert np.array_equal(found[index].mask, alone.mask)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ([5, 5, 5, 20], "x0 < x1"),
        ([5, 5, 20, 5], "x0 < x1"),
        ([20, 5, 5, 20], "x0 < x1"),
        ([5, 20, 20, 5], "x0 < x1"),
        ([-9, 0, 0, 9], "a part of the image of 90 x 120"),
        ([90, 0, 99, 9], "a part of the image"),
        ([0, 120, 9, 130], "a part of the image"),
        ([np.nan, 0, 9, 9], "finite"),
        ([0, 0, np.inf, 9], "finite"),
        ([-np.inf, 0, 9, 9], "finite"),
    ],
)
@pytest.mark.parametrize("index", [0, 40, 1000])
def test_a_bad_box_is_named_by_its_own_index(predictor: Predictor, box: list[float], text: str, index: int) -> None:
    boxes = boxes_of(1001)
    boxes[index] = box
    refused(lambda: predictor.predict(IMAGE, boxes=boxes), InputError, rf"^box {index}: expected {text}")
    refused(lambda: predictor.predict([IMAGE] * 2, boxes=[None, boxes]), InputError, rf"^image 1: box {index}: ")


@pytest.mark.parametrize(
    "box", [[10.2, 10.2, 10.3, 10.3], [0, 0, 90, 120], [-50, -50, 200, 200], [89.9, 119.9, 95, 130]]
)
def test_small_full_and_overhanging_boxes(predictor: Predictor, box: list[float]) -> None:
    found = predictor.predict(IMAGE, boxes=[box, box])
    assert found[0].box.tolist() == pytest.approx(box)
    assert found[0]["child"].scores == found[1]["child"].scores


@pytest.mark.parametrize(
    ("boxes", "kind"),
    [
        ([[1, 2], [3]], ShapeError),
        ([1, 2, 3, 4], ShapeError),
        (np.zeros((2, 5)), ShapeError),
        (np.zeros((1, 2, 4)), ShapeError),
        ("boxes", InputError),
        (7, InputError),
        ([None], DTypeError),
        ([["1", "2", "3", "4"]], DTypeError),
        (np.ma.masked_array(boxes_of(2)), InputError),
        (boxes_of(2) > 0, DTypeError),
    ],
    ids=str,
)
def test_no_boxes(predictor: Predictor, boxes: Any, kind: type[Exception]) -> None:
    refused(lambda: predictor.predict(IMAGE, boxes=boxes), kind, "^boxes: expected")


@pytest.mark.parametrize(
    ("masks", "kind"),
    [
        (np.ones((120, 90), bool), ShapeError),
        (np.ones((2, 90, 120), bool), ShapeError),
        (np.ones((2, 120, 90), np.float32), DTypeError),
        ([np.ones((120, 90), bool)], InputError),
        ("masks", InputError),
    ],
    ids=str,
)
def test_no_masks(predictor: Predictor, masks: Any, kind: type[Exception]) -> None:
    refused(lambda: predictor.predict(IMAGE, masks=masks), kind, "^masks: expected")
    refused(lambda: predictor.predict(IMAGE, masks=masks, boxes=boxes_of(2)), kind, "^masks: expected")


@pytest.mark.parametrize(("count", "others"), [(0, 1), (1, 0), (32, 64), (64, 32), (32, 33), (1500, 1200)])
def test_each_box_has_its_mask(predictor: Predictor, count: int, others: int) -> None:
    masks = np.broadcast_to(np.ones((120, 90), bool), (others, 120, 90))
    refused(lambda: predictor.predict(IMAGE, boxes=boxes_of(count), masks=masks), ShapeError, f"expected {count}")


@pytest.mark.parametrize("index", [0, 40])
def test_an_empty_mask_is_named(predictor: Predictor, index: int) -> None:
    masks = np.ones((41, 120, 90), np.uint8)
    masks[index] = 0
    refused(lambda: predictor.predict(IMAGE, masks=masks), InputError, f"^mask {index}: ")


@pytest.mark.parametrize("labels", [7, "child", b"child", [], [["child"]], [None], ["child"] * 2, ["hat"], np.zeros(3)])
def test_no_labels(predictor: Predictor, labels: Any) -> None:
    refused(lambda: predictor.predict(IMAGE, labels=labels), InputError, "^labels: expected a list of some of")
    refused(lambda: predictor.run(CROPS, labels), InputError, "^labels: expected a list of some of")


# --- lists -----------------------------------------------------------------------------------------------------------


def test_images_of_any_number_of_persons_share_batches_and_keep_their_own(predictor: Predictor) -> None:
    counts = [3, 0, 40, 0, 0, 31, 1, 65, 0]
    images = [np.roll(IMAGE, 7 * i, axis=1) for i in range(len(counts))]
    boxes = [boxes_of(count) for count in counts]
    masks = [BoxMasks([np.eye(3 + i, dtype=bool)] * len(own), own) for i, own in enumerate(boxes)]
    masks[2] = None  # type: ignore[call-overload]
    together = predictor.predict(images, boxes=boxes, masks=masks, labels=["gender", "child"])
    assert [len(prediction) for prediction in together] == counts
    for prediction, image, own, mask in zip(together, images, boxes, masks, strict=True):
        alone = predictor.predict(image, boxes=own, masks=mask, labels=["gender", "child"])
        assert prediction.to_dict(masks=True)["persons"] == alone.to_dict(masks=True)["persons"]
        assert prediction.labels == ("gender", "child")
        assert all(prediction.timings[stage] >= 0 for stage in ("decode", "segment", "crop", "engine"))


def test_nobody_anywhere(predictor: Predictor) -> None:
    assert [len(found) for found in predictor.predict([IMAGE] * 3, boxes=[[]] * 3)] == [0, 0, 0]
    assert predictor.predict([]) == []
    assert predictor.predict(()) == []


def test_a_bad_image_in_a_list_spoils_no_later_call(predictor: Predictor) -> None:
    refused(lambda: predictor.predict([IMAGE, np.zeros((4, 4, 3), np.uint8), IMAGE]), ImageTooSmall, "^image 1: ")
    assert len(predictor.predict([IMAGE, IMAGE])) == 2


# --- encoded ---------------------------------------------------------------------------------------------------------


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(IMAGE[:, :, ::-1])).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated(predictor: Predictor, kind: str) -> None:
    data = encoded(kind)
    for end in [len(data) * i // 20 for i in range(20)]:
        refused(lambda end=end: predictor.predict(data[:end]), DecodeError)  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TIFF", "GIF", "PPM"])
def test_another_format(predictor: Predictor, kind: str) -> None:
    refused(lambda: predictor.predict(encoded(kind)), DecodeError)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_before_anything_else(predictor: Predictor, orientation: int) -> None:
    turned = {2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (3, 1), 6: (1, 0), 7: (1, 1), 8: (3, 0)}
    upright = Image.fromarray(IMAGE[:, :, ::-1])
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters, flip = turned.get(orientation, (0, 0))
    pixels = np.rot90(np.asarray(upright), quarters)
    stored = Image.fromarray(np.ascontiguousarray(pixels[:, ::-1] if flip else pixels))
    found = predictor.predict(encoded("PNG", stored, exif=exif), boxes=[[3, 4, 50, 99]])
    assert found.to_dict()["persons"] == predictor.predict(IMAGE, boxes=[[3, 4, 50, 99]]).to_dict()["persons"]
