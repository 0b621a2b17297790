"""What is compared on PETA: trunks, and arms: one branch a label, all made alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# In labels.toml. Trunk "no2" has not seen the second group; "four" is trained on the group after the label's own alone.
GROUPS = (
    ("gender", "backpack", "long hair", "suit"),
    ("age", "lady's bag", "hat", "skirt"),
    ("sport style", "formal", "shorts", "plastic bag"),
)
LABELS = tuple(label for group in GROUPS for label in group)
MINED = ("backpack", "hat", "long hair", "skirt")  # in mined.toml, with twelve negatives for a positive
STEPS = 1800


@dataclass(frozen=True)
class TrunkArm:
    """A trunk.

    Attributes:
        labels: it is trained on; none: CIFAR-10's objects.
        arch, size: width is always 0.25.
        options: of its training.
        joint: all labels of every image at once, by multi_label.py.
    """

    labels: tuple[str, ...] = LABELS
    arch: str = "resnet18"
    size: tuple[int, int] = (96, 48)
    options: dict[str, Any] = field(default_factory=dict)
    joint: bool = False


def _others(group: int) -> tuple[str, ...]:
    return tuple(label for index, labels in enumerate(GROUPS, 1) for label in labels if index != group)


def _seeded(seed: int) -> dict[str, TrunkArm]:
    end, options = f"-s{seed}" if seed else "", {"seed": seed}
    return {
        f"all{end}": TrunkArm(options=options),
        f"objects{end}": TrunkArm((), options=options),
        f"multi{end}": TrunkArm(options=options, joint=True),
    }


TRUNKS = {
    **_seeded(0),
    **{f"no{group}": TrunkArm(_others(group)) for group in (1, 2, 3)},
    "random": TrunkArm(options={"steps": 1, "learning_rate": 1e-9}),  # BatchNorm is measured, and that is all
    **{f"four{group}": TrunkArm(GROUPS[group % 3]) for group in (1, 2, 3)},
    "multi12": TrunkArm(options={"seed": 0, "every": 12}, joint=True),  # as many annotations as the sub-datasets have
    "inception": TrunkArm(arch="inception_v3", size=(192, 96)),
    "s160": TrunkArm(size=(160, 80)),
    "s192": TrunkArm(size=(192, 96)),
    **_seeded(1),
}


@dataclass(frozen=True)
class Arm:
    """A branch for each of `labels`.

    Attributes:
        trunk: its name; "no" and "four" are those of the label's group.
        options: of the branches.
        labels: which.
        teacher: the arm whose branches are distilled.
        negatives: those of `MINED` are trained with: "every", "mined" or "some".
    """

    trunk: str
    options: dict[str, Any]
    labels: tuple[str, ...] = LABELS
    teacher: str = ""
    negatives: str = ""

    def trunk_of(self, label: str) -> str:
        """The trunk's name for a label."""
        if self.trunk not in ("no", "four"):
            return self.trunk
        return f"{self.trunk}{next(index for index, group in enumerate(GROUPS, 1) if label in group)}"


ARMS = {
    # Table 2, Figures 4 and 5; new labels: "no" has seen eight other labels, "four" four.
    **{
        f"{trunk} tap 6": Arm(trunk, {"tap": 6})
        for trunk in ("all", "no", "objects", "random", "multi", "four", "all-s1", "objects-s1", "multi-s1")
    },
    **{f"{trunk} tap 4": Arm(trunk, {"tap": 4}) for trunk in ("all", "no", "objects")},
    # Grafting, from the head alone to the whole network, and a network of its own from random weights.
    **{f"all tap {tap}": Arm("all", {"tap": tap}) for tap in (8, 7, 5, 2, 0)},
    "alone": Arm("random", {"tap": 0, "init": "random", "epochs": 45}),
    # Slim branches.
    **{f"all tap 4 width {width}": Arm("all", {"tap": 4, "width": width}) for width in (0.5, 0.25)},
    **{
        f"all tap 4 width {width} distilled": Arm("all", {"tap": 4, "width": width}, teacher="all tap 4")
        for width in (1, 0.5, 0.25)
    },
    # Size of the crop.
    **{f"{trunk} tap 6": Arm(trunk, {"tap": 6}) for trunk in ("s160", "s192")},
    # Table 3, on the paper's backbone. Not "11 + bilinear": the last map has four cells at this size.
    "11 + GAP": Arm("inception", {"tap": 6}),
    "8 + GAP": Arm("inception", {"tap": 6, "until": 8}),
    "8 + bilinear": Arm("inception", {"tap": 6, "until": 8, "pooling": "bilinear"}),
    # Hard negatives.
    **{f"{kind} negatives": Arm("all", {"tap": 4}, MINED, negatives=kind) for kind in ("every", "mined", "some")},
}

# Networks judged by the heads that they were trained with.
HEADS = ("all", "multi", "multi12", "all-s1", "multi-s1")
