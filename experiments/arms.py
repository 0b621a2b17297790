"""What is compared on PETA: trunks, and arms: one branch a label, all made alike.

Twelve labels train the trunks, in three groups of four; four more are never shown to one: the new labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GROUPS = (
    ("gender", "backpack", "long hair", "sport style"),
    ("age", "lady's bag", "formal", "hat"),
    ("suit", "muffler", "bald", "luggage"),
)
LABELS = tuple(label for group in GROUPS for label in group)
NEW = ("skirt", "shorts", "plastic bag", "sunglasses")
MINED = ("backpack", "hat", "long hair", "skirt")  # with twelve negatives for a positive

ARCH, WIDTH, SIZE, STEPS = "inception_v3", 0.25, (160, 80), 1800


@dataclass(frozen=True)
class TrunkArm:
    """A trunk. Attributes: labels: it is trained on, none for CIFAR-10's objects. options: what differs."""

    labels: tuple[str, ...]
    size: tuple[int, int] = SIZE
    options: tuple[tuple[str, Any], ...] = ()


TRUNKS = {
    "all": TrunkArm(LABELS),
    "objects": TrunkArm(()),
    "no3": TrunkArm(GROUPS[0] + GROUPS[1]),
    "no1": TrunkArm(GROUPS[1] + GROUPS[2]),
    "no2": TrunkArm(GROUPS[0] + GROUPS[2]),
    "random": TrunkArm(LABELS, options=(("steps", 1), ("learning_rate", 1e-9))),  # BatchNorm is measured, nothing else
    "four": TrunkArm(GROUPS[0]),
    "s192": TrunkArm(LABELS, (192, 96)),
    "all_s1": TrunkArm(LABELS, options=(("seed", 1),)),
    "s256": TrunkArm(LABELS, (256, 128)),
}


@dataclass(frozen=True)
class Arm:
    """Attributes: trunk: its name; "no": the one without the label's group. options: of the branches. Others: which."""

    trunk: str
    options: tuple[tuple[str, Any], ...] = ()
    labels: tuple[str, ...] = LABELS
    teacher: str = ""  # the arm whose branch is distilled
    data: str = "peta"  # folder of the sub-datasets

    def trunk_of(self, label: str) -> str:
        """The trunk's name for a label."""
        if self.trunk != "no":
            return self.trunk
        return f"no{next(index for index, group in enumerate(GROUPS, 1) if label in group)}"


def _arm(trunk: str, tap: int, *, labels: tuple[str, ...] = LABELS, teacher: str = "", **options: Any) -> Arm:
    return Arm(trunk, (("tap", tap), *options.items()), labels, teacher)


ARMS = {
    # Table 2, Figures 4 and 5
    **{f"{trunk}-{tap}": _arm(trunk, tap) for trunk in ("all", "no", "objects") for tap in (9, 6)},
    "random-9": _arm("random", 9),
    "multi-9": _arm("multi", 9),
    "all_s1-9": _arm("all_s1", 9),
    # Grafting: from the head alone down to the whole network; the whole network from random weights, as without a trunk
    **{f"all-{tap}": _arm("all", tap) for tap in (11, 10, 8, 4, 0)},
    "alone-0": _arm("random", 0, init="random", epochs=30),
    # Slim branches
    **{f"all-8 w{width:g}": _arm("all", 8, width=width) for width in (0.5, 0.25)},
    **{f"all-8 w{width:g} distilled": _arm("all", 8, width=width, teacher="all-8") for width in (1.0, 0.5, 0.25)},
    # Size of the crop
    "s192-9": _arm("s192", 9),
    "s256-9": _arm("s256", 9),
    # Table 3
    "s192-6 gap 11": _arm("s192", 6),
    "s192-6 gap 8": _arm("s192", 6, until=8),
    "s192-6 bilinear 8": _arm("s192", 6, until=8, pooling="bilinear"),
    "s192-6 bilinear 11": _arm("s192", 6, pooling="bilinear"),
    # New labels
    **{f"new {trunk}-{tap}": _arm(trunk, tap, labels=NEW) for trunk in ("four", "no3", "all") for tap in (9, 8)},
    # Negatives
    **{f"{kind} negatives": Arm("all", (("tap", 8),), MINED, data=kind) for kind in ("every", "mined", "some")},
}

# The heads of networks that were trained with them; nothing of its own follows.
HEADS = {"heads all": ("all", "all"), "heads multi": ("multi", "multi"), "heads all_s1": ("all_s1", "all_s1")}
