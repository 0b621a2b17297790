"""A drawn lift scene with three passengers and their exact masks: something to predict on that anyone may ship."""

from __future__ import annotations

import cv2
import numpy as np

HEIGHT, WIDTH = 720, 960
FINE = 4  # drawn this many times larger, then shrunk: smooth edges


def lift_scene() -> tuple[np.ndarray, np.ndarray]:
    """image: uint8[720, 960, 3], BGR; masks: bool[3, 720, 960], what is visible of each passenger, back to front."""
    canvas = _cabin()
    owner = np.zeros(canvas.shape[:2], np.uint8)
    passengers = [  # centre x, feet y, height in pixels; shirt, trousers, hair as BGR
        _Passenger(330, 610, 400, (70, 90, 170), (60, 50, 45), (40, 60, 90), backpack=True),
        _Passenger(640, 630, 430, (150, 120, 60), (95, 85, 80), (30, 30, 35), bag=True),
        _Passenger(475, 665, 300, (70, 170, 210), (140, 90, 60), (50, 90, 130)),
    ]
    for number, passenger in enumerate(passengers, start=1):
        before = canvas.copy()
        passenger.draw(canvas)
        owner[(canvas != before).any(axis=2)] = number
    image = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    grain = np.random.default_rng(0).normal(0, 3, image.shape)
    image = np.clip(image + grain, 0, 255).astype(np.uint8)
    share = [
        cv2.resize((owner == number).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        for number in range(1, len(passengers) + 1)
    ]
    return image, np.stack(share) > 0.5


def _cabin() -> np.ndarray:
    height, width = HEIGHT * FINE, WIDTH * FINE
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = (168, 172, 174)
    for x in range(0, width, 160 * FINE):  # panels of brushed steel
        shade = 150 + (x // (160 * FINE)) % 2 * 14
        cv2.rectangle(canvas, (x, 0), (x + 160 * FINE, height), (shade, shade + 4, shade + 7), -1)
        cv2.line(canvas, (x, 0), (x, height), (120, 124, 126), 2 * FINE)
    floor = np.array([[0, 0.78], [1, 0.78], [1, 1], [0, 1]]) * (width, height)
    cv2.fillPoly(canvas, [floor.astype(np.int32)], (92, 98, 104))
    cv2.rectangle(canvas, (0, int(0.47 * height)), (width, int(0.485 * height)), (205, 208, 210), -1)  # handrail
    cv2.rectangle(canvas, (780 * FINE, 120 * FINE), (900 * FINE, 290 * FINE), (200, 160, 90), -1)  # a poster
    cv2.circle(canvas, (840 * FINE, 190 * FINE), 38 * FINE, (90, 200, 240), -1, cv2.LINE_AA)
    return canvas


class _Passenger:
    """A figure of capsules, its sizes as fractions of its height."""

    def __init__(
        self,
        x: int,
        feet: int,
        height: int,
        shirt: tuple[int, int, int],
        trousers: tuple[int, int, int],
        hair: tuple[int, int, int],
        *,
        backpack: bool = False,
        bag: bool = False,
    ) -> None:
        self.x, self.feet, self.height = x, feet, height
        self.shirt, self.trousers, self.hair = shirt, trousers, hair
        self.backpack, self.bag = backpack, bag

    def draw(self, canvas: np.ndarray) -> None:
        skin, shoes = (140, 170, 215), (35, 35, 40)
        dark = tuple(int(0.8 * value) for value in self.shirt)
        if self.backpack:
            self._limb(canvas, (-0.13, 0.72), (-0.13, 0.54), 0.2, (40, 110, 60))
        for side in (-1, 1):
            self._limb(canvas, (side * 0.05, 0.47), (side * 0.065, 0.04), 0.085, self.trousers)
            self._limb(canvas, (side * 0.055, 0.018), (side * 0.1, 0.018), 0.045, shoes)
            self._limb(canvas, (side * 0.115, 0.77), (side * 0.15, 0.46), 0.062, dark)
            self._limb(canvas, (side * 0.15, 0.46), (side * 0.15, 0.44), 0.05, skin)
        self._limb(canvas, (-0.055, 0.76), (-0.05, 0.47), 0.12, self.shirt)
        self._limb(canvas, (0.055, 0.76), (0.05, 0.47), 0.12, self.shirt)
        self._limb(canvas, (0, 0.84), (0, 0.8), 0.06, skin)
        self._limb(canvas, (0, 0.955), (0, 0.915), 0.115, self.hair)
        self._limb(canvas, (0, 0.915), (0, 0.885), 0.095, skin)
        if self.backpack:
            for side in (-1, 1):
                self._limb(canvas, (side * 0.075, 0.79), (side * 0.08, 0.6), 0.022, (30, 80, 45))
        if self.bag:
            self._limb(canvas, (0.1, 0.78), (-0.12, 0.5), 0.014, (40, 40, 120))
            self._limb(canvas, (-0.15, 0.46), (-0.11, 0.42), 0.11, (45, 45, 140))

    def _limb(
        self,
        canvas: np.ndarray,
        start: tuple[float, float],
        end: tuple[float, float],
        thickness: float,
        color: tuple[int, ...],
    ) -> None:
        def place(point: tuple[float, float]) -> tuple[int, int]:
            x, y = self.x + point[0] * self.height, self.feet - point[1] * self.height
            return round(x * FINE), round(y * FINE)

        cv2.line(canvas, place(start), place(end), color, max(1, round(thickness * self.height * FINE)), cv2.LINE_8)
