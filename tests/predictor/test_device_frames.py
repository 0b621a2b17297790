"""Frames that lie on the device of a predictor on TensorRT: the host's answers, and nothing copied but what must be.

The device is the host's, TensorRT a stand-in, kernels are the CUDA source compiled for the host: see fake_gpu.py. A
tensor of torch in host memory plays the part of one on a GPU.
"""

from __future__ import annotations

import ctypes
import gc
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_segmenter
import toy_yolact
import toys
from fake_gpu import BATCHES, Machine, kernels_of, library
from fake_tensorrt import Engine

from graftsdk import Predictor
from graftsdk.errors import (
    DTypeError,
    EngineClosed,
    EngineIncompatible,
    EngineOutOfMemory,
    GraftError,
    ImageTooSmall,
    InputError,
    LayoutError,
    NonFiniteOutput,
    ShapeError,
)
from graftsdk.plan import PartInfo, Provenance, SegmenterInfo
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import read_segmenter_part
from graftsdk.prediction import Prediction
from graftsdk.preprocess import BoxMasks, decode_image
from graftsdk.segment import recognise

torch = pytest.importorskip("torch")
__all__ = ["library"]  # a fixture

SPECS = {
    "stretch": toys.CROP,
    "letterbox": replace(toys.CROP, fit="letterbox", order="bgr", pad=0.1, fill=30),
    "mask box": replace(toys.CROP, box="mask"),
    "keep": replace(toys.CROP, background="keep"),
}
SEGMENTERS: dict[str, Callable[[Path], Path] | None] = {
    "none": None, "yolo": toy_segmenter.write, "yolact": toy_yolact.write,
}  # fmt: skip
SIZE = (108, 151)  # of a frame
TOLERANCE = 2e-5  # of label scores, for crops within 2e-6 of each other


class Place:
    """Plans on one machine, and open predictors of them."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine, self.folder = machine, folder
        self._open: dict[tuple[str, str, str], tuple[Predictor, Predictor]] = {}

    def write(self, segmenter: str, spec: str) -> Path:
        path = self.folder / f"{segmenter}-{spec.replace(' ', '-')}.plan"
        if not path.exists():
            part, document = toys.trunk()
            document = replace(document, crop=SPECS[spec])
            branches = [
                (made, replace(found, crop=SPECS[spec]))
                for made, found in (toys.branch("child"), toys.branch("hat", 2, seed=3))
            ]
            create_plan(path, (part, document), branches, self._segmenter(segmenter))
        return path

    def _segmenter(self, name: str) -> Any:
        write = SEGMENTERS[name]
        if write is None:
            return None
        part, inputs, outputs, _ = read_segmenter_part(write(self.folder / f"{name}.onnx"))
        info = SegmenterInfo(part=part.name, **recognise(inputs, outputs))
        return part, info, PartInfo("segmenter", part.digest, provenance=Provenance("", ""))

    def open(
        self, segmenter: str = "none", spec: str = "stretch", layout: str = "merged"
    ) -> tuple[Predictor, Predictor]:
        """(on ONNX Runtime, on TensorRT), of the same plan."""
        key = (segmenter, spec, layout)
        if key not in self._open:
            path = self.write(segmenter, spec)
            folder = self.machine.build(path, path.with_suffix(f".{layout}"), layout=layout)
            on_gpu = Predictor(path, engine="tensorrt", engines=folder, layout=layout)  # type: ignore[arg-type]
            self._open[key] = Predictor(path, threads=1), on_gpu
        return self._open[key]

    def close(self) -> None:
        for pair in self._open.values():
            for predictor in pair:
                predictor._loaded.opener._gpu = None  # the machine's one device is shared by all of them
                predictor.close()


@pytest.fixture(scope="module")
def place(library: ctypes.CDLL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(kernels_of(library), patch)
        machine.device.can_capture = False  # so that every copy is seen
        found = Place(machine, tmp_path_factory.mktemp("plans"))
        yield found
        assert machine.fake.wrong == []
        found.close()


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (*SIZE, 3), np.uint8)


def frame(image: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(image).copy())


def agree(found: Prediction, expected: Prediction, tolerance: float = TOLERANCE, pixels: float = 0.0) -> None:
    assert len(found) == len(expected) and found.size == expected.size
    assert (found.truncated, found.labels, found.plan) == (expected.truncated, expected.labels, expected.plan)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.box, other.box, rtol=0, atol=pixels)
        assert (one.score is None) == (other.score is None)
        if one.score is not None and other.score is not None:
            assert abs(one.score - other.score) <= 1e-3
        for attribute in one:
            for name, score in attribute.scores.items():
                assert abs(score - other[attribute.label].scores[name]) <= tolerance
        assert (one.mask is None) == (other.mask is None)
        if one.mask is not None and other.mask is not None:
            assert (one.mask != other.mask).mean() < 1e-3


BOXES = [[10.5, 20.2, 60, 100], [70, -5, 160.7, 60.5], [0, 0, 151, 108]]


def frame_masks(image: np.ndarray, kind: type = bool) -> np.ndarray:
    masks = np.zeros((3, *image.shape[:2]), kind)
    masks[0, 20:90, 20:60] = masks[1, 10:50, 80:140] = masks[2, ::2] = 1
    return masks


def box_masks(kinds: list[type]) -> BoxMasks:
    rng = np.random.default_rng(4)
    arrays = [rng.random((5 + 3 * index, 7)) for index in range(3)]
    return BoxMasks(
        [array.astype(kind) if kind is np.float32 else (array > 0.4).astype(kind)
         for array, kind in zip(arrays, kinds, strict=True)],
        np.array([[5, 5, 70, 100], [60.5, 0, 151, 70], [-10, -10, 200, 120]], np.float32),
    )  # fmt: skip


GIVEN: dict[str, Callable[[np.ndarray], dict[str, Any]]] = {
    "nothing": lambda image: {},
    "boxes": lambda image: {"boxes": BOXES},
    "nobody": lambda image: {"boxes": np.empty((0, 4))},
    "masks": lambda image: {"masks": frame_masks(image)},
    "masks of bytes, reversed": lambda image: {"masks": frame_masks(image[::-1], np.uint8)[:, ::-1], "boxes": BOXES},
    "boxed masks": lambda image: {"masks": box_masks([bool, np.uint8, bool]), "boxes": BOXES},  # type: ignore[list-item]
    "boxed masks of floats": lambda image: {"masks": box_masks([np.float32, bool, np.float32])},
}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("given", GIVEN)
def test_the_answers_are_the_hosts(place: Place, image: np.ndarray, given: str, spec: str) -> None:
    host, gpu = place.open(spec=spec)
    options = {"color": "rgb" if list(GIVEN).index(given) % 2 else "bgr", **GIVEN[given](image)}
    agree(gpu.predict(frame(image), **options), host.predict(image, **options))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("segmenter", ["yolo", "yolact"])
def test_people_are_found_on_the_device(place: Place, image: np.ndarray, segmenter: str, spec: str) -> None:
    """The network's input differs from OpenCV's by less than a grey level: here its scores hardly move."""
    host, gpu = place.open(segmenter, spec)
    for color, picture in (("bgr", image), ("rgb", image.transpose(1, 0, 2))):
        expected = host.predict(picture, color=color)  # type: ignore[call-overload]
        assert len(expected) >= 3
        found = gpu.predict(frame(picture), color=color)  # type: ignore[call-overload]
        agree(found, expected, tolerance=2e-3, pixels=1e-3)


def test_a_photograph(place: Place, shared: Path) -> None:
    """The tolerance that device_segmenter.py states, on people in front of a bus."""
    model = shared / "models" / "yolov8n-seg-640.onnx"
    if not model.is_file():
        pytest.skip("needs models/yolov8n-seg-640.onnx in the data folder ../shared")
    path = place.folder / "photograph.plan"
    part, inputs, outputs, _ = read_segmenter_part(model)
    info = SegmenterInfo(part=part.name, **recognise(inputs, outputs))
    segmenter = part, info, PartInfo("segmenter", part.digest, provenance=Provenance("", ""))
    create_plan(path, toys.trunk(), [toys.branch("child")], segmenter)
    pixels = decode_image(shared / "data" / "photos" / "bus.jpg")
    with Predictor(path) as host, Predictor(path, engine="tensorrt", engines=place.machine.build(path)) as gpu:
        gpu._loaded.opener._gpu = None  # shared
        found, expected = gpu.predict(frame(pixels)), host.predict(pixels)
        assert len(found) == len(expected) == 4
        for one, other in zip(found, expected, strict=True):
            assert abs(one.score - other.score) <= 0.006
            assert np.abs(one.box - other.box).max() <= 0.03 * (other.box[2:] - other.box[:2]).max()
            assert (one.mask & other.mask).sum() >= 0.98 * (one.mask | other.mask).sum()


def test_nobody_is_found(place: Place) -> None:
    _, gpu = place.open("yolo")
    found = gpu.predict(frame(np.zeros((100, 120, 3), np.uint8)))
    assert (len(found), found.labels) == (0, ("child", "hat"))


@pytest.mark.parametrize("layout", ["merged", "split"])
def test_rows_may_lie_apart(place: Place, image: np.ndarray, layout: str) -> None:
    """A part of a larger frame, and rows with padding; read-only memory is read."""
    host, gpu = place.open(layout=layout)
    part = frame(image)[20:90, 30:120]
    assert not part.is_contiguous()
    expected = host.predict(image[20:90, 30:120], boxes=[[5, 5, 60, 65]], labels=["hat"])
    found = gpu.predict(part, boxes=[[5, 5, 60, 65]], labels=["hat"])
    agree(found, expected)
    np.testing.assert_array_equal(found.image, image[20:90, 30:120])


# --------------------------------------------------------------------------------------------------- what is copied


def test_only_scores_come_to_the_host(place: Place, image: np.ndarray) -> None:
    _, gpu = place.open()
    seen = frame(image)
    gpu.predict(seen, boxes=BOXES)
    place.machine.copies.clear()
    gpu.predict(seen, boxes=BOXES)
    down = [nbytes for kind, nbytes in place.machine.copies if kind == "d2h"]
    assert down == [256 + 4 * 2 * 4]  # two labels' scores in one copy, each from a multiple of 256 on
    up = [nbytes for kind, nbytes in place.machine.copies if kind == "h2d"]
    assert len(up) == 1 and up[0] < 1000  # the windows
    assert {kind for kind, _ in place.machine.copies} == {"d2h", "h2d"}


@pytest.mark.parametrize(("segmenter", "predictions"), [("yolo", 84), ("yolact", 300)])
def test_candidates_boxes_and_scores_come_to_the_host(
    place: Place, image: np.ndarray, segmenter: str, predictions: int
) -> None:
    _, gpu = place.open(segmenter)
    people = len(gpu.predict(frame(image)))
    place.machine.copies.clear()
    gpu.predict(frame(image))
    down = [nbytes for kind, nbytes in place.machine.copies if kind == "d2h"]
    # candidates of 40 bytes behind a head of 32; flags, and boxes that masks cover; scores
    assert down == [32 + 40 * min(predictions, 256), 4 * people, 16 * people, 256 + 4 * 2 * 4]
    assert sum(nbytes for kind, nbytes in place.machine.copies if kind == "h2d") < 3000


def test_masks_go_up_once_and_no_further_than_boxes(place: Place, image: np.ndarray) -> None:
    _, gpu = place.open()
    masks = frame_masks(image)
    place.machine.copies.clear()
    gpu.predict(frame(image), masks=masks[:2])
    up = [nbytes for kind, nbytes in place.machine.copies if kind == "h2d"]
    assert 70 * 40 + 40 * 60 in up and sum(up) < 70 * 40 + 40 * 60 + 1000


def test_the_image_is_fetched_when_it_is_asked_for(place: Place, image: np.ndarray, tmp_path: Path) -> None:
    _, gpu = place.open("yolo")
    for color, pixels in (("bgr", image), ("rgb", np.ascontiguousarray(image[:, :, ::-1]))):
        seen = frame(pixels)
        found = gpu.predict(seen, color=color)
        text, rows = found.to_json(), found.to_rows()
        place.machine.copies.clear()
        assert (repr(found), found.size, found.to_json(), found.to_rows()) == (repr(found), SIZE, text, rows)
        assert not place.machine.copies
        np.testing.assert_array_equal(found.image, image)
        assert found.image is found.image and [nbytes for _, nbytes in place.machine.copies] == [108 * 151 * 3]
    agree(pickle.loads(pickle.dumps(found)), found)
    found.save(tmp_path / "a.png")
    plot = gpu.predict(frame(image)).plot()
    np.testing.assert_array_equal(plot, gpu.predict(frame(image)).plot())
    assert (plot != image).any()


def test_a_frame_that_is_written_over_shows_its_new_pixels_and_keeps_its_people(
    place: Place, image: np.ndarray
) -> None:
    host, gpu = place.open("yolo")
    seen = frame(image)
    found = gpu.predict(seen)
    seen.fill_(7)
    agree(found, host.predict(image), tolerance=2e-3, pixels=1e-3)
    assert (found.image == 7).all()
    seen.fill_(9)
    assert (found.image == 7).all()  # kept


def test_masks_stay_when_others_are_made(place: Place, image: np.ndarray) -> None:
    host, gpu = place.open("yolact")
    found = [gpu.predict(frame(image[at:])) for at in (0, 20, 40)]
    for prediction, at in zip(found, (0, 20, 40), strict=True):
        agree(prediction, host.predict(image[at:]), tolerance=2e-3, pixels=1e-3)


def test_memory_of_masks_is_used_again(place: Place, image: np.ndarray) -> None:
    _, gpu = place.open("yolo")
    for _ in range(4):  # each tool has four blocks of parameters, used in turn
        gpu.predict(frame(image))
    before = place.machine.device.live_buffers
    for _ in range(6):
        gpu.predict(frame(image))[0].mask  # noqa: B018
    gc.collect()
    assert place.machine.device.live_buffers == before


# -------------------------------------------------------------------------------------------------- many at a time


def test_frames_of_a_list_share_batches(place: Place, rng: np.random.Generator) -> None:
    host, gpu = place.open()
    pictures = [rng.integers(0, 256, (40 + 3 * index, 50, 3), np.uint8) for index in range(6)]
    counts = [3, 0, 9, 1, 2, 1]
    boxes = [[[index % 7, 2, 30 + index, 38] for index in range(count)] for count in counts]
    given: list[Any] = [np.asarray(each, np.float32).reshape(-1, 4) for each in boxes]
    place.machine.fake.runs.clear()
    found = gpu.predict([frame(picture) for picture in pictures], boxes=given)
    assert [rows for _, rows in place.machine.fake.runs] == [8, 8]  # 16 persons
    for one, other in zip(found, host.predict(pictures, boxes=given), strict=True):
        agree(one, other)
    mixed = [picture if index % 2 else frame(picture) for index, picture in enumerate(pictures)]
    for one, other in zip(gpu.predict(mixed, boxes=given), found, strict=True):
        agree(one, other)


def test_found_people_of_a_list(place: Place, rng: np.random.Generator) -> None:
    host, gpu = place.open("yolo")
    pictures = [rng.integers(0, 256, (90 + index, 120, 3), np.uint8) for index in range(5)]
    found = gpu.predict([frame(picture) for picture in pictures])
    for one, other in zip(found, host.predict(pictures), strict=True):
        agree(one, other, tolerance=2e-3, pixels=1e-3)


def test_threads(place: Place, rng: np.random.Generator) -> None:
    _, gpu = place.open("yolact")
    pictures = [rng.integers(0, 256, (60 + 5 * index, 70, 3), np.uint8) for index in range(4)]
    alone = [gpu.predict(frame(picture)).to_dict(masks=True) for picture in pictures]

    def work(start: int) -> bool:
        for index in range(start, start + 4):
            found = gpu.predict(frame(pictures[index % 4])).to_dict(masks=True)
            assert {**found, "timings": 0} == {**alone[index % 4], "timings": 0}
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_out_of_memory_the_batch_is_run_in_smaller_ones(place: Place, image: np.ndarray) -> None:
    host, gpu = place.open()
    boxes = [[index, 3, 40 + index, 60] for index in range(7)]
    fake = place.machine.fake
    fake.most_rows = BATCHES[1]
    try:
        agree(gpu.predict(frame(image), boxes=boxes), host.predict(image, boxes=boxes))
        fake.most_rows = 0
        with pytest.raises(EngineOutOfMemory):
            gpu.predict(frame(image), boxes=boxes)
    finally:
        fake.most_rows = None
    agree(gpu.predict(frame(image), boxes=boxes), host.predict(image, boxes=boxes))


# ------------------------------------------------------------------------------------------------------- bad input


class Interface:
    """An array by `__cuda_array_interface__` alone."""

    def __init__(self, array: np.ndarray, **changes: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, True),
            "strides": array.strides, "version": 3, "stream": None, **changes,
        }  # fmt: skip


class Elsewhere:
    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 3

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("it lies on another device")


REFUSED: dict[str, tuple[Any, type[GraftError], str]] = {
    "floats": (lambda image: torch.rand(40, 50, 3), DTypeError, "expected uint8 values 0..255, found float32"),
    "channels first": (lambda image: frame(image).permute(2, 0, 1).contiguous(), LayoutError, "permute"),
    "planes": (lambda image: frame(image.transpose(2, 0, 1)).permute(1, 2, 0), LayoutError, "rows of 453 bytes"),
    "grey": (lambda image: frame(image[:, :, 0]), ShapeError, r"expected \[H, W, 3\]"),
    "alpha": (lambda image: torch.zeros(40, 50, 4, dtype=torch.uint8), ShapeError, "alpha"),
    "a batch": (lambda image: frame(image)[None], ShapeError, "as a list"),
    "small": (lambda image: frame(image)[:8], ImageTooSmall, "at least 16"),
    "another device": (lambda image: Elsewhere(), InputError, "DLPack device type 2, number 3"),
    "gradients": (lambda image: torch.rand(40, 50, 3, requires_grad=True), GraftError, "expected"),
    "upside down": (lambda image: Interface(image[::-1]), LayoutError, "expected"),
    "an older interface": (lambda image: Interface(image, version=1), InputError, "version 2 or 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_frame_is_refused(place: Place, image: np.ndarray, case: str) -> None:
    make, kind, text = REFUSED[case]
    _, gpu = place.open()
    with pytest.raises(kind, match=text):
        gpu.predict(make(image))
    found = gpu.predict([frame(image), make(image), image], errors="return")
    assert isinstance(found[1], kind) and found[1].source == "image 1"
    agree(found[0], found[2])  # type: ignore[arg-type]


def test_by_the_other_interface(place: Place, image: np.ndarray) -> None:
    host, gpu = place.open()
    agree(gpu.predict(Interface(image), boxes=BOXES), host.predict(image, boxes=BOXES))


def test_frames_are_read_at_their_own_size(place: Place, image: np.ndarray) -> None:
    with pytest.raises(InputError, match="reduce: expected 1"):
        place.open()[1].predict(frame(image), reduce=2)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"boxes": [[0, 0, 10, 10], [300, 0, 310, 20]]}, "box 1: expected a part of the image of 151 x 108"),
        ({"masks": np.zeros((1, *SIZE), bool)}, "mask 0"),
        ({"masks": np.zeros((1, 108, 150), bool)}, r"expected \[N, 108, 151\]"),
    ],
)
def test_persons_are_checked_as_on_the_host(place: Place, image: np.ndarray, given: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        place.open()[1].predict(frame(image), **given)


def test_a_predictor_on_onnx_runtime_says_what_to_do(place: Place, image: np.ndarray) -> None:
    host, _ = place.open()
    with pytest.raises(InputError, match=r"found Interface on a device; pass frame.cpu\(\).numpy\(\).*'tensorrt'"):
        host.predict(Interface(image))
    with pytest.raises(InputError, match="found Tensor in host memory; use np.asarray"):
        host.predict(frame(image))
    found = host.predict([image, Elsewhere()], errors="return")
    assert isinstance(found[0], Prediction) and isinstance(found[1], InputError)


def test_a_network_that_gives_no_numbers_fails_for_that_frame_alone(
    place: Place, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, gpu = place.open("yolact")
    good = gpu.predict(frame(image))
    original = Engine.compute
    hot = [False]

    def spoilt(self: Any, addresses: Any, shapes: Any, rows: int, memory: Any) -> None:
        original(self, addresses, shapes, rows, memory)
        if hot[0] and "mask" in self.outputs:
            self._view(addresses["mask"], np.float32, (4,))[2] = np.nan

    monkeypatch.setattr(Engine, "compute", spoilt)
    hot[0] = True
    with pytest.raises(NonFiniteOutput, match="segmenter output 'mask': expected finite values"):
        gpu.predict(frame(image))
    hot[0] = False
    agree(gpu.predict(frame(image)), good)


def test_without_kernels_everything_else_works(
    place: Place, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.write("none", "stretch")
    folder = place.machine.build(path, path.with_suffix(".bare"))
    monkeypatch.setattr(place.machine.device, "kernels", {})
    with Predictor(path, engine="tensorrt", engines=folder) as predictor:
        predictor._loaded.opener._gpu = None  # shared
        assert len(predictor.predict(image)) == 1
        with pytest.raises(EngineIncompatible, match="kernel: expected"):
            predictor.predict(frame(image))
    monkeypatch.undo()


def test_close_with_calls_in_flight(place: Place, image: np.ndarray) -> None:
    """Each call gives its answer, or says that the predictor was closed."""
    path = place.write("yolact", "stretch")
    folder = place.machine.build(path, path.with_suffix(".flight"))
    predictor = Predictor(path, engine="tensorrt", engines=folder)
    predictor._loaded.opener._gpu = None  # shared
    expected = [person.box.tolist() for person in predictor.predict(frame(image))]
    started = threading.Barrier(4)

    def work(_: int) -> int:
        answers = 0
        started.wait()
        with pytest.raises(EngineClosed):
            while True:
                assert [person.box.tolist() for person in predictor.predict(frame(image))] == expected
                answers += 1
        return answers

    with ThreadPoolExecutor(3) as pool:
        found = pool.map(work, range(3))
        started.wait()
        time.sleep(0.1)
        predictor.close()
        assert sum(found) > 0


def test_after_close(place: Place, image: np.ndarray) -> None:
    path = place.write("yolo", "stretch")
    folder = place.machine.build(path, path.with_suffix(".closed"))
    predictor = Predictor(path, engine="tensorrt", engines=folder)
    predictor._loaded.opener._gpu = None  # shared
    found = predictor.predict(frame(image))
    predictor.close()
    with pytest.raises(EngineClosed):
        predictor.predict(frame(image))
    assert len(found) == 4
