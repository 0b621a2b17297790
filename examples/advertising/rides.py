"""Drawn rides: the same lift every two seconds, people come in, stand about and go. Nobody's photograph is needed."""

from __future__ import annotations

from dataclasses import replace
from math import hypot, sin

import cv2
import numpy as np

from graftsdk.training.synthetic.attributes import sample_persona
from graftsdk.training.synthetic.cabin import draw_cabin, sample_cabin
from graftsdk.training.synthetic.canvas import Canvas
from graftsdk.training.synthetic.person import draw_person
from graftsdk.training.synthetic.sensor import expose

SIZE = (360, 640)
SEED = 2031  # nothing was trained on it
SNAPSHOTS = 14  # of a ride, with the empty lift at its ends
GRAIN = 2.5  # of the sensor, anew in each snapshot


def draw_ride(index: int) -> list[bytes]:
    """JPEGs: an empty lift, then one to three passengers for some snapshots each, then the empty lift again."""
    rng = np.random.default_rng([SEED, index])
    cabin = sample_cabin(rng, SIZE)
    camera, empty = cabin.camera, draw_cabin(rng, cabin)
    light, tones = (float(rng.uniform(-1, 1)), -0.5), int(rng.integers(1 << 30))
    riders = []
    for place in rng.permutation(3)[: int(rng.integers(1, 4))]:  # side by side: they do not stand in each other
        comes = int(rng.integers(1, 4))
        goes = int(rng.integers(comes + 5, SNAPSHOTS))
        x = cabin.wide * (0.22 + 0.28 * place) + rng.uniform(-0.06, 0.06)
        z = rng.uniform(0.9, max(1.0, cabin.deep - 0.3))
        riders.append((comes, goes, float(x), float(z), rng.uniform(-0.1, 0.1), sample_persona(rng)))
    eye = camera.position
    riders.sort(key=lambda rider: -hypot(rider[2] - eye[0], rider[3] - eye[2]))  # far ones first
    return [_snapshot(empty, camera, light, riders, tones, at) for at in range(SNAPSHOTS)]


def _snapshot(empty: np.ndarray, camera, light, riders, tones: int, at: int) -> bytes:
    image = empty.copy()
    for comes, goes, x, z, turning, person in riders:
        if comes <= at < goes:
            canvas = Canvas(image, light)
            sway = 0.03 * sin(1.3 * at + 7 * x)
            draw_person(canvas, camera, (x + sway, z), replace(person, turn=person.turn + turning * (at - comes)))
    image = expose(np.random.default_rng(tones), image)  # the same light and lens in all snapshots
    image = np.clip(image + np.random.default_rng([tones, at]).normal(0, GRAIN, image.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
