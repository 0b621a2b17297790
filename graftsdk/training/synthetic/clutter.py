"""Things that stand around and hide people: suitcases, plants, posts, boxes, trolleys."""

from __future__ import annotations

import numpy as np

from graftsdk.training.synthetic.boxes import add_box
from graftsdk.training.synthetic.camera import Camera
from graftsdk.training.synthetic.canvas import Canvas, Material
from graftsdk.training.synthetic.draws import one_of
from graftsdk.training.synthetic.figure import Figure, vector
from graftsdk.training.synthetic.palette import cloth, hsv

__all__ = ["draw_thing"]


def draw_thing(rng: np.random.Generator, canvas: Canvas, camera: Camera, position: tuple[float, float]) -> None:
    """Paint one thing that nobody carries at (x, z) metres of the floor."""
    figure = Figure(camera, position, rng.uniform(-3.1, 3.1), 1.0)
    kind = one_of(rng, ("suitcase", "plant", "post", "box", "trolley"))
    surface = cloth(rng, kind="any")
    if kind == "suitcase":
        half = vector(rng.uniform(0.15, 0.24), rng.uniform(0.25, 0.36), rng.uniform(0.1, 0.15))
        add_box(figure, vector(0, half[1] + 0.05, 0), half, surface, 0.0)
        steel = Material((110, 110, 110))
        for x in (-0.6, 0.6):
            figure.chain(
                (vector(x * half[0], 2 * half[1], 0), vector(x * half[0], 2 * half[1] + 0.35, 0)),
                (0.01, 0.01),
                steel,
                -0.1,
            )
        top = 2 * half[1] + 0.35
        figure.chain((vector(-0.6 * half[0], top, 0), vector(0.6 * half[0], top, 0)), (0.014, 0.014), steel, -0.09)
    elif kind == "plant":
        figure.rings(np.array([(0, 0, 0, 0.12, 0.12), (0, 0.32, 0, 0.17, 0.17)]), surface, 0.0)
        leaf = Material(
            hsv(rng.uniform(0.2, 0.42), rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.8)), texture="leaves", low=0.4
        )
        for _ in range(int(rng.integers(4, 12))):
            tip = vector(rng.normal(0, 0.25), rng.uniform(0.6, 1.3), rng.normal(0, 0.25))
            figure.chain(
                (vector(0, 0.3, 0), tip * (0.7, 0.8, 0.7), tip), (0.01, rng.uniform(0.03, 0.1), 0.005), leaf, 0.01
            )
    elif kind == "post":
        radius = rng.uniform(0.02, 0.09)
        figure.chain((vector(0, 0, 0), vector(0, rng.uniform(0.8, 3.0), 0)), (radius, radius), surface, 0.0)
    elif kind == "box":
        for i in range(int(rng.integers(1, 4))):
            half = vector(*rng.uniform(0.1, 0.25, 3))
            add_box(figure, vector(0, 0.2 + 0.38 * i, 0), half, Material((95, 145, 185), texture="weave"), 0.01 * i)
    else:
        add_box(figure, vector(0, 0.55, 0), vector(0.25, 0.2, 0.4), Material((150, 150, 155), texture="brushed"), 0.0)
        for x in (-0.22, 0.22):
            for z in (-0.35, 0.35):
                figure.chain((vector(x, 0.05, z), vector(x, 0.4, z)), (0.02, 0.015), Material((80, 80, 80)), -0.1)
        figure.chain((vector(-0.25, 1.0, -0.45), vector(0.25, 1.0, -0.45)), (0.018, 0.018), surface, 0.1)
    figure.paint(canvas)
