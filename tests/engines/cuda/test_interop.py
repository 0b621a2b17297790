"""Arrays taken from others and given to them, without a copy; torch's CPU tensors on the host device are real ones."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from graftsdk.engines.cuda import DeviceArray, Stream, as_device_array, open_device
from graftsdk.engines.cuda.layout import check_layout, contiguous_strides
from graftsdk.errors import DTypeError, InputError, LayoutError, ShapeError


@pytest.fixture
def stream() -> Iterator[Stream]:
    with open_device(kind="host") as device, device.stream() as stream:
        yield stream


class Interface:
    """What another library shows of its array: the dictionary of `__cuda_array_interface__`."""

    def __init__(self, array: np.ndarray, **changed: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, not array.flags.writeable),
            "strides": array.strides, "version": 3, "stream": None, **changed,
        }  # fmt: skip


class Gradients:
    """As torch's CUDA tensors that need gradients."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")


class Elsewhere:
    """An array on another device."""

    def __init__(self, kind: int, index: int) -> None:
        self.place = (kind, index)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("an array on another device is not asked for")


def frame() -> np.ndarray:
    return np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.mark.parametrize("wrap", [lambda array: array, Interface], ids=["dlpack", "interface"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32", "float64", "bool", "int64"])
def test_arrays_are_taken_as_they_are(stream: Stream, wrap: Any, dtype: str) -> None:
    array = frame().astype(dtype)
    taken = as_device_array(wrap(array), stream, dtype=dtype, shape=(None, 4, 3))
    assert (taken.ptr, taken.shape, taken.dtype) == (array.ctypes.data, array.shape, array.dtype)
    assert taken.strides == array.strides and taken.nbytes == array.nbytes and taken.contiguous
    assert not taken.readonly and taken.device is stream.device


def test_a_torch_tensor_comes_in_and_goes_out_without_a_copy(stream: Stream) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    taken = as_device_array(tensor, stream, dtype="float32", writable=True)
    assert taken.ptr == tensor.data_ptr()
    given = torch.from_dlpack(taken)
    assert given.data_ptr() == tensor.data_ptr() and given.shape == tensor.shape
    given[0, 0, 0] = 99
    assert tensor[0, 0, 0] == 99
    rows = as_device_array(tensor[:, :2], stream, layout="rows")
    assert rows.strides == (48, 16, 4) and not rows.contiguous
    np.testing.assert_array_equal(np.from_dlpack(rows), tensor[:, :2].numpy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda torch: torch.zeros(2, dtype=torch.bfloat16), "expected elements"),
        (lambda torch: torch.zeros(2, requires_grad=True), "requires? grad"),
        (lambda torch: torch.zeros(2, 3).T, "one after another"),
        (lambda torch: torch.zeros(1, 3).expand(4, 3), "one after another"),
        (lambda torch: torch.zeros(2, device="meta"), "array"),
        (lambda torch: torch.zeros(2, 2).to_sparse(), "array"),
    ],
)
def test_tensors_that_cannot_be_taken_say_why(stream: Stream, make: Any, message: str) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=message):
        as_device_array(make(torch), stream)


def test_an_owner_lives_as_long_as_what_was_made_of_it(stream: Stream) -> None:
    class Owner(Interface):
        pass

    owner = Owner(frame())
    gone = weakref.ref(owner)
    taken = as_device_array(owner, stream)
    outside = np.from_dlpack(taken)[0]
    del owner, taken
    gc.collect()
    assert gone() is not None
    np.testing.assert_array_equal(outside, frame()[0])
    del outside
    gc.collect()
    assert gone() is None


def test_readonly_arrays_stay_so(stream: Stream) -> None:
    array = frame()
    array.flags.writeable = False
    taken = as_device_array(array, stream)
    assert taken.readonly and not np.from_dlpack(taken).flags.writeable
    for given in (array, Interface(array), taken):
        with pytest.raises(InputError, match="writable"):
            as_device_array(given, stream, writable=True)


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        (lambda: 5, {}, InputError, "found int"),
        (lambda: [1, 2], {}, InputError, "found list"),
        (Gradients, {}, InputError, "requires grad"),
        (lambda: Elsewhere(2, 0), {}, InputError, "device type 2"),
        (lambda: Elsewhere(10, 1), {}, InputError, "device type 10"),
        (frame, {"dtype": "float32"}, DTypeError, "float32, found uint8"),
        (frame, {"shape": (2, 4)}, ShapeError, r"\[2, 4\], found \[2, 4, 3\]"),
        (frame, {"shape": (2, None, 4)}, ShapeError, r"\[2, any, 4\]"),
        (lambda: frame()[:, ::2], {}, LayoutError, "one after another"),
        (lambda: frame()[:, :2, :], {}, LayoutError, "one after another"),
        (lambda: frame().transpose(2, 0, 1), {"layout": "rows"}, LayoutError, "rows of 8 bytes"),
        (lambda: frame()[:, :, :2], {"layout": "rows"}, LayoutError, "without gaps"),
        (lambda: frame()[::-1], {"layout": "any"}, LayoutError, "forward"),
        (lambda: np.broadcast_to(frame()[:1], (9, 4, 3)), {"layout": "any"}, LayoutError, "forward"),
        (lambda: Interface(frame()[::-1]), {"layout": "any"}, LayoutError, "forward"),
        (lambda: Interface(frame().astype(">i4")), {}, DTypeError, ">i4"),
        (lambda: Interface(frame(), typestr="|V1"), {}, DTypeError, "V1"),
        (lambda: Interface(frame(), typestr="nonsense"), {}, InputError, "version 2 or 3"),
        (lambda: Interface(frame(), version=1), {}, InputError, "version 2 or 3"),
        (lambda: Interface(frame(), mask=frame()), {}, InputError, "without a mask"),
        (lambda: Interface(frame(), shape=(-1, 4)), {}, InputError, "version 2 or 3"),
        (lambda: Interface(frame(), shape=("a",)), {}, InputError, "version 2 or 3"),
        (lambda: Interface(frame(), data=None), {}, InputError, "version 2 or 3"),
        (lambda: Interface(frame(), data=(0, False)), {}, InputError, "address"),
        (lambda: Interface(frame(), strides=(12, 3)), {}, LayoutError, "3 strides, found 2"),
        (lambda: Interface(frame(), stream=0), {}, InputError, "positive handle"),
        (lambda: Interface(frame(), stream="x"), {}, InputError, "positive handle"),
        (lambda: Interface(frame(), shape=(1 << 40, 1 << 40), strides=None), {}, ShapeError, "at most"),
        (lambda: Interface(frame(), shape=(2, 3), strides=(1 << 60, 1)), {"layout": "any"}, ShapeError, "at most"),
        (lambda: Interface(frame(), typestr="<f4", strides=None, data=(4099, False)), {}, InputError, "multiple of 4"),
        (frame, {"layout": "columns"}, InputError, "layout"),
    ],
)
def test_what_does_not_fit_is_refused(
    stream: Stream, given: Any, options: dict[str, Any], error: type[InputError], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        as_device_array(given(), stream, what="frames", **options)
    assert type(caught.value) is error
    assert options.get("layout") == "columns" or str(caught.value).startswith("frames: ")


def test_strides_of_single_rows_and_of_nothing_do_not_matter() -> None:
    for shape, strides in (((1, 4), (999, 4)), ((0, 4), (-5, 7)), ((), ()), ((3, 1), (4, 77))):
        check_layout("x", shape, strides, 4, 64, "contiguous")
    assert contiguous_strides((2, 0, 3), 4) == (12, 12, 4)


def test_our_stream_waits_for_the_producers(stream: Stream) -> None:
    device = stream.device
    with device.stream() as producer, device.alloc(16) as buffer:
        array = np.ndarray((4,), np.float32, (np.ctypeslib.ctypes.c_uint8 * 16).from_address(buffer.ptr))
        for version, said in ((3, producer.handle), (2, None)):
            device.memset(buffer, 0, 16, producer)
            producer.sync()
            device.memset(buffer, 7, 16, producer)
            taken = as_device_array(Interface(array, version=version, stream=said), stream)
            out = np.zeros(16, np.uint8)
            device.d2h(out, taken, 16, stream)
            stream.sync()
            assert (out == 7).all()


def test_a_consumer_waits_until_the_array_is_ready(stream: Stream) -> None:
    device = stream.device
    with device.stream() as ours, device.alloc(16) as buffer, device.event() as ready:
        device.memset(buffer, 3, 16, ours)
        ready.record(ours)
        array = DeviceArray(device, buffer.ptr, (16,), np.uint8, owner=buffer, ready=ready)
        again = as_device_array(array, stream)
        out = np.zeros(16, np.uint8)
        device.d2h(out, again, 16, stream)
        stream.sync()
        assert (out == 3).all()
        device.memset(buffer, 4, 16, ours)
        ready.record(ours)
        assert (np.from_dlpack(array) == 4).all()


def test_an_array_of_another_device_is_refused(stream: Stream) -> None:
    with open_device(kind="host") as other, other.alloc(16) as buffer:
        array = DeviceArray(other, buffer.ptr, (16,), np.uint8, owner=buffer)
        with pytest.raises(InputError, match="copy it over"):
            as_device_array(array, stream)


def test_a_copy_or_another_device_cannot_be_asked_for(stream: Stream) -> None:
    array = as_device_array(frame(), stream)
    assert array.__dlpack_device__() == (1, 0)
    for options in ({"copy": True}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError):
            array.__dlpack__(**options)  # type: ignore[arg-type]
    assert not hasattr(array, "__cuda_array_interface__"), "host memory is no CUDA array"
