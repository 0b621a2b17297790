"""A drawn scene: a place, people and things in it from far to near, then the camera's picture of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number
from graftsdk.errors import ShapeError
from graftsdk.training.synthetic.attributes import sample_persona
from graftsdk.training.synthetic.cabin import draw_cabin, sample_cabin
from graftsdk.training.synthetic.camera import Camera
from graftsdk.training.synthetic.canvas import Canvas
from graftsdk.training.synthetic.clutter import draw_thing
from graftsdk.training.synthetic.draws import pick
from graftsdk.training.synthetic.mirror import draw_mirror
from graftsdk.training.synthetic.outdoors import draw_outdoors, sample_view
from graftsdk.training.synthetic.person import draw_person
from graftsdk.training.synthetic.persona import Persona, Value
from graftsdk.training.synthetic.sensor import expose, shade_floor

__all__ = ["DrawnPerson", "DrawnScene", "check_size", "draw_scene"]

LEAST_SIDE, MOST_SIDE = 64, 1300  # pixels; the noise that pictures are cut from is not larger
_ELSEWHERE = 1 / 3  # of the scenes are no lifts
_MIRRORS = 0.2  # of the lifts have one
_COUNTS = {0: 0.04, 1: 0.21, 2: 0.25, 3: 0.22, 4: 0.16, 5: 0.12}  # people in a scene


@dataclass(frozen=True)
class DrawnPerson:
    """A person of a scene.

    Attributes:
        box: x1, y1, x2, y2 around the visible pixels, half-open.
        mask: bool[H, W], the visible pixels, with what is carried.
        amodal: bool[H, W], what would be visible if nothing stood before.
        occlusion: share of `amodal` that is hidden, 0 to 1.
        attributes: labels, look-alikes, and how the person stands.
    """

    box: tuple[int, int, int, int]
    mask: npt.NDArray[np.bool_]
    amodal: npt.NDArray[np.bool_]
    occlusion: float
    attributes: dict[str, Value]


@dataclass(frozen=True)
class DrawnScene:
    """A picture and who is in it.

    Attributes:
        image: uint8[H, W, 3], BGR, before it is stored.
        persons: those of whom at least a pixel is visible, from far to near.
        quality: of the JPEG that the scene's camera stores, 40 to 90.
        place: "lift" or "elsewhere".
    """

    image: npt.NDArray[np.uint8]
    persons: tuple[DrawnPerson, ...]
    quality: int
    place: str


def draw_scene(seed: int, index: int, size: tuple[int, int] = (360, 640)) -> DrawnScene:
    """Scene `index` of a series: the same picture for the same arguments, whatever was drawn before.

    Args:
        seed: of the series, from 0.
        index: in the series, from 0.
        size: (height, width) in pixels, 64 to 1300 each.

    Raises:
        InputError: a seed or index that is no whole number from 0.
        ShapeError: another size.
    """
    seed, index = whole_number("seed", seed, 0, 2**63 - 1), whole_number("index", index, 0, 2**63 - 1)
    height, width = check_size(size)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    elsewhere = rng.random() < _ELSEWHERE
    count = pick(rng, _COUNTS)
    if elsewhere:
        camera, (near, far) = sample_view(rng, (height, width))
        image = draw_outdoors(rng, camera)
        places = [_spot_on_street(rng, camera, near, far) for _ in range(count + int(rng.integers(0, 3)))]
        people = {i: sample_persona(rng) for i in range(count)}
    else:
        cabin = sample_cabin(rng, (height, width))
        camera = cabin.camera
        image = draw_cabin(rng, cabin)
        places = _spots_in_cabin(rng, cabin.wide, cabin.deep, camera, count + int(rng.random() < 0.2))
        people = {i: sample_persona(rng) for i in range(min(count, len(places)))}
        if rng.random() < _MIRRORS:
            draw_mirror(rng, image, cabin, [(places[i], person) for i, person in people.items()])
    owner, amodal, labels = _draw_all(rng, image, camera, places, people)
    persons = tuple(
        person
        for i, (whole, told) in enumerate(zip(amodal, labels, strict=True))
        if (person := _seen(owner == i + 1, whole, told)) is not None
    )
    picture = expose(rng, image)
    return DrawnScene(picture, persons, int(rng.integers(40, 91)), "elsewhere" if elsewhere else "lift")


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width), where scenes can have it.

    Raises:
        ShapeError: anything else.
    """
    wrong = ShapeError(f"size: expected (height, width), each {LEAST_SIDE} to {MOST_SIDE} pixels, found {size!r:.80}")
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise wrong
    try:
        height, width = (whole_number("size", side, LEAST_SIDE, MOST_SIDE) for side in size)
    except ValueError as error:
        raise wrong from error
    return height, width


def _spot_on_street(rng: np.random.Generator, camera: Camera, near: float, far: float) -> tuple[float, float]:
    z = near + (far - near) * rng.random()
    reach = 0.56 * camera.size[1] / camera.focal
    return float(rng.uniform(-reach, reach) * z), float(z)


def _spots_in_cabin(
    rng: np.random.Generator, wide: float, deep: float, camera: Camera, count: int
) -> list[tuple[float, float]]:
    """Places at least a shoulder apart where the cabin has room for that."""
    found: list[tuple[float, float]] = []
    eye = (camera.position[0], camera.position[2])
    for _ in range(12 * count):
        x, z = rng.uniform(0.2, wide - 0.2), rng.uniform(0.3, deep - 0.2)
        free = all(hypot(x - a, z - b) > 0.38 for a, b in found)
        if free and hypot(x - eye[0], z - eye[1]) > 0.6:
            found.append((float(x), float(z)))
        if len(found) == count:
            break
    return found


def _draw_all(
    rng: np.random.Generator,
    image: npt.NDArray[np.uint8],
    camera: Camera,
    places: list[tuple[float, float]],
    people: dict[int, Persona],
) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]], list[dict[str, Value]]]:
    """Everybody, and things at the places that nobody has, from far to near.

    Args:
        rng: decides about light and things.
        image: the empty place; changed in place.
        camera: that sees it.
        places: (x, z) metres.
        people: number of the place -> who stands there.

    Returns:
        uint8[H, W] with the number of the person (from 1) that each pixel shows, the amodal masks, the labels.
    """
    owner = np.zeros(image.shape[:2], np.uint8)
    amodal: list[npt.NDArray[np.bool_]] = []
    labels: list[dict[str, Value]] = []
    light = (float(rng.uniform(-1, 1)), float(rng.uniform(-1, 0.2)))
    shadow = rng.uniform(0, 0.55)
    eye_x, _, eye_z = camera.position
    order = sorted(range(len(places)), key=lambda i: -hypot(places[i][0] - eye_x, places[i][1] - eye_z))
    if shadow > 0.1:
        for i in order:
            _shadow(image, camera, places[i], shadow)
    for i in order:
        canvas = Canvas(image, light)
        person = people.get(i)
        if person is None:
            draw_thing(rng, canvas, camera, places[i])
            owner[canvas.mask > 0] = 0
            continue
        draw_person(canvas, camera, places[i], person)
        shape = canvas.mask > 0
        amodal.append(shape)
        labels.append(person.labels)
        owner[shape] = len(amodal)
    return owner, amodal, labels


def _shadow(image: npt.NDArray[np.uint8], camera: Camera, place: tuple[float, float], strength: float) -> None:
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([place[0] + 0.3 * np.cos(turns), np.zeros(16), place[1] + 0.22 * np.sin(turns)], 1)
    seen = camera.view(ring)
    if seen[:, 2].min() > 0.3:
        shade_floor(image, np.clip(camera.project(seen), -2000, 4000), strength)


def _seen(mask: npt.NDArray[np.bool_], amodal: npt.NDArray[np.bool_], labels: dict[str, Value]) -> DrawnPerson | None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    occlusion = 1.0 - np.count_nonzero(mask) / np.count_nonzero(amodal)
    return DrawnPerson(box, mask, amodal, float(occlusion), labels)
