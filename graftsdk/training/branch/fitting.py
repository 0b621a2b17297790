"""The training of one branch on features: steps, averaged weights, the epoch with the best validation AUC."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from graftsdk.errors import NonFiniteOutput
from graftsdk.models import Branch
from graftsdk.training.averages import averaged_model
from graftsdk.training.branch.draws import Draws, shares_drawn, true_shares
from graftsdk.training.branch.features import Features
from graftsdk.training.branch.options import BranchOptions
from graftsdk.training.evaluation import auc, prior_shift, softmax

__all__ = ["Data", "Fit", "branch_logits", "fit_branch", "mean_auc", "share_shift"]

BETAS = (0.9, 0.999)
RATE_END = 0.01  # of the rate, at the last step
JUDGED = 256  # images at once when nothing is learned

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """Features of one split and the class of each image.

    Attributes:
        features: at the branch's tap.
        targets: int64[N].
        answers: float32[views, N, C], logits of a branch to learn from, on the same views, or None.
        shares: float64[C], of the classes where the branch will be used; None: as in `targets`.
    """

    features: Features
    targets: _Integers
    answers: npt.NDArray[np.float32] | None = None
    shares: _Floats | None = None


@dataclass
class Fit:
    """What a training came to.

    Attributes:
        epochs: that were trained. steps: in all of them.
        best_epoch: the one whose weights were kept, from 1; 0 before there is one.
        auc: its validation AUC.
        curve: validation AUC and mean loss of each epoch.
    """

    epochs: int = 0
    steps: int = 0
    best_epoch: int = 0
    auc: float = -math.inf
    curve: tuple[Mapping[str, float], ...] = ()


def fit_branch(
    branch: Branch,
    train: Data,
    val: Data,
    options: BranchOptions,
    *,
    fit: Fit | None = None,
    stop: threading.Event | None = None,
    progress: bool = False,
) -> Fit:
    """Train `branch` in place, on features only; it ends in eval mode with the weights of its best epoch.

    Its classifier's bias is put right for the shares that were drawn (`share_shift`).

    Args:
        branch: as it was created, on the CPU.
        train, val: at its tap.
        options: of the loop; those of the search are not read.
        fit: filled while it goes on, so that it says what was reached when an error ends it.
        stop: set to interrupt.
        progress: show a bar.

    Raises:
        KeyboardInterrupt: `stop` was set.
        NonFiniteOutput: loss or gradient of a step is infinite or NaN; the branch has the weights of the best epoch
            before it, where `fit.best_epoch` is not 0.
        InputError: a class without a training image.
    """
    fit = Fit() if fit is None else fit
    classes, device = len(branch.classes), torch.device(options.device)
    shift = share_shift(train.targets, classes, options, train.shares)
    draws = Draws(train.targets, classes, train.features.views, options.batch, options.balance, options.seed)
    best = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    branch.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(branch, options)
    averaged = averaged_model(branch, options.ema) if options.ema else None
    last, late = options.epochs * draws.steps, 0
    targets = torch.from_numpy(train.targets)
    batches = iter(draws)
    try:
        with _seeded(options.seed), tqdm(total=last, unit="step", disable=not progress, desc=branch.label) as bar:
            for epoch in range(1, options.epochs + 1):
                branch.train()
                losses = 0.0
                for _ in range(draws.steps):
                    if stop is not None and stop.is_set():
                        raise KeyboardInterrupt
                    indices, views = next(batches)
                    for group in optimizer.param_groups:
                        group["lr"] = group["scale"] * _rate(options, fit.steps, last)
                    logits = branch(train.features.take(indices, views).to(device))
                    answers = None if train.answers is None else torch.from_numpy(train.answers[views, indices])
                    loss = _loss(logits, targets[indices].to(device), answers, options)
                    losses += _take(loss, branch, optimizer, options, fit.steps)
                    if averaged is not None:
                        averaged.update_parameters(branch)
                    fit.steps += 1
                    bar.update()
                judged = branch if averaged is None else averaged.module
                found = mean_auc(val.targets, branch_logits(judged, val.features, stop))
                fit.epochs = epoch
                fit.curve = (*fit.curve, {"epoch": float(epoch), "loss": losses / draws.steps, "val_auc": found})
                late = 0 if found > fit.auc else late + 1
                if found >= fit.auc:  # of equals the last, whose weights have settled and are better calibrated
                    fit.auc, fit.best_epoch = found, epoch
                    best = {name: tensor.detach().cpu().clone() for name, tensor in judged.state_dict().items()}
                bar.set_postfix_str(f"epoch {epoch}: AUC {found:.4f}, best {fit.auc:.4f}")
                if options.patience is not None and late >= options.patience:
                    break
    finally:
        branch.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        branch.load_state_dict(best)
        with torch.no_grad():
            branch.classifier.bias.add_(torch.from_numpy(shift).float())
    return fit


def share_shift(targets: _Integers, classes: int, options: BranchOptions, shares: _Floats | None = None) -> _Floats:
    """float64[classes]: what to add to each logit after training on such draws, log(true share / share drawn).

    Args:
        targets: int64[N], of the images that are drawn from.
        shares: the true ones; None: those of `targets`.
    """
    true = true_shares(targets, classes) if shares is None else shares
    return prior_shift(shares_drawn(targets, classes, options.balance), true)


def branch_logits(branch: nn.Module, features: Features, stop: threading.Event | None = None, view: int = 0) -> _Floats:
    """float64[N, C]: the branch's logits of every image in one view, in eval mode."""
    branch.eval()
    device, rows = next(branch.parameters()).device, []
    with torch.no_grad():
        for start in range(0, len(features), JUDGED):
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            indices = np.arange(start, min(start + JUDGED, len(features)), dtype=np.int64)
            taken = features.take(indices, np.full(len(indices), view, np.int64))
            rows.append(branch(taken.to(device)).double().cpu().numpy())
    return np.concatenate(rows)


def mean_auc(targets: _Integers, logits: _Floats) -> float:
    """AUC of the positive (last) of two classes; of more, the mean over the classes, each against the rest."""
    if logits.shape[1] == 2:
        # The difference of logits ranks as the probability does, and does not round to 1.
        return auc(targets == 1, logits[:, 1] - logits[:, 0])
    scores = softmax(logits)
    return float(np.mean([auc(targets == value, scores[:, value]) for value in range(scores.shape[1])]))


def _optimizer(branch: Branch, options: BranchOptions) -> torch.optim.Optimizer:
    """AdamW; the first own block at a lower rate, no decay on what has one dimension (biases, BatchNorm)."""
    first = f"{branch.backbone.blocks[branch.tap]}." if branch.tap < branch.until else None
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in branch.named_parameters():
        low = first is not None and name.startswith(first)
        groups.setdefault((low, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": options.weight_decay if decays else 0.0,
                "scale": options.first_rate if low else 1.0,
            }
            for (low, decays), parameters in groups.items()
        ],
        lr=options.learning_rate,
        betas=BETAS,
        fused=True,  # half the time of the others on a CPU
    )


def _rate(options: BranchOptions, step: int, last: int) -> float:
    ramp = options.warmup * last
    if step < ramp:
        return options.learning_rate * (step + 1) / (ramp + 1)
    done = (step - ramp) / max(1.0, last - ramp)
    return options.learning_rate * (RATE_END + (1 - RATE_END) * (1 + math.cos(math.pi * done)) / 2)


def _loss(
    logits: torch.Tensor, targets: torch.Tensor, answers: torch.Tensor | None, options: BranchOptions
) -> torch.Tensor:
    """Cross entropy / log C; with answers mixed with T^2 KL(softmax(answers / T) || softmax(logits / T)) / log C."""
    scale = math.log(logits.shape[1])
    loss = functional.cross_entropy(logits, targets) / scale
    if answers is None:
        return loss
    t = options.soft_temperature
    wanted = functional.log_softmax(answers.to(logits.device) / t, 1)
    soft = functional.kl_div(functional.log_softmax(logits / t, 1), wanted, reduction="batchmean", log_target=True)
    return (1 - options.soft_weight) * loss + options.soft_weight * t * t * soft / scale


def _take(
    loss: torch.Tensor, branch: Branch, optimizer: torch.optim.Optimizer, options: BranchOptions, step: int
) -> float:
    """One step down the loss, which is returned."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NonFiniteOutput(
            f"label {branch.label!r}: loss of step {step}: expected a finite value, found {value}; train with a lower "
            f"learning rate"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if not bool(nn.utils.clip_grad_norm_(branch.parameters(), options.clip).isfinite()):
        raise NonFiniteOutput(
            f"label {branch.label!r}: gradient of step {step}: expected finite values, found others; train with a "
            f"lower learning rate"
        )
    optimizer.step()
    return value


@contextmanager
def _seeded(seed: int) -> Iterator[Any]:
    """Dropout inside own blocks draws the same in every run; the process's own random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
