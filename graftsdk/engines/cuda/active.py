"""Which device's context is current in a thread, as far as we made it so."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Protocol

__all__ = ["Active"]


class _Pushes(Protocol):
    def _push(self) -> None: ...

    def _pop(self) -> None: ...


class _Thread(threading.local):
    def __init__(self) -> None:
        self.devices: list[_Pushes] = []  # those whose context this thread has pushed, the current one last


_thread = _Thread()


class Active:
    """A block with a device's context current; a class and no generator, since every call of a device enters one."""

    __slots__ = ("_device", "_pushed")

    def __init__(self, device: _Pushes) -> None:
        self._device = device
        self._pushed = False

    def __enter__(self) -> None:
        devices = _thread.devices
        if not devices or devices[-1] is not self._device:
            self._device._push()
            devices.append(self._device)
            self._pushed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pushed:
            self._pushed = False
            _thread.devices.pop()
            self._device._pop()
