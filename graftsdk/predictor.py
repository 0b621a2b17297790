"""`Predictor`: an image goes in, people with attributes come out. The one place where the stages meet.

decode -> segment -> crop -> engine -> decide; each stage is a package of its own, and none knows another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Engine, default_threads
from graftsdk.engines.golden import GoldenChange, check_golden, log_golden
from graftsdk.engines.opener import Opener
from graftsdk.errors import DTypeError, GraftError, InputError, NonFiniteOutput, ShapeError
from graftsdk.graft import joints_of, scores_name
from graftsdk.incoming import decode_or_take, decode_or_take_ahead
from graftsdk.plan import BranchDocument, Plan, PlanSource, open_plan
from graftsdk.prediction import Prediction, decisions
from graftsdk.preprocess import BoxMasks, golden_crops, list_images
from graftsdk.preprocess.ahead import Decoded
from graftsdk.preprocess.crop import check_persons
from graftsdk.preprocess.decode import check_decoding, source_name
from graftsdk.preprocess.frames import Frame, open_frames
from graftsdk.scene import CropBatch, Scene
from graftsdk.scores import Thresholds, check_fraction, check_scores, copy_thresholds, resolve_thresholds
from graftsdk.segment import MAX_PERSONS, Instances
from graftsdk.segmenter import Segmenter
from graftsdk.stream import Stream
from graftsdk.text import one_line

if TYPE_CHECKING:
    from graftsdk.device_frame import DeviceImage
    from graftsdk.device_scene import DeviceCropBatch, DeviceFrames
    from graftsdk.device_segmenter import Found

__all__ = ["Predictor"]

Precision = Literal["float32", "fp16", "bf16", "int8"]
ImageSource = Any  # path, bytes, file object, PIL image or uint8[H, W, 3]: whatever `decode_image` takes
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

    Attributes:
        labels: those that are computed. plan: the open plan. device: "cpu" or "cuda", what really runs.
        forms: part -> how it is computed, where not in float32; see `Manifest.forms`.
        golden: of TensorRT's engines, how far each label's golden scores are from those that the plan stores.
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
        self._min_score = min_score
        self._threads = default_threads() if threads is None else threads
        with ExitStack() as undo:  # nothing stays open where the constructor raises
            self.plan: Plan = undo.enter_context(open_plan(source))
            self._path = None if self.plan.path is None else os.path.abspath(self.plan.path)
            manifest = self.plan.manifest
            self._joints = joints_of(manifest, labels)
            self.labels: tuple[str, ...] = tuple(self._joints)
            self._score_names = {label: scores_name(joint) for label, joint in self._joints.items()}
            self._documents = {label: _document(self.plan, label) for label in self.labels}
            self._thresholds = resolve_thresholds(self._documents, thresholds)
            self._opener = Opener(
                self._path,
                device=device,
                threads=threads,
                engine=engine,
                runtime=runtime,
                engines=engines,
                build=build,
                trust_engines=trust_engines,
                precision=precision or "float32",
                layout=layout,
                labels=None if labels is None else self.labels,
            )
            undo.callback(self._opener.close)
            self.forms = self._opener.forms(manifest)
            graphs = self._opener.graphs(self.plan, self._joints)
            self._engine: Engine = undo.enter_context(self._opener.open(graphs))
            self.device: str = self._engine.device
            self._segmenter: Segmenter | None = None
            if manifest.segmenter is not None:
                self._segmenter = undo.enter_context(Segmenter.of_plan(self.plan, open_graphs=self._opener.open))
            self.golden: tuple[GoldenChange, ...] = ()
            self._frames: DeviceFrames | None = None
            if self._opener.gpu is not None:  # only here is anything of a GPU imported
                from graftsdk.device_scene import DeviceFrames
                from graftsdk.engines.tensorrt_engine import TensorRTEngine

                assert isinstance(self._engine, TensorRTEngine)  # the opener has a GPU for no other
                self._frames = DeviceFrames(self._engine, self._opener.gpu, manifest.crop, self._segmenter)
                undo.callback(self._frames.close)
            self._warm_up()
            undo.pop_all()

    @property
    def parts(self) -> frozenset[str]:
        """Names of the trunks and branches that its labels need."""
        return frozenset(part for joint in self._joints.values() for part in (joint.trunk, joint.branch))

    @overload
    def predict(
        self,
        image: list[ImageSource] | tuple[ImageSource, ...],
        *,
        masks: Sequence[Masks | None] | None = None,
        boxes: Sequence[npt.ArrayLike | None] | None = None,
        color: Literal["bgr", "rgb"] = "bgr",
        labels: Sequence[str] | None = None,
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
        wanted = self._wanted(labels)
        check_decoding(color, reduce)
        if not isinstance(errors, str) or errors not in ("raise", "return"):
            raise InputError(f"errors: expected 'raise' or 'return', found {errors!r:.40}")
        if _is_folder(image):
            folder, image = image, list_images(image)
            if not image:
                raise InputError(
                    f"folder: expected images in {os.fspath(folder)!r:.200}, found none; folders inside it are not read"
                )
        if not isinstance(image, (list, tuple)):
            if errors != "raise":
                raise InputError(f"errors={errors!r}: expected a list of images, found one image; its error is raised")
            only = decode_or_take(image, color, reduce, self._frames)
            return self._predict(iter([only]), [masks], [boxes], wanted, _raise)[0]
        count = len(image)
        for name, side in (("masks", masks), ("boxes", boxes)):
            if side is not None and (not isinstance(side, (list, tuple)) or len(side) != count):
                found = f"{len(side)} entries" if isinstance(side, (list, tuple)) else type(side).__name__
                raise InputError(f"{name}: expected a list with one entry an image ({count}), or None, found {found}")
        with closing(decode_or_take_ahead(image, color, reduce, self._frames)) as decoded:
            fail = partial(_raise_named if errors == "raise" else _named, image)
            return self._predict(decoded, masks or [None] * count, boxes or [None] * count, wanted, fail)

    def stream(
        self,
        source: Any,
        *,
        stride: int = 1,
        live: bool | None = None,
        labels: Sequence[str] | None = None,
        reduce: int = 1,
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

        Raises:
            InputError, DecodeError: the source cannot be opened, or is used in a forked child; or, after the frames
                that came, a video is cut off or a camera is gone. An image of a folder or list is left out, and
                `failures` says why.
            NonFiniteOutput, PlanCorrupt, EngineError: as `predict`.
        """
        wanted = self._wanted(labels)

        def predict(frame: Frame) -> Prediction:
            decoded = Decoded(frame.source, frame.image, frame.decode_ms)
            return self._predict(iter([decoded]), [None], [None], wanted, _raise)[0]  # type: ignore[return-value]

        return Stream(open_frames(source, stride=stride, live=live, reduce=reduce), predict)

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
        wanted = self._wanted(labels)
        height, width = self.plan.manifest.crop.size
        if not isinstance(crops, np.ndarray) or crops.dtype != np.float32:
            kind = crops.dtype if isinstance(crops, np.ndarray) else type(crops).__name__
            raise DTypeError(f"crops: expected a float32 array, found {kind}; graftsdk.preprocess.mask_crop makes them")
        if crops.ndim != 4 or crops.shape[1:] != (3, height, width):
            raise ShapeError(f"crops: expected [N, 3, {height}, {width}], found {list(crops.shape)}")
        found: dict[str, npt.NDArray[np.float32]] = {}
        for label, scores in self._scores(crops, wanted).items():
            check_scores(label, self._documents[label].classes, scores, len(crops), "crop {}".format)
            shared = any(scores is other for other in found.values())
            found[label] = scores.copy() if shared else scores  # arrays that are handed out belong to the caller
        return found

    def close(self) -> None:
        """Let go of the engines and the plan's file. Calls in flight finish; later ones raise EngineClosed."""
        if self._frames is not None:
            self._frames.close()
        self._engine.close()
        if self._segmenter is not None:
            self._segmenter.close()
        self._opener.close()
        self.plan.close()  # last: in a forked child an engine may have been opening it

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            raise InputError("a predictor made from bytes or a file object does not pickle; make it from a path")
        return _reopen, (self._path, self._options)

    def __repr__(self) -> str:
        return f"Predictor({str(self.plan.path)!r}, device={self.device!r}, labels={list(self.labels)})"

    def _wanted(self, labels: Sequence[str] | None) -> tuple[str, ...]:
        if labels is None:
            return self.labels
        wanted = () if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable) else tuple(labels)
        texts = all(isinstance(label, str) for label in wanted)
        if not wanted or not texts or any(label not in self.labels or wanted.count(label) > 1 for label in wanted):
            found = " ".join(f"{labels!r:.200}".split())  # an array's text has several lines
            raise InputError(f"labels: expected a list of some of {list(self.labels)}, each once, found {found}")
        return wanted

    def _names(self, labels: tuple[str, ...]) -> dict[str, str]:
        """Label -> the engine's value that its scores are."""
        return {label: self._score_names[label] for label in labels}

    def _scores(self, crops: npt.NDArray[np.float32], labels: tuple[str, ...]) -> dict[str, npt.NDArray[np.float32]]:
        """Label -> what its branch gives, [N, ...]; labels of one branch share an array. Not checked."""
        names = self._names(labels)
        values = self._engine.run({"crops": crops}, list(dict.fromkeys(names.values())))
        return {label: values[name] for label, name in names.items()}

    def _warm_up(self) -> None:
        """The first run of a graph that was just compiled is slow; it must not be a user's."""
        if self._opener.engine == "tensorrt":  # warm already; other kernels than those that the plan was verified on
            crops = golden_crops(self.plan.manifest.crop)
            self.golden = check_golden(self.run, self.plan.manifest, crops, decisions, self.labels)
            log_golden(self.golden)
        elif self._engine.compiled:
            self._engine.run({"crops": np.zeros((1, 3, *self.plan.manifest.crop.size), np.float32)})
        if self._segmenter is not None and self._segmenter.compiled:
            self._segment(np.zeros((64, 64, 3), np.uint8))

    def _predict(
        self,
        images: Iterator[Decoded],
        masks: Sequence[Any],
        boxes: Sequence[Any],
        labels: tuple[str, ...],
        fail: Callable[[int, GraftError], GraftError],
    ) -> list[Prediction | GraftError]:
        """A prediction for each image, or what `fail` makes of its place and error, should it not raise."""
        batches: dict[bool, CropBatch | DeviceCropBatch] = {}  # whether its images lie on the device -> a batch
        scenes: list[Scene | GraftError] = []
        for index, decoded in enumerate(images):
            try:
                if isinstance(decoded.image, GraftError):
                    raise decoded.image
                scene = Scene(decoded)
                self._find(scene, masks[index], boxes[index])
                on_device = not isinstance(scene.image, np.ndarray)
                if on_device not in batches:
                    batches[on_device] = self._batch(on_device, labels)
                batches[on_device].add(scene)
                scenes.append(scene)
            except (InputError, NonFiniteOutput) as error:
                scenes.append(fail(index, error))
        for batch in batches.values():
            batch.flush()
        found: list[Prediction | GraftError] = []
        for index, done in enumerate(scenes):
            if isinstance(done, GraftError):
                found.append(done)
            elif done.error is not None:
                found.append(fail(index, done.error))
            else:
                found.append(done.prediction(labels, self._documents, self._thresholds, self.plan.digest))
        return found

    def _batch(self, on_device: bool, labels: tuple[str, ...]) -> CropBatch | DeviceCropBatch:
        if on_device:
            assert self._frames is not None  # it took the frame
            return self._frames.batch(self._documents, self._names(labels))
        compute = partial(self._scores, labels=labels)
        return CropBatch(self.plan.manifest.crop, self._threads, self._documents, compute)

    def _find(self, scene: Scene, masks: Any, boxes: Any) -> None:
        """Who is to be cut out of the image."""
        started = time.perf_counter()
        size = scene.size
        if boxes is not None or masks is not None:
            scene.boxes, scene.masks, scene.truncated = check_persons(
                boxes, masks, size, self.plan.manifest.crop, MAX_PERSONS
            )
        elif self._segmenter is not None:
            found = self._segment(scene.image)
            scene.boxes, scene.scores, scene.masks = found.boxes, found.scores, found.masks
            scene.truncated = found.truncated
        else:
            scene.boxes = np.array([[0, 0, size[1], size[0]]], np.float32)
        scene.timings["segment"] = 1e3 * (time.perf_counter() - started)

    def _segment(self, image: npt.NDArray[np.uint8] | DeviceImage) -> Instances | Found:
        assert self._segmenter is not None  # callers look
        if not isinstance(image, np.ndarray):
            assert self._frames is not None  # it took the frame
            return self._frames.find(image, self._min_score)
        return self._segmenter.find(image, self._min_score)


def _document(plan: Plan, label: str) -> BranchDocument:
    found = plan.manifest.find(label)
    assert found is not None  # joints_of found it
    return found[1].document


def _is_folder(image: Any) -> bool:
    try:
        return isinstance(image, (str, os.PathLike)) and os.path.isdir(image)
    except TypeError:  # it gives no path; decoding says so
        return False


def _reopen(path: str, options: dict[str, Any]) -> Predictor:
    return Predictor(path, **options)


def _raise(index: int, error: GraftError) -> GraftError:
    raise error


def _named(images: Sequence[Any], index: int, error: GraftError) -> GraftError:
    """The error, saying which image of a list it is about."""
    name = source_name(images[index]) or f"image {index}"
    named = type(error)(f"{one_line(name[-200:])}: {str(error).removeprefix('image: ')}")
    named.source, named.__cause__ = name, error
    return named


def _raise_named(images: Sequence[Any], index: int, error: GraftError) -> GraftError:
    raise _named(images, index, error)
