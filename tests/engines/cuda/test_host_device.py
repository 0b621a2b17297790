"""The device of machines without a GPU is stricter than one: what a GPU may get wrong, it gets wrong every time."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from graftsdk.engines.cuda.host import HostDevice
from graftsdk.errors import EngineClosed, EngineError, EngineForked, EngineOutOfMemory, InputError

FRESH, FREED = 0xA5, 0xDD


def test_a_read_without_a_sync_sees_what_was_there_before() -> None:
    with HostDevice() as device, device.stream() as stream, device.alloc(8) as buffer:
        out = np.zeros(8, np.uint8)
        device.memset(buffer, 1, 8, stream)
        device.d2h(out, buffer, 8, stream)
        assert (out == 0).all()
        stream.sync()
        assert (out == 1).all()


def test_a_source_that_is_changed_too_early_is_seen_changed() -> None:
    with HostDevice() as device, device.stream() as stream, device.alloc(8) as buffer:
        source, out = np.full(8, 1, np.uint8), np.zeros(8, np.uint8)
        device.h2d(buffer, source, 8, stream)
        source[:] = 2
        device.d2h(out, buffer, 8, stream)
        stream.sync()
        assert (out == 2).all()


def test_streams_that_do_not_wait_for_each_other_run_in_the_wrong_order() -> None:
    with HostDevice() as device, device.stream() as writer, device.stream() as reader, device.alloc(8) as buffer:
        out = np.zeros(8, np.uint8)
        device.memset(buffer, 1, 8, writer)
        device.d2h(out, buffer, 8, reader)
        device.sync()
        assert (out == FRESH).all()


def test_an_event_does_only_what_it_has_to() -> None:
    with HostDevice() as device, device.stream() as stream, device.alloc(8) as buffer, device.event() as event:
        out = np.zeros(8, np.uint8)
        device.memset(buffer, 1, 8, stream)
        event.record(stream)
        device.d2h(out, buffer, 8, stream)
        assert not event.done
        event.sync()
        assert event.done and (out == 0).all()


def test_long_chains_of_waits_end() -> None:
    with HostDevice() as device, device.stream() as a, device.stream() as b, device.alloc(8) as buffer:
        event = device.event()
        for step in range(3000):
            device.memset(buffer, step % 256, 8, a)
            event.record(a)
            event.wait(b)
            a, b = b, a
        a.sync()
        out = np.zeros(8, np.uint8)
        device.d2h(out, buffer, 8, a)
        a.sync()
        assert (out == 2999 % 256).all()


def test_fresh_memory_is_not_zero_and_freed_memory_is_poisoned() -> None:
    with HostDevice() as device, device.stream() as stream:
        buffer, pinned = device.alloc(8), device.alloc_pinned(8)
        assert (pinned.array == FRESH).all()
        device.d2h(pinned, buffer, 8, stream)
        stream.sync()
        assert (pinned.array == FRESH).all()
        view = pinned.array
        pinned.close()
        assert (view == FREED).all()
        buffer.close()


def test_memory_that_is_closed_before_the_work_on_it_is_launched_again_is_found() -> None:
    with HostDevice() as device, device.stream() as stream:
        buffer = device.alloc(8)
        graph = device.capture(stream, lambda: device.memset(buffer, 1, 8, stream))
        buffer.close()
        graph.launch(stream)
        with pytest.raises(EngineError, match="closed before the work"):
            stream.sync()


def overrun(gx: int, gy: int, gz: int, bx: int, by: int, bz: int, pointer: Any, offset: Any) -> None:
    ctypes.memset(pointer.value + offset.value, 0, 1)


@pytest.mark.parametrize("offset", [-1, 8, 100, -200])
def test_a_kernel_that_writes_beside_its_memory_is_found(offset: int) -> None:
    device = HostDevice({"overrun": overrun})
    function = device.load_module(b"").function("overrun")
    stream, buffer = device.stream(), device.alloc(8)
    function.launch(stream, (1,), (1,), buffer, np.int32(7))
    stream.sync()
    function.launch(stream, (1,), (1,), buffer, np.int32(offset))
    with pytest.raises(EngineError, match="inside an allocation of 8 bytes"):
        stream.sync()


def test_a_host_that_writes_beside_pinned_memory_is_found_when_it_is_freed() -> None:
    device = HostDevice()
    pinned = device.alloc_pinned(8)
    ctypes.memset(pinned.array.ctypes.data + 8, 0, 1)
    with pytest.raises(EngineError, match="inside an allocation of 8 bytes"):
        pinned.close()


def test_a_copy_that_runs_over_the_end_of_an_address_is_found() -> None:
    from graftsdk.engines.cuda import DeviceSpan

    with HostDevice() as device, device.stream() as stream, device.alloc(8) as buffer:
        device.memset(DeviceSpan(device, buffer.ptr + 4, 8), 0, 8, stream)
        with pytest.raises(EngineError, match="inside 8 allocated"):
            stream.sync()


def fails(*args: Any) -> None:
    raise ZeroDivisionError("no")


def test_a_kernel_that_raises_is_an_error_at_the_sync() -> None:
    with HostDevice({"fails": fails}) as device, device.stream() as stream:
        device.load_module(b"").function("fails").launch(stream, (1,), (1,))
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            stream.sync()


def test_kernels_of_a_c_library_are_called() -> None:
    """A function of C, by its prototype: the grid, the block, then the kernel's own arguments."""
    seen = []
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int] * 6, ctypes.c_void_p, ctypes.c_longlong, ctypes.c_float)
    kernel = prototype(lambda *args: seen.append(args))
    with HostDevice({"kernel": kernel}) as device, device.stream() as stream, device.alloc(8) as buffer:
        address = buffer.ptr
        device.load_module(b"").function("kernel").launch(stream, (2, 3), (4,), buffer, np.int64(-5), np.float32(0.5))
        stream.sync()
    assert seen == [(2, 3, 1, 4, 1, 1, address, -5, 0.5)]


def test_values_that_c_has_no_type_for_are_refused() -> None:
    with HostDevice({"fails": fails}) as device, device.stream() as stream, pytest.raises(InputError, match="float16"):
        device.load_module(b"").function("fails").launch(stream, (1,), (1,), np.float16(1))


def test_memory_ends_and_comes_back() -> None:
    with HostDevice(memory=1000) as device:
        first = device.alloc(600)
        with pytest.raises(EngineOutOfMemory, match="600 bytes .* 400 of 1000"):
            device.alloc(600)
        assert device.free_memory() == 400
        first.close()
        with device.alloc(1000), device.alloc_pinned(5000):
            assert device.free_memory() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_to_open_its_own() -> None:
    device = HostDevice()
    stream, buffer = device.stream(), device.alloc(8)
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()

    def child() -> None:
        for call in (
            lambda: device.alloc(1),
            stream.sync,
            lambda: buffer.ptr,
            lambda: device.memset(buffer, 0, 1, stream),
        ):
            try:
                call()
            except EngineForked as error:
                said.put(str(error))
        buffer.close()
        device.close()
        said.put("closed")

    process = context.Process(target=child)
    process.start()
    answers = [said.get() for _ in range(5)]
    process.join(30)
    assert process.exitcode == 0
    assert all("spawn" in answer for answer in answers[:4]) and answers[4] == "closed"
    device.memset(buffer, 0, 8, stream)
    device.close()
    with pytest.raises(EngineClosed):
        device.alloc(1)


def test_the_package_loads_the_standard_library_only() -> None:
    code = (
        "import sys, graftsdk.engines.cuda as c; before = set(sys.modules); names = dir(c); "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'numpy', 'cuda', 'pycuda', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
