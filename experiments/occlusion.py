"""Do masks help where people hide one another (paper 3.1)? On drawn scenes, whose masks and occlusion are known.

Arms, all judged on the same people:
  box         crops along the visible box, the background kept, by networks trained on such crops
  mask        crops along the same box, cut by the true mask, by networks trained on such crops
  yolact      the mask arm's networks; box and mask are those that the demo segmenter found
  yolact box  the box arm's networks; the box is the one that the demo segmenter found
The last two are of the people whom it found at all: those whose visible pixels are one of its masks at IoU 0.5 or more.

Training people are annotated for one label each, both networks learn from the same ones (85% of them; the others are
validation), by `train_trunk` for equal steps. The heads of the dynamic graph, one label each, are what is judged: no
branches are trained, and no threshold is needed, as only AUC is compared. Occlusion is the share of the person inside
the picture that others or things hide. Whom the picture's border cuts is trained on, and judged in a table of its own.

What is in OUT already is not made again. Written there: tables.md, occlusion.csv, sheet.png (look at it).
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported; see `graftsdk train segmenter`

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH the folder of the script is not on the path

from drawn_people import ARMS, NETWORKS, Pixels, TestPeople, test_people, write_training
from kept import same_options

from graftsdk.drawing.pictures import write_picture
from graftsdk.files import atomic_write
from graftsdk.models import Branch, Trunk
from graftsdk.plan import CropSpec
from graftsdk.preprocess import read_crop
from graftsdk.text import file_names
from graftsdk.training import TrunkNetwork, TrunkOptions, train_trunk
from graftsdk.training.compute import torch_threads
from graftsdk.training.crops.packed import normalised, whole_values
from graftsdk.training.evaluation import Comparison, Judged, compare

TRUE_PAIR = ("box", "mask")
PAIRS = (TRUE_PAIR, ("box", "yolact"), ("yolact box", "yolact"))
BINS = (("0", -1.0, 0.0), ("0 to 10%", 0.0, 0.1), ("10 to 30%", 0.1, 0.3), ("above 30%", 0.3, 1.0))
WANTED = {"above 30%": 0.02, "0": -0.005}  # AUC of mask - box, at least


def logits(trunk_path: Path, heads: Sequence[Path], crops: Pixels) -> list[npt.NDArray[np.float64]]:
    """float64[N, 2] of each head."""
    trunk, branches = Trunk.load(trunk_path), [Branch.load(path) for path in heads]
    found: list[list[npt.NDArray[np.float64]]] = [[] for _ in heads]
    with torch.inference_mode():
        for start in range(0, len(crops), 128):
            last = trunk(normalised(torch.from_numpy(crops[start : start + 128]), trunk.crop))
            for own, branch in zip(found, branches, strict=True):
                own.append(branch(last).double().numpy())
    return [np.concatenate(own) for own in found]


def sheet(path: Path, people: TestPeople, training: Path, label: str, size: tuple[int, int], count: int = 20) -> None:
    """What networks are given, a row each: matched test people by arm, half of them hidden by more than 30%; then
    training people by network.
    """
    hidden = people.occlusion > 0.3
    chosen = [*np.flatnonzero(hidden & (people.iou > 0))[: count // 2]]
    chosen += [*np.flatnonzero(~hidden & (people.iou > 0))[: count - len(chosen)]]
    rows = [crops[chosen] for crops in people.crops.values()]
    for network, background in NETWORKS.items():
        spec = CropSpec(size, background=background)
        files = sorted((training / network / label).glob("train/*/*.png"))[: len(chosen)]
        rows.append(np.stack([whole_values(read_crop(file, spec), spec) for file in files]))
    picture = np.concatenate([np.concatenate([*row], axis=1) for row in rows])
    write_picture(path, np.ascontiguousarray(picture[:, :, ::-1]))


class Result(NamedTuple):
    """One comparison: the second arm's AUC less the first's.

    Attributes:
        people: which of them: "whole" are not cut by the picture's border, "found" are those of the segmenter.
        occlusion: a bin's name, or "all". number: of people.
        pair: (first, second) arm.
        found: rows are labels and seeds.
    """

    people: str
    occlusion: str
    number: int
    pair: tuple[str, str]
    found: Comparison


def results(people: TestPeople, judged: dict[str, list[Judged]]) -> list[Result]:
    """Every pair of arms, for every group of people, by occlusion."""
    matched, whole = people.iou > 0, ~people.cut
    groups = {"whole": whole, "whole, found": whole & matched, "all": whole | ~whole, "all, found": matched}
    found = []
    for (group, members), pair in product(groups.items(), PAIRS):
        if "found" not in group and pair != TRUE_PAIR:
            continue  # nothing to judge of those who were not found
        for name, low, high in (*BINS, ("all", -1.0, 1.0)):
            rows = members & (people.occlusion > low) & (people.occlusion <= high)
            first, second = ([each.take(rows) for each in judged[arm]] for arm in pair)
            found.append(Result(group, name, int(rows.sum()), pair, compare(first, second)))
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """In Markdown."""
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def bins_table(people: TestPeople, labels: Sequence[str]) -> str:
    """How many people each bin has, how many of them the segmenter finds, and how many positives there are."""
    rows = []
    for name, low, high in BINS:
        everybody = (people.occlusion > low) & (people.occlusion <= high)
        own = everybody & ~people.cut
        found = own & (people.iou > 0)
        share, iou = f"{found.sum() / max(own.sum(), 1):.1%}", f"{people.iou[found].sum() / max(found.sum(), 1):.3f}"
        rows.append([name, everybody.sum(), own.sum(), share, iou, *people.targets[own].sum(axis=0)])
    return table(
        ["occlusion", "people", "whole", "of them found", "mask IoU", *(f"{each}: yes" for each in labels)], rows
    )


def labels_table(found: Sequence[Result], labels: Sequence[str]) -> str:
    """AUC of box and mask for each label, the mean over seeds."""
    rows = []
    for result in found:
        cells = []
        for label in labels:
            sides = [(row.first, row.second) for row in result.found.rows if row.label.startswith(f"{label} #")]
            first, second = np.mean(sides, axis=0)
            cells.append(f"{first:.3f} / {second:.3f} ({second - first:+.3f})")
        rows.append([result.occlusion, *cells])
    return table(["occlusion", *labels], rows)


def pairs_table(found: Sequence[Result]) -> str:
    """The mean over labels and seeds, with the difference's interval."""
    rows = []
    for result in found:
        own = result.found
        known = [row for row in own.rows if not np.isnan(row.delta)]
        means = [f"{np.mean([getattr(row, side) for row in known] or np.nan):.4f}" for side in ("first", "second")]
        seeds = sorted({row.label.partition("#")[2] for row in known})
        each = [np.mean([row.delta for row in known if row.label.endswith(f"#{seed}")]) for seed in seeds]
        shown = f"{own.mean:+.4f} [{own.low:+.4f}, {own.high:+.4f}]"
        named = " - ".join(reversed(result.pair))
        rows.append([*result[:3], named, *means, shown, ", ".join(f"{value:+.4f}" for value in each)])
    head = ["people", "occlusion", "number", "pair", "AUC first", "AUC second", "difference [95%]", "by seed"]
    return table(head, rows)


def report(out: Path, people: TestPeople, judged: dict[str, list[Judged]], labels: Sequence[str]) -> None:
    """Print and write the tables."""
    found = results(people, judged)
    true = {result.occlusion: result for result in found if result.people == "whole" and result.pair == TRUE_PAIR}
    text = bins_table(people, labels)
    text += "\nAUC of box / mask, whole people, mean over seeds:\n\n" + labels_table(list(true.values()), labels)
    text += "\nMean over labels and seeds, paired bootstrap over people:\n\n" + pairs_table(found) + "\n"
    for name, least in WANTED.items():
        gain = true[name].found.mean
        told = "holds" if gain >= least else "does not hold"
        text += f"mask - box, whole people, occlusion {name}: {gain:+.4f}, at least {least:+.3f} wanted: {told}\n"
    hidden, free = (true[name].found for name in WANTED)
    # Different people: the half widths of two independent intervals add up in squares.
    more, wide = hidden.mean - free.mean, np.hypot(hidden.high - hidden.low, free.high - free.low) / 2
    text += f"the gain above 30% less the gain at 0: {more:+.4f} [{more - wide:+.4f}, {more + wide:+.4f}]\n"
    print(text)
    csv_text = io.StringIO()
    writer = csv.writer(csv_text, lineterminator="\n")
    writer.writerow(
        [
            "people",
            "occlusion",
            "number",
            "first",
            "second",
            "label and seed",
            "AUC first",
            "AUC second",
            "delta",
            "low",
            "high",
        ]
    )
    for result in found:
        for row in result.found.rows:
            figures = row.first, row.second, row.delta, row.low, row.high
            writer.writerow([*result[:3], *result.pair, row.label, *figures])
    for name, content in (("tables.md", text), ("occlusion.csv", csv_text.getvalue())):
        with atomic_write(out / name) as file:
            file.write(content.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="OUT", help="folder for everything")
    add("--labels", nargs="+", default=["hat", "backpack", "suit", "child", "courier"], metavar="LABEL")
    add("--train-scenes", type=int, default=2500)
    add("--test-scenes", type=int, default=2500)
    add("--negatives", type=float, default=2.0, help="training people of no for one of yes")
    add("--size", type=int, nargs=2, default=(96, 48), metavar=("H", "W"), help="of the crops; default 96 48")
    add("--arch", default="resnet18")
    add("--width", type=float, default=0.25)
    add("--steps", type=int, default=2000)
    add("--seeds", type=int, nargs="+", default=[0, 1], help="of the networks; the scenes stay")
    add("--threads", type=int, default=1)
    args = parser.parse_args()
    out, size, labels = Path(args.output), tuple(args.size), args.labels
    same_options(out, {name: value for name, value in vars(args).items() if name not in ("output", "seeds", "threads")})
    if not (out / "train").exists():
        write_training(out / "train", args.train_scenes, labels, args.negatives)
    people = test_people(out / f"test-{size[0]}x{size[1]}.npz", args.test_scenes, labels, size)
    sheet(out / "sheet.png", people, out / "train", labels[0], size)
    counts = Counter(path.parts[-4] for path in (out / "train").glob("box/*/train/*/*.png"))
    print(f"training people: {dict(counts)}; test people: {len(people.iou)}\n")
    judged: dict[str, list[Judged]] = {arm: [] for arm in ARMS}
    identities = [str(row) for row in range(len(people.iou))]
    for seed in args.seeds:
        for network, background in NETWORKS.items():
            trunk, heads = out / f"{network}-{seed}.safetensors", out / f"{network}-{seed}-heads"
            files = [heads / f"{name}.safetensors" for name in file_names(labels)]
            if not all(path.exists() for path in (trunk, *files)):
                heads.mkdir(exist_ok=True)
                crop = CropSpec(size, background=background)
                how = TrunkOptions(steps=args.steps, seed=seed, threads=args.threads, eval_minutes=600.0)
                network_options = TrunkNetwork(args.arch, args.width, crop)
                train_trunk(
                    out / "train" / network, labels, trunk, how, trunk=network_options, heads=heads, resume=True
                )
            for arm in (arm for arm, own in ARMS.items() if own == network):
                with torch_threads(args.threads):
                    answers = logits(trunk, files, people.crops[arm])
                for column, (label, found) in enumerate(zip(labels, answers, strict=True)):
                    truth = people.targets[:, column]
                    each = Judged.from_logits(f"{label} #{seed}", ("no", "yes"), truth, found, identities)
                    judged[arm].append(each)
    report(out, people, judged, labels)


if __name__ == "__main__":
    main()
