"""`Predictor`: an image goes in, people with attributes come out. The one place where the stages meet.

decode -> segment -> crop -> engine -> decide; each stage is a package of its own, and none knows another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Engine, default_threads, open_engine
from graftsdk.engines.layout import graphs_of, partition, segmenter_graph
from graftsdk.errors import DTypeError, EngineIncompatible, InputError, NonFiniteOutput, ShapeError
from graftsdk.graft import joints_of, scores_name
from graftsdk.plan import BranchDocument, Plan, PlanSource, open_plan
from graftsdk.prediction import Attribute, Person, Prediction
from graftsdk.preprocess import BoxMasks, decode_image, list_images, mask_crop
from graftsdk.preprocess.crop import check_persons
from graftsdk.scores import Thresholds, check_fraction, check_scores, copy_thresholds, resolve_thresholds
from graftsdk.segment import MAX_PERSONS, Adapter, Instances, open_adapter

__all__ = ["Predictor"]

CROPS_AT_ONCE = 32  # crops that are held at one time, 34 MB at 299x299; the engine takes them eight by eight

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
        precision: None or "float32".
        layout: "merged", one grafted graph, or "split", trunk and branches apart: `labels=` of a call then saves
            computing, and a new label compiles nothing but its own branch.
        threads: for each stage; None follows the CPUs that this process may use.
        min_score: least score of a person; None takes the plan's.

    Raises:
        PlanError: the plan cannot be trusted. InputError: an argument. EngineError: the engine cannot be opened.

    Attributes:
        labels: those that are computed. plan: the open plan. device: "cpu" or "cuda", what really runs.
    """

    def __init__(
        self,
        source: PlanSource,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        labels: Sequence[str] | None = None,
        thresholds: Thresholds | None = None,
        precision: Literal["float32"] | None = None,
        layout: Literal["merged", "split"] = "merged",
        threads: int | None = None,
        min_score: float | None = None,
    ) -> None:
        if precision not in (None, "float32"):
            raise EngineIncompatible(
                f"precision: expected None or 'float32', found {precision!r}; the plan has no other"
            )
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
        }
        self._min_score = min_score
        self._threads = default_threads() if threads is None else threads
        with ExitStack() as undo:  # nothing stays open where the constructor raises
            self.plan: Plan = undo.enter_context(open_plan(source))
            self._path = None if self.plan.path is None else os.path.abspath(self.plan.path)
            manifest = self.plan.manifest
            self._joints = joints_of(manifest, labels)
            self.labels: tuple[str, ...] = tuple(self._joints)
            self._documents = {label: _document(self.plan, label) for label in self.labels}
            self._thresholds = resolve_thresholds(self._documents, thresholds)
            graphs = graphs_of(self.plan, partition(self._joints, layout))
            self._engine: Engine = undo.enter_context(open_engine(graphs, device=device, threads=threads))
            self.device: str = self._engine.device
            self._adapter: Adapter | None = None
            self._segmenter: Engine | None = None
            if manifest.segmenter is not None:
                self._adapter = open_adapter(manifest.segmenter)
                segmenter = open_engine([segmenter_graph(self.plan)], device=device, threads=threads)
                self._segmenter = undo.enter_context(segmenter)
            self._warm_up()
            undo.pop_all()

    @overload
    def predict(
        self,
        image: list[ImageSource] | tuple[ImageSource, ...],
        *,
        masks: Sequence[Masks | None] | None = None,
        boxes: Sequence[npt.ArrayLike | None] | None = None,
        color: Literal["bgr", "rgb"] = "bgr",
        labels: Sequence[str] | None = None,
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self,
        image: ImageSource,
        *,
        masks: Masks | None = None,
        boxes: npt.ArrayLike | None = None,
        color: Literal["bgr", "rgb"] = "bgr",
        labels: Sequence[str] | None = None,
    ) -> Prediction: ...
    def predict(
        self,
        image: Any,
        *,
        masks: Any = None,
        boxes: Any = None,
        color: Literal["bgr", "rgb"] = "bgr",
        labels: Sequence[str] | None = None,
    ) -> Prediction | list[Prediction]:
        """The people in an image and their attributes; a list of images or a folder gives a list, in order.

        Persons of several images share batches. Who is a person: with `boxes`, each box; with `masks` alone, each
        mask's own box; with neither, what the plan's segmenter finds; in a plan without one, the image is one person
        (its box, no mask, no score).

        Args:
            image: path, bytes, binary file object, PIL image or uint8[H, W, 3]; a list of them; or a folder's path.
            masks: bool or uint8 [N, H, W] over the image, or N `BoxMasks`; what is outside is filled before resizing.
            boxes: [N, 4], xyxy in pixels of the image, half-open.
            color: channel order of arrays, "bgr" or "rgb".
            labels: the labels to return, in this order; None for all of the predictor's.

        Raises:
            InputError: the image, a mask, a box (named by its index) or a label cannot be used; the predictor can.
            NonFiniteOutput, PlanCorrupt: a score is no probability; names label, image and person.
            EngineError: the engine failed.
        """
        wanted = self._wanted(labels)
        if isinstance(image, (str, os.PathLike)) and os.path.isdir(image):
            image = list_images(image)
        if not isinstance(image, (list, tuple)):
            return self._predict([image], [masks], [boxes], color, wanted)[0]
        sides = {"masks": masks, "boxes": boxes}
        for name, side in sides.items():
            if side is not None and (not isinstance(side, (list, tuple)) or len(side) != len(image)):
                raise InputError(f"{name}: expected a list with one entry an image ({len(image)}), or None")
        return self._predict(image, masks or [None] * len(image), boxes or [None] * len(image), color, wanted)

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
        return self._answers(crops, wanted, "crop {}".format)

    def close(self) -> None:
        """Let go of the engines and the plan's file. Calls in flight finish; later ones raise EngineClosed."""
        self._engine.close()
        if self._segmenter is not None:
            self._segmenter.close()
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
        if not wanted or any(label not in self.labels or wanted.count(label) > 1 for label in wanted):
            raise InputError(
                f"labels: expected a list of some of {list(self.labels)}, each once, found {labels!r:.200}"
            )
        return wanted

    def _answers(
        self, crops: npt.NDArray[np.float32], labels: tuple[str, ...], who: Callable[[int], str]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """What `run` returns; `who` names a row in messages."""
        names = {label: scores_name(self._joints[label]) for label in labels}
        values = self._engine.run({"crops": crops}, list(dict.fromkeys(names.values())))
        found: dict[str, npt.NDArray[np.float32]] = {}
        for label, name in names.items():
            scores = values[name]
            check_scores(label, self._documents[label].classes, scores, len(crops), who)
            shared = any(scores is other for other in found.values())
            found[label] = scores.copy() if shared else scores  # arrays that are handed out belong to the caller
        return found

    def _warm_up(self) -> None:
        """The first run of a graph that was just compiled is slow; it must not be a user's."""
        if self._engine.compiled:
            self._engine.run({"crops": np.zeros((1, 3, *self.plan.manifest.crop.size), np.float32)})
        if self._segmenter is not None and self._segmenter.compiled:
            self._segment(np.zeros((64, 64, 3), np.uint8))

    def _predict(
        self, images: Sequence[Any], masks: Sequence[Any], boxes: Sequence[Any], color: Any, labels: tuple[str, ...]
    ) -> list[Prediction]:
        several = len(images) > 1
        scenes = []
        for index, image in enumerate(images):
            try:
                scenes.append(self._scene(image, masks[index], boxes[index], color))
            except (InputError, NonFiniteOutput) as error:
                if not several:
                    raise
                raise type(error)(f"image {index}: {error}") from error
            scenes[-1].name = f"image {index}, " if several else ""
        self._score(scenes, labels)
        return [self._prediction(scene, labels) for scene in scenes]

    def _scene(self, source: Any, masks: Any, boxes: Any, color: Any) -> _Scene:
        """Decode, and find who is to be cut out."""
        started = time.perf_counter()
        image = decode_image(source, color=color)
        decoded = time.perf_counter()
        size = image.shape[:2]
        scene = _Scene(image, str(source) if isinstance(source, (str, os.PathLike)) else None)
        if boxes is not None or masks is not None:
            scene.boxes, scene.masks, scene.truncated = check_persons(
                boxes, masks, size, self.plan.manifest.crop, MAX_PERSONS
            )
        elif self._segmenter is not None:
            found = self._segment(image)
            scene.boxes, scene.scores, scene.masks = found.boxes, found.scores, found.masks
            scene.truncated = found.truncated
        else:
            scene.boxes = np.array([[0, 0, size[1], size[0]]], np.float32)
        segmented = time.perf_counter()
        scene.timings |= {"decode": 1e3 * (decoded - started), "segment": 1e3 * (segmented - decoded)}
        return scene

    def _segment(self, image: npt.NDArray[np.uint8]) -> Instances:
        assert self._adapter is not None and self._segmenter is not None  # callers look
        info = self.plan.manifest.segmenter
        assert info is not None
        feed, geometry = self._adapter.prepare(image)
        values = self._segmenter.run({info.input: feed}, info.outputs)
        return self._adapter.decode([values[name] for name in info.outputs], geometry, self._min_score)

    def _score(self, scenes: Sequence[_Scene], labels: tuple[str, ...]) -> None:
        """Cut everybody out and score them, persons of several scenes in one batch, CROPS_AT_ONCE at a time."""
        spec, threads = self.plan.manifest.crop, self._threads
        waiting: list[tuple[_Scene, int, npt.NDArray[np.float32]]] = []  # scene, its first person here, crops

        def who(row: int) -> str:
            for scene, first, crops in waiting:
                if row < len(crops):
                    return f"{scene.name}person {first + row}"
                row -= len(crops)
            raise IndexError(row)

        def flush() -> None:
            if not waiting:
                return
            started = time.perf_counter()
            scores = self._answers(np.concatenate([crops for _, _, crops in waiting]), labels, who)
            spent = 1e3 * (time.perf_counter() - started)
            total, at = sum(len(crops) for _, _, crops in waiting), 0
            for scene, _, crops in waiting:
                for label, rows in scores.items():
                    scene.rows.setdefault(label, []).append(rows[at : at + len(crops)])
                scene.timings["engine"] += spent * len(crops) / max(total, 1)
                at += len(crops)
            waiting.clear()

        for scene in scenes:
            for start in range(0, max(len(scene.boxes), 1), CROPS_AT_ONCE):
                piece = slice(start, start + CROPS_AT_ONCE)
                started = time.perf_counter()
                masks = None if scene.masks is None else scene.masks[piece]
                crops = mask_crop(scene.image, scene.boxes[piece], masks, spec=spec, threads=threads)
                scene.timings["crop"] += 1e3 * (time.perf_counter() - started)
                waiting.append((scene, start, crops))
                if sum(len(crops) for _, _, crops in waiting) >= CROPS_AT_ONCE:
                    flush()
        flush()

    def _prediction(self, scene: _Scene, labels: tuple[str, ...]) -> Prediction:
        rows = {label: np.concatenate(found) for label, found in scene.rows.items()}
        height, width = scene.image.shape[:2]
        persons = []
        for index in range(len(scene.boxes)):
            attributes = {
                label: Attribute(
                    label,
                    self._documents[label].classes,
                    dict(zip(self._documents[label].classes, rows[label][index].tolist(), strict=True)),
                    self._thresholds[label],
                )
                for label in labels
            }
            mask: Any = None
            if isinstance(scene.masks, BoxMasks):
                mask = partial(scene.masks.mask_at, index, height, width)
            elif scene.masks is not None:
                mask = scene.masks[index]
            score = None if scene.scores is None else float(scene.scores[index])
            persons.append(Person(index, scene.boxes[index], score, attributes, mask))
        timings = {**scene.timings, "total": sum(scene.timings.values())}
        return Prediction(tuple(persons), scene.image, scene.source, timings, scene.truncated, self.plan.digest, labels)


class _Scene:
    """One image on its way: who is in it, and their scores as they come."""

    def __init__(self, image: npt.NDArray[np.uint8], source: str | None) -> None:
        self.image = image
        self.source = source
        self.name = ""  # what stands before "person 3" in a message
        self.boxes: npt.NDArray[Any] = np.empty((0, 4), np.float32)
        self.scores: npt.NDArray[np.float32] | None = None
        self.masks: Any = None
        self.truncated = False
        self.timings = {"decode": 0.0, "segment": 0.0, "crop": 0.0, "engine": 0.0}
        self.rows: dict[str, list[npt.NDArray[np.float32]]] = {}


def _document(plan: Plan, label: str) -> BranchDocument:
    found = plan.manifest.find(label)
    assert found is not None  # joints_of found it
    return found[1].document


def _reopen(path: str, options: dict[str, Any]) -> Predictor:
    return Predictor(path, **options)
