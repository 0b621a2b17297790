"""What the heads of a dynamic graph say of validation crops, and how well it ranks them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from graftsdk.training.crops.packed import PackedCrops
from graftsdk.training.evaluation import auc
from graftsdk.training.run import spread_rows
from graftsdk.training.trunk.batches import plain_batches
from graftsdk.training.trunk.network import DynamicGraph

__all__ = ["LabelAUC", "judge", "label_logits", "mean_auc"]

LabelAUC = dict[str, float]  # class -> AUC of its probability against all others; NaN: no positive or no negative

_BATCH = 128


def judge(
    graph: DynamicGraph,
    sets: Sequence[PackedCrops | None],
    most: int | None,
    device: torch.device,
    check: Callable[[], None],
) -> dict[str, LabelAUC]:
    """Label -> class -> AUC, of its head's answers; a head of two classes has one, that of the positive class.

    Args:
        graph: in eval mode while it is judged.
        sets: validation crops, in the order of the heads; None where a label has none.
        most: crops of each label, evenly over its rows; None: all.
        device: of the graph.
        check: called between batches; it may raise.
    """
    found = {}
    for task, crops in enumerate(sets):
        if crops is None:
            continue
        rows = spread_rows(len(crops), most)
        logits = label_logits(graph, task, crops, rows, device, check)
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        classes = range(1 if len(crops.classes) == 2 else 0, len(crops.classes))
        targets = crops.targets[rows]
        found[crops.label] = {crops.classes[each]: auc(targets == each, probabilities[:, each]) for each in classes}
    return found


def label_logits(
    graph: DynamicGraph,
    task: int,
    crops: PackedCrops,
    rows: Sequence[int],
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.float64]:
    """float64[N, C]: logits of a head for the rows of its crops, in float32 as a branch computes them."""
    graph.eval()
    parts = []
    with torch.no_grad():
        for batch in plain_batches(crops, rows, _BATCH, device):
            check()
            parts.append(graph(batch, [(task, len(batch))])[0].double().cpu().numpy())
    logits: npt.NDArray[np.float64] = np.concatenate(parts)
    return logits


def mean_auc(found: dict[str, LabelAUC]) -> float | None:
    """The mean over labels of the mean over their classes, without those that have no AUC; None: there is none."""
    means = [[value for value in classes.values() if not math.isnan(value)] for classes in found.values()]
    values = [sum(each) / len(each) for each in means if each]
    return sum(values) / len(values) if values else None
