"""The processes of one training: a single one, or several, each with its share of every batch.

Several are started and joined by Lightning Fabric (package `lightning-fabric`), nothing of which is imported for one.
On one machine it runs the same command again for every further process; on several machines torchrun, SLURM or the
variables MASTER_ADDR, MASTER_PORT and NODE_RANK say who belongs to whom. Its wrapper of modules is not used: only the
heads that a step draws are in the graph, so gradients are averaged here, by one sum of all of them.

Tested: processes on CPUs (gloo) of one machine, as one node and as two. Not tested for want of them: several GPUs
(NCCL), several machines, SLURM.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn

from graftsdk.errors import EngineError, GraftError, InputError, MissingDependency

__all__ = ["Ranks", "open_ranks"]

_PARENT = "GRAFTSDK_RANKS_PARENT"  # in the environment of processes that Fabric starts: who they belong to
_PATIENCE = timedelta(hours=3)  # for the first process, which judges and saves while the others wait
_LAST_WORDS = 30.0  # seconds that an ended training's other processes have to end themselves
_logger = logging.getLogger("graftsdk")


class Ranks:
    """A training's only process: it agrees with itself, and nothing costs anything.

    Attributes:
        rank: of this process, from 0.
        world: processes.
        device: of this process.
    """

    def __init__(self, device: torch.device, rank: int = 0, world: int = 1) -> None:
        self.device, self.rank, self.world = device, rank, world

    @property
    def first(self) -> bool:
        """Whether this is the process that judges, writes and tells."""
        return self.rank == 0

    def __enter__(self) -> Ranks:
        """Joins all processes, which are at work until the block ends; there all but the first one end."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        return

    def most(self, values: Sequence[float]) -> tuple[float, ...]:
        """The greatest of all processes' values, one by one."""
        return tuple(values)

    def mean(self, values: Sequence[float]) -> tuple[float, ...]:
        """The mean of all processes' values, one by one; NaN where one is."""
        return tuple(values)

    def average(self, model: nn.Module) -> None:
        """Give the model's gradients, and its buffers of floats, the means over all processes, in place.

        BatchNorm's running statistics are linear in those of the batches, so they become the running means of the
        batches' means over the processes; the model, averaged weights and state are then the same in all of them.

        Args:
            model: after `backward`; the same parameters have a gradient in all processes.
        """

    def check_same(self, document: Any) -> None:
        """Refuse processes that are not of the same training.

        Args:
            document: of JSON types, what has to be the same.

        Raises:
            InputError: it is another one in one of them; raised in all.
        """

    def alone(self, work: Callable[[], None]) -> None:
        """Done by the first process; the others wait for it.

        Raises:
            GraftError: in the others, where `work` raised.
        """
        work()


class _FabricRanks(Ranks):
    """One of several processes, alone before and after the `with` block."""

    def __init__(self, fabric: Any, devices: int, threads: int | None) -> None:
        super().__init__(fabric.device, fabric.global_rank, fabric.world_size)
        self._fabric, self._devices, self._threads = fabric, devices, threads
        self._joined = self._working = False
        self._environment: dict[str, str] = {}

    def __enter__(self) -> Ranks:
        self._environment = dict(os.environ)
        if _PARENT in os.environ:
            if os.environ[_PARENT] != str(os.getppid()):
                raise EngineError("the process that started this one for its training has ended; it tells why")
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        os.environ[_PARENT] = str(os.getpid())
        try:
            starts = not self._fabric.strategy.cluster_environment.creates_processes_externally and self._devices > 1
            with _deaf() if starts else _mortal(), _quiet("lightning_fabric"):
                self._fabric.launch()
        except ValueError as error:  # Fabric's, of counts that are not torchrun's or SLURM's
            self._restore()
            raise InputError(f"devices, nodes: expected what the processes were started for: {error}") from error
        except RuntimeError as error:
            self._restore()
            raise EngineError(f"processes of the training: expected {self.world}, found fewer: {error}") from error
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # Fabric sets it where OMP_NUM_THREADS is not
        self._joined = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._joined = False
        together = error is None or isinstance(error, (KeyboardInterrupt, GraftError))
        if together or self.device.type == "cpu":  # NCCL would wait for the others
            distributed.destroy_process_group()
        self._restore()
        if together and not self.first:
            # The first one tells. Another code would have Fabric kill it, while it may be saving.
            raise SystemExit(0)

    def _restore(self) -> None:
        """What it was like before: no other process, and no word of one in the environment."""
        _await(self._fabric.strategy.launcher.procs)
        for name in os.environ.keys() - self._environment.keys():
            del os.environ[name]
        os.environ.update(self._environment)

    def most(self, values: Sequence[float]) -> tuple[float, ...]:
        return self._small(values, distributed.ReduceOp.MAX)

    def mean(self, values: Sequence[float]) -> tuple[float, ...]:
        return tuple(value / self.world for value in self._small(values, distributed.ReduceOp.SUM))

    def average(self, model: nn.Module) -> None:
        tensors = [each.grad for each in model.parameters() if each.grad is not None]
        tensors += [each for each in model.buffers() if each.is_floating_point()]
        joined = torch.cat([each.reshape(-1) for each in tensors])
        self._reduce(joined, distributed.ReduceOp.SUM)
        joined /= self.world
        parts = torch.split(joined, [each.numel() for each in tensors])
        for each, part in zip(tensors, parts, strict=True):
            each.copy_(part.view(each.shape))

    def check_same(self, document: Any) -> None:
        text = json.dumps(document, sort_keys=True)
        digest = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)  # exact as float64
        greatest, least = self.most([digest, -digest])
        if greatest != -least:
            raise InputError(
                "processes of a training: expected the same options, data and state in all of them, found others; "
                "start them by one command, in folders that all machines share"
            )

    def alone(self, work: Callable[[], None]) -> None:
        if self._working or not self._joined:
            work()
            return
        if self.first:
            self._working = failed = True
            try:
                work()
                failed = False
            finally:
                self._working = False
                self.most([failed])
        elif self.most([False])[0]:
            raise EngineError("the first process of the training has ended; it tells why")

    def _small(self, values: Sequence[float], how: Any) -> tuple[float, ...]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        self._reduce(tensor, how)
        return tuple(tensor.tolist())

    def _reduce(self, tensor: torch.Tensor, how: Any) -> None:
        """In place. Not by Fabric's own, which puts a barrier in front of each."""
        try:
            distributed.all_reduce(tensor, op=how)
        except RuntimeError as error:  # gloo's; with NCCL nobody hears of it: see `_end_with`
            raise EngineError(
                f"process {self.rank} of the training: expected {self.world} of them at work, found that one has "
                f"ended; it tells why, and the training goes on with resume: {error!s:.200}"
            ) from error


def open_ranks(devices: int, nodes: int, device: str, threads: int | None) -> Ranks:
    """The processes, this one among them; further ones are started on entering the block.

    All but the first one end where the `with` block ends, by SystemExit(0): they never come to what follows it.

    Args:
        devices: processes on each machine.
        nodes: machines.
        device: "cpu", or "cuda": each process has a GPU of its own.
        threads: of torch in each; None: Fabric's choice, the machine's cores shared by its processes.

    Raises:
        MissingDependency: lightning-fabric, for more than one process.
        InputError: fewer GPUs, or other counts than torchrun's or SLURM's.
    """
    if devices * nodes == 1:
        if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
            raise InputError(
                f"devices, nodes: expected the counts that torchrun was given, found 1 of both and "
                f"{os.environ['WORLD_SIZE']} processes; all would write the same file"
            )
        return Ranks(torch.device(device))
    if device == "cuda" and torch.cuda.device_count() < devices:
        raise InputError(f"devices: expected at most {torch.cuda.device_count()}, the GPUs here, found {devices}")
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ModuleNotFoundError as error:
        raise MissingDependency(f"several processes need {error.name}: pip install 'graftsdk[train]'") from error
    strategy = DDPStrategy(timeout=_PATIENCE)
    try:
        fabric = Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy=strategy)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"devices, nodes: expected what can be started here: {error}") from error
    if nodes > 1 and isinstance(strategy.cluster_environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise InputError(
            f"nodes: expected {nodes} machines on which torchrun or SLURM starts the command, or MASTER_ADDR, "
            f"MASTER_PORT and NODE_RANK in the environment of each, found none of them"
        )
    return _FabricRanks(fabric, devices, threads)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C and SIGTERM come at the end of the block, and never to the processes that are started in it.

    They come in the first one alone, which has the others end with it.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


@contextlib.contextmanager
def _mortal() -> Iterator[None]:
    """Ctrl-C and SIGTERM end this process: Python's own handlers would not run while it waits for other machines."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Warnings only, from the logger of that name and those below it."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _end_with(parent: int) -> None:
    """End this process at once when its parent has ended, whatever it waits for."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _await(processes: list[subprocess.Popen[Any]]) -> None:
    """Their end, which comes by force where they take longer."""
    until = time.monotonic() + _LAST_WORDS
    mine = list(processes)
    try:
        for process in mine:
            process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        processes.clear()  # Fabric's observer looks at them, and kills this process too where one was killed
        for process in mine:
            process.kill()
            process.wait()
