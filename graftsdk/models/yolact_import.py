"""The original's checkpoints (dbolya/yolact, `.pth`) become segmenter checkpoints.

Its state dict holds the same layers under other names: torchvision's `layerN` as `layers.(N-1)`, FPN's lateral and
3x3 layers from C5 down to C3, protonet and head by their places in a Sequential.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import torch
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from graftsdk.errors import InputError, PlanCorrupt, UnsupportedOp
from graftsdk.models.checkpoints import check_tensors
from graftsdk.models.pth import read_pth
from graftsdk.models.trunk import with_counters
from graftsdk.models.yolact import Yolact, check_document
from graftsdk.plan.segmenter_document import SegmenterDocument, default_scales

__all__ = ["import_yolact"]

# Blocks in the third layer of the backbone -> its name. The other layers have as many in both.
_BACKBONES = {6: "resnet50", 23: "resnet101"}

# The original's configurations: pixels of the square input -> scales of P3..P7, its own rounding.
_SCALES = {700: (30.0, 61.0, 122.0, 244.0, 488.0), 400: (17.0, 34.0, 69.0, 139.0, 279.0)}

# Our prefix -> the original's.
_NAMES = {
    **{f"fpn.lateral.{2 - i}": f"fpn.lat_layers.{i}" for i in range(3)},
    **{f"fpn.smooth.{2 - i}": f"fpn.pred_layers.{i}" for i in range(3)},
    **{f"fpn.down.{i}": f"fpn.downsample_layers.{i}" for i in range(2)},
    **{f"proto.coarse.{i}": f"proto_net.{2 * i}" for i in range(3)},
    "proto.fine": "proto_net.8",
    "proto.last": "proto_net.10",
    "head.shared": "prediction_layers.0.upfeature.0",
    "head.loc": "prediction_layers.0.bbox_layer",
    "head.conf": "prediction_layers.0.conf_layer",
    "head.mask": "prediction_layers.0.mask_layer",
    "semantic": "semantic_seg_conv",
}
_LOC, _CONF = "prediction_layers.0.bbox_layer.weight", "prediction_layers.0.conf_layer.weight"
_RATIOS = 3  # aspect ratios 1, 1/2, 2 in every configuration


def import_yolact(
    source_pth: str | os.PathLike[str],
    output: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    size: int = 550,
    scales: Sequence[float] | None = None,
    square_priors: bool = True,
) -> Yolact:
    """The segmenter written to `output`, with the weights of the original YOLACT (ResNet-50 or ResNet-101).

    Only tensors are unpickled (`weights_only=True`, no fallback). What v1.0 files hold beside the network is dropped.

    Args:
        source_pth: the original's state dict.
        output: the segmenter checkpoint.
        classes: names without the background, in the order of its training. None for COCO's 80.
        size: side of the square input that it was trained with, pixels (`max_size`).
        scales: of the priors of P3..P7, pixels of the input (`pred_scales`). By default those of the original's
            configurations for 550, 700 and 400, in proportion to 550's for other sizes.
        square_priors: priors as high as wide (`use_square_anchors`): True for COCO, False for Pascal VOC, whose scales
            are 32, 64, 128, 256, 512.

    Raises:
        InputError: names of another number than the file has classes, none where it has other than 80, or another
            argument out of range.
        UnsupportedOp: a YOLACT++ or a Darknet-53.
        PlanError: the file is no such state dict, or `output` cannot be written.
        MissingDependency: torch is older than 2.10.
    """
    where = str(source_pth)
    if isinstance(classes, str):
        raise InputError(f"classes: expected a list of names, found the text {classes!r}")
    content = read_pth(source_pth)
    tensors = {name: tensor for name, tensor in with_counters(content).items() if not _is_stale(name)}
    _check_family(tensors, where)
    sides = (size, size)
    if scales is None:
        scales = _SCALES.get(size) or default_scales(sides)
    names = _class_names(tensors, classes, where)
    document = check_document(
        SegmenterDocument(_arch(tensors, where), 1.0, sides, tuple(scales), names, square_priors=square_priors)
    )
    model = Yolact(document)
    expected = model.state_dict()
    check_tensors(tensors, {_original(name): like for name, like in expected.items()}, where)
    model.load_state_dict({name: tensors[_original(name)] for name in expected}, strict=True, assign=True)
    model.save(output)
    return model


def _original(name: str) -> str:
    """The original's name of a tensor of ours."""
    if name.startswith("backbone."):
        return re.sub(r"^backbone\.layer(\d)", lambda found: f"backbone.layers.{int(found[1]) - 1}", name)
    prefix, _, last = name.rpartition(".")
    return f"{_NAMES[prefix]}.{last}"


def _is_stale(name: str) -> bool:
    """What files of v1.0 hold and no version reads: the backbone's layers a second time, more downsampling layers."""
    found = re.match(r"fpn\.downsample_layers\.(\d+)\.", name)
    second = name.startswith("backbone.layer") and not name.startswith("backbone.layers")
    return second or (found is not None and int(found[1]) >= 2)


def _check_family(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse what is not YOLACT on a ResNet, saying what it is instead where that is known."""
    if _LOC not in tensors or not any(name.startswith("proto_net.") for name in tensors):
        some = ", ".join(repr(name)[:60] for name in sorted(tensors)[:3])
        raise PlanCorrupt(
            f"{where}: expected the state dict of YOLACT (backbone, fpn, proto_net, prediction_layers), found tensors "
            f"like {some}; torchvision's weights are for graftsdk import torchvision"
        )
    rows = tensors[_LOC].shape[0] if tensors[_LOC].ndim else 0
    if rows == 9 * 4 or any("conv_offset_mask" in name or name.startswith("maskiou_net") for name in tensors):
        raise UnsupportedOp(
            f"{where}: expected YOLACT, found YOLACT++, whose deformable convolutions few engines run; "
            f"import yolact_base or yolact_resnet50 weights instead"
        )
    if any(name.startswith("backbone._preconv") for name in tensors):
        raise UnsupportedOp(
            f"{where}: expected a ResNet-50 or ResNet-101 backbone, found Darknet-53; "
            f"import yolact_base or yolact_resnet50 weights instead"
        )
    if rows != _RATIOS * 4:
        raise PlanCorrupt(f"{where}: {_LOC}: expected {_RATIOS * 4} rows, 3 aspect ratios, found {rows}")


def _arch(tensors: Mapping[str, torch.Tensor], where: str) -> str:
    found = {match[1] for name in tensors if (match := re.match(r"backbone\.layers\.2\.(\d+)\.", name))}
    arch = _BACKBONES.get(len(found))
    if arch is None:
        raise PlanCorrupt(
            f"{where}: expected 6 or 23 blocks backbone.layers.2.* (ResNet-50 or ResNet-101), found {len(found)}"
        )
    return arch


def _class_names(tensors: Mapping[str, torch.Tensor], names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    rows = tensors[_CONF].shape[0] if _CONF in tensors and tensors[_CONF].ndim else 0
    count = rows // _RATIOS - 1
    if rows % _RATIOS or count < 1:
        raise PlanCorrupt(f"{where}: {_CONF}: expected 3 rows for the background and for each class, found {rows} rows")
    if names is None:
        coco = [name for name in MaskRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"] if name[:1].islower()]
        if len(coco) != count:
            raise InputError(
                f"classes: expected the names of the {count} classes of {where}, found none; only those of COCO, "
                f"{len(coco)}, are known"
            )
        return tuple(coco)
    if len(names) != count:
        raise InputError(f"classes: expected the names of the {count} classes of {where}, found {len(names)}")
    return tuple(names)
