from __future__ import annotations

from dataclasses import replace
from math import hypot, radians, tan
from typing import Any

import cv2
import numpy as np
import pytest

from graftsdk.errors import InputError, ShapeError
from graftsdk.training.synthetic import DrawnScene, draw_scene
from graftsdk.training.synthetic.attributes import sample_persona
from graftsdk.training.synthetic.cabin import sample_cabin
from graftsdk.training.synthetic.camera import Camera
from graftsdk.training.synthetic.canvas import Canvas, Material
from graftsdk.training.synthetic.figure import Figure, vector
from graftsdk.training.synthetic.person import draw_person
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import SIDES, Build, Pose, Puppet
from graftsdk.training.synthetic.sensor import expose

CAMERA = Camera((0.0, 2.3, -3.0), 0.0, 0.4, 240.0, (240, 160))


@pytest.fixture(scope="module")
def scenes() -> list[DrawnScene]:
    return [draw_scene(0, index, (180, 320)) for index in range(60)]


def person_on(image: np.ndarray, person: Persona, camera: Camera = CAMERA) -> Canvas:
    canvas = Canvas(image)
    draw_person(canvas, camera, (0.0, 0.0), person)
    return canvas


def persona(number: int, **changes: Any) -> Persona:
    return replace(sample_persona(np.random.default_rng(number)), **changes)


# ------------------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("number", range(40))
def test_the_mask_is_every_pixel_that_the_person_covers_and_no_other(number: int) -> None:
    dark, light = np.zeros((240, 160, 3), np.uint8), np.full((240, 160, 3), 255, np.uint8)
    mask = person_on(dark, persona(number)).mask
    assert np.array_equal(mask, person_on(light, persona(number)).mask)
    assert np.array_equal((dark == light).all(2), mask == 255)
    assert set(np.unique(mask)) == {0, 255}


def test_visible_masks_are_disjoint_and_within_the_amodal_ones(scenes: list[DrawnScene]) -> None:
    for scene in scenes:
        shown = sum((person.mask.astype(int) for person in scene.persons), np.zeros(scene.image.shape[:2], int))
        assert shown.max(initial=0) <= 1
        for person in scene.persons:
            assert not (person.mask & ~person.amodal).any()
            assert person.mask.any()
            assert person.occlusion == pytest.approx(1 - person.mask.sum() / person.amodal.sum())


def test_only_who_is_nearer_hides(scenes: list[DrawnScene]) -> None:
    for scene in scenes:
        for far, person in enumerate(scene.persons):
            hidden = person.amodal & ~person.mask
            assert not any((hidden & other.mask).any() for other in scene.persons[:far])


def test_a_box_is_tight_and_half_open(scenes: list[DrawnScene]) -> None:
    for person in (person for scene in scenes for person in scene.persons):
        x1, y1, x2, y2 = person.box
        assert person.mask[y1:y2, x1:x2].sum() == person.mask.sum()
        sides = person.mask[y1, x1:x2], person.mask[y2 - 1, x1:x2], person.mask[y1:y2, x1], person.mask[y1:y2, x2 - 1]
        assert all(side.any() for side in sides)


def test_the_picture_shows_the_people_where_their_masks_are() -> None:
    """Without people the same place looks the same outside of the masks and the shadows around their feet."""
    size = (240, 160)
    place = np.full((*size, 3), 90, np.uint8)
    with_person = place.copy()
    mask = person_on(with_person, persona(3)).mask > 0
    one, other = expose(np.random.default_rng(5), place), expose(np.random.default_rng(5), with_person)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((11, 11))) > 0
    assert np.array_equal(one[~near], other[~near])
    assert (one != other).any(2)[cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0].mean() > 0.9


# ------------------------------------------------------------------------------------------------- the series as such


def test_occlusion_has_all_degrees_and_mostly_none(scenes: list[DrawnScene]) -> None:
    found = np.array([person.occlusion for scene in scenes for person in scene.persons])
    assert 0.35 < (found == 0).mean() < 0.8
    assert (found > 0.2).mean() > 0.12
    assert (found > 0.6).any()
    assert found.max() < 1


def test_people_places_and_cuts_vary(scenes: list[DrawnScene]) -> None:
    counts = [len(scene.persons) for scene in scenes]
    assert {0, 1, 2, 3, 4} <= set(counts) <= {0, 1, 2, 3, 4, 5}
    assert 0.2 < np.mean([scene.place == "elsewhere" for scene in scenes]) < 0.47
    persons = [person for scene in scenes for person in scene.persons]
    cut = [p.mask[0].any() or p.mask[-1].any() or p.mask[:, 0].any() or p.mask[:, -1].any() for p in persons]
    assert 0.1 < np.mean(cut) < 0.7
    assert {scene.quality for scene in scenes} <= set(range(40, 91))
    assert len({scene.quality for scene in scenes}) > 10
    light = [scene.image.mean() for scene in scenes]
    assert max(light) - min(light) > 80


def test_a_scene_depends_on_its_seed_and_number_alone() -> None:
    again = draw_scene(4, 11, (120, 200))
    draw_scene(4, 12, (200, 120))
    same = draw_scene(4, 11, (120, 200))
    assert np.array_equal(again.image, same.image)
    assert [p.attributes for p in again.persons] == [p.attributes for p in same.persons]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(again.persons, same.persons, strict=True))
    for other in (draw_scene(5, 11, (120, 200)), draw_scene(4, 12, (120, 200))):
        assert not np.array_equal(again.image, other.image)


@pytest.mark.parametrize("size", [(64, 64), (65, 1300), (1300, 67), (101, 203)])
def test_sizes(size: tuple[int, int]) -> None:
    scene = draw_scene(1, 3, size)
    assert scene.image.shape == (*size, 3)
    assert scene.image.dtype == np.uint8
    assert all(person.mask.shape == person.amodal.shape == size for person in scene.persons)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((-1, 0), InputError, "seed: expected an integer from 0"),
        ((0, -1), InputError, "index: expected an integer from 0"),
        ((0, 1.5), InputError, "index: expected an integer from 0"),
        ((True, 0), InputError, "seed: expected an integer from 0"),
        ((0, 0, (63, 640)), ShapeError, "size: expected (height, width), each 64 to 1300 pixels"),
        ((0, 0, (360, 1301)), ShapeError, "size: expected"),
        ((0, 0, (360,)), ShapeError, "size: expected"),
        ((0, 0, 360), ShapeError, "size: expected"),
        ((0, 0, (360.0, 640)), ShapeError, "size: expected"),
    ],
)
def test_refusals(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        draw_scene(*arguments)
    assert text in str(raised.value)


# ------------------------------------------------------------------------------------------------------------- bodies


def sided(number: int, turn: float, side: int, pose: Pose) -> Persona:
    return persona(number, turn=turn, side=side, pose=pose)


@pytest.mark.parametrize("turn", [0.0, 0.8, 1.6, 2.4, np.pi])
@pytest.mark.parametrize("number", [0, 4, 9])
def test_a_mirrored_person_has_the_mirrored_mask(number: int, turn: float) -> None:
    """Camera on the axis, pose and turn mirrored: the masks are each other's mirror images, to a pixel's rounding."""
    pose = Pose(("hang", "phone"), stride=0.4, lean=0.05, look=0.3, swing=0.3, shift=0.01)
    other = Pose(("phone", "hang"), stride=-0.4, lean=-0.05, look=-0.3, swing=-0.3, shift=-0.01)
    one = person_on(np.zeros((240, 160, 3), np.uint8), sided(number, turn, 1, pose)).mask
    two = person_on(np.zeros((240, 160, 3), np.uint8), sided(number, -turn, -1, other)).mask
    two = np.roll(two[:, ::-1], 1, 1)  # the camera's axis runs through the middle of pixel 80 of 160
    assert (one & two).astype(bool).sum() / (one | two).astype(bool).sum() > 0.96


def test_front_back_and_profile_differ() -> None:
    bare = persona(2, hat="", hair_style="short", things=(), pose=Pose())
    skins = {}
    for name, turn in (("front", 0.0), ("profile", np.pi / 2), ("back", np.pi)):
        image = np.zeros((240, 160, 3), np.uint8)
        green = replace(bare, turn=turn, skin=Material((0, 250, 0), low=0.9), sleeves="long", bottom="trousers")
        mask = person_on(image, green).mask
        skins[name] = ((image[..., 1] > 200) & (image[..., 0] < 30)).sum(), np.ptp(np.flatnonzero(mask.any(0)))
    assert skins["front"][0] > skins["profile"][0] > skins["back"][0]
    assert skins["front"][1] > 1.15 * skins["profile"][1]


def joints(build: Build, pose: Pose) -> Puppet:
    return Puppet(build, pose, vector(0.0, 0.0, 1.0))


@pytest.mark.parametrize(
    "place", ["hang", "phone", "hold", "carry", "ear", "crossed", "pocket", "back", "rail", "watch"]
)
@pytest.mark.parametrize("heads", [4.2, 7.5])
def test_bones_keep_their_lengths_in_every_pose(place: str, heads: float) -> None:
    tall = 0.24 * heads
    body = joints(Build(tall, heads), Pose((place, place), stride=0.9, lean=0.1, bend=0.2))
    for side in SIDES:
        bones = [
            (body.shoulder[side], body.elbow[side], 0.165 * tall),
            (body.elbow[side], body.wrist[side], 0.155 * tall),
        ]
        for one, other, length in bones:
            assert np.linalg.norm(one - other) == pytest.approx(length, rel=1e-6)
        thigh, shin = body.knee[side] - body.hip[side], body.ankle[side] - body.knee[side]
        assert np.linalg.norm(thigh) == pytest.approx(np.linalg.norm(shin), rel=1e-6)


def test_a_child_is_told_by_its_proportions() -> None:
    child, adult = joints(Build(1.1, 4.4), Pose()), joints(Build(1.75, 7.3), Pose())
    assert child.head_radii[1] / 1.1 > 1.5 * adult.head_radii[1] / 1.75
    assert child.y_hip / 1.1 < adult.y_hip / 1.75


# ------------------------------------------------------------------------------------------------------------- camera


def test_the_camera_projects_as_the_pinhole_formula_says() -> None:
    camera = Camera((1.0, 2.0, 3.0), radians(30), radians(20), 300.0, (100, 200))
    forward = np.array(
        (np.sin(radians(30)) * np.cos(radians(20)), -np.sin(radians(20)), np.cos(radians(30)) * np.cos(radians(20)))
    )
    ahead = np.array([np.array(camera.position) + 4 * forward])
    assert camera.project(camera.view(ahead)) == pytest.approx(np.array([[100.0, 50.0]]))
    level = Camera((0.0, 1.0, 0.0), 0.0, 0.0, 300.0, (100, 200))
    seen = level.project(level.view(np.array([[0.5, 1.5, 3.0]])))
    assert seen == pytest.approx(np.array([[100 + 300 * 0.5 / 3, 50 - 300 * 0.5 / 3]]))
    assert camera.axes() @ camera.axes().T == pytest.approx(np.eye(3), abs=1e-12)


def test_lift_cameras_hang_in_an_upper_corner_and_look_down() -> None:
    for number in range(50):
        cabin = sample_cabin(np.random.default_rng(number), (360, 640))
        camera = cabin.camera
        assert radians(20) <= camera.pitch <= radians(45)
        assert cabin.high - camera.position[1] < 0.25
        assert min(camera.position[0], cabin.wide - camera.position[0]) < 0.35
        assert 2 * camera.focal * tan(radians(112) / 2) >= 640 - 1e-6


def test_a_figures_outline_is_the_ball_that_it_draws() -> None:
    camera = Camera((0.0, 1.0, -4.0), 0.0, 0.0, 400.0, (200, 200))
    figure = Figure(camera, (0.0, 0.0), 0.7, 1.0)
    figure.ellipsoid(vector(0.0, 1.0, 0.0), vector(0.4, 0.4, 0.4), Material((9, 9, 9)), 0.0)
    canvas = Canvas(np.zeros((200, 200, 3), np.uint8))
    figure.paint(canvas)
    rows, columns = np.nonzero(canvas.mask)
    radius = 400 * 0.4 / 4
    assert (rows.mean(), columns.mean()) == pytest.approx((100, 100), abs=1)
    assert len(rows) == pytest.approx(np.pi * radius**2, rel=0.08)
    assert max(hypot(r - 100, c - 100) for r, c in zip(rows, columns, strict=True)) < radius + 2
