"""Batches of augmented images: what is drawn depends on (seed, epoch, place in it) alone, whoever loads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from graftsdk.errors import DecodeError, GraftError, InputError
from graftsdk.preprocess import decode_image
from graftsdk.training.loader import load_steps
from graftsdk.training.segmenter.augment import MARGIN, Picture, augmentation, augmented, mask_boxes, paste, shrunk
from graftsdk.training.segmenter.datasets import AnnotatedImage, ImageSet
from graftsdk.training.segmenter.losses import Truth

__all__ = ["Batch", "Draw", "EpochOrder", "TrainingImages", "load_batches", "load_image"]


class Batch(NamedTuple):
    """Images of one size.

    Attributes:
        images: uint8[B, 3, H, W], RGB.
        truths: one for each.
    """

    images: torch.Tensor
    truths: tuple[Truth, ...]


class Draw(NamedTuple):
    """One image of one batch.

    Attributes:
        image, partner: which image; and from which one instances are pasted, -1 for none.
        seed: of its augmentation.
        size: (height, width) of the batch.
    """

    image: int
    partner: int
    seed: int
    size: tuple[int, int]


class EpochOrder:
    """The draws of every batch, by (seed, epoch) alone, so that a resumed run goes on where the last one stopped.

    One epoch has as many images as all sets together. A set with a share gives that share of them, going through its
    images in a new order each time; sets without one share the rest by their sizes.

    Args:
        sets: (number of images, share or None), in the order in which `TrainingImages` has the sets.
        batch: images a batch.
        sizes: that batches are drawn at; the first twice as often as each of the others.
    """

    def __init__(
        self,
        sets: Sequence[tuple[int, float | None]],
        batch: int,
        sizes: Sequence[tuple[int, int]],
        copy_paste: float,
        seed: int,
    ) -> None:
        given = sum(share or 0.0 for _, share in sets)
        free = sum(count for count, share in sets if share is None)
        if given > 1 + 1e-9 or (free and given > 1 - 1e-9) or (not free and abs(given - 1) > 1e-6):
            raise InputError(
                f"shares of the data: expected a sum below 1, or 1 where every set has one, found {given:g}"
            )
        self._counts = [count for count, _ in sets]
        self._shares = [(1 - given) * count / free if share is None else share for count, share in sets]
        self._batch, self._sizes, self._copy_paste, self._seed = batch, tuple(sizes), copy_paste, seed
        self.steps = max(1, sum(self._counts) // batch)  # of one epoch; what is left over waits for another epoch

    def batches(self, first: int, last: int) -> Iterator[list[Draw]]:
        """Those of steps first..last-1, over all epochs."""
        step = first
        while step < last:
            epoch, within = divmod(step, self.steps)
            rng = np.random.default_rng((self._seed, 1, epoch))
            order = self._order(rng)
            total = sum(self._counts)
            for number in range(self.steps):
                # Drawn for every batch, also those that are skipped: the same numbers whatever the first step is.
                weights = np.array([2.0] + [1.0] * (len(self._sizes) - 1))
                size = self._sizes[int(rng.choice(len(self._sizes), p=weights / weights.sum()))]
                pasted = rng.random(self._batch) < self._copy_paste
                partners = rng.integers(0, total, self._batch)
                seeds = rng.integers(0, 2**62, self._batch)
                if number < within or epoch * self.steps + number >= last:
                    continue
                chosen = order[number * self._batch : (number + 1) * self._batch]
                yield [
                    Draw(int(index), int(partner) if paste else -1, int(seed), size)
                    for index, partner, paste, seed in zip(chosen, partners, pasted, seeds, strict=True)
                ]
            step = (epoch + 1) * self.steps

    def _order(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        total = self.steps * self._batch
        wanted = np.floor(np.cumsum(self._shares) * total + 0.5).astype(int)
        parts, start = [], 0
        for count, number in zip(self._counts, np.diff(wanted, prepend=0), strict=True):
            rounds = [rng.permutation(count) for _ in range(-(-int(number) // count))]
            parts.append(start + np.concatenate([np.empty(0, np.int64), *rounds])[:number])
            start += count
        return rng.permutation(np.concatenate(parts).astype(np.int64))


def load_image(image: AnnotatedImage) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3], BGR.

    Raises:
        DecodeError: no readable image.
        InputError: it has another size than its annotation says.
    """
    try:
        pixels = decode_image(image.path)
    except GraftError as error:
        raise DecodeError(f"{image.path}: expected a readable image, found: {error!s:.200}") from error
    if pixels.shape[:2] != image.size:
        height, width = image.size
        raise InputError(
            f"{image.path}: expected {width}x{height} (width x height) as annotated, found "
            f"{pixels.shape[1]}x{pixels.shape[0]}; a mask would not fit it"
        )
    return pixels


class TrainingImages(Dataset[tuple[torch.Tensor, Truth] | GraftError]):
    """Augmented images by `Draw`."""

    def __init__(self, sets: Sequence[ImageSet]) -> None:
        self._images = [image for images in sets for image in images.images]

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, Truth] | GraftError:
        """The image; or what is wrong with it: torch would put a worker's traceback into the message."""
        try:
            return self.item(draw)
        except GraftError as error:
            return error

    def item(self, draw: Draw) -> tuple[torch.Tensor, Truth]:
        """(image uint8[3, H, W] RGB, what is to be found in it)."""
        rng = np.random.default_rng(draw.seed)
        picture = self._picture(draw.image, draw.size, rng)
        if draw.partner >= 0:
            picture = paste(picture, self._picture(draw.partner, draw.size, rng), rng)
        # torchvision draws from the global generator. fork_rng and manual_seed look for GPUs as well: 2 ms an image.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(int(rng.integers(0, 2**62)))
        try:
            picture = augmented(picture, augmentation(draw.size))
        finally:
            torch.set_rng_state(state)
        return torch.from_numpy(picture.image).permute(2, 0, 1), _truth(picture)

    def _picture(self, index: int, size: tuple[int, int], rng: np.random.Generator) -> Picture:
        image = self._images[index]
        pixels = load_image(image)
        masks = [annotation.mask() for annotation in image.annotations]
        larger = (round(MARGIN * size[0]), round(MARGIN * size[1]))
        small, small_masks = shrunk(pixels, masks, larger, bool(rng.random() < 0.5))
        return Picture(
            np.ascontiguousarray(small[:, :, ::-1]),
            small_masks,
            np.array([annotation.label for annotation in image.annotations], np.int64),
            np.array([annotation.crowd for annotation in image.annotations], np.bool_),
        )


def _truth(picture: Picture) -> Truth:
    height, width = picture.image.shape[:2]
    boxes = mask_boxes(picture.masks)
    # Less than two pixels wide or high: nothing a mask could be asked for.
    crowds = picture.crowds | (np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) < 2)
    boxes /= np.array((width, height, width, height), np.float32)
    return Truth(
        torch.from_numpy(boxes[~crowds]),
        torch.from_numpy(picture.labels[~crowds]),
        torch.from_numpy(picture.masks[~crowds]),
        torch.from_numpy(boxes[crowds]),
    )


def _collate(items: list[tuple[torch.Tensor, Truth] | GraftError]) -> Batch | GraftError:
    good: list[tuple[torch.Tensor, Truth]] = []
    for item in items:
        if isinstance(item, GraftError):
            return item
        good.append(item)
    return Batch(torch.stack([image for image, _ in good]), tuple(truth for _, truth in good))


def load_batches(images: TrainingImages, order: EpochOrder, first: int, last: int, workers: int) -> DataLoader[Any]:
    """The batches of steps first..last-1, see `load_steps`."""
    return load_steps(images, order, first, last, workers, _collate)
