"""A stream with tracks against one that computes everything on each frame: what is saved, what is lost, what flickers.

Draws clips of people who stand and turn in a lift, walk along a street or come nearer, and runs the demo plan over them
(five labels, and the segmenter that finds the people). Who is who is known from the drawing (a person found belongs to
the drawn one whose mask overlaps by half or more), and in one case said by ByteTrack. All cases take turns frame by
frame, in one thread, so that a noisy minute hits all of them.

    python benchmarks/tracks.py [--clips 6] [--frames 40]

Of each case: mean milliseconds a frame after the persons were found (crops, engine, and ByteTrack where it runs), crops
and answers (crops times labels) that were computed, decisions (frame, person, label) that differ from computing
everything, and that are not true, flips (a decision that differs from the frame before, in 1000), and events.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import hypot, pi, sin
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH the folder of the script is not on the path
sys.path.insert(1, str(Path(__file__).parents[1] / "examples"))

from held_out import truths
from measure import machine

from graftsdk import Prediction, Predictor
from graftsdk.tracking import Look, Tracking
from graftsdk.training.synthetic import DrawnPerson
from graftsdk.training.synthetic.attributes import sample_persona
from graftsdk.training.synthetic.cabin import draw_cabin, sample_cabin
from graftsdk.training.synthetic.canvas import Canvas
from graftsdk.training.synthetic.outdoors import draw_outdoors, sample_view
from graftsdk.training.synthetic.person import draw_person
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.sensor import expose

ROOT = Path(__file__).parents[1]
SEED = 2030  # nothing was trained on it
SIZE = (360, 640)
RATE = 10  # frames a second
GRAIN = 2.5  # of the sensor, anew in each frame


@dataclass
class Clip:
    """A video and who is where: of each frame, person -> mask."""

    path: Path
    masks: list[dict[int, np.ndarray]] = field(default_factory=list)
    truth: dict[int, dict[str, str | None]] = field(default_factory=dict)


def draw_clip(folder: Path, index: int, frames: int) -> Clip:
    rng = np.random.default_rng([SEED, index])
    street = index % 2 == 1
    people = [sample_persona(rng) for _ in range(int(rng.integers(2, 5)))]
    if street:
        camera, (near, far) = sample_view(rng, SIZE)
        empty = draw_outdoors(rng, camera)
    else:
        cabin = sample_cabin(rng, SIZE)
        camera, empty = cabin.camera, draw_cabin(rng, cabin)
        near, far = 0.6, cabin.deep - 0.3
    light = (float(rng.uniform(-1, 1)), -0.5)
    tones = int(rng.integers(1 << 30))
    moves = [_move(rng, street, camera, near, far, frames) for _ in people] if street else [
        _stand(rng, cabin.wide, near, far) for _ in people
    ]  # fmt: skip
    clip = Clip(folder / f"{index}.avi")
    drawn = [DrawnPerson((0, 0, 1, 1), np.empty(0), np.empty(0), 0.0, person.labels) for person in people]
    clip.truth = dict(enumerate(truths(drawn)))
    writer = cv2.VideoWriter(str(clip.path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, SIZE[::-1])
    for frame in range(frames):
        image, owner = empty.copy(), np.full(SIZE, -1, np.int16)
        now = [move(person, frame) for person, move in zip(people, moves, strict=True)]
        eye = camera.position
        for number in sorted(range(len(now)), key=lambda i: -hypot(now[i][1][0] - eye[0], now[i][1][1] - eye[2])):
            person, place = now[number]
            canvas = Canvas(image, light)
            draw_person(canvas, camera, place, person)
            owner[canvas.mask > 0] = number
        image = expose(np.random.default_rng(tones), image)
        grain = np.random.default_rng([tones, frame]).normal(0, GRAIN, image.shape)
        writer.write(np.clip(image + grain, 0, 255).astype(np.uint8))
        clip.masks.append({number: owner == number for number in range(len(now)) if (owner == number).any()})
    writer.release()
    return clip


Move = Callable[[Persona, int], tuple[Persona, tuple[float, float]]]


def _stand(rng: np.random.Generator, wide: float, near: float, far: float) -> Move:
    """On the spot, shifting a little and turning slowly."""
    x, z, phase = rng.uniform(0.3, wide - 0.3), rng.uniform(near, far), rng.uniform(0, 2 * pi)
    speed = rng.uniform(-0.06, 0.06)  # radians a frame

    def move(person: Persona, frame: int) -> tuple[Persona, tuple[float, float]]:
        sway = 0.04 * sin(0.2 * frame + phase)
        return replace(person, turn=person.turn + speed * frame), (x + sway, z)

    return move


def _move(rng: np.random.Generator, street: bool, camera: Any, near: float, far: float, frames: int) -> Move:
    """Along the street, or towards the camera; 1 to 1.5 metres a second."""
    pace, phase = rng.uniform(0.1, 0.15), rng.uniform(0, 2 * pi)
    reach = 0.45 * SIZE[1] / camera.focal
    z = rng.uniform(near + 1, far)
    nearer = rng.random() < 0.4
    side = 1 if rng.random() < 0.5 else -1
    start = rng.uniform(-1, 0.2)

    def move(person: Persona, frame: int) -> tuple[Persona, tuple[float, float]]:
        pose = replace(person.pose, stride=0.6 * sin(1.1 * frame + phase))
        if nearer:
            share = frame / max(frames - 1, 1)
            depth = far + 1 - share * min(pace * frames, far + 1 - near)
            return replace(person, pose=pose, turn=0.2 * sin(phase)), (0.6 * start * reach * depth, depth)
        x = side * (start * reach * z + 0.6 * pace * frame)
        return replace(person, pose=pose, turn=side * pi / 2 * 0.9), (x, z)

    return move


class Truth:
    """A tracker that knows: the drawn person whose mask the box fits; one for each frame, in order."""

    def __init__(self, clip: Clip) -> None:
        self._frames = iter(clip.masks)

    def __call__(self, boxes: np.ndarray, scores: np.ndarray, frame: np.ndarray) -> np.ndarray:
        return match(boxes, next(self._frames))


def match(boxes: np.ndarray, masks: dict[int, np.ndarray]) -> np.ndarray:
    """int[N]: the drawn person of each box, best pairs first, at an IoU of half or more; else -1."""
    pairs = []
    for number, mask in masks.items():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        true = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
        for row, box in enumerate(boxes):
            wide = min(box[2], true[2]) - max(box[0], true[0])
            high = min(box[3], true[3]) - max(box[1], true[1])
            both = max(wide, 0) * max(high, 0)
            union = (box[2] - box[0]) * (box[3] - box[1]) + (true[2] - true[0]) * (true[3] - true[1]) - both
            pairs.append((both / union, row, number))
    ids = np.full(len(boxes), -1)
    for share, row, number in sorted(pairs, reverse=True):
        if share >= 0.5 and ids[row] < 0 and number not in ids:
            ids[row] = number
    return ids


@dataclass
class Case:
    """One way of going through the clips, and what was counted."""

    name: str
    layout: str
    every: dict[str, int]
    tracking: Tracking
    byte_track: bool = False
    spent: list[float] = field(default_factory=list)
    crops: int = 0
    answers: int = 0
    decisions: dict[tuple[int, int, int, str], str] = field(default_factory=dict)  # clip, frame, person, label
    events: int = 0
    changes: int = 0


def count_work(case: Case) -> Callable[..., Any]:
    """Notes what of a frame is scored."""

    def counted(look: Look, persons: Sequence[int], labels: tuple[str, ...]) -> Any:
        case.crops += len(persons)
        case.answers += len(persons) * len(labels)
        return _score(look, persons, labels)

    return counted


_score = Look.score


def run(clip: Clip, index: int, cases: Sequence[Case], predictors: dict[str, Predictor]) -> None:
    with ExitStack() as stack:
        streams = []
        for case in cases:
            track = "supervision" if case.byte_track else Truth(clip)
            stream = predictors[case.layout].stream(clip.path, track=track, every=case.every, tracking=case.tracking)
            streams.append(stack.enter_context(stream))
        for frame, masks in enumerate(clip.masks):
            for case, stream in zip(cases, streams, strict=True):
                Look.score = count_work(case)  # type: ignore[method-assign]
                prediction = next(stream)
                timings = prediction.timings
                case.spent.append(timings["crop"] + timings["engine"] + (timings["track"] if case.byte_track else 0))
                note(case, prediction, masks, index, frame)
                case.events += len(stream.events)
                case.changes += sum(event.before is not None for event in stream.events)


def note(case: Case, prediction: Prediction, masks: dict[int, np.ndarray], clip: int, frame: int) -> None:
    boxes = np.array([person.box for person in prediction]).reshape(-1, 4)
    for person, number in zip(prediction, match(boxes, masks), strict=True):
        for attribute in person if number >= 0 else ():
            case.decisions[clip, frame, int(number), attribute.label] = attribute.name


def flips(case: Case) -> tuple[int, int]:
    """Decisions that differ from those of the same person in the frame before, of how many."""
    pairs = [
        (name, case.decisions[before])
        for (clip, frame, person, label), name in case.decisions.items()
        if (before := (clip, frame - 1, person, label)) in case.decisions
    ]
    return sum(one != other for one, other in pairs), len(pairs)


def report(cases: Sequence[Case], clips: Sequence[Clip], frames: int) -> None:
    base = cases[0]
    print(f"{len(clips)} clips of {frames} frames, {base.crops} persons found, {len(base.decisions)} decisions")
    print("| case | ms/frame | crops | answers | unlike all | not true | flips in 1000 | events (changes) |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in cases:
        known = {key: name for key, name in case.decisions.items() if clips[key[0]].truth[key[2]].get(key[3])}
        wrong = sum(clips[clip].truth[person][label] != name for (clip, _, person, label), name in known.items())
        unlike = sum(base.decisions[key] != name for key, name in case.decisions.items())
        turned, pairs = flips(case)
        print(
            f"| {case.name} | {np.mean(case.spent):.1f} | {case.crops} | {case.answers} "
            f"| {unlike / len(case.decisions):.1%} | {wrong / len(known):.1%} | {1000 * turned / pairs:.1f} "
            f"| {case.events} ({case.changes}) |"
        )
    by_label: dict[str, list[bool]] = defaultdict(list)
    for (clip, _, person, label), name in base.decisions.items():
        if clips[clip].truth[person].get(label):
            by_label[label].append(clips[clip].truth[person][label] != name)
    print("not true, of each label, everything computed:", {k: f"{np.mean(v):.1%}" for k, v in by_label.items()})


def all_cases(labels: Sequence[str]) -> Iterator[Case]:
    newest, voted, patient = Tracking(memory=0), Tracking(), Tracking(turned=float("inf"), grown=float("inf"))
    yield Case("everything, newest answer", "split", {}, newest)
    yield Case("everything, voted", "split", {}, voted)
    for frames in (5, 10, 30):
        yield Case(f"every {frames}, newest answer", "split", dict.fromkeys(labels, frames), newest)
        yield Case(f"every {frames}, voted", "split", dict.fromkeys(labels, frames), voted)
    yield Case("every 30, voted, never early", "split", dict.fromkeys(labels, 30), patient)
    mixed = dict.fromkeys(labels[1:], 30) | {labels[0]: 3}
    yield Case("one label every 3, others 30, split", "split", mixed, voted)
    yield Case("one label every 3, others 30, merged", "merged", mixed, voted)
    yield Case("every 10, voted, ByteTrack", "split", dict.fromkeys(labels, 10), voted, byte_track=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        clips = [draw_clip(Path(folder), index, options.frames) for index in range(options.clips)]
        predictors = {
            layout: stack.enter_context(Predictor(ROOT / "examples" / "demo.plan", layout=layout, threads=1))
            for layout in ("split", "merged")
        }
        cases = list(all_cases(predictors["split"].labels))
        stack.callback(setattr, Look, "score", _score)
        for index, clip in enumerate(clips):
            run(clip, index, cases, predictors)
        print(machine())
        report(cases, clips, options.frames)


if __name__ == "__main__":
    main()
