"""YOLACT: instance segmentation by prototypes that each prediction combines with its own coefficients.

Source: Bolya et al. 2019 (YOLACT: Real-time Instance Segmentation); with ResNet-50 and ResNet-101 at width 1 and 256
channels the network is that of dbolya/yolact 902073d, `yolact_resnet50` and `yolact_base`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from graftsdk.errors import ImageTooSmall, InputError, PlanCorrupt, PlanError
from graftsdk.models.backbones import backbone
from graftsdk.models.checkpoints import another_kind, check_tensors, read_checkpoint, write_checkpoint
from graftsdk.models.random_weights import RandomBits, fill_randomly
from graftsdk.models.structure import tap_shapes
from graftsdk.models.trunk import torchvision_tensors
from graftsdk.models.yolact_layers import (
    Head,
    Prototypes,
    Pyramid,
    PyramidBackbone,
    fill_xavier,
    level_sizes,
    pyramid_taps,
)
from graftsdk.plan.documents import Provenance
from graftsdk.plan.segmenter_document import SegmenterDocument, default_scales

__all__ = ["Yolact", "YolactOutputs", "check_document"]

DEFAULT_SIZE = (550, 550)


class YolactOutputs(NamedTuple):
    """What the network gives for B images; P predictions, one for each prior, K prototypes.

    Attributes:
        loc: [B, P, 4], offsets of boxes from their priors.
        conf: [B, P, 1 + classes], logits, the background first.
        mask: [B, P, K], coefficients, behind tanh.
        proto: [B, h, w, K], prototypes, behind ReLU; twice as many rows and columns as P3 has.
        semantic: [B, classes, h3, w3], logits in the cells of P3, for the loss alone; None in eval mode.
    """

    loc: torch.Tensor
    conf: torch.Tensor
    mask: torch.Tensor
    proto: torch.Tensor
    semantic: torch.Tensor | None


class Yolact(nn.Module):
    """A segmenter: images -> boxes, classes and mask coefficients, and the prototypes that the masks are made of.

    It reads RGB, stretched to `input_size` and normalised: graftsdk.segment.yolact has MEAN and STD, and decodes what
    it gives. Images of any other size pass as well. Keys of its state dict: `backbone.*` (torchvision's names),
    `fpn.*`, `proto.*`, `head.*`, `semantic.*`. It is made and loaded in eval mode.

    Attributes:
        arch, width, channels, prototypes, classes, input_size, scales, aspect_ratios, square_priors, norm: see
            SegmenterDocument.
        metrics, provenance: written into its files; free to set, checked when saved.
    """

    def __init__(self, document: SegmenterDocument) -> None:
        """Not for callers: use `create` or `load`. Built on the meta device."""
        super().__init__()
        self.arch, self.width, self.input_size = document.arch, document.width, document.input_size
        self.channels, self.prototypes, self.classes = document.channels, document.prototypes, document.classes
        self.scales, self.aspect_ratios = document.scales, document.aspect_ratios
        self.square_priors, self.norm = document.square_priors, document.norm
        self.metrics: dict[str, float] = dict(document.metrics)
        self.provenance: Provenance = document.provenance
        found = backbone(self.arch)
        shapes = tap_shapes(found, self.width, self.input_size)
        with torch.device("meta"):
            self.backbone = PyramidBackbone(self.arch, self.width)
            self.fpn = Pyramid([shapes[tap][0] for tap in pyramid_taps(found)], self.channels, self.norm)
            self.proto = Prototypes(self.channels, self.prototypes, self.norm)
            self.head = Head(self.channels, len(self.aspect_ratios), 1 + len(self.classes), self.prototypes)
            self.semantic = nn.Conv2d(self.channels, len(self.classes), 1)
        self.eval()

    @classmethod
    def create(
        cls,
        arch: str = "resnet50",
        input_size: tuple[int, int] = DEFAULT_SIZE,
        classes: Sequence[str] = ("person",),
        width: float = 1.0,
        channels: int = 256,
        prototypes: int = 32,
        scales: Sequence[float] | None = None,
        aspect_ratios: Sequence[float] = (1.0, 0.5, 2.0),
        square_priors: bool = True,
        norm: bool = False,
        weights: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> Yolact:
        """A segmenter to be trained: random weights, the backbone's perhaps torchvision's.

        Args:
            arch: a registered backbone with blocks at strides 8, 16 and 32.
            input_size: (H, W) that images are stretched to.
            classes: without the background.
            width: share of the backbone's channels.
            channels: of FPN, protonet and head.
            prototypes: K.
            scales: of the priors of P3..P7, pixels of the input. By default 24, 48, 96, 192, 384 at 550, in
                proportion to the shorter side.
            aspect_ratios: of each cell's priors, width : height.
            square_priors: priors as high as wide, as the original has it for COCO.
            norm: BatchNorm in pyramid and protonet, which training from random weights needs to be fast; the export
                folds it away.
            weights: of the backbone, a safetensors file in torchvision's own layout, at width 1.
            seed: of the random weights, which are the same on every machine.

        Raises:
            InputError: an argument out of range.
            ImageTooSmall: `input_size` is smaller than the backbone can take; names the least.
            UnsupportedOp: width < 1 and the backbone has a layer that cannot be narrowed.
            PlanError: `weights` cannot be read, or its keys, shapes, dtypes or values are not those of `arch`.
        """
        if isinstance(classes, str):
            raise InputError(f"classes: expected a list of names, found the text {classes!r}")
        try:
            size = (input_size[0], input_size[1])
            scales = default_scales(size) if scales is None else tuple(scales)
            document = SegmenterDocument(
                arch,
                width,
                size,
                scales,
                tuple(classes),
                channels,
                prototypes,
                tuple(aspect_ratios),
                square_priors,
                norm,
            )
        except (TypeError, IndexError) as error:
            raise InputError(
                f"segmenter: expected input_size (H, W) and lists of classes, scales and aspect_ratios, found {error}"
            ) from error
        document = check_document(document)
        if weights is not None and width != 1.0:
            raise InputError(f"width: expected 1 together with weights, found {width}; torchvision has none narrower")
        model, found, bits = cls(document), backbone(document.arch), RandomBits(seed)
        if weights is None:
            fill_randomly(model.backbone, bits, found.gain, found.damped)
        else:
            tensors = torchvision_tensors(found, weights)
            check_tensors(tensors, model.backbone.state_dict(), str(weights))
            model.backbone.load_state_dict(tensors, strict=True, assign=True)
        for part in (model.fpn, model.proto, model.head, model.semantic):
            fill_xavier(part, bits)
        return model

    @classmethod
    def from_tensors(cls, document: SegmenterDocument, tensors: Mapping[str, torch.Tensor], where: str) -> Yolact:
        """A segmenter that takes over `tensors`, its state dict. Raises PlanCorrupt, naming `where` and the key."""
        try:
            model = cls(document)
        except (InputError, ImageTooSmall) as error:
            raise PlanCorrupt(f"{where}: {error}") from error
        check_tensors(tensors, model.state_dict(), where)
        model.load_state_dict(dict(tensors), strict=True, assign=True)
        return model

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Yolact:
        """The segmenter in a checkpoint.

        Raises:
            PlanPathError, PlanTruncated, PlanLimitError, PlanCorrupt, PlanVersionError: the file cannot be trusted.
        """
        document, tensors = read_checkpoint(path)
        if not isinstance(document, SegmenterDocument):
            raise another_kind(path, "segmenter", document)
        return cls.from_tensors(document, tensors, str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write its checkpoint, whole or not at all.

        Raises:
            InputError: a weight is not finite float32, or the metrics are no numbers.
            PlanPathError: `path` cannot be written.
        """
        write_checkpoint(path, self.document(), self.state_dict())

    def skeleton(self) -> Yolact:
        """The same segmenter without weights, on the meta device."""
        return Yolact(self.document())

    def document(self) -> SegmenterDocument:
        """What its files say of it."""
        return SegmenterDocument(
            arch=self.arch,
            width=self.width,
            input_size=self.input_size,
            scales=self.scales,
            classes=self.classes,
            channels=self.channels,
            prototypes=self.prototypes,
            aspect_ratios=self.aspect_ratios,
            square_priors=self.square_priors,
            norm=self.norm,
            metrics=dict(self.metrics),
            provenance=self.provenance,
        )

    def forward(self, x: torch.Tensor) -> YolactOutputs:
        """What it sees in normalised RGB images x[B, 3, H, W]."""
        levels = self.fpn(self.backbone(x))
        found = [self.head(level) for level in levels]
        loc, conf, mask = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        semantic = self.semantic(levels[0]) if self.training else None
        return YolactOutputs(loc, conf, mask, self.proto(levels[0]), semantic)

    def priors(self, size: tuple[int, int] | None = None) -> torch.Tensor:
        """float32[P, 4]: cx, cy, w, h as fractions of the input, by level, row, column and aspect ratio.

        w = scale * sqrt(ratio) / W; h = scale * sqrt(ratio) / H where they are square, scale / sqrt(ratio) / H where
        not; H and W of `input_size`.

        Args:
            size: (H, W) of the input, `input_size` where none is given. For another one there are more or fewer
                priors; each covers the same fraction of the input.

        Raises:
            ImageTooSmall: smaller than the backbone can take.
        """
        height, width = self.input_size
        levels = []
        sizes = level_sizes(self.arch, self.width, self.input_size if size is None else (size[0], size[1]))
        for scale, (rows, columns) in zip(self.scales, sizes, strict=True):
            priors = np.empty((rows, columns, len(self.aspect_ratios), 4))
            priors[..., 0] = ((np.arange(columns) + 0.5) / columns)[None, :, None]
            priors[..., 1] = ((np.arange(rows) + 0.5) / rows)[:, None, None]
            for index, ratio in enumerate(self.aspect_ratios):
                root = math.sqrt(ratio)
                priors[..., index, 2] = scale * root / width
                priors[..., index, 3] = (scale * root if self.square_priors else scale / root) / height
            levels.append(priors.reshape(-1, 4))
        return torch.from_numpy(np.concatenate(levels).astype(np.float32))


def check_document(document: SegmenterDocument) -> SegmenterDocument:
    """The document as a file would give it back. For callers' arguments: raises InputError where none would take it."""
    try:
        return SegmenterDocument.from_dict(document.to_dict(), "segmenter")
    except PlanError as error:
        raise InputError(str(error)) from error
