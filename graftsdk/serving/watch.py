"""`PlanWatcher`: a plan's file that was replaced serves within seconds; one that is damaged does not."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from graftsdk.errors import GraftError, InputError
from graftsdk.predictor import Predictor
from graftsdk.reloading import Reload
from graftsdk.text import one_line

__all__ = ["PlanWatcher"]

_log = logging.getLogger("graftsdk.serving")

Look = tuple[int, int, int, int]  # device, inode, size, time of the last change in nanoseconds


class PlanWatcher:
    """Looks at the plan's file and reloads the predictor when another one stands there.

    A plan is replaced by renaming, so a file is there whole or not at all. One that cannot be used is tried once; the
    predictor goes on with the plan that it has, and the next change is tried again. A file that is gone is no change.

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
        if seen == self._seen:
            return
        first, self._seen = self._seen is None, seen
        if first and self._same():
            return
        try:
            done = self._predictor.reload()
        except (GraftError, OSError) as error:
            self.refused = one_line(str(error))[:500]
            _log.error("the plan was replaced by one that does not serve; the old one goes on: %s", self.refused)
            self._on_reload(None)
            return
        self.refused = None
        _log.info("plan %s serves in place of %s", done.new[:12], done.old[:12])
        self._on_reload(done)

    def close(self) -> None:
        """Stop looking; a reload that has begun ends first. May be called again."""
        self._closing.set()
        self._thread.join()

    def _same(self) -> bool:
        """Whether the file is the plan that serves: at the first look."""
        from graftsdk.plan import open_plan

        try:
            with open_plan(self._path) as plan:
                return plan.digest == self._digest
        except (GraftError, OSError):
            return False

    def _watch(self) -> None:
        self.look()
        while not self._closing.wait(self._seconds):
            self.look()
