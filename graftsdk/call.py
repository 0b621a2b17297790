"""One call of `predict`: its images go through the stages together, and each may fail by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graftsdk.errors import GraftError, InputError, NonFiniteOutput
from graftsdk.loaded import Loaded
from graftsdk.prediction import Prediction
from graftsdk.preprocess.ahead import Decoded
from graftsdk.preprocess.decode import source_name
from graftsdk.scene import CropBatch, Scene
from graftsdk.text import one_line

if TYPE_CHECKING:
    from graftsdk.device_scene import DeviceCropBatch
    from graftsdk.tracking import Look

__all__ = ["Call", "named", "raise_it", "raise_named"]


class Call:
    """One call: the plan that it began with, its labels and its thresholds."""

    def __init__(self, loaded: Loaded, labels: tuple[str, ...], thresholds: Mapping[str, Mapping[str, float]]) -> None:
        self._loaded, self._labels, self._thresholds = loaded, labels, thresholds

    def predict(
        self,
        images: Iterator[Decoded],
        masks: Sequence[Any],
        boxes: Sequence[Any],
        fail: Callable[[int, GraftError], GraftError],
    ) -> list[Prediction | GraftError]:
        """A prediction for each image, or what `fail` makes of its place and error, should it not raise."""
        loaded = self._loaded
        batches: dict[bool, CropBatch | DeviceCropBatch] = {}  # whether its images lie on the device -> a batch
        scenes: list[Scene | GraftError] = []
        for index, decoded in enumerate(images):
            try:
                if isinstance(decoded.image, GraftError):
                    raise decoded.image
                scene = Scene(decoded)
                loaded.find(scene, masks[index], boxes[index])
                on_device = not isinstance(scene.image, np.ndarray)
                if on_device not in batches:
                    batches[on_device] = loaded.batch(on_device, self._labels)
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
                found.append(loaded.prediction(done, self._labels, self._thresholds))
        return found

    def look(self, decoded: Decoded) -> Look:
        """A frame in which persons were found, for a stream with tracks: what it needs is computed on demand."""
        from graftsdk.tracking import Look

        loaded, scene = self._loaded, Scene(decoded)
        loaded.find(scene, None, None)
        batch = partial(loaded.batch, not isinstance(scene.image, np.ndarray))
        return Look(scene, self._labels, batch, loaded.documents, self._thresholds, loaded.plan.digest)


def raise_it(index: int, error: GraftError) -> GraftError:
    """What becomes of the one image's error."""
    raise error


def named(images: Sequence[Any], index: int, error: GraftError) -> GraftError:
    """The error, saying which image of a list it is about."""
    name = source_name(images[index]) or f"image {index}"
    told = type(error)(f"{one_line(name[-200:])}: {str(error).removeprefix('image: ')}")
    told.source, told.__cause__ = name, error
    return told


def raise_named(images: Sequence[Any], index: int, error: GraftError) -> GraftError:
    """As `named`, and raises it."""
    raise named(images, index, error)
