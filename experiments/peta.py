"""The comparisons of docs/results.md on PETA: data, trunks, branches, scores, one step after the other.

    python experiments/peta.py PETA OUT --objects CIFAR-10/train [--jobs 2]
    python experiments/tables.py OUT -o docs

What is there already is not made again: an interrupted run goes on where it was. Every job has one thread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np
from arms import ARMS, HEADS, LABELS, MINED, STEPS, TRUNKS
from kept import same_options
from tqdm import tqdm

from graftsdk.files import atomic_write
from graftsdk.lifecycle.evaluation import evaluate_branches
from graftsdk.plan import CropSpec
from graftsdk.training import BranchOptions, TrunkNetwork, TrunkOptions, train_branch, train_trunk
from graftsdk.training.labels import open_label
from graftsdk.training.mining import MiningOptions, mine_negatives, read_list

HERE = Path(__file__).parent
EPOCHS = 15  # of a branch
WIDTH = 0.25  # of every trunk
PERSON = ["--licence", "research only", "--per-person", "4"]
GRAFTSDK = [str(Path(sys.executable).with_name("graftsdk"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peta", type=Path, help="the folder of PETA")
    parser.add_argument("out", type=Path, help="a folder for everything")
    parser.add_argument("--objects", type=Path, required=True, help="a folder of CLASS/*.jpg: the unrelated data")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each trunk")
    parser.add_argument("--jobs", type=int, default=2, help="at once, of one thread each")
    args = parser.parse_args()
    same_options(args.out, {"peta": args.peta, "objects": args.objects, "steps": args.steps})
    make_data(args.peta, args.objects, args.out)
    jobs = planned(args.out, args.peta, args.steps)
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(job, *values) for job, *values in jobs]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="job"):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def planned(out: Path, peta: Path, steps: int) -> list[tuple[Any, ...]]:
    """(function, arguments ...), each after what it needs: every arm as soon as its trunks and teachers are there."""
    jobs: list[tuple[Any, ...]] = []
    trunks: set[str] = set()
    arms: set[str] = set()
    for name in TRUNKS:
        jobs.append((joint, out, peta, name, steps) if TRUNKS[name].joint else (trunk, out, name, steps))
        trunks.add(name)
        if name in HEADS:
            jobs.append((score_heads, out, name))
        if name == "all":
            jobs += [(mine, out, label) for label in MINED]
        for key, arm in ARMS.items():
            ready = {arm.trunk_of(label) for label in arm.labels} <= trunks and arm.teacher in {"", *arms}
            if ready and key not in arms:
                arms.add(key)
                jobs += [(branch, out, key, label) for label in arm.labels]
                jobs.append((score, out, key))
    return jobs


def awaited(*paths: Path) -> None:
    """Wait for files of jobs that began earlier; an hour at most."""
    end = time.monotonic() + 3600
    while not all(path.exists() for path in paths):
        if time.monotonic() > end:
            raise TimeoutError(f"expected {', '.join(map(str, paths))}: did the job that makes it fail?")
        time.sleep(0.5)


def make_data(peta: Path, objects: Path, out: Path) -> None:
    """`full`: the sub-datasets, `peta`: without test, `every`: four labels with twelve negatives for a positive."""
    import_peta(peta, out / "full", "labels.toml", "--negatives", "1", "--val-share", "0.15")
    import_peta(peta, out / "many", "mined.toml", "--negatives", "12")
    # Trainings look at no test image; all labels are scored together, at the end. The four labels' own test is another
    # one: people of the test that all arms share are left out of their trainings.
    copied(out / "full", out / "peta", {"test"})
    test = {path.name for label in LABELS for path in (out / "full" / label / "test").glob("*/*")}
    copied(out / "many", out / "every", {"test", *test})
    copied(objects, out / "objects" / "objects" / "train", set())
    classes = sorted(path.name for path in objects.iterdir())
    (out / "objects" / "graft.toml").write_text(f"[labels.objects]\nclasses = {classes!r}\n")


def import_peta(peta: Path, target: Path, labels: str, *options: str) -> None:
    if not target.exists():
        command = [*GRAFTSDK, "import", "peta", str(peta), str(target), "--labels", str(HERE / labels)]
        subprocess.run([*command, *PERSON, *options], check=True)


def copied(source: Path, target: Path, without: set[str]) -> None:
    """A copy, whole or not at all, of links where that can be."""
    if target.exists():
        return
    draft = target.with_name(f"{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, ignore=lambda _, names: without & {*names}, copy_function=linked)
    draft.rename(target)


def linked(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def trunk(out: Path, name: str, steps: int) -> None:
    arm, path, heads = TRUNKS[name], trunk_file(out, name), out / "heads" / name
    if path.exists() and (heads / "done").exists():
        return
    path.parent.mkdir(exist_ok=True)
    heads.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{name}.training.safetensors")  # evaluations on the way write it too
    train_trunk(
        out / ("peta" if arm.labels else "objects"),
        arm.labels or None,
        draft,
        TrunkOptions(**{"steps": steps, "threads": 1, "eval_minutes": 60.0, **arm.options}),
        trunk=TrunkNetwork(arm.arch, WIDTH, CropSpec(arm.size)),
        cache=out / "crops",
        heads=heads,
        resume=draft.with_name(f"{draft.name}.state").exists(),
        progress=False,
    )
    (heads / "done").touch()
    draft.rename(path)


def joint(out: Path, peta: Path, name: str, steps: int) -> None:
    arm, path, heads = TRUNKS[name], trunk_file(out, name), out / "heads" / name
    if path.exists() and (heads / "done").exists():
        return
    draft = path.with_name(f"{name}.training.safetensors")
    command = [sys.executable, str(HERE / "multi_label.py"), "--peta", str(peta), "--data", str(out / "peta")]
    command += ["--questions", str(HERE / "labels.toml"), "--labels", *arm.labels, "--cache", str(out / "crops")]
    command += ["-o", str(draft), "--heads", str(heads), "--arch", arm.arch, "--size", *map(str, arm.size)]
    command += [
        "--width",
        str(WIDTH),
        "--seed",
        str(arm.options["seed"]),
        "--every",
        str(arm.options.get("every", 1)),
        "--steps",
        str(steps),
        "--threads",
        "1",
    ]
    subprocess.run([*command, "--quiet", "--resume"], check=True)
    (heads / "done").touch()
    draft.rename(path)


def trunk_file(out: Path, name: str) -> Path:
    return out / "trunks" / f"{name}.safetensors"


def mine(out: Path, label: str) -> None:
    """Lists of negatives: `mined` as `graftsdk mine` does by default, `some`: as many, drawn at random."""
    folder = out / "mined" / label
    if (folder / "some.txt").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    awaited(trunk_file(out, "all"))
    mine_negatives(out / "every", label, trunk_file(out, "all"), folder, MiningOptions())
    kept = read_list(folder / "keep.txt")
    images = [image for image in open_label(out / "every", label).train if image.target == 0]
    chosen = np.random.default_rng(0).choice(len(images), len(kept), replace=False)
    names = [images[index].path.relative_to(out / "every" / label).as_posix() for index in sorted(chosen)]
    (folder / "some.txt").write_text("".join(f"{name}\n" for name in names))


def branch_path(out: Path, name: str, label: str) -> Path:
    return out / "branches" / name / f"{label}.safetensors"


def branch(out: Path, name: str, label: str) -> None:
    arm, path = ARMS[name], branch_path(out, name, label)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    teacher = branch_path(out, arm.teacher, label) if arm.teacher else None
    lists = {"mined": "keep.txt", "some": "some.txt"}
    negatives = out / "mined" / label / lists[arm.negatives] if arm.negatives in lists else None
    used = trunk_file(out, arm.trunk_of(label))
    awaited(used, *(file for file in (teacher, negatives) if file is not None))
    train_branch(
        out / ("every" if arm.negatives else "peta"),
        label,
        used,
        path,
        BranchOptions(**{"epochs": EPOCHS, "threads": 1, **arm.options}),
        cache=out / "features",
        distil=teacher,
        negatives=negatives,
        progress=False,
    )


def score(out: Path, name: str) -> None:
    """Probabilities of every label of an arm on the test images: one pass of each trunk."""
    groups: defaultdict[Path, list[Path]] = defaultdict(list)
    for label in ARMS[name].labels:
        groups[trunk_file(out, ARMS[name].trunk_of(label))].append(branch_path(out, name, label))
    write_scores(out, name, groups)


def score_heads(out: Path, name: str) -> None:
    awaited(trunk_file(out, name))
    heads = sorted((out / "heads" / name).glob("*.safetensors"))
    write_scores(out, f"{name} heads", {trunk_file(out, name): heads})


def write_scores(out: Path, name: str, groups: Mapping[Path, Sequence[Path]]) -> None:
    path = out / "scores" / f"{name}.npz"
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    found = {}
    for used, branches in groups.items():
        awaited(used, *branches)
        for judged in evaluate_branches(used, branches, out / "full").judged:
            found[judged.label] = judged.probabilities
    with atomic_write(path) as file:
        np.savez(file, **found)


if __name__ == "__main__":
    main()
