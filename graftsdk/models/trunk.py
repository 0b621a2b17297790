"""The trunk: the shared backbone, from crops to taps."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import nn

from graftsdk.errors import ImageTooSmall, InputError, PlanCorrupt
from graftsdk.models.backbones import Backbone, backbone
from graftsdk.models.checkpoints import (
    another_kind,
    check_tensors,
    read_checkpoint,
    read_weights,
    write_checkpoint,
)
from graftsdk.models.fingerprint import fingerprint_chain
from graftsdk.models.narrow import check_width
from graftsdk.models.random_weights import RandomBits, fill_randomly
from graftsdk.models.structure import place, tap_shapes, trunk_modules
from graftsdk.plan.cropspec import CropSpec
from graftsdk.plan.documents import DOCUMENT_KEY, Provenance, TrunkDocument

__all__ = ["Trunk", "torchvision_tensors", "with_counters", "without_classifier"]

DEFAULT_SIZE = (299, 299)  # the paper's
_HALF = (0.5, 0.5, 0.5)  # torchvision's InceptionV3 weights want 2u - 1, u = pixel / 255 (its transform_input)


class Trunk(nn.Module):
    """A backbone's stem and blocks. Tap k, 0 <= k <= B, is what enters block k; tap B leaves the last one.

    State-dict keys are torchvision's. It is made and loaded in eval mode.

    Attributes:
        arch: the backbone's name. width: of all its layers, 0 < width <= 1.
        crop: the crops it is made for; `input_size` is crop.size, (H, W).
        provenance: licence, author and data, written into its files; replace it to say more.
    """

    def __init__(self, arch: str, width: float, crop: CropSpec, modules: Mapping[str, nn.Module]) -> None:
        """Not for callers: use `create` or `load`."""
        super().__init__()
        self.arch, self.width, self.crop = arch, width, crop
        self.provenance = Provenance()
        place(self, modules)
        self.eval()

    @classmethod
    def create(
        cls,
        arch: str,
        input_size: tuple[int, int] = DEFAULT_SIZE,
        width: float = 1.0,
        seed: int = 0,
        weights: str | os.PathLike[str] | None = None,
        crop: CropSpec | None = None,
    ) -> Trunk:
        """A trunk with random weights, or with torchvision's.

        Args:
            arch: a registered backbone.
            input_size: (H, W) of its crops. Left at its default, a given `crop`'s size wins.
            width: share of the backbone's channels.
            seed: of the random weights, which are the same on every machine.
            weights: a safetensors file in torchvision's own layout, at width 1; its classifier is left out.
            crop: the whole crop specification. By default ImageNet's mean and deviation, 0.5 and 0.5 for
                torchvision's InceptionV3 weights.

        Raises:
            InputError: an argument out of range, or `crop.size` and `input_size` differ.
            ImageTooSmall: `input_size` is smaller than the backbone can take; names the least.
            UnsupportedOp: width < 1 and the backbone has a layer that cannot be narrowed.
            PlanError: `weights` cannot be read, or its keys, shapes, dtypes or values are not those of `arch`.
        """
        found, width = backbone(arch), check_width(width)
        if weights is not None and width != 1.0:
            raise InputError(f"width: expected 1 together with weights, found {width}; torchvision has none narrower")
        if crop is None:
            half = weights is not None and arch == "inception_v3"
            crop = CropSpec(input_size, _HALF, _HALF) if half else CropSpec(input_size)
        elif tuple(input_size) not in (DEFAULT_SIZE, crop.size):
            raise InputError(f"input_size: expected crop.size {crop.size} or nothing, found {tuple(input_size)}")
        tap_shapes(found, width, crop.size)
        if weights is not None:
            return cls.from_tensors(arch, 1.0, crop, torchvision_tensors(found, weights), str(weights))
        trunk = cls(arch, width, crop, trunk_modules(found, width))
        fill_randomly(trunk, RandomBits(seed), found.gain, found.damped)
        return trunk

    @classmethod
    def from_tensors(
        cls, arch: str, width: float, crop: CropSpec, tensors: Mapping[str, torch.Tensor], where: str
    ) -> Trunk:
        """A trunk that takes over `tensors`, its state dict. Raises PlanCorrupt, naming `where` and the key."""
        trunk = cls(arch, width, crop, trunk_modules(backbone(arch), width))
        check_tensors(tensors, trunk.state_dict(), where)
        trunk.load_state_dict(dict(tensors), strict=True, assign=True)
        return trunk

    @property
    def backbone(self) -> Backbone:
        """Names of its stem and blocks."""
        return backbone(self.arch)

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) of its crops."""
        return self.crop.size

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """Blocks 0..B-1; B is their number."""
        return tuple(self.get_submodule(name) for name in self.backbone.blocks)

    def taps(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Taps 0..B of crops x[N, 3, H, W], each [N, C, H, W]."""
        return self._run(x, len(self.backbone.blocks))

    def tap(self, x: torch.Tensor, k: int) -> torch.Tensor:
        """Tap k of crops x[N, 3, H, W]; blocks k and later are not run. Raises InputError: no such tap."""
        return self._run(x, self.check_tap(k))[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tap B of crops x[N, 3, H, W]."""
        return self.taps(x)[-1]

    def _run(self, x: torch.Tensor, last: int) -> tuple[torch.Tensor, ...]:
        for name in self.backbone.stem:
            x = self.get_submodule(name)(x)
        taps = [x]
        for name in self.backbone.blocks[:last]:
            taps.append(self.get_submodule(name)(taps[-1]))
        return tuple(taps)

    def check_tap(self, k: int, name: str = "tap") -> int:
        """`k`, if it is a tap's number. Raises InputError."""
        last = len(self.backbone.blocks)
        if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= last:
            raise InputError(f"{name}: expected an integer from 0 to {last} ({self.arch}), found {k!r}")
        return k

    def tap_shape(self, k: int) -> tuple[int, int, int]:
        """(C, H, W) of tap k for a crop of `input_size`. Raises InputError."""
        return tap_shapes(self.backbone, self.width, self.crop.size)[self.check_tap(k)]

    def channels(self, k: int) -> int:
        """Channels of tap k. Raises InputError."""
        return self.tap_shape(k)[0]

    def fingerprint(self, k: int) -> str:
        """The fingerprint of crop specification, stem and blocks 0..k-1 as they are now, 64 hex digits.

        Raises:
            InputError: no such tap.
        """
        return self._fingerprints(self.check_tap(k))[-1]

    def _fingerprints(self, last: int) -> tuple[str, ...]:
        def parts(names: tuple[str, ...]) -> list[tuple[str, dict[str, torch.Tensor]]]:
            return [(name, self.get_submodule(name).state_dict()) for name in names]

        found = self.backbone
        return fingerprint_chain(self.arch, self.width, self.crop, parts(found.stem), parts(found.blocks[:last]))

    def document(self) -> TrunkDocument:
        """What its files say of it, with the fingerprints of all taps."""
        fingerprints = self._fingerprints(len(self.backbone.blocks))
        return TrunkDocument(self.arch, self.width, self.crop, fingerprints, self.provenance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write its checkpoint, whole or not at all.

        Raises:
            InputError: a weight is not finite float32.
            PlanPathError: `path` cannot be written.
        """
        write_checkpoint(path, self.document(), self.state_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trunk:
        """The trunk in a checkpoint, its fingerprints recomputed and compared.

        Raises:
            PlanPathError, PlanTruncated, PlanLimitError, PlanCorrupt, PlanVersionError: the file cannot be trusted.
        """
        document, tensors = read_checkpoint(path)
        if not isinstance(document, TrunkDocument):
            raise another_kind(path, "trunk", document)
        try:
            found = backbone(document.arch)
            tap_shapes(found, document.width, document.crop.size)
        except (InputError, ImageTooSmall) as error:
            raise PlanCorrupt(f"{path}: {error}") from error
        if document.blocks != len(found.blocks):
            raise PlanCorrupt(f"{path}: expected {len(found.blocks) + 1} fingerprints, found {document.blocks + 1}")
        trunk = cls.from_tensors(document.arch, document.width, document.crop, tensors, str(path))
        trunk.provenance = document.provenance
        for k, (now, then) in enumerate(zip(trunk.document().fingerprints, document.fingerprints, strict=True)):
            if now != then:
                raise PlanCorrupt(
                    f"{path}: expected fingerprint {then[:16]} at tap {k}, found {now[:16]}: weights or crop "
                    f"specification were changed after it was saved; save it again with graftsdk"
                )
        return trunk


def torchvision_tensors(found: Backbone, path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The state dict of `found` in a safetensors file in torchvision's own layout, without the classifier.

    Raises:
        InputError: it is a checkpoint of graftsdk. PlanError: it cannot be read.
    """
    metadata, tensors = read_weights(path)
    if DOCUMENT_KEY in metadata:
        raise InputError(f"weights: expected torchvision's, found the graftsdk checkpoint {path}; read it with load")
    return without_classifier(found, tensors)


def without_classifier(found: Backbone, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Torchvision's state dict without what is no part of a trunk, counters filled in."""
    return with_counters({name: tensor for name, tensor in tensors.items() if not name.startswith(found.classifier)})


def with_counters(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with BatchNorm's `num_batches_tracked`, which weights from before torch 0.4.1 lack.

    Nothing reads it in eval mode: 0 is filled in, as torch itself does.
    """
    own = dict(tensors)
    for name in [name for name in own if name.endswith(".running_mean")]:
        own.setdefault(name.removesuffix("running_mean") + "num_batches_tracked", torch.tensor(0))
    return own
