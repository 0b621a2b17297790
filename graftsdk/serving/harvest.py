"""`Harvest`: a few crops that a plan was unsure of, kept for annotation. Off unless an operator asks for it.

What lies where, and for how long, is stated in docs/privacy.md; change both together.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import secrets
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from graftsdk.arguments import whole_number
from graftsdk.attribute import Attribute
from graftsdk.errors import GraftError, InputError
from graftsdk.files import atomic_write
from graftsdk.plan import CropSpec
from graftsdk.prediction import Person, Prediction
from graftsdk.preprocess.cutout import cut_out
from graftsdk.preprocess.image import MIN_SIDE
from graftsdk.scores import check_fraction
from graftsdk.text import reason

__all__ = ["Harvest", "doubt"]

_log = logging.getLogger("graftsdk.serving")

_DAY = 86400.0  # seconds
_SWEEP = 3600.0  # seconds between looks for files that are too old
_NAME = re.compile(r"[0-9a-f]{32}\.png")
_LEFT = re.compile(r"\.[0-9a-f]{32}\.png\.\d+\.[0-9a-f]{8}\.tmp")  # of a process that was killed while it wrote


class Harvest:
    """Writes FOLDER/LABEL/CLASS/NAME.png: a person, the mask as alpha, in the class that was decided on.

    There is no folder `train` in it, so nothing can be trained on guesses by mistake: whoever annotates puts pictures
    that are in the wrong class right, and moves the classes to LABEL/train of a sub-dataset, where `graftsdk mine` and
    `graftsdk train branch` read them. Pixels outside the mask are black, unless the plan's crops keep the background.

    At most `per_day` pictures in 24 hours, of all labels together, evenly: after one there is none for a `per_day`-th
    part of a day, also by another process that shares the folder or by this one after a restart. So whoever stands
    before a camera for a minute fills no day. A person gets one picture, for the label that was nearest to its
    threshold. Names are random. A disk that is full, or any other error of it, ends the harvest with a line in the log.

    Args:
        folder: made with mode 0700 where it is not there; else this user's own, and nobody else's to enter.
        per_day: pictures in 24 hours.
        keep_days: pictures that are older are deleted, as long as this runs.
        margin: how near to its threshold a score is uncertain.
        crop: how the plan's crops are cut.

    Attributes:
        stopped: the disk failed; nothing more is written.

    Raises:
        InputError: a number out of its range, or a folder that cannot be used or that others can enter.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        per_day: int = 100,
        keep_days: int = 30,
        margin: float = 0.1,
        crop: CropSpec | None = None,
    ) -> None:
        self._every = _DAY / whole_number("harvest: pictures a day", per_day, 1, 10_000)
        self._keep = _DAY * whole_number("harvest: days that they are kept", keep_days, 1, 3650)
        self._margin = check_fraction("harvest: margin", margin)
        self._pad, self._around = 0.0, False
        if crop is not None:
            self.follow(crop)
        self._folder = Path(folder)
        _own_folder(self._folder)
        self.stopped = False
        self._due = self._newest() + self._every  # seconds since 1970
        self._waiting: queue.Queue[tuple[Prediction, Person, Attribute] | None] = queue.Queue(1)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="graftsdk-harvest", daemon=True)
        self._thread.start()

    def offer(self, prediction: Prediction) -> None:
        """Maybe keep one of its persons; returns at once."""
        if self.stopped or self._closing or time.time() < self._due:
            return
        found = [
            (distance, person, attribute)
            for person in prediction
            for attribute in person
            if (distance := doubt(attribute)) <= self._margin and _may_be_folders(attribute)
        ]
        if found:
            _, person, attribute = min(found, key=lambda each: each[0])
            with suppress(queue.Full):  # the one that is being written
                self._waiting.put_nowait((prediction, person, attribute))

    def follow(self, crop: CropSpec) -> None:
        """Another plan serves: its crops are cut like this."""
        self._pad, self._around = crop.pad, crop.background == "keep"

    def close(self) -> None:
        """Write what waits, and end. May be called again."""
        self._closing = True
        with suppress(queue.Full):  # then it is not asleep
            self._waiting.put_nowait(None)
        self._thread.join()

    # -------------------------------------------------------------------------------------------------- in its thread
    def _run(self) -> None:
        swept = float("-inf")
        while not (self._closing and self._waiting.empty()):
            if time.monotonic() - swept >= _SWEEP:
                swept = time.monotonic()
                try:
                    self._sweep()
                except OSError as error:
                    _log.error("old pictures of the harvest could not be looked for: %s", reason(error))
            try:
                offered = self._waiting.get(timeout=_SWEEP)
            except queue.Empty:
                continue
            if offered is None:
                return
            try:
                self._keep_one(*offered)
            except Exception as error:  # noqa: BLE001  (serving goes on, whatever became of this picture)
                self.stopped = True
                text = reason(error) if isinstance(error, OSError) else type(error).__name__
                _log.error("no more uncertain crops are kept until the service is started again: %s", text)
            del offered  # a thread that waits holds on to nobody's image

    def _keep_one(self, prediction: Prediction, person: Person, attribute: Attribute) -> None:
        if self.stopped or time.time() < self._due:
            return
        self._due = max(self._due, self._newest() + self._every)  # others may share the folder
        if time.time() < self._due:
            return
        content = self._picture(prediction, person)
        if content is None:
            return
        home = self._folder
        for name in (attribute.label, attribute.name):
            home = home / name
            home.mkdir(mode=0o700, exist_ok=True)
        with atomic_write(home / f"{secrets.token_hex(16)}.png") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
        self._due = time.time() + self._every

    def _picture(self, prediction: Prediction, person: Person) -> bytes | None:
        """PNG; None where the crop is too small to be read again, or too large for the kind."""
        from graftsdk.drawing.pictures import encode

        mask = person.mask
        cut = cut_out(prediction.image, person.box, None if mask is None else mask[None], 0, self._pad)
        pixels = cut.pixels
        if min(pixels.shape[:2]) < MIN_SIDE:
            return None
        if not self._around:
            pixels[pixels[:, :, 3] == 0] = 0
        try:
            return encode(pixels, ".png")
        except GraftError:
            return None

    def _pictures(self) -> list[tuple[Path, float]]:
        """Our own files, and when each was written; nothing else in the folder is looked at."""
        found = []
        for path in self._folder.glob("*/*/*"):
            if _NAME.fullmatch(path.name) or _LEFT.fullmatch(path.name):
                with suppress(OSError):  # somebody moved it just now
                    about = path.lstat()
                    if stat.S_ISREG(about.st_mode):
                        found.append((path, about.st_mtime))
        return found

    def _newest(self) -> float:
        """When the last picture was written, seconds since 1970; at most now, also after a clock was set back."""
        last = max((when for path, when in self._pictures() if _NAME.fullmatch(path.name)), default=0.0)
        return min(last, time.time())

    def _sweep(self) -> None:
        limit = time.time() - self._keep
        for path, when in self._pictures():
            if when < limit or (_LEFT.fullmatch(path.name) and when < time.time() - _SWEEP):
                with suppress(OSError):  # gone already, or the disk fails: the next sweep tries again
                    path.unlink()


def doubt(attribute: Attribute) -> float:
    """How near a decision was to being another one, 0 to 1.

    The least distance of a score to its threshold; of three or more classes also that of the two most probable ones.
    """
    scores = attribute.scores
    near = [abs(scores[name] - threshold) for name, threshold in attribute.thresholds.items()]
    if len(attribute.classes) == 2:
        return float(min([*near, abs(attribute.score - attribute.threshold)]))
    first, second = np.sort(list(scores.values()))[[-1, -2]]
    return float(min([*near, first - second]))


def _may_be_folders(attribute: Attribute) -> bool:
    """Whether label and class are names of folders as sub-datasets have them; a plan may have others."""
    names = (attribute.label, attribute.name)
    return all(
        name.isprintable() and not name.startswith(".") and os.sep not in name and len(os.fsencode(name)) <= 200
        for name in names
    )


def _own_folder(folder: Path) -> None:
    """Make it, or prove that it is this user's and that nobody else may enter. Raises InputError."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError as error:
        raise InputError(f"harvest: expected a folder that can be made, found {reason(error)}: {folder}") from error
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
        raise InputError(f"harvest: expected a folder of this user's own, found another or a link: {folder}")
    if stat.S_IMODE(about.st_mode) & 0o077:
        raise InputError(
            f"harvest: expected a folder that nobody else may enter, found mode {stat.S_IMODE(about.st_mode):04o}: "
            f"chmod 700 {folder}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"harvest: expected a folder that can be written, found another: {folder}")
