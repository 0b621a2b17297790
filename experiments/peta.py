"""The comparisons of docs/results.md on PETA: data, trunks, branches, scores, one step after the other.

    python experiments/peta.py PETA OUT --objects CIFAR-10/train [--jobs 2]
    python experiments/tables.py OUT -o docs

What is there already is not made again: an interrupted run goes on where it was. Every job has one thread.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np
from arms import ARCH, ARMS, HEADS, LABELS, MINED, STEPS, TRUNKS, WIDTH, Arm
from tqdm import tqdm

from graftsdk.lifecycle.evaluation import evaluate_branches
from graftsdk.plan import CropSpec
from graftsdk.training import BranchOptions, TrunkNetwork, TrunkOptions, train_branch, train_trunk
from graftsdk.training.labels import open_label
from graftsdk.training.mining import MiningOptions, mine_negatives, read_list

HERE = Path(__file__).parent
EPOCHS = 10  # of a branch
GRAFTSDK = [sys.executable, "-m", "graftsdk.cli.main"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peta", type=Path, help="the folder of PETA")
    parser.add_argument("out", type=Path, help="a folder for everything")
    parser.add_argument("--objects", type=Path, required=True, help="a folder of CLASS/*.jpg: the unrelated data")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each trunk")
    parser.add_argument("--jobs", type=int, default=2, help="at once, of one thread each")
    parser.add_argument("--only", nargs="+", help="arms that are trained and scored")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    make_data(args.peta, args.objects, args.out)
    trunks = [(trunk, args.out, name, args.steps) for name in TRUNKS]
    at_once(args.jobs, "trunks", [*trunks, (multi, args.out, args.peta, args.steps)])
    at_once(args.jobs, "mining", [(mine, args.out, label) for label in MINED])
    arms = {name: arm for name, arm in ARMS.items() if args.only is None or name in args.only}
    for taught in (False, True):  # teachers first
        jobs = [
            (branch, args.out, name, label)
            for name, arm in arms.items()
            for label in arm.labels
            if bool(arm.teacher) is taught
        ]
        at_once(args.jobs, "branches", jobs)
    at_once(args.jobs, "scores", [(score, args.out, name) for name in [*arms, *(HEADS if args.only is None else ())]])


def at_once(jobs: int, what: str, tasks: Sequence[tuple[Callable[..., None], Any]]) -> None:
    """Run (function, arguments ...) in `jobs` processes."""
    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(task[0], *task[1:]) for task in tasks]
        for future in tqdm(as_completed(futures), total=len(futures), desc=what):
            future.result()


def make_data(peta: Path, objects: Path, out: Path) -> None:
    """`full`: the sub-datasets, `peta`: without test, `every`: four labels with twelve negatives for a positive."""
    if not (out / "full").exists():
        command = [*GRAFTSDK, "import", "peta", str(peta), str(out / "full"), "--labels", str(HERE / "labels.toml")]
        subprocess.run([*command, "--licence", "research only", "--val-share", "0.2"], check=True)
        without_test(out / "full", out / "peta")
    if not (out / "every").exists():
        command = [*GRAFTSDK, "import", "peta", str(peta), str(out / "many"), "--labels", str(HERE / "mined.toml")]
        subprocess.run([*command, "--licence", "research only", "--negatives", "12"], check=True)
        # Its own test is another one; people of the test that all arms share are left out of its trainings.
        test = {path.name for path in (out / "full" / LABELS[0] / "test").glob("*/*")}
        without_test(out / "many", out / "every", test)
    if not (out / "objects").exists():
        shutil.copytree(objects, out / "objects" / "objects" / "train")
        classes = sorted(path.name for path in objects.iterdir())
        (out / "objects" / "graft.toml").write_text(f"[labels.objects]\nclasses = {classes!r}\n")


def without_test(source: Path, target: Path, others: Iterable[str] = ()) -> None:
    """Trainings then look at no test image; all labels are scored together, at the end."""
    shutil.copytree(source, target, ignore=lambda _, names: {"test", *others} & {*names}, copy_function=os.link)


def trunk(out: Path, name: str, steps: int) -> None:
    arm, path = TRUNKS[name], out / "trunks" / f"{name}.safetensors"
    heads = out / "heads" / name
    if heads.is_dir() and path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    heads.mkdir(parents=True, exist_ok=True)
    train_trunk(
        out / "peta" if arm.labels else out / "objects",
        arm.labels or None,
        path,
        TrunkOptions(**{"steps": steps, "threads": 1, "eval_minutes": 60.0, "warmup": 150, **dict(arm.options)}),
        trunk=TrunkNetwork(ARCH, WIDTH, CropSpec(arm.size)),
        cache=out / "crops",
        heads=heads,
        resume=path.with_name(f"{path.name}.state").exists(),
        progress=False,
    )


def multi(out: Path, peta: Path, steps: int) -> None:
    command = [sys.executable, str(HERE / "multi_label.py"), "--peta", str(peta), "--data", str(out / "peta")]
    command += ["--questions", str(HERE / "labels.toml"), "--labels", *LABELS, "--cache", str(out / "crops")]
    command += ["-o", str(out / "trunks" / "multi.safetensors"), "--heads", str(out / "heads" / "multi"), "--resume"]
    subprocess.run([*command, "--steps", str(steps), "--threads", "1", "--quiet"], check=True)


def mine(out: Path, label: str) -> None:
    """Lists of negatives: `mined` as `graftsdk mine` does by default, `some`: as many, drawn at random."""
    folder = out / "mined" / label
    if (folder / "some.txt").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    mine_negatives(out / "every", label, out / "trunks" / "all.safetensors", folder, MiningOptions())
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
    lists = {"mined": "keep.txt", "some": "some.txt"}
    train_branch(
        out / ("peta" if arm.data == "peta" else "every"),
        label,
        trunk_path(out, arm, label),
        path,
        BranchOptions(**{"epochs": EPOCHS, "threads": 1, **dict(arm.options)}),
        cache=out / "features",
        distil=branch_path(out, arm.teacher, label) if arm.teacher else None,
        negatives=out / "mined" / label / lists[arm.data] if arm.data in lists else None,
        progress=False,
    )


def trunk_path(out: Path, arm: Arm, label: str) -> Path:
    return out / "trunks" / f"{arm.trunk_of(label)}.safetensors"


def score(out: Path, name: str) -> None:
    """Probabilities of every label of an arm on the test images: one pass of each trunk."""
    path = out / "scores" / f"{name}.npz"
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    if name in HEADS:
        trunk_name, folder = HEADS[name]
        groups = {out / "trunks" / f"{trunk_name}.safetensors": sorted((out / "heads" / folder).glob("*.safetensors"))}
    else:
        groups = grouped((trunk_path(out, ARMS[name], one), branch_path(out, name, one)) for one in ARMS[name].labels)
    found = {}
    for used, branches in groups.items():
        for judged in evaluate_branches(used, branches, out / "full").judged:
            found[judged.label] = judged.probabilities
    partial = path.with_name(f"{path.stem}.partial.npz")
    np.savez(partial, **found)
    partial.rename(path)


def grouped(pairs: Iterable[tuple[Path, Path]]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


if __name__ == "__main__":
    main()
