"""Two processes of one training, each as if it were alone on a machine of its own.

They are forked from a server that has imported everything once, and run the command.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import socket
import sys

import safetensors.torch
import torch

from graftsdk.errors import InputError

WORDS = (
    *("--arch", "resnet18", "--width", "0.1", "--size", "32", "16", "--batch", "12", "--tasks", "3", "--threads", "1"),
    *("--workers", "0", "--ema", "0.5", "--norm-images", "16", "--precision", "float32", "--save-seconds", "0"),
    *("--quiet", "--json", "--learning-rate", "0.003"),
)


def run_two(target, arguments, folder):
    """(exit code, what it said) of each of two processes that run target(rank, *arguments); both of one training."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["graftsdk.training.trunk.train", "graftsdk.cli.train", "lightning_fabric"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [folder / f"{rank}.log" for rank in range(2)]
    some = [context.Process(target=_joined, args=(target, rank, port, logs[rank], arguments)) for rank in range(2)]
    for each in some:
        each.start()
    for each in some:
        each.join(240)
        each.kill()
        each.join()
    return [(each.exitcode, log.read_text()) for each, log in zip(some, logs, strict=True)]


def _joined(target, rank, port, log, arguments):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank)}
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    torch.set_num_threads(1)
    sys.exit(target(rank, *arguments))


def command(rank, words, changes):
    """The command, with what `changes` has done to this rank's training."""
    from graftsdk.cli.main import main
    from graftsdk.training.trunk.train import _Run

    step, losses, load, train = _Run._step, _Run._losses, _Run._load, _Run.train
    mine = changes.get(rank, {})

    def stepped(self, batch):
        if self._progress.step == mine.get("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        found = step(self, batch)
        if self._progress.step == mine.get("stopped"):
            signal.raise_signal(signal.SIGTERM)
        return found

    def spoiled(self, batch):
        return [
            each * (float("nan") if self._progress.step == mine.get("nan") else 1.0) for each in losses(self, batch)
        ]

    def loaded(self, first, last):
        for number, batch in enumerate(load(self, first, last), first):
            yield InputError("a bad image") if number == mine.get("failed") else batch

    def trained(self, *values):
        train(self, *values)
        state = {**self._graph.state_dict(), **{f"ema.{k}": v for k, v in self._ema.module.state_dict().items()}}
        packed = {name: each.contiguous() for name, each in state.items()}
        print("weights", hashlib.sha256(safetensors.torch.save(packed)).hexdigest(), file=sys.stderr)

    _Run._step, _Run._losses, _Run._load, _Run.train = stepped, spoiled, loaded, trained
    return main(["train", "trunk", *map(str, words), *map(str, mine.get("words", ()))])


def gradients(rank, sets, classes, folder):
    """Of one step on this process's share, with BatchNorm as it is in serving; they are averaged and kept."""
    from graftsdk.training.ranks import open_ranks

    with open_ranks(1, 2, "cpu", 1) as ranks:
        graph = first_gradients(sets, classes, ranks.rank, ranks.world)
        with torch.no_grad():
            graph.trunk.bn1.running_mean += rank  # 0 and 1: 0.5 more in the mean
        ranks.average(graph)
        found = {name: each.grad for name, each in graph.named_parameters() if each.grad is not None}
        found["mean"] = graph.trunk.bn1.running_mean
        safetensors.torch.save_file({name: each.contiguous() for name, each in found.items()}, folder / f"{rank}.grad")


def first_gradients(sets, classes, rank, world):
    """A graph after `backward` of step 0, on the share of that rank."""
    from graftsdk.models import Trunk
    from graftsdk.training.crops.augment import NO_AUGMENTATION
    from graftsdk.training.crops.packed import normalised
    from graftsdk.training.trunk.batches import TrainingCrops
    from graftsdk.training.trunk.network import DynamicGraph, dynamic_loss
    from graftsdk.training.trunk.sampling import TaskOrder

    order = TaskOrder([crops.targets for crops in sets], 14, 3, 0.5, 0.25, 0, 2)
    batch = TrainingCrops(sets, NO_AUGMENTATION, 0, rank, world)[next(order.batches(0, 1))]
    trunk = Trunk.create("resnet18", width=0.1, crop=sets[0].spec)
    graph = DynamicGraph(trunk, classes, 0).to(memory_format=torch.channels_last).eval().requires_grad_(True)
    logits = graph(normalised(batch.pixels, sets[0].spec), batch.parts)
    dynamic_loss(logits, batch.targets, 0.05).backward()
    return graph
