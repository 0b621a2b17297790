"""The native kernel against the reference, at every level of instructions, on every kind of memory."""

from __future__ import annotations

import mmap
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftsdk import _native
from graftsdk.preprocess import BoxMasks, CropSpec, mask_crop, mask_crop_reference
from graftsdk.preprocess.tables import resize_table

LEVELS = _native.mask_crop_levels()
HEIGHT, WIDTH = 157, 211
BOXES = np.array(
    [[10.2, 5.7, 90.1, 119.5], [-30, -5, 40, 60.5], [0, 0, WIDTH, HEIGHT], [99.5, 100.5, 99.75, 100.75],
     [150, 120, 900, 900], [3, 3, 20, 150]]
)  # fmt: skip
SPECS = {
    "antialiased": CropSpec((40, 32)),
    "plain": CropSpec((40, 32), antialias=False),
    "enlarged": CropSpec((299, 299)),
    "enlarged, plain": CropSpec((299, 299), antialias=False),
    "small": CropSpec((8, 8)),
    "small, plain": CropSpec((9, 8), antialias=False),
    "bgr, filled": CropSpec((40, 33), order="bgr", fill=200),
    "background kept": CropSpec((40, 32), background="keep"),
    "padded": CropSpec((41, 37), pad=0.25),
    "letterbox": CropSpec((64, 61), fit="letterbox", fill=114),
    "letterbox, wide, plain": CropSpec((24, 160), fit="letterbox", antialias=False, fill=7),
    "the mask's box": CropSpec((64, 64), box="mask", pad=0.1),
    "other units": CropSpec((32, 32), mean=(0, -3, 255), std=(1 / 255, 2, 255)),
}


def agrees(crops, expected, spec):
    """Within float32's own error of values 0..1, in the units of the result: relative to 1 / std."""
    allowed = 2e-6 * (1 + np.abs(spec.mean)) / np.array(spec.std)
    assert crops.dtype == np.float32 and crops.shape == expected.shape
    worst = np.abs(crops.astype(np.float64) - expected).max(axis=(0, 2, 3), initial=0)
    assert (worst <= allowed).all(), (worst, allowed)


def native(image, boxes, masks, spec, level=None, **options):
    """The kernel itself, for what `mask_crop` has no argument for."""
    chosen = {"masks": masks}
    if isinstance(masks, BoxMasks):
        chosen = {"arrays": masks.arrays, "extents": masks.extents}
    return _native.mask_crop(
        image, boxes, **chosen, size=spec.size, mean=spec.mean, std=spec.std, fill=spec.fill,
        reverse=spec.order != "bgr", antialias=spec.antialias, letterbox=spec.fit == "letterbox", pad=spec.pad,
        level=level, **options,
    )  # fmt: skip


def emptied(masks, rng, times):
    """[N, H, W] of which `times` rectangles are left in each, some of one row or column, some at an edge."""
    kept = np.zeros_like(masks)
    height, width = masks.shape[1:]
    for index in range(len(masks)):
        for _ in range(times):
            y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
            high, wide = int(rng.choice([1, 2, 1 + height // 4])), int(rng.choice([1, 2, 1 + width // 3]))
            part = (index, slice(y, y + high), slice(x, x + wide))
            kept[part] = masks[part]
    return kept


def make_masks(kind, count, rng, height=HEIGHT, width=WIDTH):
    if kind == "none":
        return None
    if kind == "bool":
        return rng.random((count, height, width)) > 0.4
    if kind == "uint8":
        return rng.integers(0, 3, (count, height, width), dtype=np.uint8)
    if kind == "spots":  # mostly empty rows and columns
        return emptied(rng.random((count, height, width)) > 0.4, rng, 2)
    dtype, shape, where = kind
    if dtype == "float32":
        arrays = rng.random((count, *shape), np.float32)
        arrays[rng.random(arrays.shape) > 0.9] = 0.5  # exactly on the edge
        arrays[:, 0, 0] = 1  # never without a box
    else:
        arrays = (rng.random((count, *shape)) > 0.5).astype(dtype)
        arrays[:, 0, 0] = 1
    extents = {"within": (20.3, 11.9, 140.7, 130), "beyond": (-50, -20.5, 300, 200.25)}[where]
    return BoxMasks(arrays, np.array([extents] * count, np.float32))


MASKS = ["none", "bool", "uint8", "spots"] + [
    (dtype, shape, where)
    for dtype in ("bool", "uint8", "float32")
    for shape in ((1, 1), (7, 5), (160, 160))
    for where in ("within", "beyond")
]


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", MASKS, ids=str)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_kernel_is_the_reference(image, spec, kind, rng):
    masks = make_masks(kind, len(BOXES), rng)
    if isinstance(masks, np.ndarray):
        masks[:, 100, 100] = 1  # never without a box
    crops = mask_crop(image, BOXES, masks, spec)
    agrees(crops, mask_crop_reference(image, BOXES, masks, spec), spec)


@pytest.mark.parametrize("kind", ["none", "bool", "spots", ("float32", (7, 5), "within")], ids=str)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_level_gives_the_same_bits(image, spec, kind, rng):
    masks = make_masks(kind, len(BOXES), rng)
    found = {level: native(image, BOXES, masks, spec, level).tobytes() for level in LEVELS}
    assert "baseline" in found and len(set(found.values())) == 1


def test_levels_are_found_where_the_cpu_has_them():
    features = set(_native.cpu_features())
    assert ("avx2" in LEVELS) == ("avx2" in features)
    assert ("avx512" in LEVELS) == ({"avx2", "avx512f", "avx512bw", "avx512vl"} <= features)


@pytest.mark.parametrize("spec", [SPECS["bgr, filled"], SPECS["letterbox"], SPECS["enlarged"]], ids=str)
def test_beside_the_person_is_the_fill(image, spec):
    """What no tap of which meets the mask has one value, to the bit; a mask of nothing is that value alone."""
    masks = np.zeros((1, HEIGHT, WIDTH), bool)
    value = ((spec.fill / 255 - np.array(spec.mean)) / np.array(spec.std)).astype(np.float32)[:, None, None]
    box = [[0, 0, WIDTH, HEIGHT]]
    assert (mask_crop(image, box, masks, spec)[0] == value).all()
    masks[0, 70:80, 90:95] = True
    crop = mask_crop(image, box, masks, spec)[0]
    far = np.ones(spec.size, bool)
    far[spec.size[0] // 4 : spec.size[0] * 3 // 4] = False
    assert (crop[:, far] == np.broadcast_to(value, crop.shape)[:, far]).all()
    assert (crop != value).any()


@pytest.mark.parametrize("shape", [(16, 16), (17, 1100), (1100, 16), (1023, 1025)], ids=str)
@pytest.mark.parametrize("antialias", [True, False])
def test_sizes(shape, antialias, rng):
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, shape[1], shape[0]], [0.5, 0.5, 15.5, 14.5]])
    for size in ((8, 8), (31, 57)):  # 1100 to 8: windows of more taps than rows are kept
        spec = CropSpec(size, antialias=antialias)
        agrees(mask_crop(image, boxes, None, spec), mask_crop_reference(image, boxes, None, spec), spec)


@given(st.data())
def test_drawn_cases(data):
    draw = data.draw
    height, width = draw(st.integers(16, 90)), draw(st.integers(16, 90))
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
    spec = CropSpec(
        (draw(st.integers(8, 60)), draw(st.integers(8, 60))),
        fill=draw(st.integers(0, 255)),
        order=draw(st.sampled_from(["rgb", "bgr"])),
        antialias=draw(st.booleans()),
        background=draw(st.sampled_from(["fill", "keep"])),
        fit=draw(st.sampled_from(["stretch", "letterbox"])),
        pad=draw(st.sampled_from([0.0, 0.13, 4.0])),
    )
    kind = draw(st.sampled_from(["none", "bool", "uint8", "boxes"]))
    if kind == "boxes":
        arrays, extents = [], []
        for _ in boxes:
            shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
            arrays.append((rng.integers(0, 5, shape) / 4).astype(np.float32))  # many values of exactly 0.5
            corner = draw(st.tuples(coordinate, coordinate))
            side = draw(st.tuples(st.floats(0.5, 200, width=32), st.floats(0.5, 200, width=32)))
            extents.append((*corner, corner[0] + side[0], corner[1] + side[1]))
        if draw(st.booleans()):
            arrays = [emptied(array[None], rng, 2)[0] for array in arrays]
        masks = BoxMasks(arrays, np.array(extents, np.float32).reshape(-1, 4))
    else:
        masks = make_masks(kind, len(boxes), rng, height, width)
        if masks is not None and draw(st.booleans()):
            masks = emptied(masks, rng, draw(st.integers(0, 3)))
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    color = draw(st.sampled_from(["rgb", "bgr"]))
    crops = mask_crop(image, boxes, masks, spec, color, draw(st.integers(1, 3)))
    agrees(crops, mask_crop_reference(image, boxes, masks, spec, color), spec)


@given(st.integers(0, 2**32), st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_masks_are_decided_as_the_reference_decides(seed, shape):
    """One crop pixel a source pixel, fill 0 and image 255: the crop is the mask, and equal means equal."""
    rng = np.random.default_rng(seed)
    image = np.full((48, 40, 3), 255, np.uint8)
    levels = rng.choice([0, 0.25, 0.5, np.float32(0.5000001), 0.75, 1, rng.random()], shape).astype(np.float32)
    low = rng.uniform(-20, 10, 2)
    extents = np.array([[*low, *(low + rng.uniform(5, 60, 2))]], np.float32)
    spec = CropSpec((48, 40), mean=(0, 0, 0), std=(1, 1, 1))
    masks = BoxMasks([levels], extents)
    crop = mask_crop(image, [[0, 0, 40, 48]], masks, spec)[0, 0]
    assert np.array_equal(crop > 0.5, masks.mask_at(0, 48, 40))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("target", [1, 2, 7, 8, 96, 299])
def test_the_tables_are_the_references(target, antialias):
    for source in [*range(1, 70), 260, 600, 1079, 16384]:
        first, count, weights = _native.resize_table(source, target, antialias)
        table = resize_table(source, target, antialias)
        assert np.array_equal(first, table.first) and np.array_equal(count, table.count)
        np.testing.assert_allclose(weights, table.weights, rtol=1.2e-7, atol=0)  # cast once


def unaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)
    moved = room[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def spaced(array):
    room = np.zeros([2 * side for side in array.shape], array.dtype)
    room[tuple(slice(None, None, 2) for _ in array.shape)] = array
    return room[tuple(slice(None, None, 2) for _ in array.shape)]


def reversed_view(array):
    backwards = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[backwards])[backwards]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def mapped(array):
    room = mmap.mmap(-1, array.nbytes)
    room[:] = array.tobytes()
    return np.frombuffer(room, array.dtype).reshape(array.shape)


MEMORY = {
    "fortran": np.asfortranarray,
    "last axis reversed": lambda array: np.ascontiguousarray(array[..., ::-1])[..., ::-1],
    "rows reversed": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "reversed": reversed_view,
    "spaced": spaced,
    "padded rows": lambda array: np.concatenate([array, array], axis=1)[:, : array.shape[1]],
    "unaligned": unaligned,
    "read-only": read_only,
    "memory map": mapped,
    "subclass": lambda array: array.view(type("Own", (np.ndarray,), {})),
}


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("kind", ["bool", ("uint8", (7, 5), "within"), ("float32", (7, 5), "beyond")], ids=str)
def test_any_memory_gives_the_same_bytes(image, kind, memory, rng):
    other, spec = MEMORY[memory], SPECS["antialiased"]
    masks = make_masks(kind, len(BOXES), rng)
    if isinstance(masks, BoxMasks):
        moved = BoxMasks([other(array) for array in masks.arrays], other(masks.extents))
    else:
        moved = other(masks)
    assert (
        mask_crop(other(image), other(BOXES), moved, spec).tobytes() == mask_crop(image, BOXES, masks, spec).tobytes()
    )


def test_broadcast_memory(image):
    row = np.broadcast_to(image[:1], image.shape)
    spec = SPECS["plain"]
    assert mask_crop(row, BOXES, None, spec).tobytes() == mask_crop(row.copy(), BOXES, None, spec).tobytes()


@pytest.mark.parametrize("kind", ["none", "uint8", ("float32", (160, 160), "within")], ids=str)
def test_threads_change_nothing(image, kind, rng):
    masks = make_masks(kind, len(BOXES), rng)
    found = {mask_crop(image, BOXES, masks, SPECS["enlarged"], threads=threads).tobytes() for threads in (1, 2, 5)}
    assert len(found) == 1


def test_a_given_output_is_filled(image):
    spec = SPECS["letterbox"]
    out = np.full((len(BOXES), 3, *spec.size), np.nan, np.float32)
    crops = native(image, BOXES, None, spec, out=out)
    assert crops is out and out.tobytes() == mask_crop(image, BOXES, None, spec).tobytes()


GOOD = {
    "image": np.zeros((20, 20, 3), np.uint8),
    "boxes": np.array([[0.0, 0, 9, 9]]),
    "size": (8, 9),
    "mean": (0.0, 0, 0),
    "std": (1.0, 1, 1),
    "fill": 0,
    "reverse": False,
    "antialias": True,
    "letterbox": False,
    "pad": 0.0,
}
OUT = np.zeros((1, 3, 8, 9), np.float32)
BOX_MASK = {"arrays": (np.ones((2, 2), bool),), "extents": np.array([[0, 0, 9, 9]], np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((20, 20, 3), np.int8)}, "image"),
        ({"image": np.zeros((20, 20, 4), np.uint8)}, "image"),
        ({"image": np.zeros((20, 20), np.uint8)}, "image"),
        ({"image": np.zeros((0, 20, 3), np.uint8)}, "image"),
        ({"boxes": np.zeros((1, 4), np.float32)}, "boxes"),
        ({"boxes": np.zeros((1, 4), ">f8")}, "boxes"),
        ({"boxes": np.zeros((4, 2)).T}, "boxes"),
        ({"boxes": np.asfortranarray(np.zeros((2, 4)))}, "boxes"),
        ({"boxes": np.array([[30.0, 0, 40, 9]])}, "no pixel"),
        ({"boxes": np.array([[0, 0, np.nan, 9]])}, "no pixel"),
        ({"masks": np.zeros((1, 20, 20), np.float32)}, "masks"),
        ({"masks": np.zeros((2, 20, 20), bool)}, "masks"),
        ({"masks": np.zeros((1, 20, 21), bool)}, "masks"),
        ({"arrays": BOX_MASK["arrays"]}, "masks"),
        ({"extents": BOX_MASK["extents"]}, "masks"),
        (BOX_MASK | {"masks": np.zeros((1, 20, 20), bool)}, "masks"),
        (BOX_MASK | {"arrays": (np.ones((2, 2)),)}, "masks"),
        (BOX_MASK | {"arrays": (np.ones((2, 2), ">f4"),)}, "masks"),
        (BOX_MASK | {"arrays": (np.ones((0, 2), bool),)}, "masks"),
        (BOX_MASK | {"arrays": ()}, "masks"),
        (BOX_MASK | {"extents": np.zeros((1, 4))}, "masks"),
        ({"size": (0, 8)}, "size"),
        ({"size": (8, 2**40)}, "size"),
        ({"std": (1.0, 0, 1)}, "std"),
        ({"fill": 256}, "fill"),
        ({"threads": 0}, "threads"),
        ({"level": "sse9"}, "level"),
        ({"out": OUT.astype(np.float64)}, "out"),
        ({"out": OUT[0]}, "out"),
        ({"out": np.zeros((1, 3, 9, 8), np.float32)}, "out"),
        ({"out": np.asfortranarray(OUT)}, "out"),
        ({"out": read_only(OUT)}, "out"),
        ({"out": unaligned(OUT)}, "out"),
    ],
)  # fmt: skip
def test_the_kernel_refuses_what_it_cannot_read(change, message):
    assert _native.mask_crop(**GOOD).shape == (1, 3, 8, 9)
    with pytest.raises(ValueError, match=message):
        _native.mask_crop(**(GOOD | change))


@pytest.mark.parametrize("name", ["image", "boxes", "masks", "out"])
def test_nothing_is_converted(name):
    with pytest.raises(TypeError):
        _native.mask_crop(**(GOOD | {name: [[0, 0, 9, 9]]}))


GUARDED = """
    import ctypes, mmap, sys
    import numpy as np
    from graftsdk import _native
    from graftsdk.preprocess import BoxMasks, CropSpec, mask_crop

    PAGE = mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    rooms = []

    def guarded(array, end):
        '''A copy that touches a page which nobody may read: after it, or before it.'''
        pages = -(-array.nbytes // PAGE)
        room = mmap.mmap(-1, (pages + 2) * PAGE)
        rooms.append(room)
        whole = np.frombuffer(room, np.uint8)
        for page in (0, pages + 1):
            address = whole.ctypes.data + page * PAGE
            assert libc.mprotect(address, PAGE, 0) == 0
        start = (pages + 1) * PAGE - array.nbytes if end else PAGE
        copy = whole[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    rng = np.random.default_rng(0)
    if sys.argv[1] == "prove":
        guarded(np.zeros(100, np.uint8), True).ctypes.data
        ctypes.string_at(guarded(np.zeros(100, np.uint8), True).ctypes.data + 100, 1)
        sys.exit(0)
    level = sys.argv[1]
    for width in (16, 17, 19, 23, 24, 25, 37, 130):
        image = rng.integers(0, 256, (21, width, 3), dtype=np.uint8)
        boxes = np.array([[0, 0, width, 21], [0, 0, 1, 1], [width - 1, 20, width, 21], [3, 2, width, 21.0],
                          [1, 0, width - 5, 21]])
        frames = rng.random((len(boxes), 21, width)) > 0.5
        arrays = [rng.random((3, 5), dtype=np.float32) for _ in boxes]
        extents = np.array([[-1, -1, width + 1, 22]] * len(boxes), np.float32)
        for end in (True, False):
            for size in ((8, 8), (40, 33)):
                for antialias in (True, False):
                    for turn in (slice(None), slice(None, None, -1)):
                        shared = dict(size=size, mean=(0., 0, 0), std=(1., 1, 1), fill=0, reverse=False,
                                      antialias=antialias, letterbox=False, pad=0.0, level=level,
                                      out=guarded(np.zeros((len(boxes), 3, *size), np.float32), end))
                        pixels = guarded(image, end)[turn, turn, turn]
                        _native.mask_crop(pixels, guarded(boxes, end), **shared)
                        _native.mask_crop(guarded(image, end)[:, :, turn], boxes,
                                          guarded(frames, end)[:, turn, turn], **shared)
                        _native.mask_crop(pixels, boxes, guarded(frames, end), **shared)
                        _native.mask_crop(guarded(image, end), boxes, guarded(frames, end)[:, :, turn], **shared)
                        _native.mask_crop(pixels, boxes, None, tuple(guarded(a, end)[turn, turn] for a in arrays),
                                          guarded(extents, end), **shared)
            rooms.clear()
    print("never outside")
"""


def run_guarded(argument):
    command = [sys.executable, "-c", textwrap.dedent(GUARDED), argument]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("level", LEVELS)
def test_never_reads_or_writes_outside(level):
    done = run_guarded(level)
    assert done.returncode == 0 and "never outside" in done.stdout, done.stderr


def test_the_guard_bites():
    assert run_guarded("prove").returncode < 0  # a signal


def test_other_threads_run_meanwhile(image):
    """While one call cuts, Python code of another thread goes on: the GIL is released."""
    spec = CropSpec((1024, 1024))
    boxes = np.repeat(BOXES[2:3], 30, axis=0)
    started, ended, ticks = threading.Event(), threading.Event(), []

    def cut():
        started.set()
        mask_crop(image, boxes, None, spec)
        ended.set()

    worker = threading.Thread(target=cut)
    worker.start()
    started.wait()
    while not ended.is_set():
        ticks.append(time.perf_counter())
        time.sleep(0.001)
    worker.join()
    assert len(ticks) >= 5  # one or two if the call held the GIL: it takes a tenth of a second
