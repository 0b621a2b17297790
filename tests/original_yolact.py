"""The original YOLACT (dbolya/yolact), written out slowly from its description: key set, shapes, forward pass, priors.

Nothing here knows graftsdk: the state dict's own names are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
Shapes = dict[str, tuple[int, ...]]


def shapes(arch: str, classes: int = 80) -> Shapes:
    """Key -> shape of the original's state dict; `classes` without the background."""
    found: Shapes = {"backbone.conv1.weight": (64, 3, 7, 7), **_norm("backbone.bn1", 64)}
    inputs = 64
    for layer, (count, planes) in enumerate(zip(BLOCKS[arch], (64, 128, 256, 512), strict=True)):
        for block in range(count):
            at = f"backbone.layers.{layer}.{block}"
            found[f"{at}.conv1.weight"] = (planes, inputs, 1, 1)
            found[f"{at}.conv2.weight"] = (planes, planes, 3, 3)
            found[f"{at}.conv3.weight"] = (4 * planes, planes, 1, 1)
            found |= _norm(f"{at}.bn1", planes) | _norm(f"{at}.bn2", planes) | _norm(f"{at}.bn3", 4 * planes)
            if block == 0:
                found[f"{at}.downsample.0.weight"] = (4 * planes, inputs, 1, 1)
                found |= _norm(f"{at}.downsample.1", 4 * planes)
            inputs = 4 * planes
    with_bias: Shapes = {
        "fpn.lat_layers.0": (256, 2048, 1, 1),
        "fpn.lat_layers.1": (256, 1024, 1, 1),
        "fpn.lat_layers.2": (256, 512, 1, 1),
        "fpn.pred_layers.0": (256, 256, 3, 3),
        "fpn.pred_layers.1": (256, 256, 3, 3),
        "fpn.pred_layers.2": (256, 256, 3, 3),
        "fpn.downsample_layers.0": (256, 256, 3, 3),
        "fpn.downsample_layers.1": (256, 256, 3, 3),
        "proto_net.0": (256, 256, 3, 3),
        "proto_net.2": (256, 256, 3, 3),
        "proto_net.4": (256, 256, 3, 3),
        "proto_net.8": (256, 256, 3, 3),
        "proto_net.10": (32, 256, 1, 1),
        "prediction_layers.0.upfeature.0": (256, 256, 3, 3),
        "prediction_layers.0.bbox_layer": (12, 256, 3, 3),
        "prediction_layers.0.conf_layer": (3 * (1 + classes), 256, 3, 3),
        "prediction_layers.0.mask_layer": (96, 256, 3, 3),
        "semantic_seg_conv": (classes, 256, 1, 1),
    }
    for name, shape in with_bias.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return found


def _norm(name: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{key}": (channels,) for key in vectors} | {f"{name}.num_batches_tracked": ()}


def hollow(arch: str = "resnet50", classes: int = 80) -> dict[str, torch.Tensor]:
    """A state dict of zeros that takes no room, in memory or in a file."""
    return {
        name: torch.zeros((), dtype=torch.int64 if name.endswith("tracked") else torch.float32).expand(shape)
        for name, shape in shapes(arch, classes).items()
    }


def filled(arch: str = "resnet50", classes: int = 80, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict whose activations stay moderate and whose every value matters."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: Sequence[int], low: float, high: float) -> torch.Tensor:
        return torch.empty(*shape).uniform_(low, high, generator=generator)

    found: dict[str, torch.Tensor] = {}
    for name, shape in shapes(arch, classes).items():
        if len(shape) == 4:
            bound = math.sqrt(6.0 / math.prod(shape[1:]))
            found[name] = uniform(shape, -bound, bound)
        elif name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(1234)
        elif name.endswith("running_var"):
            found[name] = uniform(shape, 0.5, 1.5)
        elif ".bn" in name and name.endswith("weight"):
            found[name] = uniform(shape, 0.2, 0.6) if ".bn3." in name else uniform(shape, 0.7, 1.3)
        elif name.endswith("weight"):  # BatchNorm on a shortcut
            found[name] = uniform(shape, 0.5, 0.9)
        else:
            found[name] = uniform(shape, -0.2, 0.2)
    return found


def forward(state: Mapping[str, torch.Tensor], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """loc, conf (logits), mask, proto and semantic (logits) of normalised RGB images x[B, 3, H, W]."""

    def convolution(name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias, mean, var = (
            state[f"{name}.{key}"][:, None, None] for key in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def bottleneck(at: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        inner = torch.relu(norm(f"{at}.bn1", convolution(f"{at}.conv1", x)))
        inner = torch.relu(norm(f"{at}.bn2", convolution(f"{at}.conv2", inner, stride)))
        inner = norm(f"{at}.bn3", convolution(f"{at}.conv3", inner))
        if f"{at}.downsample.0.weight" in state:
            x = norm(f"{at}.downsample.1", convolution(f"{at}.downsample.0", x, stride))
        return torch.relu(inner + x)

    x = torch.relu(norm("backbone.bn1", convolution("backbone.conv1", x, 2)))
    x = functional.max_pool2d(x, 3, 2, 1)
    stages = []
    for layer in range(4):
        block = 0
        while f"backbone.layers.{layer}.{block}.conv1.weight" in state:
            x = bottleneck(f"backbone.layers.{layer}.{block}", x, 2 if block == 0 and layer > 0 else 1)
            block += 1
        stages.append(x)
    _, c3, c4, c5 = stages

    m5 = convolution("fpn.lat_layers.0", c5)
    m4 = convolution("fpn.lat_layers.1", c4) + _resized(m5, c4.shape[2], c4.shape[3])
    m3 = convolution("fpn.lat_layers.2", c3) + _resized(m4, c3.shape[2], c3.shape[3])
    p5 = torch.relu(convolution("fpn.pred_layers.0", m5))
    p4 = torch.relu(convolution("fpn.pred_layers.1", m4))
    p3 = torch.relu(convolution("fpn.pred_layers.2", m3))
    p6 = convolution("fpn.downsample_layers.0", p5, 2)
    p7 = convolution("fpn.downsample_layers.1", p6, 2)

    proto = p3
    for index in (0, 2, 4):
        proto = torch.relu(convolution(f"proto_net.{index}", proto))
    proto = torch.relu(convolution("proto_net.8", _resized(proto, 2 * proto.shape[2], 2 * proto.shape[3])))
    proto = torch.relu(convolution("proto_net.10", proto))

    rows: dict[str, list[torch.Tensor]] = {"loc": [], "conf": [], "mask": []}
    for level in (p3, p4, p5, p6, p7):
        feature = torch.relu(convolution("prediction_layers.0.upfeature.0", level))
        for name, last in (("loc", "bbox_layer"), ("conf", "conf_layer"), ("mask", "mask_layer")):
            found = convolution(f"prediction_layers.0.{last}", feature)
            each = found.shape[1] // 3
            for j in range(found.shape[2]):
                for i in range(found.shape[3]):
                    for ratio in range(3):
                        rows[name].append(found[:, ratio * each : (ratio + 1) * each, j, i])
    return {
        "loc": torch.stack(rows["loc"], 1),
        "conf": torch.stack(rows["conf"], 1),
        "mask": torch.tanh(torch.stack(rows["mask"], 1)),
        "proto": proto.permute(0, 2, 3, 1),
        "semantic": convolution("semantic_seg_conv", p3),
    }


def _resized(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear, align_corners=False, by its formula: cell k lies at (k + 1/2) / count."""
    for axis, count in ((2, height), (3, width)):
        old = x.shape[axis]
        at = ((torch.arange(count, dtype=torch.float64) + 0.5) * old / count - 0.5).clamp(min=0)
        low = at.floor().long()
        high = (low + 1).clamp(max=old - 1)
        share = (at - low).to(x.dtype).reshape([-1 if dim == axis else 1 for dim in range(4)])
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


def priors(
    cells: Sequence[tuple[int, int]], scales: Sequence[float], size: tuple[int, int], *, square: bool
) -> list[tuple[float, float, float, float]]:
    """cx, cy, w, h of all priors; cells (rows, columns) of each level, size (H, W) of the input."""
    found = []
    for (rows, columns), scale in zip(cells, scales, strict=True):
        for j in range(rows):
            for i in range(columns):
                for ratio in (1, 1 / 2, 2):
                    wide = scale * math.sqrt(ratio)
                    high = wide if square else scale / math.sqrt(ratio)
                    found.append(((i + 0.5) / columns, (j + 0.5) / rows, wide / size[1], high / size[0]))
    return found
