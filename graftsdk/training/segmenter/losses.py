"""YOLACT's four losses (Bolya et al. 2019, 902073d layers/modules/multibox_loss.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graftsdk.models import YolactOutputs
from graftsdk.segment.yolact import VARIANCES
from graftsdk.training.segmenter.matching import NEUTRAL, match_priors

__all__ = ["Losses", "Truth", "segmenter_losses"]

BOX_WEIGHT, CLASS_WEIGHT, MASK_WEIGHT, SEMANTIC_WEIGHT = 1.5, 1.0, 6.125, 1.0
NEGATIVES = 3  # for each positive
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
MASKS = 100  # positives of an image whose masks are looked at


class Truth(NamedTuple):
    """What is to be found in one image.

    Attributes:
        boxes: float32[N, 4], xyxy, fractions of the image.
        labels: int64[N], 0 the first class that is no background.
        masks: uint8[N, H, W], 0 and 1, at the size of the network's input.
        crowds: float32[C, 4], xyxy, fractions: neither to be found nor to be left.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    crowds: Tensor


class Losses(NamedTuple):
    """Each one weighted and normalised; their sum is what is minimised.

    Attributes:
        box, confidence, mask: over the batch's positives (at least 1). semantic: over the batch's images.
    """

    box: Tensor
    confidence: Tensor
    mask: Tensor
    semantic: Tensor

    def total(self) -> Tensor:
        """The sum."""
        return self.box + self.confidence + self.mask + self.semantic


def segmenter_losses(
    outputs: YolactOutputs,
    priors: Tensor,
    truths: Sequence[Truth],
    generator: torch.Generator | None = None,
    *,
    focal: bool = False,
) -> Losses:
    """The losses of one batch.

    Box: smooth L1 (sum) of the positives' offsets x 1.5. Confidence: cross entropy (sum) of positives and of three
    times as many background priors an image, those of the greatest logsumexp - background logit; an image without
    positives takes three, where the original takes none and so learns nothing from empty rooms. With `focal`: the sum
    over all priors that are not neutral of -a (1 - p)^2 log p, p the probability of what is true, a 0.25 for positives
    and 0.75 for background (Lin et al. 2017; the original's `focal_conf_loss`). Mask x 6.125: binary
    cross entropy of sigmoid(prototypes x coefficients) inside the true box (one cell wider, as in decoding), divided
    by that box's area in cells; of at most 100 positives of an image, drawn at random and scaled up. Semantic: binary
    cross entropy of each class's union of masks, divided by the cells.

    Args:
        outputs: of the network in train mode.
        priors: float32[P, 4], cx, cy, w, h, fractions.
        truths: one for each image.
        generator: draws the positives where there are more than 100.
        focal: which of the two confidence losses.
    """
    targets = _targets(outputs, priors, truths)
    flat = targets.image * len(priors) + targets.row
    count = max(len(flat), 1)
    repeated = priors.to(flat.device)[targets.row]
    offsets = outputs.loc.flatten(0, 1)[flat].float()
    confidence = _focal if focal else _confidence
    box = F.smooth_l1_loss(offsets, _encode(targets.boxes[targets.owner], repeated), reduction="sum")
    return Losses(
        BOX_WEIGHT * box / count,
        CLASS_WEIGHT * confidence(outputs.conf.float(), targets.labels) / count,
        MASK_WEIGHT * _masks(outputs, targets, generator) / count,
        SEMANTIC_WEIGHT * _semantic(outputs.semantic, targets) / len(truths),
    )


class _Targets(NamedTuple):
    """What a batch is to become, on the network's device: few large copies to it, for each of them is waited for.

    Attributes:
        labels: int64[B, P], as `Match` has them.
        image, row, owner: int64[n], each positive's image, prior and person among the batch's N, ascending.
        counts: of the positives, for each image.
        boxes: float32[N, 4]. classes, of: int64[N], each person's class and image.
        masks: uint8[N, H, W].
    """

    labels: Tensor
    image: Tensor
    row: Tensor
    owner: Tensor
    counts: tuple[int, ...]
    boxes: Tensor
    classes: Tensor
    of: Tensor
    masks: Tensor


def _targets(outputs: YolactOutputs, priors: Tensor, truths: Sequence[Truth]) -> _Targets:
    device = outputs.loc.device
    corners = torch.cat((priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2), 1).cpu().numpy()
    matches = [
        match_priors(corners, truth.boxes.numpy(), truth.labels.numpy(), truth.crowds.numpy()) for truth in truths
    ]
    labels = np.stack([match.labels for match in matches])
    image, row = np.nonzero(labels > 0)
    persons = [len(truth.boxes) for truth in truths]
    first = np.cumsum([0, *persons[:-1]])
    owner = np.stack([match.truths for match in matches])[image, row] + first[image]
    return _Targets(
        labels=torch.from_numpy(labels).to(device),
        image=torch.from_numpy(image).to(device),
        row=torch.from_numpy(row).to(device),
        owner=torch.from_numpy(owner).to(device),
        counts=tuple(np.bincount(image, minlength=len(truths)).tolist()),
        boxes=torch.cat([truth.boxes for truth in truths]).to(device),
        classes=torch.cat([truth.labels for truth in truths]).to(device),
        of=torch.from_numpy(np.repeat(np.arange(len(truths)), persons)).to(device),
        masks=torch.cat([truth.masks for truth in truths]).to(device),
    )


def _encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """float32[N, 4]: what the network is to say of `boxes` (xyxy) at `priors` (cx, cy, w, h)."""
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2 - priors[:, :2]) / (VARIANCES[0] * priors[:, 2:])
    return torch.cat((centre, torch.log((boxes[:, 2:] - boxes[:, :2]) / priors[:, 2:]) / VARIANCES[1]), 1)


def _confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over positives and the hardest negatives; logits [B, P, 1 + classes], labels [B, P]."""
    with torch.no_grad():
        hardness = torch.logsumexp(logits, 2) - logits[:, :, 0]
        hardness = hardness.masked_fill(labels != 0, -1.0)  # below every background prior's: those are >= 0
        wanted = NEGATIVES * (labels > 0).sum(1).clamp(min=1)
        most = min(int(wanted.max()), labels.shape[1])
        order = hardness.topk(most, 1).indices  # [B, most]
        chosen = torch.arange(most, device=labels.device) < wanted[:, None]
        taken = torch.zeros_like(labels, dtype=torch.bool).scatter_(1, order, chosen)
        taken = (taken & (labels == 0)) | (labels > 0)
    return F.cross_entropy(logits[taken], labels[taken], reduction="sum")


def _focal(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over all priors that are not neutral; logits [B, P, 1 + classes], labels [B, P]."""
    surprise = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=NEUTRAL)
    weight = torch.where(labels.flatten() > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return (weight * (-torch.expm1(-surprise)) ** FOCAL_GAMMA * surprise).sum()  # a neutral prior's surprise is 0


def _masks(outputs: YolactOutputs, targets: _Targets, generator: torch.Generator | None) -> Tensor:
    height, width = outputs.proto.shape[1:3]
    total = outputs.proto.new_zeros((), dtype=torch.float32)
    cells = _shrunk(targets.masks, (height, width)).flatten(1)  # [N, cells]
    weights = _box_weights(targets.boxes, height, width).flatten(1)
    start = 0
    # unbind: its gradient is one stack, where indexing adds a whole batch's zeros for each image.
    each = zip(targets.counts, outputs.mask.unbind(), outputs.proto.unbind(), strict=True)
    for found, coefficients, prototypes in each:
        row, owner = targets.row[start : start + found], targets.owner[start : start + found]
        start += found
        if not found:
            continue
        if found > MASKS:
            drawn = torch.randperm(found, generator=generator)[:MASKS].to(row.device)
            row, owner = row[drawn], owner[drawn]
        logits = (coefficients[row] @ prototypes.flatten(0, 1).T).float()  # [n, cells]
        loss = F.binary_cross_entropy_with_logits(logits, cells[owner], weight=weights[owner], reduction="sum")
        total = total + loss * (found / len(row))
    return total


def _box_weights(boxes: Tensor, height: int, width: int) -> Tensor:
    """float32[N, h, w]: 1 / the box's area in cells inside it, grown by one cell as masks are cut; 0 elsewhere."""
    scaled = boxes * boxes.new_tensor((width, height, width, height))
    x0, y0, x1, y1 = scaled[:, :, None].unbind(1)  # [N, 1]
    columns, lines = torch.arange(width, device=boxes.device), torch.arange(height, device=boxes.device)
    across = (columns >= (x0 - 1).clamp(min=0)) & (columns < (x1 + 1).clamp(max=width))  # [N, w]
    down = (lines >= (y0 - 1).clamp(min=0)) & (lines < (y1 + 1).clamp(max=height))
    return (down[:, :, None] & across[:, None]) / ((x1 - x0) * (y1 - y0))[:, :, None]


def _semantic(logits: Tensor | None, targets: _Targets) -> Tensor:
    """The sum over cells, divided by their number, summed over images and classes."""
    if logits is None:
        raise ValueError("expected the outputs of a network in train mode, found none for the semantic loss")
    images, classes, height, width = logits.shape
    cells = _shrunk(targets.masks, (height, width)).flatten(1)
    wanted = cells.new_zeros(images * classes, height * width)
    place = (targets.of * classes + targets.classes)[:, None].expand_as(cells)
    wanted.scatter_reduce_(0, place, cells, "amax")
    loss = F.binary_cross_entropy_with_logits(logits.float(), wanted.view_as(logits), reduction="sum")
    return loss / (height * width)


def _shrunk(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """float32[N, h, w], 0 and 1: bilinear as the original's, then > 0.5."""
    if not len(masks):
        return torch.zeros(0, *size, device=masks.device)
    return (F.interpolate(masks[None].float(), size, mode="bilinear", align_corners=False)[0] > 0.5).float()
