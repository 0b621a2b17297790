"""A classifier that is in use today, one network for one label, as an ONNX file: its answers on crops."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Graph, open_engine
from graftsdk.errors import InputError, NonFiniteOutput, PlanCorrupt, PlanPathError
from graftsdk.plan import CropSpec
from graftsdk.plan.cropspec import IMAGENET_MEAN, IMAGENET_STD
from graftsdk.plan.onnx_check import parse_model
from graftsdk.preprocess import read_crop
from graftsdk.text import listed, reason

__all__ = ["ClassifierOptions", "OldClassifier"]

SURE = 1e-6  # a probability of 0 or 1 has no logit
SUM = 1e-3  # how far a row of probabilities may be from 1
BATCH = 16
_FLOAT = 1  # onnx.TensorProto.FLOAT, without importing onnx for it

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassifierOptions:
    """What the file does not say of itself.

    Attributes:
        mean, std, order, fit: of the crops it was made for, as in `CropSpec`.
        size: (H, W) of its input, where the file leaves them open.
        output: name of what it gives, where there are several.
        gives: "probabilities", "logits", or "auto": probabilities where every value is from 0 to 1 and rows of several
            add up to 1.
        threshold: probability of the last class from which it is in use as positive; of two classes.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    order: Literal["rgb", "bgr"] = "rgb"
    fit: Literal["stretch", "letterbox"] = "stretch"
    size: tuple[int, int] | None = None
    output: str | None = None
    gives: Literal["auto", "probabilities", "logits"] = "auto"
    threshold: float = 0.5


class OldClassifier:
    """An opened classifier, on the CPU. Made with `OldClassifier(path, options)`; a context manager."""

    def __init__(
        self, path: str | os.PathLike[str], options: ClassifierOptions | None = None, *, threads: int | None = None
    ) -> None:
        """Open the file.

        Raises:
            PlanPathError, PlanCorrupt: no readable file, or no ONNX file with one float32 image as input.
            InputError: several outputs and none named, or a size that nobody says.
            EngineError: the runtime refuses it.
        """
        self.options = ClassifierOptions() if options is None else options
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise PlanPathError(f"{path}: expected a readable file, found: {reason(error)}") from error
        where = str(path)
        graph = parse_model(content, where).graph
        weights = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in weights]
        if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != _FLOAT:
            raise PlanCorrupt(f"{where}: expected one input, a float32 image, found {listed(v.name for v in inputs)}")
        shape = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]  # 0 where it is open
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise PlanCorrupt(f"{where}: expected an input [N, 3, H, W] or [N, H, W, 3], found {shape}")
        names = [value.name for value in graph.output]
        if self.options.output not in (names if len(names) > 1 else [*names, None]):
            raise InputError(f"{where}: expected one of its outputs {listed(names)}, found {self.options.output!r}")
        self._input, self._output = inputs[0].name, self.options.output or names[0]
        self._last = shape[1] != 3
        sides = (shape[1], shape[2]) if self._last else (shape[2], shape[3])
        size = sides if all(sides) else self.options.size
        if size is None:
            raise InputError(f"{where}: expected the size of its input, found {shape}; say (H, W)")
        own = self.options
        self.spec = CropSpec(size, own.mean, own.std, order=own.order, fit=own.fit)
        self.digest = hashlib.sha256(content).hexdigest()
        self.where = where
        opened = Graph(self.digest, {self._input: self._input}, (self._output,), lambda: (content, {}))
        self._engine = open_engine([opened], device="cpu", threads=threads, cache=False)

    def __enter__(self) -> OldClassifier:
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.close()

    def logits(self, paths: Sequence[Path]) -> _Floats:
        """float64[N, C] of pictures of one person each, C >= 2; a row's softmax is what the classifier says.

        Raises:
            InputError: a picture that cannot be read; an output that is no [N], [N, 1] or [N, C]; values that are no
                probabilities where the options say so.
            NonFiniteOutput: NaN or infinity.
        """
        rows = [self._run(crops) for crops in self._crops(paths)]
        found = np.concatenate(rows) if rows else np.zeros((0, 2))
        if not np.isfinite(found).all():
            raise NonFiniteOutput(f"{self.where}: expected finite scores, found NaN or infinity")
        return self._as_logits(found)

    def decided(self, logits: _Floats) -> npt.NDArray[np.int64]:
        """int64[N]: the class it is in use as: of two by its threshold, of more the most probable."""
        if logits.shape[1] > 2:
            return np.asarray(logits.argmax(1), np.int64)
        share = min(max(self.options.threshold, SURE), 1 - SURE)
        return np.asarray(logits[:, 1] - logits[:, 0] >= np.log(share / (1 - share)), np.int64)

    def _crops(self, paths: Sequence[Path]) -> Iterator[npt.NDArray[np.float32]]:
        for start in range(0, len(paths), BATCH):
            crops = np.stack([read_crop(path, self.spec) for path in paths[start : start + BATCH]])
            yield np.ascontiguousarray(crops.transpose(0, 2, 3, 1)) if self._last else crops

    def _run(self, crops: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        found = np.asarray(self._engine.run({self._input: crops})[self._output], np.float64)
        rows = found.reshape(len(crops), -1)
        if found.ndim not in (1, 2, 4) or rows.size != rows.shape[0] * rows.shape[1] or rows.shape[1] > 64:
            raise InputError(f"{self.where}: expected an output [N], [N, 1] or [N, C], found shape {found.shape}")
        return rows

    def _as_logits(self, found: _Floats) -> _Floats:
        one = found.shape[1] == 1
        inside = bool(((found >= -SUM) & (found <= 1 + SUM)).all())
        likely = inside and (one or bool((np.abs(found.sum(1) - 1) <= SUM).all()))
        if self.options.gives == "probabilities" and not likely:
            raise InputError(f"{self.where}: expected probabilities, found values from {found.min()} to {found.max()}")
        if self.options.gives == "logits" or not likely:
            return np.concatenate([np.zeros_like(found), found], axis=1) if one else found
        sure = found.clip(SURE, 1 - SURE)
        return np.asarray(np.log(np.concatenate([1 - sure, sure], axis=1) if one else sure), np.float64)
