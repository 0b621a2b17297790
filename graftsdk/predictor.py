"""`Predictor`: an image goes in, people with attributes come out. The one place where the stages meet.

decode -> segment -> crop -> engine -> decide; each stage is a package of its own, and none knows another.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from graftsdk.call import Call, named, raise_it, raise_named
from graftsdk.engines.forks import reopen_in_child
from graftsdk.engines.golden import GoldenChange
from graftsdk.errors import GraftError, InputError
from graftsdk.incoming import decode_or_take, decode_or_take_ahead
from graftsdk.loaded import Loaded, closed
from graftsdk.plan import Plan, PlanSource
from graftsdk.prediction import Prediction
from graftsdk.preprocess import BoxMasks, list_images
from graftsdk.preprocess.ahead import Decoded
from graftsdk.preprocess.decode import check_decoding
from graftsdk.preprocess.frames import Frame, open_frames
from graftsdk.reloading import Reload, compare
from graftsdk.scores import Thresholds, check_fraction, copy_thresholds
from graftsdk.stream import Stream

if TYPE_CHECKING:
    from graftsdk.batching import Batcher
    from graftsdk.tracking import Event, Tracker, Tracking

__all__ = ["Predictor"]

Precision = Literal["float32", "fp16", "bf16", "int8"]
ImageSource = Any  # path, bytes, file object, PIL image or uint8[H, W, 3]: whatever `decode_image` takes
ASYNC_THREADS = 4  # of `apredict`: one computes, others decode
Masks = npt.NDArray[Any] | BoxMasks


class Predictor:
    """A plan, compiled and ready.

    One predictor serves many threads. In a forked child it opens its engine again at the first call; it pickles as
    its path and options. Use it in a `with` block, or `close()` it.

    Args:
        source: path of a plan, its bytes, or a binary file object.
        device: "cpu", "cuda" (never falls back), or "auto" (cuda where it works, else cpu).
        labels: the labels to compute, in this order; None computes all of the plan, in its order.
        thresholds: label -> threshold of its last class, or class -> threshold. Overrides the plan's, class by class.
        precision: None or "float32"; "int8" where the plan has INT8 parts (`graftsdk quantize`): parts that did not
            pass stay in float32; "fp16" and "bf16" on a GPU only.
        layout: "merged", one grafted graph, or "split", trunk and branches apart: `labels=` of a call then saves
            computing, and a new label compiles nothing but its own branch.
        threads: for each stage; None follows the CPUs that this process may use.
        min_score: least score of a person; None takes the plan's.
        engine: "onnxruntime"; "tensorrt", engines that `graftsdk build` made, on a GPU; "auto" takes those where
            `engines` names them, else ONNX Runtime.
        runtime: "tensorrt" or "tensorrt_rtx"; None for the first that is installed.
        engines: the folder of built engines; None for `<plan's name>.engines` beside the plan.
        build: "never", or "auto": engines that are missing or do not fit are built first, which takes minutes.
        trust_engines: run engines that this machine did not build. They are code.

    Raises:
        PlanError: the plan, or a built engine, cannot be trusted. InputError: an argument.
        EngineError: the engine cannot be opened. MissingDependency: the library that runs it is not installed.
    """

    def __init__(
        self,
        source: PlanSource,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        labels: Sequence[str] | None = None,
        thresholds: Thresholds | None = None,
        precision: Precision | None = None,
        layout: Literal["merged", "split"] = "merged",
        threads: int | None = None,
        min_score: float | None = None,
        engine: Literal["auto", "onnxruntime", "tensorrt"] = "auto",
        runtime: Literal["tensorrt", "tensorrt_rtx"] | None = None,
        engines: str | os.PathLike[str] | None = None,
        build: Literal["never", "auto"] = "never",
        trust_engines: bool = False,
    ) -> None:
        if min_score is not None:
            min_score = check_fraction("min_score", min_score)
        self._options = {  # copies: the caller may go on with its own
            "device": device,
            "labels": list(labels) if isinstance(labels, (list, tuple)) else labels,
            "thresholds": copy_thresholds(thresholds),
            "precision": precision,
            "layout": layout,
            "threads": threads,
            "min_score": min_score,
            "engine": engine,
            "runtime": runtime,
            "engines": None if engines is None else os.path.abspath(engines),
            "build": build,
            "trust_engines": trust_engines,
        }
        self._loaded = Loaded(source, self._options)
        self._closed = False
        self._pools: dict[int, ThreadPoolExecutor] = {}  # process -> threads of `apredict`; a fork has none of ours
        self._reloading = threading.Lock()
        reopen_in_child(self)

    @property
    def plan(self) -> Plan:
        """The open plan."""
        return self._loaded.plan

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that are computed."""
        return self._loaded.labels

    @property
    def device(self) -> str:
        """What really runs, "cpu" or "cuda"."""
        return self._loaded.engine.device

    @property
    def forms(self) -> dict[str, str]:
        """Part -> how it is computed, where not in float32; see `Manifest.forms`."""
        return self._loaded.forms

    @property
    def golden(self) -> tuple[GoldenChange, ...]:
        """Of TensorRT's engines, how far each label's golden scores are from those that the plan stores."""
        return self._loaded.golden

    @property
    def parts(self) -> frozenset[str]:
        """Names of the trunks and branches that its labels need."""
        return frozenset(part for joint in self._loaded.joints.values() for part in (joint.trunk, joint.branch))

    @overload
    def predict(
        self,
        image: list[ImageSource] | tuple[ImageSource, ...],
        *,
        masks: Sequence[Masks | None] | None = None,
        boxes: Sequence[npt.ArrayLike | None] | None = None,
        color: Literal["bgr", "rgb"] = "bgr",
        labels: Sequence[str] | None = None,
        thresholds: Thresholds | None = None,
        reduce: int = 1,
        errors: Literal["raise"] = "raise",
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self,
        image: list[ImageSource] | tuple[ImageSource, ...],
        *,
        masks: Sequence[Masks | None] | None = None,
        boxes: Sequence[npt.ArrayLike | None] | None = None,
        color: Literal["bgr", "rgb"] = "bgr",
        labels: Sequence[str] | None = None,
        thresholds: Thresholds | None = None,
        reduce: int = 1,
        errors: Literal["return"],
    ) -> list[Prediction | GraftError]: ...
    @overload
    def predict(
        self,
        image: ImageSource,
        *,
        masks: Masks | None = None,
        boxes: npt.ArrayLike | None = None,
        color: Literal["bgr", "rgb"] = "bgr",
        labels: Sequence[str] | None = None,
        thresholds: Thresholds | None = None,
        reduce: int = 1,
    ) -> Prediction: ...
    def predict(
        self,
        image: Any,
        *,
        masks: Any = None,
        boxes: Any = None,
        color: Literal["bgr", "rgb"] = "bgr",
        labels: Sequence[str] | None = None,
        thresholds: Thresholds | None = None,
        reduce: int = 1,
        errors: Literal["raise", "return"] = "raise",
    ) -> Any:
        """The people in an image and their attributes; a list of images or a folder gives a list, in order.

        Persons of several images share batches, and images are decoded ahead. Who is a person: with `boxes`, each box;
        with `masks` alone, each mask's own box; with neither, what the plan's segmenter finds; in a plan without one,
        the image is one person (its box, no mask, no score).

        Args:
            image: path, bytes, binary file object, PIL image or uint8[H, W, 3]; a list of them; or a folder's path.
                Predictions hold their images: `stream` goes through long lists and folders in constant memory.
                With engine="tensorrt" also an array on the engine's GPU, with DLPack or `__cuda_array_interface__`,
                rows any distance apart: it stays there, only scores and boxes come to the host.
            masks: bool or uint8 [N, H, W] over the image, or N `BoxMasks`; what is outside is filled before resizing.
                Of a list of images: a list with one entry an image, which may be None.
            boxes: [N, 4], xyxy in pixels of the image, half-open; of a list of images: likewise.
            color: channel order of arrays, "bgr" or "rgb".
            labels: the labels to return, in this order; None for all of the predictor's.
            thresholds: of this call, put over the predictor's; as for the class.
            reduce: 1, 2, 4 or 8: decode at that part of the size. Faster, and the scores are other ones; boxes and
                masks, given or found, are in pixels of the reduced image, which is `Prediction.image`.
            errors: what becomes of an image of a list that cannot be used: "raise" its error, or "return" it at its
                place, while every other image has its prediction; its `source` says which image it was.

        Raises:
            InputError: the image, a mask, a box (named by its index) or a label cannot be used; the predictor can.
            NonFiniteOutput: a score is NaN or infinite; names label, image and person.
            PlanCorrupt: a branch gives something else than probabilities, whatever the image; names the label.
            EngineError: the engine failed.
        """
        check_decoding(color, reduce)
        if not isinstance(errors, str) or errors not in ("raise", "return"):
            raise InputError(f"errors: expected 'raise' or 'return', found {errors!r:.40}")
        with self._hold() as loaded:
            call = Call(loaded, loaded.wanted(labels), loaded.overridden(thresholds))
            if _is_folder(image):
                folder, image = image, list_images(image)
                if not image:
                    raise InputError(
                        f"folder: expected images in {os.fspath(folder)!r:.200}, found none; folders inside it are not "
                        f"read"
                    )
            if not isinstance(image, (list, tuple)):
                if errors != "raise":
                    raise InputError(
                        f"errors={errors!r}: expected a list of images, found one image; its error is raised"
                    )
                only = decode_or_take(image, color, reduce, loaded.frames)
                return call.predict(iter([only]), [masks], [boxes], raise_it)[0]
            count = len(image)
            for name, side in (("masks", masks), ("boxes", boxes)):
                if side is not None and (not isinstance(side, (list, tuple)) or len(side) != count):
                    found = f"{len(side)} entries" if isinstance(side, (list, tuple)) else type(side).__name__
                    raise InputError(
                        f"{name}: expected a list with one entry an image ({count}), or None, found {found}"
                    )
            with closing(decode_or_take_ahead(image, color, reduce, loaded.frames)) as decoded:
                fail = partial(raise_named if errors == "raise" else named, image)
                return call.predict(decoded, masks or [None] * count, boxes or [None] * count, fail)

    def stream(
        self,
        source: Any,
        *,
        stride: int = 1,
        live: bool | None = None,
        labels: Sequence[str] | None = None,
        reduce: int = 1,
        track: Literal["supervision"] | Tracker | None = None,
        every: Mapping[str, int] | None = None,
        tracking: Tracking | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> Stream:
        """The predictions of a video, a folder, a camera or a network stream, one after another.

        Memory stays constant; frames are decoded ahead in a thread. Each prediction has its `frame` and `timestamp`.
        The stream has `dropped`, `lag_ms`, `failures` and `failed`; it closes at its end, or with `close()` or `with`.

        Args:
            source: path of a video (every frame), an image or a folder of images; an iterable of images; a camera's
                number, "/dev/video0" or an address such as "rtsp://..." (the newest frame; those it replaced are
                dropped).
            stride: take every N-th frame only; of a folder or list, every N-th image.
            live: True for the newest frame, False for every one; None goes by the kind of source. True plays a file
                at its own pace, as if it were a camera.
            labels: the labels to return, in this order; None for all of the predictor's.
            reduce: as for `predict`.
            track: who is who, see docs/tracks.md: "supervision" for ByteTrack (`pip install trackers`), or a function
                (boxes float32[N, 4], scores float32[N], frame uint8[H, W, 3]) -> int[N], -1 for none. Scores are then
                voted over each person's track, and `stream.events` tells decisions, each once.
            every: label -> frames from one computing to the next for a person; needs `track`. The labels that are not
                named are computed on each frame. With layout="split" only the branches that are due run.
            tracking: when a label is computed before its time, how much is forgotten, when something is decided.
            on_event: called with each event, before its prediction is handed out.

        Raises:
            MissingDependency: track="supervision" without its packages.
            InputError, DecodeError: the source cannot be opened, or is used in a forked child; or, after the frames
                that came, a video is cut off or a camera is gone. An image of a folder or list is left out, and
                `failures` says why. What `track` or `on_event` raises, or a wrong number of a tracker, ends any stream.
            NonFiniteOutput, PlanCorrupt, EngineError: as `predict`.
        """
        from graftsdk.tracking import tracked  # not on the way of a warm start

        wanted, split = self._loaded.wanted(labels), self._options["layout"] == "split"
        chosen = None if labels is None else wanted  # None follows a plan that is loaded meanwhile
        tracks = tracked(wanted, split=split, track=track, every=every, tracking=tracking, on_event=on_event)

        def predict(frame: Frame) -> Prediction:
            decoded = Decoded(frame.source, frame.image, frame.decode_ms)
            with self._hold() as loaded:
                call = Call(loaded, loaded.wanted(chosen), loaded.thresholds)
                if tracks is not None:
                    return tracks.predict(call.look(decoded), frame.index)
                return call.predict(iter([decoded]), [None], [None], raise_it)[0]  # type: ignore[return-value]

        return Stream(open_frames(source, stride=stride, live=live, reduce=reduce), predict, tracks)

    def run(
        self, crops: npt.NDArray[np.float32], labels: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Label -> float32[N, C], calibrated probabilities in the order of the label's classes.

        Args:
            crops: float32[N, 3, H, W], as `graftsdk.preprocess.mask_crop` makes them with `plan.manifest.crop`.
            labels: keys of the result, in this order; None for all of the predictor's.

        Raises:
            InputError: a label that this predictor does not compute. DTypeError, ShapeError: other crops.
            NonFiniteOutput: a score is NaN or infinite; names label and row.
            PlanCorrupt: a branch gives something else than probabilities of its classes; names the label.
        """
        with self._hold() as loaded:
            return loaded.run(crops, labels)

    async def apredict(self, image: Any, **options: Any) -> Any:
        """As `predict`, in one of a few threads of the predictor's own; the event loop goes on meanwhile.

        A cancelled task takes back what has not begun; what has begun ends by itself. With many callers, `batcher`
        shares batches between them and has a bounded queue.
        """
        pool = self._pools.get(os.getpid())
        if pool is None:  # of two threads that come here at once, the first one's is kept; an unused one has no thread
            pool = self._pools.setdefault(os.getpid(), ThreadPoolExecutor(ASYNC_THREADS, "graftsdk-apredict"))
        if self._closed:  # looked at after `setdefault`: a `close` that comes later finds the pool
            self._end_pool()
            raise closed()
        try:
            job = pool.submit(partial(self.predict, image, **options))
        except RuntimeError:  # it takes nothing more
            if self._closed:
                raise closed() from None
            raise
        return await asyncio.wrap_future(job)

    def reload(self, source: PlanSource | None = None) -> Reload:
        """Serve another plan, with the options that the predictor was made with, without losing a call.

        Every byte is hashed, the engine opened and warmed, the golden crops run through both plans; then calls that
        begin get the new plan. Those in flight end on the plan that they began with, whose file and memory are given
        back with the last of them. For that time both are in memory. One reload at a time: a second one waits.
        Scores other than those stored in the new plan, or those of the old one, do not refuse it: `Reload` has them.

        Args:
            source: as for the class; None opens the predictor's own path again.

        Raises:
            PlanError, InputError, EngineError, MissingDependency: as the class, and where a score of the new plan is
                no probability. The old plan goes on serving.
        """
        started = time.perf_counter()
        with self._reloading, self._hold() as old:
            if source is None:
                source = old.path
            if source is None:
                raise InputError(
                    "reload: expected a source, since the open plan came from bytes or a file object, found None; pass "
                    "the new plan's path or bytes"
                )
            new = Loaded(source, self._options, check=True)
            try:
                new.warm_up(always=True)
                changes, golden = compare(old, new)
            except BaseException:
                new.retire()
                raise
            self._loaded = new
            old.retire()  # closes when the last call lets go of it
            if self._closed:  # meanwhile, by somebody who saw the old one
                new.retire()
        return Reload(
            old.plan.digest,
            new.plan.digest,
            tuple(label for label in new.labels if label not in old.labels),
            tuple(label for label in old.labels if label not in new.labels),
            changes,
            golden,
            time.perf_counter() - started,
        )

    def batcher(self, max_batch: int = 32, max_wait_ms: float = 0.0, queue: int = 64) -> Batcher:
        """What lets callers in any thread or event loop share batches; close it before the predictor.

        Args:
            max_batch: crops that are computed at once.
            max_wait_ms: how long a batch with room waits for more; 0 takes what is there.
            queue: images that may wait; more are refused with Overloaded.

        Raises:
            InputError: an argument.
        """
        from graftsdk.batching import Batcher  # where nobody batches, nothing of it is loaded

        return Batcher(self._hold, max_batch=max_batch, max_wait_ms=max_wait_ms, queue=queue)

    def close(self) -> None:
        """Let go of the engines and the plan's file. Calls in flight finish; later ones raise EngineClosed."""
        self._closed = True
        self._loaded.retire()
        self._end_pool()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        path = self._loaded.path
        if path is None:
            raise InputError("a predictor made from bytes or a file object does not pickle; make it from a path")
        return _reopen, (path, self._options)

    def __repr__(self) -> str:
        return f"Predictor({str(self.plan.path)!r}, device={self.device!r}, labels={list(self.labels)})"

    def _after_fork_in_child(self) -> None:
        self._reloading = threading.Lock()  # the parent's may be held by a thread that is not here

    def _end_pool(self) -> None:
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.shutdown(wait=False)  # its threads end with what they were given

    def _hold(self) -> Loaded:
        """The plan that serves now, held until the end of a `with` block. Raises EngineClosed."""
        while True:
            loaded = self._loaded
            if self._closed:  # a reload may just have put a plan there that it has yet to retire
                raise closed()
            if loaded.hold():
                return loaded
            if loaded is self._loaded:  # not swapped in between
                raise closed()


def _is_folder(image: Any) -> bool:
    try:
        return isinstance(image, (str, os.PathLike)) and os.path.isdir(image)
    except TypeError:  # it gives no path; decoding says so
        return False


def _reopen(path: str, options: dict[str, Any]) -> Predictor:
    return Predictor(path, **options)
