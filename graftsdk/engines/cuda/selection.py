"""Which of a segmentation network's predictions may be people, found on the device: only these come to the host.

A network gives thousands of predictions and megabytes of prototypes; a handful of people are in the image. The host,
which suppresses what overlaps, needs a score and a box of each that reaches the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graftsdk.engines.cuda.kernels import Kernels
from graftsdk.engines.cuda.resources import DeviceBuffer, HostBuffer, Stream
from graftsdk.engines.cuda.workspace import Workspace
from graftsdk.errors import InputError, ShapeError

__all__ = [
    "CANDIDATE",
    "PREDICTIONS",
    "RULES",
    "SELECTED",
    "Candidates",
    "DeviceField",
    "DeviceSelection",
    "Predictions",
]

_THREADS = 256  # as in mask_crop.cu
_SCANNED = 16384
_OUTPUTS = 5
_USUAL = 256  # candidates that come with the first copy, 10 kB; more take another one
_MAX_PREDICTIONS = 1 << 24
_MOST_KEPT = 64  # blocks of parameters on the device; one for each address that networks run at

RULES = ("any", "best", "over", "named")  # by their numbers there

# As in mask_crop.cu.
_FIELD = np.dtype([("first", np.uint64), ("row", np.int64), ("step", np.int64)])
PREDICTIONS = np.dtype(
    [
        ("score", _FIELD), ("factor", _FIELD), ("classes", _FIELD), ("box", _FIELD), ("prior", _FIELD),
        ("outputs", np.uint64, _OUTPUTS), ("sizes", np.int64, _OUTPUTS), ("count", np.int32),
        ("class_count", np.int32), ("person", np.int32), ("rule", np.int32),
    ]
)  # fmt: skip
CANDIDATE = np.dtype([("row", np.int32), ("score", np.float32), ("box", np.float32, 4), ("prior", np.float32, 4)])
SELECTED = np.dtype([("count", np.int32), ("bad", np.int32, _OUTPUTS), ("unused", np.int32, 2)])


@dataclass(frozen=True)
class DeviceField:
    """One value of every prediction, or the first of several, float32 in device memory; strides in floats.

    Attributes:
        ptr: of prediction 0. row_stride: from prediction to prediction. step: from value to value of one prediction.
    """

    ptr: int
    row_stride: int
    step: int = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's predictions where the network left them, and which of them may be people; made once, used often.

    Attributes:
        count: how many. score: of the person's class. factor: what it is multiplied by, or None.
        classes: of all classes, `class_count` values. person: which of them is the person.
        rule: what else a prediction must fulfil: "any" nothing; "best" that no class is better, nor as good and
            earlier; "over" that its best class exceeds a bound; "named" that its class, the one value of `classes`,
            rounds to `person`.
        box, prior: four values each; the second may be None.
        outputs: (address, floats) of what must be finite, at most five.
    """

    count: int
    score: DeviceField
    classes: DeviceField
    class_count: int
    person: int
    rule: str
    box: DeviceField
    outputs: tuple[tuple[int, int], ...]
    factor: DeviceField | None = None
    prior: DeviceField | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.count <= _MAX_PREDICTIONS or len(self.outputs) > _OUTPUTS:
            raise ShapeError(
                f"predictions: expected at most {_MAX_PREDICTIONS} and {_OUTPUTS} outputs, found {self.count} and "
                f"{len(self.outputs)}"
            )
        if self.rule not in RULES or not (self.rule == "named" or 0 <= self.person < self.class_count):
            raise InputError(
                f"predictions: expected a rule of {', '.join(RULES)} and class {self.person} among {self.class_count}, "
                f"found {self.rule!r:.40}"
            )


@dataclass(frozen=True, eq=False)
class Candidates:
    """Predictions that may be people, in the order of the network.

    Attributes:
        rows: int64[n]. scores: float32[n]. boxes, priors: float32[n, 4], as the network gave them.
        bad: for each output, whether a value is NaN or infinite.
    """

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    priors: npt.NDArray[np.float32]
    bad: tuple[bool, ...]


class DeviceSelection:
    """Selects. For one thread at a time.

    Args:
        kernels: the kernels on the device.
    """

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._device = kernels.device
        self._found = Workspace(self._device)
        self._staged: HostBuffer = self._device.alloc_pinned(SELECTED.itemsize + _USUAL * CANDIDATE.itemsize)
        self._parameters: dict[Predictions, DeviceBuffer] = {}
        self._memory: DeviceBuffer | None = None
        self._predictions: Predictions | None = None

    def start(self, predictions: Predictions, least: float, bound: float, stream: Stream) -> None:
        """Enqueue the search and the copy of what is usually all of it; `finish` once the stream is synchronised.

        Args:
            predictions: where they are; written before, on `stream`.
            least: the least score. bound: of the rule "over".
            stream: where the work is enqueued.

        Raises:
            EngineOutOfMemory: no room.
        """
        device, count = self._device, predictions.count
        with device.active():
            parameters = self._sent(predictions, stream)
            room = SELECTED.itemsize + max(count, 1) * CANDIDATE.itemsize
            found = self._found.room(room)
            device.memset(found, 0, SELECTED.itemsize, stream)
            largest = max((size for _, size in predictions.outputs), default=0)
            blocks = max(-(-count // _THREADS), -(-largest // _SCANNED), 1)
            self._kernels["select"].launch(
                stream, (blocks, 1 + _OUTPUTS), (_THREADS,), parameters, np.float32(least), np.float32(bound), found
            )
            device.d2h(self._staged, found, min(room, self._staged.nbytes), stream)
        self._memory, self._predictions = found, predictions

    def finish(self, stream: Stream) -> Candidates:
        """What the last `start` found; waits for `stream` again only where that is more than usual."""
        assert self._memory is not None and self._predictions is not None  # callers started
        head = self._staged.array[: SELECTED.itemsize].view(SELECTED)[0]
        count = min(int(head["count"]), self._predictions.count)
        bad = tuple(bool(flag) for flag in head["bad"].tolist()[: len(self._predictions.outputs)])
        if count <= _USUAL:
            stop = SELECTED.itemsize + count * CANDIDATE.itemsize
            found = self._staged.array[SELECTED.itemsize : stop].view(CANDIDATE)
        else:
            found = np.empty(count, CANDIDATE)
            rest = self._memory.span(SELECTED.itemsize, found.nbytes)
            self._device.d2h(found, rest, found.nbytes, stream)
            stream.sync()
        found = found[np.argsort(found["row"])]  # a copy, in order: threads found them in any
        return Candidates(found["row"].astype(np.int64), found["score"], found["box"], found["prior"], bad)

    def close(self) -> None:
        """Give the memory back, once the device has done its work; twice is harmless."""
        for parameters in self._parameters.values():
            parameters.close()
        self._parameters.clear()
        self._found.close()
        self._staged.close()

    def __enter__(self) -> DeviceSelection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _sent(self, predictions: Predictions, stream: Stream) -> DeviceBuffer:
        """The parameters on the device, copied once: a lane's outputs lie at fixed addresses."""
        found = self._parameters.get(predictions)
        if found is None:
            block = _block(predictions)
            while len(self._parameters) >= _MOST_KEPT:
                self._parameters.pop(next(iter(self._parameters))).close()
            found = self._device.alloc(block.nbytes)
            self._device.h2d(found, block, block.nbytes, stream)
            stream.sync()  # whatever stream uses them next finds them
            self._parameters[predictions] = found
        return found


def _block(predictions: Predictions) -> np.ndarray:
    block = np.zeros(1, PREDICTIONS)
    for name in ("score", "factor", "classes", "box", "prior"):
        field: DeviceField | None = getattr(predictions, name)
        if field is not None:
            block[name] = (field.ptr, field.row_stride, field.step)
    for index, (ptr, size) in enumerate(predictions.outputs):
        block["outputs"][0, index], block["sizes"][0, index] = ptr, size
    block["count"], block["class_count"], block["person"] = (
        predictions.count,
        predictions.class_count,
        predictions.person,
    )
    block["rule"] = RULES.index(predictions.rule)
    return block
