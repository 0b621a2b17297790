"""`Loaded`: one plan with all that was opened for it. A predictor has one at a time, and swaps it whole."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Engine, default_threads
from graftsdk.engines.forks import reopen_in_child
from graftsdk.engines.golden import GoldenChange, check_golden, log_golden
from graftsdk.engines.opener import Opener
from graftsdk.errors import DTypeError, EngineClosed, InputError, ShapeError
from graftsdk.graft import joints_of, scores_name
from graftsdk.plan import BranchDocument, Plan, PlanSource, open_plan
from graftsdk.prediction import Prediction, decisions
from graftsdk.preprocess import golden_crops
from graftsdk.preprocess.crop import check_persons
from graftsdk.scene import CROPS_AT_ONCE, CropBatch, Scene
from graftsdk.scores import Thresholds, check_scores, override_thresholds, resolve_thresholds
from graftsdk.segment import MAX_PERSONS, Instances
from graftsdk.segmenter import Segmenter

if TYPE_CHECKING:
    from graftsdk.device_frame import DeviceImage
    from graftsdk.device_scene import DeviceCropBatch, DeviceFrames
    from graftsdk.device_segmenter import Found

__all__ = ["Loaded", "closed"]


class Loaded:
    """An open plan, its engine, its segmenter, and what is known of its labels.

    Whoever works with it holds it: `hold` before, `release` after. `retire` lets it close when nobody holds it any
    more; a hold that an interrupt lost leaves it to the garbage collector.

    Args:
        source: of the plan. options: those of `Predictor`, by name.
        check: hash every byte of the plan before anything is opened.

    Raises:
        PlanError, InputError, EngineError, MissingDependency: as `Predictor`; nothing stays open.
    """

    def __init__(self, source: PlanSource, options: Mapping[str, Any], *, check: bool = False) -> None:
        threads, labels = options["threads"], options["labels"]
        self.min_score: float | None = options["min_score"]
        self.threads: int = default_threads() if threads is None else threads
        self._lock = threading.Lock()
        self._holds, self._retired = 0, False
        with ExitStack() as undo:
            self.plan: Plan = undo.enter_context(open_plan(source))
            if check:
                self.plan.check()
            self.path = None if self.plan.path is None else os.path.abspath(self.plan.path)
            manifest = self.plan.manifest
            self.joints = joints_of(manifest, labels)
            self.labels: tuple[str, ...] = tuple(self.joints)
            self._score_names = {label: scores_name(joint) for label, joint in self.joints.items()}
            self.documents = {label: _document(self.plan, label) for label in self.labels}
            self.thresholds = resolve_thresholds(self.documents, options["thresholds"])
            self.opener = Opener(
                self.path,
                precision=options["precision"] or "float32",
                labels=None if labels is None else self.labels,
                threads=threads,
                **{name: options[name] for name in _OPENER},
            )
            undo.callback(self.opener.close)
            self.forms = self.opener.forms(manifest)
            graphs = self.opener.graphs(self.plan, self.joints)
            self.engine: Engine = undo.enter_context(self.opener.open(graphs))
            self.segmenter: Segmenter | None = None
            if manifest.segmenter is not None:
                self.segmenter = undo.enter_context(Segmenter.of_plan(self.plan, open_graphs=self.opener.open))
            self.golden: tuple[GoldenChange, ...] = ()
            self.frames: DeviceFrames | None = None
            if self.opener.gpu is not None:  # only here is anything of a GPU imported
                from graftsdk.device_scene import DeviceFrames
                from graftsdk.engines.tensorrt_engine import TensorRTEngine

                assert isinstance(self.engine, TensorRTEngine)  # the opener has a GPU for no other
                self.frames = DeviceFrames(self.engine, self.opener.gpu, manifest.crop, self.segmenter)
                undo.callback(self.frames.close)
            self.warm_up()
            undo.pop_all()
        reopen_in_child(self)

    # --------------------------------------------------------------------------------------------------- who holds it

    def hold(self) -> bool:
        """Keep it open until `release`; False where it is retired."""
        with self._lock:
            if self._retired:
                return False
            self._holds += 1
            return True

    def release(self) -> None:
        """The end of one `hold`; the last one after `retire` closes it."""
        with self._lock:
            self._holds -= 1
            last = self._retired and self._holds == 0
        if last:
            self._close()

    def retire(self) -> None:
        """Nobody new may hold it; it closes now, or with the last release. May be called again."""
        with self._lock:
            last = not self._retired and self._holds == 0
            self._retired = True
        if last:
            self._close()

    def __enter__(self) -> Loaded:
        """Held already, by whoever handed it out."""
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # --------------------------------------------------------------------------------------------------- what it does

    def wanted(self, labels: Sequence[str] | None) -> tuple[str, ...]:
        """The labels that a call asks for, or all. Raises InputError: something else than some of them, each once."""
        if labels is None:
            return self.labels
        wanted = () if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable) else tuple(labels)
        texts = all(isinstance(label, str) for label in wanted)
        if not wanted or not texts or any(label not in self.labels or wanted.count(label) > 1 for label in wanted):
            found = " ".join(f"{labels!r:.200}".split())  # an array's text has several lines
            raise InputError(f"labels: expected a list of some of {list(self.labels)}, each once, found {found}")
        return wanted

    def overridden(self, thresholds: Thresholds | None) -> dict[str, dict[str, float]]:
        """Label -> class -> threshold, a call's own put over the predictor's. Raises InputError."""
        return override_thresholds(self.documents, self.thresholds, thresholds)

    def check_crops(self, crops: Any) -> npt.NDArray[np.float32]:
        """The array, if it is float32[N, 3, H, W] of the plan's crops. Raises DTypeError, ShapeError."""
        height, width = self.plan.manifest.crop.size
        if not isinstance(crops, np.ndarray) or crops.dtype != np.float32:
            kind = crops.dtype if isinstance(crops, np.ndarray) else type(crops).__name__
            raise DTypeError(f"crops: expected a float32 array, found {kind}; graftsdk.preprocess.mask_crop makes them")
        if crops.ndim != 4 or crops.shape[1:] != (3, height, width):
            raise ShapeError(f"crops: expected [N, 3, {height}, {width}], found {list(crops.shape)}")
        return crops

    def run(
        self, crops: npt.NDArray[np.float32], labels: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """As `Predictor.run`."""
        wanted = self.wanted(labels)
        self.check_crops(crops)
        found: dict[str, npt.NDArray[np.float32]] = {}
        for label, scores in self.scores(crops, wanted).items():
            check_scores(label, self.documents[label].classes, scores, len(crops), "crop {}".format)
            shared = any(scores is other for other in found.values())
            found[label] = scores.copy() if shared else scores  # arrays that are handed out belong to the caller
        return found

    def scores(self, crops: npt.NDArray[np.float32], labels: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Label -> what its branch gives, [N, ...]; labels of one branch share an array. Not checked."""
        names = self._names(labels)
        values = self.engine.run({"crops": crops}, list(dict.fromkeys(names.values())))
        return {label: values[name] for label, name in names.items()}

    def find(self, scene: Scene, masks: Any, boxes: Any) -> None:
        """Who is to be cut out of the image. Raises InputError, NonFiniteOutput: nobody can be told."""
        started = time.perf_counter()
        size = scene.size
        if boxes is not None or masks is not None:
            scene.boxes, scene.masks, scene.truncated = check_persons(
                boxes, masks, size, self.plan.manifest.crop, MAX_PERSONS
            )
        elif self.segmenter is not None:
            found = self._segment(scene.image)
            scene.boxes, scene.scores, scene.masks = found.boxes, found.scores, found.masks
            scene.truncated = found.truncated
        else:
            scene.boxes = np.array([[0, 0, size[1], size[0]]], np.float32)
        scene.timings["segment"] = 1e3 * (time.perf_counter() - started)

    def batch(self, on_device: bool, labels: Sequence[str], rows: int = CROPS_AT_ONCE) -> CropBatch | DeviceCropBatch:
        """An empty batch for crops of images that lie on the host, `rows` of them at once, or on the device."""
        if on_device:
            assert self.frames is not None  # it took the frame
            return self.frames.batch(self.documents, self._names(labels))
        return CropBatch(
            self.plan.manifest.crop, self.threads, self.documents, partial(self.scores, labels=labels), rows
        )

    def prediction(
        self, scene: Scene, labels: Sequence[str], thresholds: Mapping[str, Mapping[str, float]] | None = None
    ) -> Prediction:
        """What is said of an image whose persons are all scored."""
        return scene.prediction(labels, self.documents, thresholds or self.thresholds, self.plan.digest)

    def warm_up(self, always: bool = False) -> None:
        """The first run of a graph that was just compiled is slow; it must not be a user's.

        Args:
            always: run those that were not compiled now as well, since users wait for this very plan.
        """
        if self.opener.engine == "tensorrt":  # warm already; other kernels than those that the plan was verified on
            if not self.golden:
                crops = golden_crops(self.plan.manifest.crop)
                self.golden = check_golden(self.run, self.plan.manifest, crops, decisions, self.labels)
                log_golden(self.golden)
        elif always or self.engine.compiled:
            self.engine.run({"crops": np.zeros((1, 3, *self.plan.manifest.crop.size), np.float32)})
        if self.segmenter is not None and (always or self.segmenter.compiled):
            self._segment(np.zeros((64, 64, 3), np.uint8))

    def _names(self, labels: Sequence[str]) -> dict[str, str]:
        """Label -> the engine's value that its scores are."""
        return {label: self._score_names[label] for label in labels}

    def _segment(self, image: npt.NDArray[np.uint8] | DeviceImage) -> Instances | Found:
        assert self.segmenter is not None  # callers look
        if not isinstance(image, np.ndarray):
            assert self.frames is not None  # it took the frame
            return self.frames.find(image, self.min_score)
        return self.segmenter.find(image, self.min_score)

    def _close(self) -> None:
        if self.frames is not None:
            self.frames.close()
        self.engine.close()
        if self.segmenter is not None:
            self.segmenter.close()
        self.opener.close()
        self.plan.close()  # last: in a forked child an engine may have been opening it

    def _after_fork_in_child(self) -> None:
        self._lock, self._holds = threading.Lock(), 0  # whoever held it is not here


_OPENER = ("device", "engine", "runtime", "engines", "build", "trust_engines", "layout")


def closed() -> EngineClosed:
    """What a closed predictor says."""
    return EngineClosed("expected an open engine or predictor, found one after close(); open another")


def _document(plan: Plan, label: str) -> BranchDocument:
    found = plan.manifest.find(label)
    assert found is not None  # joints_of found it
    return found[1].document
