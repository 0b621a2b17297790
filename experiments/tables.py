"""The tables and the picture of docs/results.md, from what peta.py left: `python experiments/tables.py OUT -o DIR`.

A difference is the second arm's figure less the first's, with its 95% interval by a paired bootstrap over identities.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from arms import ARMS, LABELS, MINED
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from graftsdk.models import Branch, Trunk, branch_cost, trunk_cost
from graftsdk.training.evaluation import Judged, compare, mcnemar, top_rows
from graftsdk.training.labels import open_label

TAPS = (*(f"all tap {tap}" for tap in (8, 7, 6, 5, 4, 2, 0)), "alone")
SLIM = ("width 0.5", "width 0.25")
WIDTHS = (
    *("all tap 4", "all tap 4 width 1 distilled"),
    *(f"all tap 4 {width}{how}" for width in SLIM for how in ("", " distilled")),
)
TABLE3 = ("11 + GAP", "8 + GAP", "8 + bilinear")


class Results:
    """What an output folder of peta.py holds."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.judged = cache(self._judged)
        self.cost = cache(self._cost)

    def has(self, *arms: str) -> bool:
        return all((self.out / "scores" / f"{arm}.npz").exists() for arm in arms)

    def _judged(self, arm: str) -> dict[str, Judged]:
        found = {}
        with np.load(self.out / "scores" / f"{arm}.npz", allow_pickle=False) as scores:
            for label in scores.files:
                labels = open_label(self.out / "full", label)
                targets = np.array([image.target for image in labels.test])
                people = tuple(image.identity for image in labels.test)
                cameras = tuple(image.camera for image in labels.test)
                found[label] = Judged(label, labels.classes, targets, scores[label], people, cameras)
        return found

    def arm(self, name: str, labels: Iterable[str] = LABELS) -> list[Judged]:
        found = self.judged(name)
        return [found[label] for label in labels]

    def aucs(self, name: str, labels: Iterable[str] = LABELS) -> dict[str, float]:
        """By label, the mean over its classes where it has more than two."""
        result = compare(self.arm(name, labels), self.arm(name, labels), draws=0)
        return {
            label: float(np.mean([row.first for row in result.rows if row.label == label]))
            for label in dict.fromkeys(row.label for row in result.rows)
        }

    def _cost(self, arm: str) -> tuple[float, float, float]:
        """(own MMAC of one label, million parameters, MMAC of the whole trunk below its tap)."""
        label = ARMS[arm].labels[0]
        branch = Branch.load(self.out / "branches" / arm / f"{label}.safetensors")
        macs, parameters = branch_cost(branch)
        below = trunk_cost(Trunk.load(self.out / "trunks" / f"{ARMS[arm].trunk_of(label)}.safetensors"))[0]
        return macs / 1e6, parameters / 1e6, below[branch.tap] / 1e6


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def difference(results: Results, first: str, second: str, labels: Iterable[str] = LABELS, figure: str = "auc") -> str:
    found = compare(results.arm(first, labels), results.arm(second, labels), figure=figure)
    sign = f"{found.wins} better, {found.losses} worse, sign test p = {found.p:.2g}"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] ({sign})"


def by_label(results: Results, arms: Sequence[str], labels: Sequence[str] = LABELS) -> str:
    found = {arm: results.aucs(arm, labels) for arm in arms}
    rows = [[label, *(f"{found[arm][label]:.3f}" for arm in arms)] for label in labels]
    rows.append(["**mean**", *(f"**{np.mean(list(found[arm].values())):.3f}**" for arm in arms)])
    rows.append(["worst", *(f"{min(found[arm].values()):.3f}" for arm in arms)])
    return table(["AUC", *arms], rows)


def trunks(results: Results) -> str:
    arms = [f"{trunk} tap 6" for trunk in ("all", "no", "objects", "random", "multi")]
    pairs = []
    for tap, seed in ((6, ""), (6, "-s1"), (4, "")):
        arm = {trunk: f"{trunk}{seed} tap {tap}" for trunk in ("all", "no", "objects", "multi")}
        pairs += [(arm["objects"], arm["all"]), (arm["objects"], arm["no"]), (arm["no"], arm["all"])]
        pairs += [(arm["multi"], arm["all"])]
    pairs += [("random tap 6", "objects tap 6"), ("all tap 6", "all-s1 tap 6")]
    return by_label(results, arms) + "\n\n" + differences(results, pairs)


def differences(results: Results, pairs: Iterable[Sequence[str]], labels: Sequence[str] = LABELS) -> str:
    there = [pair for pair in pairs if results.has(*pair)]
    return table(["second - first", "AUC"], [[f"{b} - {a}", difference(results, a, b, labels)] for a, b in there])


def costs(results: Results, arms: Sequence[str], whole: str) -> str:
    """Cost of twelve labels in networks: the shared part once, each label's own."""
    rows = []
    for arm in (arm for arm in arms if results.has(arm)):
        own, parameters, below = results.cost(arm)
        found, network = results.aucs(arm), results.cost("all tap 8")[2]
        gain = "" if arm == whole else difference(results, whole, arm)
        networks = f"{(below + len(LABELS) * own) / network:.2f}"
        mean, worst = f"{np.mean(list(found.values())):.3f}", f"{min(found.values()):.3f}"
        rows.append([arm, f"{own:.1f}", f"{parameters:.2f}", networks, mean, worst, gain])
    return table(["arm", "own MMAC", "own M parameters", "12 labels, networks", "AUC", "worst", f"less {whole}"], rows)


def sizes(results: Results) -> str:
    rows = []
    first = "all tap 6"
    for size, arm in (("96x48", first), ("160x80", "s160 tap 6"), ("192x96", "s192 tap 6")):
        if results.has(arm):
            own, _, below = results.cost(arm)
            found = results.aucs(arm).values()
            gain = "" if arm == first else difference(results, first, arm)
            rows.append([size, f"{below + own:.0f}", f"{np.mean(list(found)):.3f}", f"{min(found):.3f}", gain])
    return table(["crop", "MMAC of trunk and one label", "AUC", "worst", "less 96x48"], rows)


def bilinear(results: Results) -> str:
    rows = []
    for share, name in ((1.0, "as many as are positive"), (0.5, "half of them")):
        wrong, first, this = np.zeros(len(TABLE3), int), np.zeros(len(TABLE3), int), np.zeros(len(TABLE3), int)
        wins = np.zeros(len(TABLE3), int)
        for label in (label for label in LABELS if len(results.judged(TABLE3[0])[label].classes) == 2):
            heads = {arm: results.judged(arm)[label] for arm in TABLE3}
            truth = heads[TABLE3[0]].targets == 1
            top = max(1, round(share * truth.sum()))
            found = top_rows(truth, {arm: one.probabilities[:, 1] for arm, one in heads.items()}, top)
            wrong += [row.false_positives for row in found]
            first, this = first + [row.only_first for row in found], this + [row.only_this for row in found]
            wins += [row.false_positives < found[0].false_positives for row in found]
        for index, arm in enumerate(TABLE3):
            p = "" if index == 0 else f"{mcnemar(int(first[index]), int(this[index])):.2g}"
            rows.append([name, arm, str(wrong[index]), f"{wrong[index] / wrong[0]:.2f}", str(wins[index]), p])
    return table(["top", "arm", "false positives, 11 labels", "ratio", "labels with fewer", "McNemar p"], rows)


def negatives(results: Results) -> str:
    arms = [f"{kind} negatives" for kind in ("every", "mined", "some")]
    text = by_label(results, arms, MINED)
    rows = [
        [f"{second} - {first}", figure, difference(results, first, second, MINED, figure)]
        for figure in ("auc", "fpr@0.8", "fpr@0.9")
        for first, second in ((arms[0], arms[1]), (arms[2], arms[1]))
    ]
    return text + "\n\n" + table(["second - first", "figure", "difference"], rows)


def new_labels(results: Results) -> str:
    arms = ["four tap 6", "no tap 6", "all tap 6"]
    return by_label(results, arms) + "\n\n" + differences(results, [arms[:2], arms[1:], arms[::2]])


def annotations(results: Results) -> str:
    arms = ["multi heads", "multi12 heads", "all heads", "all tap 8", "all tap 6"]
    pairs = [(first, arm) for first in arms[:2] for arm in arms[2:]] + [("multi-s1 heads", "all-s1 heads")]
    return by_label(results, arms) + "\n\n" + differences(results, pairs)


def picture(results: Results, path: Path) -> None:
    """AUC against the cost of twelve labels."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    network = results.cost("all tap 8")[2]
    slim = "width 0.5 and 0.25 at tap 4"
    groups = (("taps", TAPS[:-1], "o-"), (slim, WIDTHS[2::2], "s-"), ("the same, distilled", WIDTHS[3::2], "^-"))
    for name, arms, marks in groups:
        points = []
        for arm in (arm for arm in arms if results.has(arm)):
            own, _, below = results.cost(arm)
            points.append(((below + len(LABELS) * own) / network, np.mean(list(results.aucs(arm).values()))))
            if name == "taps":
                axes.annotate(arm.removeprefix("all "), points[-1], (4, 5), textcoords="offset points")
        axes.plot(*zip(*points, strict=True), marks, label=name)
    axes.set(xlabel="cost of twelve labels, in networks", ylabel="mean test AUC", xscale="log")
    axes.set_xticks([1, 2, 4, 8, 12], ["1", "2", "4", "8", "12"])
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


SECTIONS: dict[str, tuple[Callable[[Results], str], tuple[str, ...]]] = {
    "Trunks": (trunks, tuple(f"{trunk} tap 6" for trunk in ("all", "no", "objects", "random", "multi"))),
    "Taps": (lambda results: costs(results, TAPS, "all tap 0"), ("all tap 8", "all tap 0")),
    "Widths": (lambda results: costs(results, WIDTHS, "all tap 4"), ("all tap 8", "all tap 4")),
    "Crops": (sizes, ("all tap 6",)),
    "Annotations": (annotations, ("multi heads", "multi12 heads", "all heads", "all tap 8", "all tap 6")),
    "Table 3": (bilinear, TABLE3),
    "Negatives": (negatives, tuple(f"{kind} negatives" for kind in ("every", "mined", "some"))),
    "New labels": (new_labels, ("four tap 6", "no tap 6", "all tap 6")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder that peta.py filled")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for tables.md, auc.csv and taps.png")
    args = parser.parse_args()
    results = Results(args.out)
    args.output.mkdir(parents=True, exist_ok=True)
    parts = [f"## {name}\n\n{make(results)}\n" for name, (make, needs) in SECTIONS.items() if results.has(*needs)]
    text = "\n".join(parts)
    (args.output / "tables.md").write_text(text)
    print(text)
    with (args.output / "auc.csv").open("w", newline="") as file:
        write = csv.writer(file, lineterminator="\n")
        write.writerow(("arm", "label", "auc"))
        for arm in sorted(path.stem for path in (args.out / "scores").glob("*.npz")):
            labels = results.judged(arm)
            write.writerows((arm, label, f"{value:.4f}") for label, value in results.aucs(arm, labels).items())
    if results.has(*TAPS[:-1]):
        picture(results, args.output / "taps.png")


if __name__ == "__main__":
    main()
