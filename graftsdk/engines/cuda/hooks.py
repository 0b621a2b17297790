"""What each kind of device fills in; `protocol.Device` calls these with checked arguments and its context current."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from graftsdk.engines.cuda.resources import Event, Graph, Module, Stream

__all__ = ["Hooks"]


class Hooks(ABC):
    """The methods of a kind of device; those without an underscore check by themselves."""

    index: int

    @abstractmethod
    def free_memory(self) -> int:
        """Bytes that the device says are free; pools may hold more for us."""

    def trim(self) -> None:  # noqa: B027 - most kinds keep nothing
        """Give back memory that nobody uses but a pool keeps for us, so that other libraries find it."""

    def index_of(self, ptr: int) -> int | None:
        """The number of the device that the address belongs to; None where it is none's."""
        return self.index

    @abstractmethod
    def wait_for_handle(self, stream: Stream, handle: int) -> None:
        """Later work on `stream` waits for what was enqueued on the foreign stream `handle`; 1 and 2 as in DLPack."""

    @abstractmethod
    def order_handle(self, event: Event, handle: int) -> None:
        """Later work on the foreign stream `handle` waits for `event`; 1 and 2 as in DLPack."""

    @abstractmethod
    def _alloc(self, nbytes: int) -> tuple[int, Any]:
        """Address and native allocation, usable on every stream at once."""

    @abstractmethod
    def _free(self, allocation: Any) -> None:
        """Give it back; no work on the device uses it any more."""

    @abstractmethod
    def _alloc_pinned(self, nbytes: int) -> tuple[np.ndarray, Any]:
        """uint8[nbytes] on page-locked memory, and the native allocation."""

    @abstractmethod
    def _free_pinned(self, allocation: Any) -> None: ...

    @abstractmethod
    def _memcpy(self, kind: str, dst: int, src: int, nbytes: int, stream: Stream, host: object) -> None:
        """`kind` is "h2d", "d2h" or "d2d"; `host` is the host's side of it."""

    @abstractmethod
    def _memset(self, ptr: int, value: int, nbytes: int, stream: Stream) -> None: ...

    @abstractmethod
    def _stream(self) -> Stream: ...

    @abstractmethod
    def _event(self, timing: bool) -> Event: ...

    @abstractmethod
    def _sync(self) -> None: ...

    @abstractmethod
    def _capture(self, stream: Stream, enqueue: Callable[[], object]) -> Graph: ...

    @abstractmethod
    def _load_module(self, image: bytes) -> Module: ...

    @abstractmethod
    def _push(self) -> None: ...

    @abstractmethod
    def _pop(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...
