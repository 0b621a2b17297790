"""One training by two processes on the CPU: the same weights in both, and no process that stays behind."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from training.crops.drawn_labels import drawn_set
from training.trunk.rank_process import WORDS, command, first_gradients, gradients, run_two

from graftsdk.errors import InputError, MissingDependency
from graftsdk.models import Trunk
from graftsdk.plan import CropSpec
from graftsdk.training.crops.augment import Augmentation
from graftsdk.training.crops.packed import PackedCrops, pack_crops
from graftsdk.training.labels import open_label
from graftsdk.training.ranks import Ranks, open_ranks
from graftsdk.training.training_state import read_state, state_path
from graftsdk.training.trunk.batches import TrainingCrops
from graftsdk.training.trunk.options import TrunkOptions
from graftsdk.training.trunk.sampling import TaskOrder

needs_fabric = pytest.mark.skipif(
    importlib.util.find_spec("lightning_fabric") is None, reason="needs the package lightning-fabric"
)
LABELS = ("age", "bag", "hat")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    for seed, label in enumerate(LABELS):
        drawn_set(folder, label, {"train": 8, "val": 3}, seed)
    return folder


@pytest.fixture(scope="module")
def cache(root, tmp_path_factory):
    """Decoded before, as two processes at once would both do it."""
    folder = tmp_path_factory.mktemp("cache")
    for label in LABELS:
        for split in ("train", "val"):
            pack_crops(open_label(root, label), split, CropSpec((32, 16)), folder)
    return folder


@pytest.fixture
def train(root, cache, tmp_path):
    """The command by two processes, each a node of its own."""

    def run(output, *words, **changes):
        every = ("--data", root, "--cache", cache, "-o", output, *WORDS, "--nodes", 2, *words)
        folder = tmp_path / f"logs {time.monotonic_ns()}"
        folder.mkdir()
        return run_two(command, (every, {int(name[-1]): each for name, each in changes.items()}), folder)

    return run


def weights(path):
    return safetensors.torch.load_file(path)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@needs_fabric
def test_two_processes_make_one_trunk(train, tmp_path):
    """Judged after every third step, and by the first one alone."""
    (first, told), (second, nothing) = train(tmp_path / "x.safetensors", "--steps", 6, "--eval-every", 0.7)
    assert (first, second) == (0, 0)
    digest, _, result = told.partition("\n")
    assert digest.startswith("weights ") and nothing.splitlines() == [digest]
    found = json.loads(result)
    assert found["steps"] == 6 and set(found["auc"]) == set(LABELS)
    trunk = Trunk.load(tmp_path / "x.safetensors")
    assert all(torch.isfinite(each).all() for each in trunk.state_dict().values())
    progress, lasting, averaged, _ = read_state(state_path(tmp_path / "x.safetensors"))
    assert progress.finished and progress.step == averaged == 6 and lasting["processes"] == 2
    assert [row["step"] for row in progress.curve if "auc" in row] == [3, 6]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        *("x.curve.csv", "x.safetensors", "x.safetensors.state")
    ]


@needs_fabric
def test_gradients_are_those_of_the_joined_batch(root, cache, tmp_path):
    """With BatchNorm as in serving; 14 crops of 3 tasks are 4 of each, for two processes."""
    sets = [pack_crops(open_label(root, label), "train", CropSpec((32, 16)), cache) for label in LABELS[:2]]
    assert run_two(gradients, (sets, (2, 2, 2), tmp_path), tmp_path) == [(0, ""), (0, "")]
    one, other = (weights(tmp_path / f"{rank}.grad") for rank in range(2))
    assert same(one, other)
    whole = first_gradients(sets, (2, 2, 2), 0, 1)
    wanted = {name: each.grad for name, each in whole.named_parameters() if each.grad is not None}
    assert wanted.keys() | {"mean"} == one.keys() and "heads.2.weight" not in wanted
    for name, each in wanted.items():
        assert (one[name] - each).abs().max() < 1e-4 * max(1.0, each.abs().max()), name
    assert torch.allclose(one["mean"], whole.trunk.bn1.running_mean + 0.5)


@needs_fabric
def test_ctrl_c_ends_all_processes_of_the_command(train, root, cache, tmp_path):
    """It comes to the whole group. What is left is the state, on which two other processes go on.

    To a step that one which nothing ended before gets to with the same weights; there SIGTERM comes to one of them.
    """
    output, script = tmp_path / "x.safetensors", tmp_path / "graftsdk"
    script.write_text("import sys\nfrom graftsdk.cli.main import main\nsys.exit(main())\n")
    words = ("--data", root, "--cache", cache, "-o", output, *WORDS, "--steps", 10**6, "--eval-minutes", 10**6)
    started = [sys.executable, script, "train", "trunk", *map(str, words), "--devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "told", "w") as told:
        process = subprocess.Popen(started, env=environment, stderr=told, start_new_session=True)
    try:
        until = time.monotonic() + 200
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
            if state_path(output).exists() and read_state(state_path(output))[0].step >= 2:
                break
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    step = read_state(state_path(output))[0].step
    assert step >= 2 and not output.exists()
    assert process.returncode == 130
    assert (tmp_path / "told").read_text().splitlines() == [
        f"stopped after step {step}; {state_path(output)} goes on with resume",
        "interrupted",
    ]
    long = ("--steps", 10**6, "--eval-minutes", 10**6)
    for path, resume, rank in ((output, ["--resume"], 1), (tmp_path / "y.safetensors", [], 0)):
        found = train(path, *long, *resume, **{f"rank{rank}": {"stopped": step + 2}})
        assert [code for code, _ in found] == [130, 0] and "interrupted" not in found[1][1]
    assert read_state(state_path(output))[0].step == step + 2
    assert same(weights(state_path(output)), weights(state_path(tmp_path / "y.safetensors")))


@needs_fabric
@pytest.mark.parametrize(
    "changes, codes, message, other",
    [
        ({"rank1": {"nan": 2}}, [2, 0], "error: loss of step 2: expected finite", ""),
        (
            {"rank1": {"failed": 2}},
            [2, 0],
            "error: a batch of another process",
            "process 1 of the training: a bad image\n",
        ),
        ({"rank1": {"words": ["--seed", 1]}}, [2, 0], "error: processes of a training: expected the same options", ""),
        ({"rank1": {"killed": 2}}, [2, -9], "expected 2 of them at work, found that one has ended", ""),
        ({"rank0": {"killed": 2}}, [-9, 0], "", ""),
    ],
)
def test_all_end_together(train, tmp_path, changes, codes, message, other):
    found = train(tmp_path / "x.safetensors", "--steps", 4, "--eval-minutes", 100, **changes)
    assert [code for code, _ in found] == codes
    assert message in found[0][1] and found[1][1] == other
    if "words" not in changes.get("rank1", {}):
        assert read_state(state_path(tmp_path / "x.safetensors"))[0].step == 2


def test_shares_of_a_batch():
    """Of all crops of each sub-batch one process has as many as another, and varies them in its own way."""
    sets = [np.repeat([0, 1], 20), np.repeat([0, 1], 10)]
    assert [TaskOrder(sets, 15, 2, 0.5, 0.25, 0, world).size for world in (1, 2, 3)] == [7, 6, 6]
    draw = next(TaskOrder(sets, 12, 2, 0.5, 0.25, 0, 3).batches(0, 1))

    def packed(count, offset):
        pixels = np.broadcast_to(
            np.arange(offset, offset + count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 3)
        )
        return PackedCrops("x", ("no", "yes"), "train", CropSpec((8, 8)), pixels, np.arange(count), (), ())

    crops = [packed(40, 0), packed(20, 100)]
    how = Augmentation(shift=0.0, flip=0.0, colour=0.0, erase=0.0)
    shares = [TrainingCrops(crops, how, 0, rank, 3)[draw] for rank in range(3)]
    assert all(share.parts == [(part.task, 2) for part in draw.parts] for share in shares)
    for number, part in enumerate(draw.parts):
        joined = torch.cat([share.targets[number] for share in shares])
        assert sorted(joined.tolist()) == sorted(part.indices.tolist())
    assert torch.equal(shares[0].pixels[:, 0, 0, 0].long() % 100, torch.cat(shares[0].targets))
    varied = [TrainingCrops(crops, replace(how, colour=0.5), 0, rank, 3)[draw].pixels for rank in range(2)]
    factors = [
        each.double().mean(dim=(1, 2, 3)) / share.pixels.double().mean(dim=(1, 2, 3))
        for each, share in zip(varied, shares, strict=False)
    ]
    assert not torch.allclose(factors[0], factors[1], atol=0.01)


@pytest.mark.parametrize("batch, tasks, world", [(11, 3, 2), (3, 1, 2), (63, 4, 8)])
def test_too_small_a_share_for_batchnorm(batch, tasks, world):
    sets = [np.repeat([0, 1], 20)] * 4
    with pytest.raises(
        InputError, match=f"at least {2 * tasks * world}, two crops of each of {tasks} tasks for each of"
    ):
        TaskOrder(sets, batch, tasks, 0.5, 0.25, 0, world)


def test_a_single_process_agrees_with_itself():
    ranks, done = Ranks(torch.device("cpu")), []
    model = torch.nn.BatchNorm1d(2)
    model.weight.grad = torch.ones(2)
    with ranks as same_one:
        assert same_one is ranks and ranks.first and (ranks.rank, ranks.world) == (0, 1)
        values = ranks.mean([math.nan, 1.0])
        assert math.isnan(values[0]) and ranks.most([2.0, True]) == (2.0, True)
        ranks.average(model)
        ranks.check_same({})
        ranks.alone(lambda: done.append(1))
    assert done == [1] and torch.equal(model.weight.grad, torch.ones(2))


def test_what_lasts_is_how_many_processes_there_are():
    one, two, other = (
        TrunkOptions(steps=1, devices=devices, nodes=nodes) for devices, nodes in ((1, 1), (2, 1), (1, 2))
    )
    assert two.lasting() == other.lasting() == one.lasting() | {"processes": 2}


def test_refusals(monkeypatch):
    for name in ("MASTER_ADDR", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("devices", "nodes"):
        with pytest.raises(InputError, match=f"{name}: expected"):
            TrunkOptions(steps=1, **{name: 0})
    with pytest.raises(InputError, match=r"devices: expected at most \d+, the GPUs here, found 1000"):
        open_ranks(1000, 1, "cuda", None)
    with monkeypatch.context() as patch:
        patch.setenv("TORCHELASTIC_RUN_ID", "x")
        patch.setenv("WORLD_SIZE", "4")
        with pytest.raises(InputError, match="expected the counts that torchrun was given, found 1 of both and 4"):
            open_ranks(1, 1, "cpu", None)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingDependency, match=r"several processes need lightning_fabric: .*graftsdk\[train\]"):
        open_ranks(2, 1, "cpu", None)
    assert open_ranks(1, 1, "cpu", None).world == 1


@needs_fabric
def test_machines_that_nobody_named(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(InputError, match="nodes: expected 2 machines on which torchrun or SLURM starts the command"):
        open_ranks(1, 2, "cpu", None)
