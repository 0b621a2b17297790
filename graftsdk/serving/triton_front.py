"""The front of a plan in Triton's python backend: an encoded image goes in, JSON comes out.

It decodes, segments and cuts out as `Predictor` does, and asks the server's own model over crops for the scores.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines import default_threads
from graftsdk.errors import EngineError, GraftError, InputError, NonFiniteOutput
from graftsdk.graft import joints_of
from graftsdk.plan import open_plan
from graftsdk.prediction import Prediction
from graftsdk.preprocess.ahead import decode_ahead
from graftsdk.scene import CropBatch, Scene
from graftsdk.scores import resolve_thresholds
from graftsdk.segmenter import Segmenter

__all__ = ["Front", "TritonPythonModel"]

_log = logging.getLogger("graftsdk.serving")

Crops = npt.NDArray[np.float32]
Compute = Callable[[Crops], Mapping[str, npt.NDArray[np.float32]]]


class Front:
    """Everything of a plan but its trunk and branches, which `compute` stands for.

    Args:
        plan: its path. labels: those that `compute` gives.
        compute: float32[N, 3, H, W] -> label -> float32[N, C].
        threads: None follows the CPUs that this process may use.

    Raises:
        PlanError: the plan cannot be trusted. EngineError: its segmenter cannot be opened.
    """

    def __init__(
        self, plan: str | os.PathLike[str], labels: Sequence[str], compute: Compute, *, threads: int | None = None
    ) -> None:
        self._compute = compute
        self._threads = default_threads() if threads is None else threads
        with ExitStack() as undo:
            self._plan = undo.enter_context(open_plan(plan))
            manifest = self._plan.manifest
            self._labels = tuple(joints_of(manifest, labels))
            found = {label: manifest.find(label) for label in self._labels}
            self._documents = {label: each[1].document for label, each in found.items() if each is not None}
            self._thresholds = resolve_thresholds(self._documents, None)
            self._segmenter: Segmenter | None = None
            if manifest.segmenter is not None:
                self._segmenter = undo.enter_context(Segmenter.of_plan(self._plan, device="cpu", threads=self._threads))
            undo.pop_all()

    def predict(self, images: Sequence[bytes]) -> list[Prediction | GraftError]:
        """Of each encoded image its prediction, or why there is none. Persons of all of them share batches.

        Raises:
            PlanCorrupt: a branch gives something else than probabilities. EngineError: `compute` failed.
        """
        batch = CropBatch(self._plan.manifest.crop, self._threads, self._documents, self._compute)
        scenes: list[Scene | GraftError] = []
        for decoded in decode_ahead(images):
            if isinstance(decoded.image, GraftError):
                scenes.append(decoded.image)
                continue
            scene = Scene(decoded)
            try:
                self._find(scene)
                batch.add(scene)
                scenes.append(scene)
            except (InputError, NonFiniteOutput) as error:
                scenes.append(error)
        batch.flush()
        return [scene if isinstance(scene, GraftError) else self._answer(scene) for scene in scenes]

    def _find(self, scene: Scene) -> None:
        if self._segmenter is None:
            height, width = scene.size
            scene.boxes = np.array([[0, 0, width, height]], np.float32)
            return
        found = self._segmenter.find(scene.image)
        scene.boxes, scene.scores, scene.masks = found.boxes, found.scores, found.masks
        scene.truncated = found.truncated

    def _answer(self, scene: Scene) -> Prediction | GraftError:
        if scene.error is not None:
            return scene.error
        return scene.prediction(self._labels, self._documents, self._thresholds, self._plan.digest)

    def close(self) -> None:
        """Let go of the segmenter and the plan's file."""
        if self._segmenter is not None:
            self._segmenter.close()
        self._plan.close()


class TritonPythonModel:
    """What Triton's python backend calls. Its own module, `triton_python_backend_utils`, is there only inside it."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the plan beside this model; the configuration says how the model over crops is named."""
        self._triton: Any = import_module("triton_python_backend_utils")
        parameters = json.loads(args["model_config"])["parameters"]
        said = {name: value["string_value"] for name, value in parameters.items()}
        outputs = json.loads(said["outputs"])
        self._crops = said["crops"]
        self._outputs = {label: outputs[label] for label in json.loads(said["order"])}
        plan = Path(args["model_repository"]) / args["model_version"] / "engine.plan"
        self._front = Front(plan, list(self._outputs), self._score)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request, of as many JSON texts as it has images, or with its error."""
        triton = self._triton
        images = [triton.get_input_tensor_by_name(each, "IMAGE").as_numpy() for each in requests]
        try:
            found = self._front.predict([bytes(image) for some in images for image in some.reshape(-1)])
        except GraftError as error:  # of no image's own
            return [self._refusal(error) for _ in requests]
        responses, first = [], 0
        for some in images:
            mine = found[first : first + some.size]
            first += some.size
            failed = next((each for each in mine if isinstance(each, GraftError)), None)
            if failed is not None:
                responses.append(self._refusal(failed))
                continue
            texts = [_text(each).encode("utf-8") for each in mine if isinstance(each, Prediction)]
            tensor = triton.Tensor("JSON", np.array(texts, object).reshape(some.shape))
            responses.append(triton.InferenceResponse(output_tensors=[tensor]))
        return responses

    def finalize(self) -> None:
        """The server unloads the model."""
        self._front.close()

    def _refusal(self, error: GraftError) -> Any:
        kind = self._triton.TritonError
        if isinstance(error, InputError):
            told = kind(f"{error.code}: {error}", kind.INVALID_ARG)
        else:  # what a runtime said of its own is for the log
            _log.error("an image could not be answered: %s", error)
            told = kind(f"{error.code}: expected an answer of the model over crops, found none", kind.INTERNAL)
        return self._triton.InferenceResponse(output_tensors=[], error=told)

    def _score(self, crops: Crops) -> dict[str, npt.NDArray[np.float32]]:
        """The scores of crops, from the server's own model: there they wait for those of other fronts."""
        triton = self._triton
        request = triton.InferenceRequest(
            model_name=self._crops,
            requested_output_names=list(self._outputs.values()),
            inputs=[triton.Tensor("crops", crops)],
            preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            raise EngineError(f"{self._crops}: expected scores, found: {response.error().message()}")
        tensors = {label: triton.get_output_tensor_by_name(response, name) for label, name in self._outputs.items()}
        return {label: tensor.as_numpy() for label, tensor in tensors.items()}


def _text(found: Prediction) -> str:
    """The JSON of POST /v1/predict, without what only a service knows."""
    document = found.to_dict(masks=True)
    del document["source"]
    return json.dumps(document, ensure_ascii=False, allow_nan=False)
