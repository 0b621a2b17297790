"""A branch: one question's own blocks, pooling and classifier, grafted on a trunk at a tap."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from graftsdk.errors import ImageTooSmall, InputError, PlanCorrupt
from graftsdk.models.backbones import Backbone, backbone
from graftsdk.models.checkpoints import another_kind, check_tensors, read_checkpoint, write_checkpoint
from graftsdk.models.narrow import check_width
from graftsdk.models.pooling import FewCellsWarning, Pooling, pooling
from graftsdk.models.random_weights import RandomBits, fill_randomly
from graftsdk.models.structure import (
    cells_at,
    least_square,
    narrow_blocks,
    place,
    tap_shapes,
    trunk_modules,
)
from graftsdk.models.trunk import Trunk
from graftsdk.plan.documents import BranchDocument, Provenance, check_names

__all__ = ["Branch"]


class Branch(nn.Module):
    """Blocks tap..until-1 of its own, pooling and classifier: from a trunk's tap to logits.

    Keys of its state dict: torchvision's names for its blocks, `pool.*`, `classifier.weight`, `classifier.bias`.
    It is made and loaded in eval mode and shares no tensor with the trunk.

    Attributes:
        label, classes: the question and its answers, the positive class last.
        tap, until: its own blocks are tap..until-1, none where tap == until. pooling: its name. width: of its own
            blocks, relative to the trunk's.
        arch, trunk_width, crop, trunk_fingerprint: of the trunk it was made for.
        thresholds: class -> probability from which the class is reported; free to set, checked when saved.
        temperature: probabilities are softmax(logits / temperature); free to set.
        metrics, histogram, provenance: see BranchDocument; free to set.
    """

    def __init__(self, document: BranchDocument, blocks: Mapping[str, nn.Module], channels: int) -> None:
        """Not for callers: use `create` or `load`. Args: channels: of what the pooling reads."""
        super().__init__()
        self.label, self.classes = document.label, document.classes
        self.arch, self.trunk_width, self.crop = document.arch, document.trunk_width, document.crop
        self.trunk_fingerprint = document.trunk_fingerprint
        self.tap, self.until = document.tap, document.until
        self.pooling, self.width = document.pooling, document.width
        self.thresholds: dict[str, float] = dict(document.thresholds)
        self.temperature = document.temperature
        self.metrics: dict[str, float] = dict(document.metrics)
        self.histogram: dict[str, tuple[int, ...]] = dict(document.histogram)
        self.provenance: Provenance = document.provenance
        place(self, blocks)
        self._own = tuple(blocks)
        nonnegative = backbone(self.arch).nonnegative
        with torch.device("meta"):
            self.pool: Pooling = pooling(self.pooling)(channels, nonnegative)
            self.classifier = nn.Linear(self.pool.features, len(self.classes))
        self.eval()

    @classmethod
    def create(
        cls,
        trunk: Trunk,
        label: str,
        classes: Sequence[str] = ("no", "yes"),
        *,
        tap: int,
        until: int | None = None,
        pooling: str = "gap",
        width: float = 1.0,
        init: Literal["trunk", "random"] = "trunk",
        seed: int = 0,
    ) -> Branch:
        """A branch for `trunk`, ready to be trained.

        Args:
            trunk: it is read only.
            label: the question.
            classes: its answers, the positive class last.
            tap: the first own block's number.
            until: own blocks are tap..until-1; None is B, all that are left.
            pooling: a registered name, "gap" or "bilinear".
            width: share of the trunk's channels in its own blocks; their first layer reads the full tap.
            init: own blocks start as copies of the trunk's (paper 3.2; narrower ones from its first channels), or
                "random".
            seed: of the classifier and of random blocks.

        Raises:
            InputError: a name, tap or other argument out of range.
            ImageTooSmall: too few cells at `until` for the pooling; names the least square input.
            UnsupportedOp: width < 1 and a block cannot be narrowed.
        """
        classes = _check_names(label, classes)
        last = len(trunk.backbone.blocks)
        until = trunk.check_tap(last if until is None else until, "until")
        if trunk.check_tap(tap) > until:
            raise InputError(f"tap: expected at most until = {until}, found {tap}")
        if init not in ("trunk", "random"):
            raise InputError(f"init: expected 'trunk' or 'random', found {init!r}")
        document = BranchDocument(
            label=label,
            classes=classes,
            arch=trunk.arch,
            trunk_width=trunk.width,
            crop=trunk.crop,
            trunk_fingerprint=trunk.fingerprint(tap),
            tap=tap,
            until=until,
            pooling=pooling,
            width=check_width(width),
        )
        _check_cells(document, warn=True)
        bits = RandomBits(seed)
        if init == "trunk":
            names = trunk.backbone.blocks[tap:until]
            own = {name: trunk.get_submodule(name) for name in names}
            taps = trunk.channels(tap), trunk.channels(until)
            branch = cls(document, *narrow_blocks(own, taps, document.width))
        else:
            branch = cls(document, *_structure(document))
            for name in branch._own:
                damped = [item.removeprefix(f"{name}.") for item in trunk.backbone.damped]
                fill_randomly(branch.get_submodule(name), bits, trunk.backbone.gain, damped)
        branch._fill_head(bits)
        for parameter in branch.parameters():  # the trunk's may be frozen or carry gradients
            parameter.requires_grad_(True)
            parameter.grad = None
        return branch.cpu().eval()

    def _fill_head(self, bits: RandomBits) -> None:
        fill_randomly(self.pool, bits, gain=1.0)
        self.classifier.to_empty(device="cpu")
        # Features of norm 1, or each near 1: either way logits differ by about 1 between crops, so that scores vary.
        std = 1.0 if self.pool.scaled else self.pool.features**-0.5
        with torch.no_grad():
            self.classifier.weight.copy_(bits.uniform((len(self.classes), self.pool.features), std, centred=True))
            self.classifier.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits[N, classes] of the trunk's tap x[N, C, H, W]."""
        for name in self._own:
            x = self.get_submodule(name)(x)
        pooled: tuple[torch.Tensor, torch.Tensor | None] = self.pool(x)
        features, scale = pooled
        if scale is None:
            return functional.linear(features, self.classifier.weight, self.classifier.bias)
        product = functional.linear(features, self.classifier.weight)
        return product / scale + self.classifier.bias

    @property
    def backbone(self) -> Backbone:
        """The trunk's backbone."""
        return backbone(self.arch)

    def skeleton(self) -> Branch:
        """The same branch without weights, on the meta device."""
        document = self.document()
        return Branch(document, *_structure(document))

    def document(self) -> BranchDocument:
        """What its files say of it."""
        return BranchDocument(
            label=self.label,
            classes=self.classes,
            arch=self.arch,
            trunk_width=self.trunk_width,
            crop=self.crop,
            trunk_fingerprint=self.trunk_fingerprint,
            tap=self.tap,
            until=self.until,
            pooling=self.pooling,
            width=self.width,
            thresholds=dict(self.thresholds),
            temperature=self.temperature,
            metrics=dict(self.metrics),
            histogram=dict(self.histogram),
            provenance=self.provenance,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write its checkpoint, whole or not at all.

        Raises:
            InputError: a weight is not finite float32, or thresholds, temperature, metrics or histogram are no valid
                ones.
            PlanPathError: `path` cannot be written.
        """
        write_checkpoint(path, self.document(), self.state_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Branch:
        """The branch in a checkpoint; needs no trunk.

        Raises:
            PlanPathError, PlanTruncated, PlanLimitError, PlanCorrupt, PlanVersionError: the file cannot be trusted.
            UnsupportedOp: a registered backbone that cannot be narrowed any more.
        """
        document, tensors = read_checkpoint(path)
        if not isinstance(document, BranchDocument):
            raise another_kind(path, "branch", document)
        try:
            last = len(backbone(document.arch).blocks)
            if document.until > last:
                raise InputError(f"until: expected at most {last} ({document.arch}), found {document.until}")
            _check_cells(document, warn=False)
            branch = cls(document, *_structure(document))
        except (InputError, ImageTooSmall) as error:
            raise PlanCorrupt(f"{path}: {error}") from error
        check_tensors(tensors, branch.state_dict(), str(path))
        branch.load_state_dict(tensors, strict=True, assign=True)
        return branch


def _check_names(label: str, classes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str) or not all(isinstance(name, str) for name in (label, *classes)):
        raise InputError(f"expected a text as label and a list of texts as classes, found {label!r} and {classes!r}")
    check_names(label, tuple(classes))
    return tuple(classes)


def _structure(document: BranchDocument) -> tuple[dict[str, nn.Module], int]:
    """Its own blocks on the meta device and the channels that leave them, from the description alone."""
    found = backbone(document.arch)
    shapes = tap_shapes(found, document.trunk_width, document.crop.size)
    modules = trunk_modules(found, document.trunk_width)
    own = {name: modules[name] for name in found.blocks[document.tap : document.until]}
    return narrow_blocks(own, (shapes[document.tap][0], shapes[document.until][0]), document.width)


def _check_cells(document: BranchDocument, *, warn: bool) -> None:
    found, cls, until, size = backbone(document.arch), pooling(document.pooling), document.until, document.crop.size
    cells = cells_at(found, size, until)
    if cells < cls.least_cells:
        side = least_square(found, until, cls.least_cells)
        raise ImageTooSmall(
            f"pooling {document.pooling!r}: expected at least {cls.least_cells} cells at until={until} ({found.name}), "
            f"found {cells} for a crop of {size[0]}x{size[1]}; the least square input is {side}x{side}"
        )
    if warn and cells < cls.advised_cells:
        warnings.warn(
            f"pooling {document.pooling!r}: {cells} cells at until={until} ({found.name}) for a crop of "
            f"{size[0]}x{size[1]}; below {cls.advised_cells} it holds little beyond the mean: choose a larger crop or "
            f"an earlier until",
            FewCellsWarning,
            stacklevel=3,
        )
