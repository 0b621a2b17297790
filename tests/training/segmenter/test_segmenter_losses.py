"""Each loss against its formula, one prior and one cell at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from training.segmenter.slow_match import slow_match

from graftsdk.models import YolactOutputs
from graftsdk.training.segmenter.losses import Truth, segmenter_losses

CELLS = (8, 10)  # of the prototypes, for an input of 32 x 40
P3 = (4, 5)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def cross_entropy(probability, target):
    return -math.log(probability if target else 1 - probability)


def smooth_l1(value):
    return 0.5 * value * value if abs(value) < 1 else abs(value) - 0.5


def shrunk(mask, size):
    """Bilinear at cell centres, align_corners=False, then > 0.5."""
    made = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            y = max((row + 0.5) * mask.shape[0] / size[0] - 0.5, 0)
            x = max((column + 0.5) * mask.shape[1] / size[1] - 0.5, 0)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, mask.shape[0] - 1), min(x0 + 1, mask.shape[1] - 1)
            top = mask[y0, x0] * (1 - (x - x0)) + mask[y0, x1] * (x - x0)
            bottom = mask[y1, x0] * (1 - (x - x0)) + mask[y1, x1] * (x - x0)
            made[row, column] = top * (1 - (y - y0)) + bottom * (y - y0) > 0.5
    return made


def slow_losses(outputs, priors, truths, matches):
    """As the docstring has them; `matches` gives (labels, truths) for each image."""
    loc, conf, coefficients, proto, semantic = (value.double().numpy() for value in outputs)
    box_loss = class_loss = mask_loss = semantic_loss = 0.0
    count = 0
    for image, (truth, (labels, owners)) in enumerate(zip(truths, matches, strict=True)):
        boxes = truth.boxes.double().numpy()
        positives = [prior for prior in range(len(priors)) if labels[prior] > 0]
        count += len(positives)
        hard = []
        for prior in range(len(priors)):
            logits = conf[image, prior]
            total = math.log(sum(math.exp(value) for value in logits))
            if labels[prior] == 0:
                hard.append((total - logits[0], total - logits[0]))
            elif labels[prior] > 0:
                class_loss += total - logits[labels[prior]]
        hard.sort(reverse=True)
        class_loss += sum(loss for _, loss in hard[: 3 * max(len(positives), 1)])
        for prior in positives:
            x0, y0, x1, y1 = boxes[owners[prior]]
            cx, cy, w, h = priors[prior]
            wanted = (
                ((x0 + x1) / 2 - cx) / (0.1 * w),
                ((y0 + y1) / 2 - cy) / (0.1 * h),
                math.log((x1 - x0) / w) / 0.2,
                math.log((y1 - y0) / h) / 0.2,
            )
            box_loss += sum(smooth_l1(found - value) for found, value in zip(loc[image, prior], wanted, strict=True))
            target = shrunk(truth.masks[owners[prior]].numpy(), CELLS)
            edges = truth.boxes[owners[prior]].numpy() * np.array([*CELLS[::-1], *CELLS[::-1]], np.float32)
            left, top, right, bottom = edges.tolist()  # in float32: an edge on a cell's border stays there
            total = 0.0
            for row in range(CELLS[0]):
                for column in range(CELLS[1]):
                    inside = left - 1 <= column < right + 1 and top - 1 <= row < bottom + 1
                    if inside:
                        logit = float(proto[image, row, column] @ coefficients[image, prior])
                        total += cross_entropy(sigmoid(logit), target[row, column])
            mask_loss += total / ((right - left) * (bottom - top))
        for label in range(semantic.shape[1]):
            union = np.zeros(P3, bool)
            for mask, own in zip(truth.masks.numpy(), truth.labels.tolist(), strict=True):
                union |= shrunk(mask, P3) & (own == label)
            for row in range(P3[0]):
                for column in range(P3[1]):
                    probability = sigmoid(semantic[image, label, row, column])
                    semantic_loss += cross_entropy(probability, union[row, column]) / (P3[0] * P3[1])
    count = max(count, 1)
    return 1.5 * box_loss / count, class_loss / count, 6.125 * mask_loss / count, semantic_loss / len(truths)


def a_truth(rng, count, classes, crowds=0):
    masks = np.zeros((count, 32, 40), np.uint8)
    boxes = np.zeros((count, 4), np.float32)
    for index in range(count):
        x, y = rng.integers(0, 24), rng.integers(0, 16)
        w, h = rng.integers(6, 16), rng.integers(6, 16)
        masks[index, y : y + h, x : x + w] = rng.random((h, w)) < 0.9
        boxes[index] = x / 40, y / 32, (x + w) / 40, (y + h) / 32
    crowd = np.tile(np.array([[0.5, 0.5, 1, 1]], np.float32), (crowds, 1))
    labels = torch.from_numpy(rng.integers(0, classes, count))
    return Truth(torch.from_numpy(boxes), labels, torch.from_numpy(masks), torch.from_numpy(crowd))


def some_outputs(rng, images, priors, classes=2, kinds=4):
    def made(*shape):
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    return YolactOutputs(
        made(images, priors, 4),
        made(images, priors, 1 + classes),
        torch.tanh(made(images, priors, kinds)),
        torch.relu(made(images, *CELLS, kinds)),
        made(images, classes, *P3),
    )


def some_priors(rng, count):
    centre, side = rng.uniform(0.1, 0.9, (count, 2)), rng.uniform(0.15, 0.5, (count, 2))
    return torch.from_numpy(np.concatenate((centre, side), 1).astype(np.float32))


def matched(priors, truth):
    corners = torch.cat((priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2), 1).numpy()
    return slow_match(corners, truth.boxes.numpy(), truth.labels.numpy(), truth.crowds.numpy())


@pytest.mark.parametrize("counts", [(1,), (3, 0), (2, 5, 1), (0, 0)], ids=str)
@pytest.mark.parametrize("crowds", [0, 1])
def test_as_the_formulas(counts, crowds):
    rng = np.random.default_rng((sum(counts), crowds))
    truths = [a_truth(rng, count, 2, crowds) for count in counts]
    priors = some_priors(rng, 50)
    outputs = some_outputs(rng, len(counts), 50)
    found = segmenter_losses(outputs, priors, truths)
    wanted = slow_losses(outputs, priors.double().numpy(), truths, [matched(priors, truth) for truth in truths])
    assert [float(value) for value in found] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert float(found.total()) == pytest.approx(sum(wanted), rel=1e-4)


def test_focal_is_of_all_priors_that_are_not_neutral():
    rng = np.random.default_rng(4)
    truths = [a_truth(rng, count, 2, 1) for count in (2, 0)]
    priors = some_priors(rng, 40)
    outputs = some_outputs(rng, 2, 40)
    wanted, count = 0.0, 0
    for image, truth in enumerate(truths):
        for logits, label in zip(outputs.conf[image].double().numpy(), matched(priors, truth)[0], strict=True):
            if label >= 0:
                p = math.exp(logits[label]) / sum(math.exp(value) for value in logits)
                wanted -= (0.25 if label else 0.75) * (1 - p) ** 2 * math.log(p)
            count += label > 0
    found = segmenter_losses(outputs, priors, truths, focal=True)
    assert float(found.confidence) == pytest.approx(wanted / count, rel=1e-4)
    other = segmenter_losses(outputs, priors, truths)
    assert found._replace(confidence=other.confidence) == other


def test_an_empty_batch_still_teaches_the_background():
    rng = np.random.default_rng(0)
    outputs = some_outputs(rng, 2, 50)
    outputs.conf.requires_grad_()
    losses = segmenter_losses(outputs, some_priors(rng, 50), [a_truth(rng, 0, 2), a_truth(rng, 0, 2)])
    assert float(losses.box) == float(losses.mask) == 0.0
    losses.total().backward()
    assert int((outputs.conf.grad != 0).any(2).sum()) == 2 * 3


def test_of_many_positives_a_hundred_masks_are_drawn_and_scaled_up():
    """All positives have the same mask, box and coefficients: a hundred of them stand for all exactly."""
    rng = np.random.default_rng(0)
    truth = a_truth(rng, 1, 1)
    x0, y0, x1, y1 = truth.boxes[0].tolist()
    priors = torch.tensor([[(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]]).repeat(250, 1)
    outputs = some_outputs(rng, 1, 250, classes=1)
    outputs = outputs._replace(mask=outputs.mask[:, :1].repeat(1, 250, 1))
    one = segmenter_losses(
        YolactOutputs(outputs.loc[:, :1], outputs.conf[:, :1], outputs.mask[:, :1], outputs.proto, outputs.semantic),
        priors[:1],
        [truth],
    )
    many = segmenter_losses(outputs, priors, [truth], torch.Generator().manual_seed(3))
    assert float(many.mask) == pytest.approx(float(one.mask), rel=1e-5)


def test_only_the_box_counts_for_a_mask():
    """What prototypes say two cells beside the true box changes nothing."""
    rng = np.random.default_rng(4)
    truth = a_truth(rng, 1, 1)
    priors, outputs = some_priors(rng, 50), some_outputs(rng, 1, 50, classes=1)
    box = truth.boxes[0] * torch.tensor([10.0, 8.0, 10.0, 8.0])
    outside = torch.ones(CELLS, dtype=torch.bool)
    outside[max(0, int(box[1]) - 2) : int(box[3]) + 3, max(0, int(box[0]) - 2) : int(box[2]) + 3] = False
    assert outside.any()
    other = outputs.proto.clone()
    other[0, outside] += 5.0
    before = segmenter_losses(outputs, priors, [truth]).mask
    assert float(segmenter_losses(outputs._replace(proto=other), priors, [truth]).mask) == float(before)
