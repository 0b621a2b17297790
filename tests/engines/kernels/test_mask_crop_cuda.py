"""The CUDA kernels, compiled for the host, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from device_crops import allowed, cut, device_crop, upload, upload_frame, upload_masks
from hypothesis import given, settings
from hypothesis import strategies as st

from graftsdk.engines.cuda.crop import DeviceCrop, DeviceFrame, DeviceMasks, crop_windows
from graftsdk.engines.cuda.crop_block import CALL, CROP, CropLayout
from graftsdk.engines.cuda.prototypes import CUT, SAMPLED
from graftsdk.engines.cuda.selection import CANDIDATE, PREDICTIONS, SELECTED
from graftsdk.errors import InputError, ShapeError
from graftsdk.preprocess import BoxMasks, CropSpec, mask_crop_reference
from graftsdk.preprocess.boxmasks import mask_box
from graftsdk.preprocess.reference import crop_window
from graftsdk.preprocess.tables import letterbox_placement, resize_table

HEIGHT, WIDTH = 83, 131
BOXES = np.array(
    [[10.2, 5.7, 60.1, 79.5], [-30, -5, 40, 60.5], [0, 0, WIDTH, HEIGHT], [99.5, 60.5, 99.75, 60.75],
     [110, 70, 900, 900], [3, 3, 20, 80]]
)  # fmt: skip
SPECS = {
    "antialiased": CropSpec((40, 32)),
    "plain": CropSpec((40, 32), antialias=False),
    "enlarged": CropSpec((90, 299)),
    "enlarged, plain": CropSpec((90, 131), antialias=False),
    "small": CropSpec((8, 8)),
    "bgr, filled": CropSpec((40, 33), order="bgr", fill=200),
    "background kept": CropSpec((40, 32), background="keep"),
    "padded": CropSpec((41, 37), pad=0.25),
    "letterbox": CropSpec((64, 61), fit="letterbox", fill=114),
    "letterbox, wide, plain": CropSpec((24, 160), fit="letterbox", antialias=False, fill=7),
    "the mask's box": CropSpec((32, 64), box="mask", pad=0.1),
    "other units": CropSpec((32, 32), mean=(0, -3, 255), std=(1 / 255, 2, 255)),
}


def agrees(crops, expected, spec):
    assert crops.dtype == np.float32 and crops.shape == expected.shape
    worst = np.abs(crops.astype(np.float64) - expected).max(axis=(0, 2, 3), initial=0)
    assert (worst <= allowed(spec)).all(), (worst, allowed(spec))


def make_masks(kind, count, rng, height=HEIGHT, width=WIDTH):
    if kind == "none":
        return None
    if kind == "frame":
        masks = rng.integers(0, 3, (count, height, width), dtype=np.uint8)
        masks[:, height * 3 // 4, width * 3 // 4] = 1  # never without a box
        return masks
    dtype, shape, where = kind
    if dtype == "float32":
        arrays = (rng.integers(0, 5, (count, *shape)) / 4).astype(np.float32)  # many values of exactly 0.5
    else:
        arrays = (rng.random((count, *shape)) > 0.5).astype(dtype)
    arrays[:, 0, 0] = 1
    extents = {"within": (20.3, 11.9, 90.7, 80), "beyond": (-50, -20.5, 300, 200.25)}[where]
    return BoxMasks(arrays, np.array([extents] * count, np.float32))


MASKS = ["none", "frame", ("bool", (7, 5), "within"), ("float32", (40, 50), "beyond"), ("uint8", (1, 1), "within")]


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_structs_are_as_the_source_has_them(library):
    dtypes = (CALL, CROP, CUT, SAMPLED, PREDICTIONS, CANDIDATE, SELECTED)
    assert [library.host_sizes(which) for which in range(len(dtypes))] == [dtype.itemsize for dtype in dtypes]


@pytest.mark.parametrize("kind", MASKS, ids=str)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_kernels_are_the_reference(kernels, image, spec, kind, rng):
    masks = make_masks(kind, len(BOXES), rng)
    agrees(cut(kernels, image, BOXES, masks, spec), mask_crop_reference(image, BOXES, masks, spec), spec)


@settings(max_examples=60)
@given(st.data())
def test_drawn_cases(kernels, data):
    draw = data.draw
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    # Other libraries in one process set the CPU to flush subnormal numbers, which hypothesis would not draw then.
    coordinate = st.floats(-40, 130, width=32, allow_subnormal=False)
    boxes = []
    for _ in range(draw(st.integers(0, 3))):
        x, y = draw(st.tuples(coordinate, coordinate)), draw(st.tuples(coordinate, coordinate))
        box = (min(x), min(y), max(x), max(y))
        if box[0] < box[2] > 0 and box[1] < box[3] > 0 and box[0] < width and box[1] < height:
            boxes.append(box)
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    spec = CropSpec(
        (draw(st.integers(8, 60)), draw(st.integers(8, 140))),
        fill=draw(st.integers(0, 255)),
        order=draw(st.sampled_from(["rgb", "bgr"])),
        antialias=draw(st.booleans()),
        background=draw(st.sampled_from(["fill", "keep"])),
        fit=draw(st.sampled_from(["stretch", "letterbox"])),
        pad=draw(st.sampled_from([0.0, 0.13, 4.0])),
    )
    kind = draw(st.sampled_from(["none", "frame", "bytes", "floats"]))
    masks = make_masks(kind, len(boxes), rng, height, width) if kind in ("none", "frame") else None
    if kind in ("bytes", "floats"):
        arrays, extents = [], []
        for _ in boxes:
            cells = rng.integers(0, 5, draw(st.tuples(st.integers(1, 20), st.integers(1, 20))))
            arrays.append((cells / 4).astype(np.float32) if kind == "floats" else (cells > 2).astype(np.uint8))
            corner = draw(st.tuples(coordinate, coordinate))
            side = draw(st.tuples(st.floats(0.5, 200, width=32), st.floats(0.5, 200, width=32)))
            extents.append((*corner, corner[0] + side[0], corner[1] + side[1]))
        masks = BoxMasks(arrays, np.array(extents, np.float32).reshape(-1, 4))
    color = draw(st.sampled_from(["rgb", "bgr"]))
    gap, flip = draw(st.sampled_from([0, 1, 5])), draw(st.booleans())
    crops = cut(kernels, image, boxes, masks, spec, color, gap=gap, flip=flip)
    agrees(crops, mask_crop_reference(image, boxes, masks, spec, color), spec)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_masks_are_decided_as_the_reference_decides(kernels, seed, shape):
    """One crop pixel a source pixel, fill 0 and image 255: the crop is the mask, and equal means equal."""
    rng = np.random.default_rng(seed)
    image = np.full((48, 40, 3), 255, np.uint8)
    levels = rng.choice([0, 0.25, 0.5, np.float32(0.5000001), 0.75, 1, rng.random()], shape).astype(np.float32)
    low = rng.uniform(-20, 10, 2)
    extent = np.array([[*low, *(low + rng.uniform(5, 60, 2))]], np.float32)
    if seed % 2:
        extent = np.round(2 * extent) / 2  # through the centres of pixels
    masks = BoxMasks([levels], extent)
    crop = cut(kernels, image, [[0, 0, 40, 48]], masks, CropSpec((48, 40), mean=(0, 0, 0), std=(1, 1, 1)))[0, 0]
    assert np.array_equal(crop > 0.5, masks.mask_at(0, 48, 40))


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 1), (8, 8)), ((1, 300), (9, 299)), ((300, 1), (299, 9)), ((3, 4000), (8, 8)), ((4000, 3), (8, 9)),
     ((16, 8192), (8, 102)), ((1023, 1025), (8, 57)), ((2, 2), (200, 1000))],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("antialias", [True, False])
def test_hostile_sizes(kernels, shape, size, antialias, rng):
    """Windows of one pixel, at borders, and up to 80 pixels an output: more taps than a word has bits."""
    height, width = shape
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, width, height], [width - 0.5, height - 0.5, width, height], [0, 0, 0.5, 0.5]])
    masks = rng.random((3, *shape)) > 0.3
    spec = CropSpec(size, antialias=antialias, fill=9)
    agrees(cut(kernels, image, boxes, masks, spec), mask_crop_reference(image, boxes, masks, spec), spec)


@pytest.mark.parametrize("spec", [SPECS["bgr, filled"], SPECS["letterbox"], SPECS["enlarged"]], ids=str)
def test_beside_the_person_is_the_fill(kernels, image, spec):
    """What no tap of which meets the mask has one value, to the bit; a mask of nothing is that value alone."""
    masks = np.zeros((1, HEIGHT, WIDTH), bool)
    value = ((spec.fill / 255 - np.array(spec.mean)) / np.array(spec.std)).astype(np.float32)[:, None, None]
    box = [[0, 0, WIDTH, HEIGHT]]
    assert (cut(kernels, image, box, masks, spec)[0] == value).all()
    masks[0, 40:45, 60:65] = True
    crop = cut(kernels, image, box, masks, spec)[0]
    far = np.ones(spec.size, bool)
    far[spec.size[0] // 4 : spec.size[0] * 3 // 4] = False
    assert (crop[:, far] == np.broadcast_to(value, crop.shape)[:, far]).all()
    assert (crop != value).any()


@pytest.mark.parametrize("spec", [SPECS["antialiased"], SPECS["letterbox"], SPECS["other units"]], ids=str)
def test_half_is_float32_rounded_once(kernels, image, spec):
    full, half = (cut(kernels, image, BOXES, None, spec, half=half) for half in (False, True))
    with np.errstate(over="ignore"):
        assert half.tobytes() == full.astype(np.float16).tobytes()


def test_half_rounds_as_ieee_does(library, rng):
    """Halfway cases, subnormals, the largest ones; the GPU's own instruction is defined to do the same."""
    values = rng.integers(0, 2**32, 3000, dtype=np.uint32).view(np.float32)
    every = np.arange(0, 0x7C00, 7, dtype=np.uint16).view(np.float16).astype(np.float32)
    halfway = (every[:-1] + every[1:]) / 2
    values = np.concatenate([values[np.isfinite(values)], every, halfway, -halfway, [65504, 65519.9, 65520, 1e9, -0.0]])
    import ctypes

    library.host_half_bits.restype, library.host_half_bits.argtypes = ctypes.c_uint16, [ctypes.c_float]
    with np.errstate(over="ignore"):
        expected = values.astype(np.float32).astype(np.float16).view(np.uint16)
    assert [library.host_half_bits(float(value)) for value in values.astype(np.float32)] == expected.tolist()


@pytest.mark.parametrize("kind", ["none", "frame", ("float32", (40, 50), "beyond")], ids=str)
def test_a_crop_depends_on_nothing_beside_it(kernels, image, kind, rng):
    """The same bits alone, in company, with other strides and upside down in memory."""
    masks = make_masks(kind, len(BOXES), rng)
    spec = SPECS["padded"]
    together = cut(kernels, image, BOXES, masks, spec)
    for change in ({}, {"gap": 3}, {"flip": True}):
        assert cut(kernels, image, BOXES, masks, spec, **change).tobytes() == together.tobytes()
    for index in range(len(BOXES)):
        own = None if masks is None else masks[index : index + 1]
        assert cut(kernels, image, BOXES[index : index + 1], own, spec).tobytes() == together[index].tobytes()


@pytest.mark.parametrize("size", [(8, 8), (17, 37)])
def test_the_threads_of_a_block_meet_where_they_must(library, kernels, rng, size, request):
    """One thread a block, and 256: the same bits. A barrier that is missing shows in this, or under TSan."""
    image = rng.integers(0, 256, (40, 700, 3), dtype=np.uint8)
    masks = make_masks(("float32", (9, 30), "beyond"), 1, rng)
    spec, box = CropSpec(size), [[0, 0, 700, 40]]
    alone = cut(kernels, image, box, masks, spec)
    request.getfixturevalue("threaded")
    assert cut(kernels, image, box, masks, spec).tobytes() == alone.tobytes()


@pytest.mark.parametrize("kind", [mask for mask in MASKS if mask != "none"], ids=str)
def test_mask_boxes_are_the_references(kernels, kind, rng):
    masks = make_masks(kind, 5, rng)
    if kind == "frame":
        masks[:] = 0
        masks[0, 3:40, 5:70] = 1
        masks[1, HEIGHT - 1, WIDTH - 1] = 1
        masks[3, 33, 64] = 9  # 2 and 4 cover nothing
    stream = kernels.device.stream()
    with device_crop(kernels, SPECS["antialiased"]) as crop:
        found = crop.mask_boxes(HEIGHT, WIDTH, upload_masks(kernels, masks, stream), stream)
    expected = [mask_box(masks, index, HEIGHT, WIDTH) or (0, 0, 0, 0) for index in range(5)]
    assert found.tolist() == [list(box) for box in expected]


def test_a_mask_beside_the_image_has_no_box(kernels):
    masks = BoxMasks([np.ones((2, 2), bool)] * 2, np.array([[500, 5, 600, 20], [-9, -9, -1, -1]], np.float32))
    stream = kernels.device.stream()
    with device_crop(kernels, SPECS["antialiased"]) as crop:
        found = crop.mask_boxes(HEIGHT, WIDTH, upload_masks(kernels, masks, stream), stream)
        assert found.tolist() == [[0, 0, 0, 0]] * 2
        none = DeviceMasks("frame", np.empty(0, np.uint64), np.empty(0, np.int64), np.empty((0, 2), np.int32))
        assert crop.mask_boxes(HEIGHT, WIDTH, none, stream).shape == (0, 4)


def test_calls_on_several_streams_share_their_memory(kernels, image, rng):
    """More calls than there are blocks of parameters, none waited for, on two streams."""
    device, streams = kernels.device, [kernels.device.stream(), kernels.device.stream()]
    spec = SPECS["antialiased"]
    expected = mask_crop_reference(image, BOXES, None, spec)
    windows = crop_windows(BOXES, HEIGHT, WIDTH)
    frame, keep = upload_frame(kernels, image, streams[0])
    streams[0].sync()
    found = np.zeros((7, *expected[0].shape), np.float32)
    with device_crop(kernels, spec) as crop, device.alloc(found.nbytes) as out:
        for turn in range(7):
            at = turn % len(BOXES)
            crop.cut(frame, windows[at : at + 1], out.ptr + turn * crop.nbytes, streams[turn % 2], reverse=True)
        device.sync()
        device.d2h(found, out, found.nbytes, streams[0])
        streams[0].sync()
    for turn in range(7):
        agrees(found[turn : turn + 1], expected[turn % len(BOXES)][None], spec)
    del keep


def test_windows_are_the_references(rng):
    boxes = rng.uniform(-50, 200, (300, 4))
    for pad in (0.0, 0.13, 4.0):
        expected = [crop_window(box, HEIGHT, WIDTH, pad) for box in boxes]
        assert crop_windows(boxes, HEIGHT, WIDTH, pad).tolist() == [list(window) for window in expected]


@pytest.mark.parametrize("antialias", [True, False])
def test_tiles_and_tables_have_room(antialias):
    """No tile reads more columns than the kernel holds, unless it is narrow; no output has more taps than room."""
    sides = np.unique(np.concatenate([np.arange(1, 40), np.geomspace(40, 16384, 60).astype(int)]))
    windows = np.zeros((len(sides), 4), np.int32)
    windows[:, 2], windows[:, 3] = sides, sides
    for width in (8, 9, 31, 33, 64, 127, 128, 129, 299, 1024):
        layout = CropLayout((width, width), (0, 0, 0), (1, 1, 1), 0, antialias=antialias, letterbox=False, half=False)
        crops = layout.block(DeviceFrame(0, 16384, 16384, 3 * 16384), windows, None, reverse=False).crops
        for side, tile, taps in zip(sides, crops["tile_width"], crops["down_taps"], strict=True):
            table = resize_table(int(side), width, antialias)
            assert table.count.max() <= taps
            first, last = table.first[::tile], (table.first + table.count)[min(tile, width) - 1 :: tile]
            assert tile <= 8 or (last - first[: len(last)]).max() <= 128, (side, width)


def test_letterboxes_are_placed_as_the_reference_does(rng):
    windows = np.zeros((500, 4), np.int32)
    windows[:, 2:] = rng.integers(1, 5000, (500, 2))
    layout = CropLayout((61, 160), (0, 0, 0), (1, 1, 1), 0, antialias=True, letterbox=True, half=False)
    crops = layout.block(DeviceFrame(0, 5000, 5000, 15000), windows, None, reverse=False).crops
    found = np.stack([crops[name] for name in ("top", "left", "inner_height", "inner_width")], axis=1)
    assert found.tolist() == [list(letterbox_placement((y1, x1), (61, 160))) for _, _, x1, y1 in windows.tolist()]


GOOD = np.array([[0, 0, 9, 9]], np.int32)


def masks_of(kind="floats", pointer=4096, stride=16, size=(4, 4), extent=(0, 0, 9, 9)):
    extents = None if extent is None else np.array([extent], np.float32)
    return DeviceMasks(kind, np.array([pointer], np.uint64), np.array([stride]), np.array([size], np.int32), extents)


@pytest.mark.parametrize(
    ("error", "change", "message"),
    [
        (ShapeError, {"windows": GOOD.astype(np.int64)}, "windows: expected int32"),
        (ShapeError, {"windows": GOOD[0]}, "windows: expected int32"),
        (InputError, {"windows": np.array([[0, 0, 9, 9], [0, 5, 9, 5]], np.int32)}, "window 1: expected"),
        (InputError, {"windows": np.array([[0, 0, 21, 9]], np.int32)}, "window 0: expected"),
        (InputError, {"windows": np.array([[-1, 0, 2, 9]], np.int32)}, "window 0: expected"),
        (InputError, {"windows": np.tile(GOOD, (65536, 1))}, "at most 65535"),
        (InputError, {"out": 4098}, "aligned to 4"),
        (ShapeError, {"masks": masks_of("frame", extent=None)}, "the image's size"),
        (ShapeError, {"masks": masks_of(size=(0, 4))}, "at least one cell"),
        (InputError, {"masks": masks_of(extent=None)}, "extent with an area"),
        (InputError, {"masks": masks_of(extent=(0, 0, 0, 9))}, "extent with an area"),
        (InputError, {"masks": masks_of(extent=(0, 0, np.inf, 9))}, "extent with an area"),
        (InputError, {"masks": masks_of(pointer=4097)}, "multiples of 4"),
        (InputError, {"masks": masks_of(stride=17)}, "multiples of 4"),
        (ShapeError, {"masks": masks_of(), "windows": np.tile(GOOD, (2, 1))}, "one for each crop"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(kernels, error, change, message):
    given_ = {"windows": GOOD, "out": 4096, "masks": None} | change
    with device_crop(kernels, SPECS["small"]) as crop, pytest.raises(error, match=message):
        crop.cut(DeviceFrame(4096, 20, 20, 60), given_["windows"], given_["out"], None, masks=given_["masks"])


@pytest.mark.parametrize("frame", [(0, 20, 60), (20, 0, 60), (20, 20, 59), (1 << 16, 1 << 16, 1 << 18)])
def test_frames_that_do_not_fit_are_refused(frame):
    with pytest.raises(ShapeError, match="frame: expected"):
        DeviceFrame(4096, *frame)


def test_no_crops_is_no_work(kernels):
    with device_crop(kernels, SPECS["small"]) as crop:
        crop.cut(DeviceFrame(4096, 20, 20, 60), np.empty((0, 4), np.int32), 0, kernels.device.stream())


def test_nothing_is_left_on_the_device(kernels, image):
    before = kernels.device.live_buffers
    crop = DeviceCrop(kernels, size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
    stream = kernels.device.stream()
    with upload(kernels, image, stream) as source, kernels.device.alloc(crop.nbytes) as out:
        crop.cut(DeviceFrame(source.ptr, HEIGHT, WIDTH, 3 * WIDTH), GOOD, out.ptr, stream)
        stream.sync()
    assert kernels.device.live_buffers > before
    crop.close()
    crop.close()
    assert kernels.device.live_buffers == before


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_whole_frames_of_a_size_share_their_tables(kernels, fit, rng):
    """A crop of all of a frame is the one that `cut` makes of that window; tables are made once for each size."""
    spec = CropSpec((40, 56), antialias=False, fit=fit, fill=114)
    device, stream = kernels.device, kernels.device.stream()
    with device_crop(kernels, spec) as crop, device.alloc(crop.nbytes) as out:
        before = device.live_buffers
        for turn in range(2):
            for index, (height, width) in enumerate([(70, 90), (33, 120), (70, 90)]):
                image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                frame, keep = upload_frame(kernels, image, stream)
                crop.cut_whole(frame, out.ptr, stream, reverse=True)
                found = np.empty((1, 3, *spec.size), np.float32)
                device.d2h(found, out, found.nbytes, stream)
                stream.sync()
                assert found.tobytes() == cut(kernels, image, [[0, 0, width, height]], None, spec).tobytes()
                keep.close()
                assert device.live_buffers == before + (1 if not turn and index == 0 else 2)
