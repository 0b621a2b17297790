"""`PlanWatcher`: a plan's file that was replaced serves within seconds; one that is damaged does not."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from graftsdk.errors import EngineOutOfMemory, GraftError, InputError
from graftsdk.predictor import Predictor
from graftsdk.reloading import Reload
from graftsdk.text import one_line

__all__ = ["PlanWatcher"]

_log = logging.getLogger("graftsdk.serving")

Look = tuple[int, int, int, int]  # device, inode, size, time of the last change in nanoseconds
_AGAIN = 30.0  # seconds after which a plan is tried again that was not itself to blame: memory, descriptors, a device


class PlanWatcher:
    """Looks at the plan's file and reloads the predictor when another one stands there.

    A plan is replaced by renaming, so a file is there whole or not at all. One that cannot be used is tried once; the
    predictor goes on with the plan that it has, and the next change is tried again. A file that is gone is no change.
    What failed for another reason than the file (no memory, no free descriptor) is tried again after 30 seconds.

    Args:
        predictor: made from a path.
        on_reload: called after each attempt, in the watcher's thread: what was reloaded, or None where it was refused.
        seconds: between two looks.

    Attributes:
        refused: why the file that stands there now does not serve, in one line; None where it does.

    Raises:
        InputError: a predictor that was not made from a path; not above 0 seconds.
    """

    def __init__(
        self, predictor: Predictor, on_reload: Callable[[Reload | None], object], seconds: float = 1.0
    ) -> None:
        path = predictor.plan.path
        if path is None:
            raise InputError("expected a predictor made from a path, found one of bytes: nothing there can be watched")
        if not seconds > 0:
            raise InputError(f"seconds: expected more than 0 between two looks, found {seconds}")
        self.refused: str | None = None
        self._predictor = predictor
        self._on_reload = on_reload
        self._seconds = seconds
        self._path = os.fspath(path)
        # What the open plan was, not what stands there by now: a change in between is one.
        self._seen: Look | None = None
        self._digest = predictor.plan.digest
        self._again: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="graftsdk-watch", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Look once, now: reload where the file is another one than at the last look."""
        try:
            found = os.stat(self._path)
        except OSError:  # gone, or not readable for a moment: what serves goes on
            return
        seen = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if seen == self._seen and (self._again is None or time.monotonic() < self._again):
            return
        first, self._seen, self._again = self._seen is None, seen, None
        if first and self._same():
            return
        try:
            done = self._predictor.reload()
        except Exception as error:  # noqa: BLE001  (nobody else would see it, and the next plan has to be tried)
            self._refuse(error)
            return
        self.refused = None
        _log.info("plan %s serves in place of %s", done.new[:12], done.old[:12])
        self._on_reload(done)

    def close(self) -> None:
        """Stop looking; a reload that has begun ends first. May be called again."""
        self._closing.set()
        self._thread.join()

    def _refuse(self, error: Exception) -> None:
        """Say once why; the old plan goes on."""
        text = one_line(str(error) if isinstance(error, (GraftError, OSError)) else type(error).__name__)[:500]
        passing = (EngineOutOfMemory, MemoryError, OSError)  # an error of ours has the system's as its cause
        if isinstance(error, passing) or isinstance(error.__cause__, passing):
            self._again = time.monotonic() + _AGAIN
        if text != self.refused:
            _log.error("the plan was replaced by one that does not serve; the old one goes on: %s", text)
        self.refused = text
        self._on_reload(None)

    def _same(self) -> bool:
        """Whether the file is the plan that serves: at the first look."""
        from graftsdk.plan import open_plan

        try:
            with open_plan(self._path) as plan:
                return plan.digest == self._digest
        except (GraftError, OSError):
            return False

    def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # noqa: BLE001  (of `on_reload`: whoever counts must not end the watch)
                _log.exception("looking at the plan's file failed")
            if self._closing.wait(self._seconds):
                return
