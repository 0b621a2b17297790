"""What every kind of device has to do: one suite, run over those that can be opened on this machine.

It needs pytest and NumPy besides the package, and for the kernel on a real device the NVRTC that comes with cuda-core.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graftsdk.engines.cuda import Device, DeviceArray, DeviceSpan, HostBuffer, Stream, as_device_array, open_device
from graftsdk.engines.cuda.host import HostDevice
from graftsdk.errors import (
    EngineClosed,
    EngineError,
    EngineIncompatible,
    EngineOutOfMemory,
    InputError,
    LayoutError,
    MissingDependency,
    ShapeError,
)

__all__ = ["CASES", "KERNEL", "available", "kernel_image"]

DRIVER_OF_THE_HOST = (
    "driver of the host"  # the device of driver_of_the_host.c, which has this kernel and reads no image
)
ODD_SIZES = (1, 2, 3, 7, 255, 256, 257, 4095, 65537, 1 << 20)
# saxpy over all threads of the grid, with every kind of argument: addresses, a size, floats, a small integer
KERNEL = r"""
extern "C" __global__ void saxpy(float* y, const float* x, long long n, float a, double b, unsigned char c, int d) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i] + (float)b + (float)c + (float)d;
}
"""


def saxpy(gx: int, gy: int, gz: int, bx: int, by: int, bz: int, *args: Any) -> None:
    """The kernel, for the host."""
    y, x, n, a, b, c, d = (arg.value for arg in args)
    threads = min(n, gx * bx)
    target = np.frombuffer((ctypes.c_float * n).from_address(y), np.float32)[:threads]
    source = np.frombuffer((ctypes.c_float * n).from_address(x), np.float32)[:threads]
    target[:] = np.float32(a) * source + target + np.float32(b) + np.float32(c) + np.float32(d)


def available(kind: str) -> str | None:
    """Why the kind of device cannot be tested here; None where it can."""
    try:
        open_kind(kind).close()
    except (EngineIncompatible, MissingDependency) as error:
        return str(error)
    return None


def open_kind(kind: str) -> Device:
    return HostDevice({"saxpy": saxpy}, memory=64 << 20) if kind == "host" else open_device(0, kind)


def kernel_image(device: Device) -> bytes:
    """The kernel for this device; any image for the host, which does not read it."""
    if device.kind == "host" or device.name == DRIVER_OF_THE_HOST:
        return b"\x7fELF"
    core = pytest.importorskip("cuda.core")
    arch = "sm_" + device.compute_capability.replace(".", "")
    code: bytes = core.Program(KERNEL, "c++", core.ProgramOptions(arch=arch)).compile("cubin").code
    return code


def upload(device: Device, array: np.ndarray, stream: Stream) -> Any:
    buffer = device.alloc(array.nbytes)
    device.h2d(buffer, array, array.nbytes, stream)
    stream.sync()
    return buffer


def download(device: Device, block: Any, stream: Stream, dtype: Any = np.uint8) -> np.ndarray:
    out = np.zeros(block.nbytes, np.uint8)
    device.d2h(out, block, block.nbytes, stream)
    stream.sync()
    return out.view(dtype)


# --------------------------------------------------------------------------------------------------------- memory


def says_what_it_is(device: Device) -> None:
    major, minor = device.compute_capability.split(".")
    assert int(major) >= 0 and int(minor) >= 0
    assert device.name and device.index == 0
    assert 0 < device.free_memory() <= device.total_memory


def copies_both_ways(device: Device, rng: np.random.Generator) -> None:
    with device.stream() as stream:
        for size in ODD_SIZES:
            data = rng.integers(0, 256, size, np.uint8)
            with upload(device, data, stream) as buffer:
                np.testing.assert_array_equal(download(device, buffer, stream), data)


def copies_arrays_of_any_type_and_part_of_a_buffer(device: Device, rng: np.random.Generator) -> None:
    data = rng.standard_normal((3, 5, 7)).astype(np.float32)
    with device.stream() as stream, device.alloc(4096) as buffer:
        device.memset(buffer, 7, 4096, stream)
        device.h2d(buffer.span(100, data.nbytes), data, data.nbytes, stream)
        got = download(device, buffer, stream)
        assert (got[:100] == 7).all() and (got[100 + data.nbytes :] == 7).all()
        np.testing.assert_array_equal(got[100 : 100 + data.nbytes].view(np.float32), data.ravel())
        device.d2d(buffer.span(2048, 420), buffer.span(100, 420), 420, stream)
        np.testing.assert_array_equal(download(device, buffer.span(2048, 420), stream, np.float32), data.ravel())


def copies_only_as_many_bytes_as_asked(device: Device) -> None:
    with device.stream() as stream, device.alloc(100) as buffer:
        device.memset(buffer, 1, 100, stream)
        device.h2d(buffer, np.full(100, 2, np.uint8), 40, stream)
        np.testing.assert_array_equal(download(device, buffer, stream), [2] * 40 + [1] * 60)
        out = np.full(100, 9, np.uint8)
        device.d2h(out, buffer, 50, stream)
        stream.sync()
        np.testing.assert_array_equal(out, [2] * 40 + [1] * 10 + [9] * 50)


def pinned_memory_is_ordinary_memory_too(device: Device, rng: np.random.Generator) -> None:
    with device.stream() as stream, device.alloc(999) as buffer, device.alloc_pinned(999) as pinned:
        assert pinned.array.shape == (999,) and pinned.array.dtype == np.uint8 and pinned.array.flags.writeable
        data = rng.integers(0, 256, 999, np.uint8)
        pinned.array[:] = data
        device.h2d(buffer, pinned, 999, stream)
        stream.sync()
        pinned.array[:] = 0
        device.d2h(pinned, buffer, 999, stream)
        stream.sync()
        np.testing.assert_array_equal(pinned.array, data)


def memset_fills(device: Device) -> None:
    with device.stream() as stream, device.alloc(1001) as buffer:
        for value in (0, 1, 255):
            device.memset(buffer, value, 1001, stream)
            assert (download(device, buffer, stream) == value).all()
        with pytest.raises(InputError, match="0 to 255"):
            device.memset(buffer, 256, 1, stream)


def addresses_are_aligned_and_apart(device: Device) -> None:
    buffers = [device.alloc(size) for size in (0, 1, 255, 256, 257, 0)]
    spans = sorted((buffer.ptr, buffer.ptr + max(buffer.nbytes, 1)) for buffer in buffers)
    assert all(start % 256 == 0 and start > 0 for start, _ in spans)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for buffer in buffers:
        buffer.close()


def zero_bytes_work(device: Device) -> None:
    empty = np.zeros(0, np.uint8)
    with device.stream() as stream, device.alloc(0) as buffer, device.alloc_pinned(0) as pinned:
        device.h2d(buffer, empty, 0, stream)
        device.d2h(empty, buffer, 0, stream)
        device.h2d(buffer, pinned, 0, stream)
        device.d2d(buffer, buffer, 0, stream)
        device.memset(buffer, 1, 0, stream)
        stream.sync()
        assert (buffer.nbytes, pinned.nbytes, pinned.array.size) == (0, 0, 0)


def too_much_memory_is_refused_and_the_device_lives_on(device: Device) -> None:
    for nbytes in (device.total_memory + 1, 1 << 60):
        with pytest.raises(EngineOutOfMemory, match="smaller batches"):
            device.alloc(nbytes)
    for wrong in (-1, 1.5, "8", True, None):
        with pytest.raises(InputError, match="nbytes"):
            device.alloc(wrong)  # type: ignore[arg-type]
    with device.alloc(16), device.alloc_pinned(16):
        device.sync()


def sizes_that_do_not_fit_are_refused(device: Device) -> None:
    with device.stream() as stream, device.alloc(16) as buffer, device.alloc_pinned(8) as pinned:
        for call in (
            lambda: device.h2d(buffer, np.zeros(32, np.uint8), 32, stream),
            lambda: device.h2d(buffer, pinned, 16, stream),
            lambda: device.d2h(pinned, buffer, 9, stream),
            lambda: device.d2d(buffer, buffer.span(8), 16, stream),
            lambda: device.memset(buffer, 0, 17, stream),
        ):
            with pytest.raises(ShapeError, match="at most"):
                call()
        with pytest.raises(LayoutError, match="contiguous"):
            device.h2d(buffer, np.zeros((4, 8), np.uint8).T, 16, stream)
        readonly = np.zeros(16, np.uint8)
        readonly.flags.writeable = False
        device.h2d(buffer, readonly, 16, stream)
        with pytest.raises(InputError, match="writable"):
            device.d2h(readonly, buffer, 16, stream)
        with pytest.raises(InputError, match="HostBuffer"):
            device.h2d(buffer, b"0" * 16, 16, stream)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="memory of"):
            device.h2d(np.zeros(16, np.uint8), pinned, 8, stream)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            buffer.span(17)
        stream.sync()


def memory_and_streams_of_another_device_are_refused(device: Device) -> None:
    with HostDevice() as other, other.stream() as foreign, device.alloc(8) as buffer:
        with pytest.raises(InputError, match="stream"):
            device.memset(buffer, 0, 8, foreign)
        with other.alloc(8) as theirs, device.stream() as stream, pytest.raises(InputError, match="memory of"):
            device.memset(theirs, 0, 8, stream)


# ------------------------------------------------------------------------------------------------------- lifetime


def closing_twice_is_harmless_and_use_after_it_is_an_error(device: Device) -> None:
    stream, event = device.stream(), device.event()
    buffer, pinned = device.alloc(64), device.alloc_pinned(64)
    before = device.live_buffers
    for _ in range(2):
        buffer.close()
        pinned.close()
    assert device.live_buffers == before - 2
    with device.alloc(64) as other:
        for call in (
            lambda: device.memset(buffer, 0, 64, stream),
            lambda: device.h2d(other, pinned, 64, stream),
            lambda: buffer.ptr,
            lambda: buffer.span(0),
            lambda: pinned.array,
        ):
            with pytest.raises(EngineClosed, match="after close"):
                call()
        event.close()
        for call in (lambda: event.record(stream), lambda: event.wait(stream), event.sync):
            with pytest.raises(EngineClosed):
                call()
        stream.close()
        stream.close()
        for call in (stream.sync, lambda: device.memset(other, 0, 1, stream)):
            with pytest.raises(EngineClosed):
                call()


def nothing_leaks(device: Device) -> None:
    with device.alloc(1 << 20), device.alloc_pinned(1 << 16), device.stream(), device.event():
        pass  # a pool grows at the first of them
    gc.collect()
    live, free = device.live_bytes, device.free_memory()
    for _ in range(20):
        with device.alloc(1 << 20), device.alloc_pinned(1 << 16), device.stream(), device.event():
            pass
        device.alloc(1 << 20)  # dropped, not closed
        device.alloc_pinned(1 << 16)
    gc.collect()
    assert device.live_bytes == live
    assert device.live_buffers == 0
    assert free - device.free_memory() <= 32 << 20, "of 40 MiB; a pool may keep the few blocks that were used at once"


def what_is_dropped_in_another_thread_is_given_back(device: Device) -> None:
    things = [[device.stream(), device.event(), device.alloc(64), device.alloc_pinned(64)] for _ in range(3)]
    for some in things:
        device.memset(some[2], 1, 64, some[0])  # type: ignore[arg-type]
    del some
    thread = threading.Thread(target=things.clear)
    thread.start()
    thread.join(30)
    gc.collect()
    assert device.live_buffers == 0
    with device.alloc(64), device.stream() as other:
        other.sync()


def closing_waits_for_the_work(device: Device) -> None:
    with device.stream() as stream:
        out = device.alloc_pinned(1 << 20)
        buffer = device.alloc(1 << 20)
        device.memset(buffer, 3, 1 << 20, stream)
        device.d2h(out, buffer, 1 << 20, stream)
        buffer.close()
        assert (out.array == 3).all()
        out.close()


def devices_take_turns_in_a_thread(device: Device) -> None:
    """A context that another device made current is not mistaken for ours."""
    with (
        HostDevice() as other,
        other.stream() as theirs,
        device.stream() as ours,
        device.alloc(8) as mine,
        other.alloc(8) as yours,
        device.active(),
        other.active(),
    ):
        device.memset(mine, 1, 8, ours)
        with device.active():
            other.memset(yours, 2, 8, theirs)
            device.d2d(mine, mine, 8, ours)
        assert (download(device, mine, ours) == 1).all() and (download(other, yours, theirs) == 2).all()


def a_closed_device_says_so(kind: str) -> None:
    device = open_kind(kind)
    stream, buffer = device.stream(), device.alloc(8)
    device.close()
    device.close()
    for call in (lambda: device.alloc(1), device.stream, device.event, device.sync, stream.sync, lambda: buffer.ptr):
        with pytest.raises(EngineClosed):
            call()
    buffer.close()
    stream.close()


# ------------------------------------------------------------------------------------------------ streams, events


def a_stream_keeps_its_order(device: Device) -> None:
    with device.stream() as stream, device.alloc(4096) as a, device.alloc(4096) as b:
        for value in range(1, 20):
            device.memset(a, value, 4096, stream)
            device.d2d(b, a, 4096, stream)
        device.memset(a, 0, 4096, stream)
        assert (download(device, b, stream) == 19).all()


def events_order_streams(device: Device, rng: np.random.Generator) -> None:
    """Ping-pong: each stream adds its own step to what the other left; any missed wait shows."""
    size = 1 << 18
    first, second = device.stream(), device.stream()
    with device.alloc(size) as a, device.alloc(size) as b, device.event() as there, device.event() as back:
        device.memset(b, 0, size, second)
        back.record(second)
        for value in range(1, 30):
            back.wait(first)
            device.memset(a, value, size, first)
            there.record(first)
            there.wait(second)
            device.d2d(b, a, size, second)
            back.record(second)
        out = np.zeros(size, np.uint8)
        device.d2h(out, b, size, second)
        second.sync()
        assert (out == 29).all()
    first.close()
    second.close()


def an_event_is_the_point_where_it_was_last_recorded(device: Device) -> None:
    with device.stream() as stream, device.alloc(64) as buffer, device.event() as event:
        assert event.done, "nothing recorded, nothing to wait for"
        event.sync()
        event.wait(stream)
        out = np.zeros(64, np.uint8)
        device.memset(buffer, 1, 64, stream)
        device.d2h(out, buffer, 64, stream)
        event.record(stream)
        event.sync()
        assert event.done and (out == 1).all()
        device.memset(buffer, 2, 64, stream)
        device.d2h(out, buffer, 64, stream)
        event.record(stream)
        event.sync()
        assert (out == 2).all()


def events_tell_the_time(device: Device) -> None:
    with device.stream() as stream, device.alloc(1 << 20) as buffer:
        start, stop, untimed = device.event(timing=True), device.event(timing=True), device.event()
        with pytest.raises(InputError, match="timing=True"):
            stop.elapsed(start)
        start.record(stream)
        device.memset(buffer, 0, 1 << 20, stream)
        stop.record(stream)
        untimed.record(stream)
        stream.sync()
        assert 0 <= stop.elapsed(start) < 60_000
        with pytest.raises(InputError, match="timing=True"):
            untimed.elapsed(start)


def sync_waits_for_every_stream(device: Device) -> None:
    streams = [device.stream() for _ in range(4)]
    buffers = [device.alloc(1 << 16) for _ in streams]
    outs = [device.alloc_pinned(1 << 16) for _ in streams]
    for value, (stream, buffer, out) in enumerate(zip(streams, buffers, outs, strict=True), 1):
        device.memset(buffer, value, 1 << 16, stream)
        device.d2h(out, buffer, 1 << 16, stream)
    device.sync()
    for value, out in enumerate(outs, 1):
        assert (out.array == value).all()
    for thing in (*streams, *buffers, *outs):
        thing.close()


def many_threads_share_a_device(device: Device) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(6)

    def work(seed: int) -> None:
        try:
            rng = np.random.default_rng(seed)
            barrier.wait(30)
            with device.stream() as stream:
                for _ in range(15):
                    data = rng.integers(0, 256, int(rng.integers(1, 50_000)), np.uint8)
                    with upload(device, data, stream) as buffer, device.alloc(data.nbytes) as other:
                        device.d2d(other, buffer, data.nbytes, stream)
                        np.testing.assert_array_equal(download(device, other, stream), data)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors and not any(thread.is_alive() for thread in threads)
    assert device.live_buffers == 0


# --------------------------------------------------------------------------------------------- graphs and kernels


def a_captured_graph_runs_when_it_is_launched(device: Device) -> None:
    size = 1 << 16
    with (
        device.stream() as stream,
        device.alloc(size) as a,
        device.alloc(size) as b,
        device.alloc_pinned(size) as source,
        device.alloc_pinned(size) as out,
    ):
        out.array[:] = 0

        def enqueue() -> None:
            device.h2d(a, source, size, stream)
            device.d2d(b, a, size, stream)
            device.d2h(out, b, size, stream)

        graph = device.capture(stream, enqueue)
        stream.sync()
        assert (out.array == 0).all(), "captured, not run"
        for value in (5, 6, 7):
            source.array[:] = value
            graph.launch(stream)
            stream.sync()
            assert (out.array == value).all()
        graph.close()
        graph.close()
        with pytest.raises(EngineClosed):
            graph.launch(stream)


def a_capture_draws_in_streams_by_events(device: Device) -> None:
    size = 4096
    stream, side = device.stream(), device.stream()
    with device.alloc(size) as a, device.alloc(size) as b, device.alloc(2 * size) as both:
        fork, join = device.event(), device.event()

        def enqueue() -> None:
            device.memset(a, 1, size, stream)
            fork.record(stream)
            fork.wait(side)
            device.d2d(b, a, size, side)
            join.record(side)
            device.memset(both.span(0, size), 2, size, stream)
            join.wait(stream)
            device.d2d(both.span(size), b, size, stream)

        with device.capture(stream, enqueue) as graph:
            for _ in range(2):
                device.memset(both, 0, 2 * size, stream)
                device.memset(b, 0, size, stream)
                graph.launch(stream)
                np.testing.assert_array_equal(download(device, both, stream), [2] * size + [1] * size)
        with pytest.raises(EngineError):
            device.capture(stream, lambda: (fork.record(stream), fork.wait(side), device.memset(b, 0, 1, side)))
        device.memset(a, 9, size, side)  # both streams are as before the failed capture
        device.memset(b, 9, size, stream)
        assert (download(device, a, side) == 9).all() and (download(device, b, stream) == 9).all()
    stream.close()
    side.close()


def a_capture_that_fails_leaves_the_stream_usable(device: Device) -> None:
    class Stop(Exception):
        pass

    def fails() -> None:
        device.memset(buffer, 1, 64, stream)
        raise Stop

    with device.stream() as stream, device.alloc(64) as buffer:
        device.memset(buffer, 5, 64, stream)
        with pytest.raises(Stop):
            device.capture(stream, fails)
        for forbidden in (device.sync, lambda: device.alloc(8), lambda: device.capture(stream, lambda: None)):
            with pytest.raises(EngineError, match="capture"):
                device.capture(stream, forbidden)
        assert (download(device, buffer, stream) == 5).all()
        device.memset(buffer, 6, 64, stream)
        assert (download(device, buffer, stream) == 6).all()


def other_threads_work_during_a_capture(device: Device) -> None:
    captured, done, synced = threading.Event(), threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def meanwhile() -> None:
        try:
            assert captured.wait(30)
            device.memset(mine, 4, 64, own)
            own.sync()
            done.set()
            with device.alloc(64):  # waits for the capture
                device.sync()
            synced.set()
        except BaseException as error:
            errors.append(error)

    def enqueue() -> None:
        device.memset(buffer, 1, 64, stream)
        captured.set()
        assert done.wait(30) and not synced.wait(0.1)

    with device.stream() as stream, device.stream() as own, device.alloc(64) as buffer, device.alloc(64) as mine:
        thread = threading.Thread(target=meanwhile)
        thread.start()
        graph = device.capture(stream, enqueue)
        thread.join(30)
        assert not errors and not thread.is_alive()
        graph.launch(stream)
        assert (download(device, buffer, stream) == 1).all() and (download(device, mine, own) == 4).all()
        graph.close()


def capture_is_refused_where_there_is_none(device: Device) -> None:
    with device.stream() as stream, pytest.raises(EngineIncompatible, match="capture"):
        device.capture(stream, lambda: None)


def kernels_run(device: Device, rng: np.random.Generator) -> None:
    count = 1000
    x, y = (rng.standard_normal(count).astype(np.float32) for _ in range(2))
    module = device.load_module(kernel_image(device))
    function = module.function("saxpy")
    with device.stream() as stream, upload(device, x, stream) as xs, upload(device, y, stream) as ys:
        values = (np.int64(count), np.float32(2), np.float64(0.5), np.uint8(200), np.int32(-7))
        function.launch(stream, (4,), (256,), ys, xs.ptr, *values)
        want = 2 * x + y + np.float32(193.5)
        np.testing.assert_allclose(download(device, ys, stream, np.float32), want, rtol=1e-5, atol=1e-5)
        function.launch(stream, (1, 1, 1), (100, 1), ys, xs, *values)
        want[:100] += 2 * x[:100] + np.float32(193.5)
        np.testing.assert_allclose(download(device, ys, stream, np.float32), want, rtol=1e-5, atol=1e-5)
        for grid, block in (((0,), (1,)), ((1,), (2048,)), ((), (1,)), ((1, 1, 1, 1), (1,)), (4, (1,))):
            with pytest.raises(InputError):
                function.launch(stream, grid, block, ys, xs, *values)  # type: ignore[arg-type]
        for wrong in (1.5, "x", True, None, -1):
            with pytest.raises(InputError, match="argument 0"):
                function.launch(stream, (1,), (1,), wrong, xs, *values)
        stream.sync()
    with pytest.raises(EngineIncompatible):
        module.function("no_such_kernel")
    module.close()
    module.close()
    with device.stream() as stream, pytest.raises(EngineClosed):
        function.launch(stream, (1,), (1,))


def kernels_are_captured(device: Device, rng: np.random.Generator) -> None:
    x = rng.standard_normal(256).astype(np.float32)
    with device.load_module(kernel_image(device)) as module, device.stream() as stream:
        function = module.function("saxpy")
        with upload(device, x, stream) as xs, upload(device, np.zeros(256, np.float32), stream) as ys:
            values = (np.int64(256), np.float32(1), np.float64(0), np.uint8(0), np.int32(0))
            graph = device.capture(stream, lambda: function.launch(stream, (1,), (256,), ys, xs, *values))
            for _ in range(3):
                graph.launch(stream)
            np.testing.assert_allclose(download(device, ys, stream, np.float32), 3 * x, rtol=1e-5)
            graph.close()


# --------------------------------------------------------------------------------------------------------- arrays


def arrays_are_handed_out_and_taken_back_without_a_copy(device: Device) -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with device.stream() as stream, upload(device, data, stream) as buffer, device.event() as ready:
        ready.record(stream)
        array = DeviceArray(device, buffer.ptr, data.shape, np.float32, owner=buffer, ready=ready)
        assert as_device_array(array, stream, dtype=np.float32, shape=(2, None, 4)) is array
        if device.kind != "pycuda" or pytest.importorskip("cuda.core"):
            again = as_device_array(_Foreign(array), stream)
            assert again.ptr == buffer.ptr and again.shape == (2, 3, 4) and again.dtype == np.float32
            assert again.contiguous and not again.readonly
        np.testing.assert_array_equal(download(device, again, stream, np.float32), data.ravel())


class _Foreign:
    """An array as another library would show it, by DLPack only."""

    def __init__(self, array: DeviceArray) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)


def the_other_interface_is_taken_too(device: Device) -> None:
    with device.stream() as stream, device.stream() as producer, device.alloc(64) as buffer:
        for said, waits in ((producer.handle, True), (None, False)):
            device.memset(buffer, 0, 64, stream)
            stream.sync()
            device.memset(buffer, 8, 64, producer)
            if not waits:
                producer.sync()
            fake = _Interface(buffer.ptr, (4, 4), "<f4", stream=said, owner=buffer)
            array = as_device_array(fake, stream, dtype=np.float32)
            assert array.ptr == buffer.ptr and array.owner is fake
            assert (download(device, array, stream) == 8).all()


class _Interface:
    def __init__(self, ptr: int, shape: tuple[int, ...], typestr: str, *, stream: Any, owner: object) -> None:
        self._owner = owner
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "data": (ptr, False), "version": 3, "strides": None, "stream": stream,
        }  # fmt: skip


def foreign_memory_is_a_span(device: Device) -> None:
    with device.stream() as stream, device.alloc(64) as buffer:
        span = DeviceSpan(device, buffer.ptr + 8, 16, buffer)
        device.memset(buffer, 1, 64, stream)
        device.memset(span, 2, 16, stream)
        np.testing.assert_array_equal(download(device, buffer, stream), [1] * 8 + [2] * 16 + [1] * 40)
        assert isinstance(device.alloc_pinned(0), HostBuffer)


CAPTURES: tuple[Callable[..., None], ...] = (
    a_captured_graph_runs_when_it_is_launched,
    a_capture_draws_in_streams_by_events,
    a_capture_that_fails_leaves_the_stream_usable,
    other_threads_work_during_a_capture,
    kernels_are_captured,
)
CASES: tuple[Callable[..., None], ...] = (
    says_what_it_is,
    copies_both_ways,
    copies_arrays_of_any_type_and_part_of_a_buffer,
    copies_only_as_many_bytes_as_asked,
    pinned_memory_is_ordinary_memory_too,
    memset_fills,
    addresses_are_aligned_and_apart,
    zero_bytes_work,
    too_much_memory_is_refused_and_the_device_lives_on,
    sizes_that_do_not_fit_are_refused,
    memory_and_streams_of_another_device_are_refused,
    closing_twice_is_harmless_and_use_after_it_is_an_error,
    nothing_leaks,
    what_is_dropped_in_another_thread_is_given_back,
    closing_waits_for_the_work,
    devices_take_turns_in_a_thread,
    a_closed_device_says_so,
    a_stream_keeps_its_order,
    events_order_streams,
    an_event_is_the_point_where_it_was_last_recorded,
    events_tell_the_time,
    sync_waits_for_every_stream,
    many_threads_share_a_device,
    *CAPTURES,
    capture_is_refused_where_there_is_none,
    kernels_run,
    arrays_are_handed_out_and_taken_back_without_a_copy,
    the_other_interface_is_taken_too,
    foreign_memory_is_a_span,
)
