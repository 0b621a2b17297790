"""A puppet of 14 joints: proportions and a pose in, joints and the outline of the trunk out; metres."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import atan2, cos, pi, sin

import numpy as np

from graftsdk.training.synthetic.camera import Points
from graftsdk.training.synthetic.figure import Vector, vector

__all__ = ["SIDES", "Build", "Pose", "Puppet", "Trunk"]

SIDES = (-1, 1)


@dataclass(frozen=True)
class Build:
    """Proportions.

    Attributes:
        height: metres.
        heads: heights of the head in the body: 4 a small child, 7.5 an adult.
        girth: 1 is lean; widens trunk and limbs.
        shoulders: half width as a share of the height.
        hips: half width as a share of the height.
        stoop: 0 upright to 1 bent.
        bust: depth added to the chest, metres.
        belly: depth added in front of the waist, metres.
        belly_height: where, from hip (0) to shoulder (1).
    """

    height: float
    heads: float
    girth: float = 1.0
    shoulders: float = 0.125
    hips: float = 0.095
    stoop: float = 0.0
    bust: float = 0.0
    belly: float = 0.0
    belly_height: float = 0.3


@dataclass(frozen=True)
class Pose:
    """What the body does.

    Attributes:
        arms: for the left and right hand of the picture a name in `Puppet`'s table of places.
        stride: -1 to 1: how far the legs are apart, front to back; 0 stands.
        stance: half distance of the feet, as a share of the height.
        lean: sideways, radians.
        bend: of the trunk forward, radians.
        bow: of the head forward, radians.
        look: turn of the head, radians.
        swing: of hanging arms, -1 to 1.
        shift: sideways move of the hip, as a share of the height.
    """

    arms: tuple[str, str] = ("hang", "hang")
    stride: float = 0.0
    stance: float = 0.055
    lean: float = 0.0
    bend: float = 0.0
    bow: float = 0.0
    look: float = 0.0
    swing: float = 0.0
    shift: float = 0.0


class Trunk:
    """The trunk's outline: ellipses at heights, interpolated between.

    Args:
        levels: float64[N, 5] with rising y: centre x, y, z, half width, half depth.
        towards: unit vector to the camera, for what is visible.
    """

    def __init__(self, levels: Points, towards: Vector) -> None:
        self.levels = levels
        self._towards = towards
        self._heights: list[float] = levels[:, 1].tolist()

    def at(self, y: float) -> Vector:
        """float64[5]: the ellipse at a height."""
        heights = self._heights
        if y <= heights[0] or y >= heights[-1]:
            return np.array(self.levels[0 if y <= heights[0] else -1])
        i = bisect_right(heights, y)
        share = (y - heights[i - 1]) / (heights[i] - heights[i - 1])
        ring: Vector = self.levels[i - 1] * (1 - share) + self.levels[i] * share
        return ring

    def between(self, low: float, high: float, ease: float) -> Points:
        """float64[N, 5]: the ellipses from `low` to `high`, wider by `ease` metres."""
        inner = self.levels[(self.levels[:, 1] > low + 0.01) & (self.levels[:, 1] < high - 0.01)]
        rings = np.concatenate([self.at(low)[None], inner, self.at(high)[None]])
        rings[:, 3:] += ease
        return rings

    def surface(self, turn: float, y: float, out: float) -> Vector:
        """float64[3]: a point `out` metres over the surface, `turn` radians from the front; moved to where it is
        seen, the outline's edge, if it lies behind.
        """
        x, _, z, wide, deep = self.at(y)
        wide, deep = wide + out, deep + out
        middle = atan2(self._towards[0] / wide, self._towards[2] / deep)
        away = (turn - middle + pi) % (2 * pi) - pi
        turn = middle + min(max(away, -1.52), 1.52)
        return vector(x + wide * sin(turn), y, z + deep * cos(turn))

    def seen(self, turn: float, y: float) -> bool:
        """Whether the surface there faces the camera."""
        _, _, _, wide, deep = self.at(y)
        middle = atan2(self._towards[0] / wide, self._towards[2] / deep)
        return abs((turn - middle + pi) % (2 * pi) - pi) < 1.4


class Puppet:
    """Joints of a body in a pose, in the body's axes (`Figure`), metres.

    Args:
        build: its proportions.
        pose: what it does.
        towards: unit vector from it to the camera.

    Attributes:
        head: middle of the head.
        head_axes: float64[3, 3]: left-right, up and forward of the head, as rows.
        head_radii: of the skull's ellipsoid.
        neck: where it begins.
        shoulder, elbow, wrist, hip, knee, ankle: of the two SIDES.
        trunk: the outline.
        y_hip, y_waist, y_chest, y_shoulder: heights of the trunk.
    """

    def __init__(self, build: Build, pose: Pose, towards: Vector) -> None:
        self.build = build
        tall = build.height
        head = tall / build.heads
        self.head_radii = vector(0.365 * head, 0.5 * head, 0.43 * head)
        drop = 0.05 * build.stoop * tall
        chin = tall - head - drop
        self.y_shoulder = chin - 0.25 * head
        self.y_hip = tall * (0.36 + 0.019 * build.heads) - 0.01 * tall * abs(pose.stride)
        span = self.y_shoulder - self.y_hip
        self.y_waist = self.y_hip + 0.36 * span
        self.y_chest = self.y_hip + 0.72 * span
        self._bend = pose.bend + 0.45 * build.stoop
        self._lean = pose.lean
        self._shift = pose.shift * tall
        self.trunk = Trunk(self._levels(), towards)
        self.neck = self._spine(self.y_shoulder + 0.01 * tall)
        bow = pose.bow + 0.25 * build.stoop
        turn = _turned(pose.look, bow)
        base = self._spine(chin + 0.28 * head)
        self.head_axes = turn
        self.head = base + vector(0.0, 0.22 * head, 0.10 * head) @ turn
        self._join_legs(pose)
        self._join_arms(pose)

    def _spine(self, y: float) -> Vector:
        above = max(0.0, y - self.y_hip)
        return vector(
            self._shift * max(0.0, 1 - above / (self.y_shoulder - self.y_hip)) + above * sin(self._lean),
            y,
            above * sin(self._bend),
        )

    def _levels(self) -> Points:
        b, tall = self.build, self.build.height
        shoulders, hips = b.shoulders * tall, b.hips * tall
        span = self.y_shoulder - self.y_hip
        waist = (0.76 * hips + 0.22 * shoulders) * b.girth
        rows = [  # height, half width, half depth, forward
            (self.y_hip - 0.16 * span, hips * 0.96 * b.girth, 0.056 * tall * b.girth, 0.0),
            (self.y_hip + 0.06 * span, hips * b.girth, 0.062 * tall * b.girth, -0.006 * tall),
            (self.y_waist, waist, 0.054 * tall * b.girth, 0.0),
            (self.y_chest, shoulders * 0.84 * b.girth**0.7, 0.064 * tall * b.girth**0.8, 0.006 * tall),
            (self.y_shoulder - 0.06 * span, shoulders * 0.92, 0.05 * tall * b.girth**0.5, 0.0),
            (self.y_shoulder + 0.045 * span, shoulders * 0.70, 0.036 * tall, -0.004 * tall),
            (self.y_shoulder + 0.15 * span, 0.04 * tall * b.girth**0.5, 0.034 * tall, 0.0),
        ]
        levels = np.empty((len(rows), 5))
        for i, (y, wide, deep, forward) in enumerate(rows):
            along = (y - self.y_hip) / span
            more = b.belly * np.exp(-(((along - b.belly_height) / 0.24) ** 2))
            more += b.bust * np.exp(-(((along - 0.66) / 0.13) ** 2))
            x, _, z = self._spine(y)
            levels[i] = (x, y, z + forward + more / 2, wide + 0.25 * more, deep + more / 2)
        return levels

    def _join_legs(self, pose: Pose) -> None:
        tall = self.build.height
        long = (self.y_hip - 0.045 * tall) * 0.5
        self.hip, self.knee, self.ankle = {}, {}, {}
        for side in SIDES:
            self.hip[side] = vector(side * 0.5 * self.build.hips * tall + self._shift, self.y_hip, 0.0)
            ahead = side * pose.stride * 0.17 * tall
            lift = 0.05 * tall * max(0.0, -side * pose.stride) * (abs(pose.stride) > 0.3)
            foot = vector(side * pose.stance * tall, 0.045 * tall + lift, ahead)
            self.knee[side], self.ankle[side] = _two_bones(
                self.hip[side], foot, long * 1.01, long * 1.01, vector(side * 0.12, 0.0, 1.0)
            )

    def _join_arms(self, pose: Pose) -> None:
        tall = self.build.height
        upper, lower = 0.165 * tall, 0.155 * tall
        self.shoulder, self.elbow, self.wrist = {}, {}, {}
        for side, place in zip(SIDES, pose.arms, strict=True):
            spine = self._spine(self.y_shoulder - 0.02 * tall)
            at = spine + vector(side * self.build.shoulders * tall * 0.88, 0.0, 0.0)
            target, pole = self._place(place, side, at, pose)
            self.shoulder[side] = at
            self.elbow[side], self.wrist[side] = _two_bones(at, target, upper, lower, pole)

    def _place(self, place: str, side: int, shoulder: Vector, pose: Pose) -> tuple[Vector, Vector]:
        """Where a hand goes, and to which side its elbow points."""
        tall = self.build.height
        middle = self._spine(self.y_chest)
        deep = self.trunk.at(self.y_waist)[4] + 0.02
        # place -> (sideways, up, forward) shares of the height from the chest's middle, elbow
        table = {
            "phone": (0.045, -0.01, 0.19, (0.6, -0.9, -0.3)),
            "phone_low": (0.05, -0.10, 0.19, (0.6, -0.7, -0.5)),
            "hold": (0.05, -0.075, 0.09 + deep / tall, (0.9, -0.6, -0.2)),
            "support": (0.03, -0.14, 0.06 + deep / tall, (1.0, -0.5, -0.3)),
            "carry": (0.10, -0.12, 0.09 + deep / tall, (0.9, -0.6, -0.4)),
            "ear": (0.075, 0.16, 0.05, (1.0, -0.6, 0.2)),
            "crook": (0.10, -0.07, 0.14, (0.6, -1.0, -0.4)),
            "cup": (0.08, 0.02, 0.15, (0.7, -0.9, -0.2)),
            "watch": (0.0, -0.03, 0.16, (1.0, -0.5, 0.0)),
            "crossed": (-0.05, -0.04, 0.06 + deep / tall, (1.0, -0.6, 0.1)),
            "pocket": (0.11, -0.235, 0.05, (0.8, 0.1, -0.8)),
            "hips": (0.10, -0.17, 0.02, (1.0, 0.1, -0.4)),
            "back": (0.02, -0.21, -0.05 - deep / tall, (1.0, 0.0, -0.6)),
            "rail": (0.20, -0.13, 0.06, (0.7, -0.3, -0.7)),
            "strap": (0.075, 0.055, 0.085, (0.9, -0.8, 0.1)),
        }
        if place == "hang":
            ahead = -side * pose.swing * 0.11 * tall + 0.02 * tall
            return shoulder + vector(side * 0.035 * tall, -0.31 * tall, ahead), vector(side * 0.6, 0.0, -0.8)
        x, up, forward, (ex, ey, ez) = table[place]
        return middle + vector(side * x, up, forward) * tall, vector(side * ex, ey, ez)


def _turned(look: float, bow: float) -> Points:
    """float64[3, 3]: axes of a head that is turned, then bowed, as rows."""
    sl, cl, sb, cb = sin(look), cos(look), sin(bow), cos(bow)
    return np.array([[cl, 0.0, -sl], [sl * sb, cb, cl * sb], [sl * cb, -sb, cl * cb]])


def _two_bones(start: Vector, target: Vector, upper: float, lower: float, pole: Vector) -> tuple[Vector, Vector]:
    """Middle and end of two bones of given lengths that reach for a target, the middle pointing to `pole`."""
    way = target - start
    reach = float(np.sqrt(way @ way)) or 1e-6
    along = way / reach
    reach = min(max(reach, abs(upper - lower) + 1e-3), (upper + lower) * 0.999)
    foot = (upper * upper - lower * lower + reach * reach) / (2 * reach)
    across = pole - along * (pole @ along)
    across = across / (float(np.sqrt(across @ across)) or 1.0)
    out = max(upper * upper - foot * foot, 0.0) ** 0.5
    return start + along * foot + across * out, start + along * reach
