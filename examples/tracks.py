"""Who is seen in a video, told once: `python examples/tracks.py [PLAN] [FOLDER] [VIDEO]`.

Each person keeps a number from frame to frame, a label is computed only every so many frames, and a decision is told
when it is made and when it changes. Without a VIDEO, one is drawn: the people of the lift scene, of whom one leaves.

Who is who is said by a tracker: `track="supervision"` takes ByteTrack (`pip install trackers`). Any function of the
boxes will do, and here one does that suits people who stand: the box that begins where one began before is the same
person's. It is ten lines and no tracker: people who walk need a real one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from scene import lift_scene

from graftsdk import Predictor

FRAMES = 12
NEAR = 40  # pixels between the corners of one person's boxes


def draw_clip(path: Path) -> None:
    """Three people; in the second half the left one is gone."""
    image, masks = lift_scene()
    empty = cv2.inpaint(image, cv2.dilate(masks[0].astype(np.uint8), np.ones((9, 9))), 3, cv2.INPAINT_TELEA)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, image.shape[1::-1])
    for frame in range(FRAMES):
        writer.write(image if frame < FRAMES // 2 else empty)
    writer.release()


class StandingPeople:
    """Boxes whose corners lie near those of a person seen before get that person's number."""

    def __init__(self) -> None:
        self.corners: list[np.ndarray] = []  # of each number, the last box

    def __call__(self, boxes: np.ndarray, scores: np.ndarray, frame: np.ndarray) -> list[int]:
        ids: list[int] = []
        for box in boxes:
            far = [np.abs(box - other).max() if at not in ids else np.inf for at, other in enumerate(self.corners)]
            number = int(np.argmin(far)) if far and min(far) < NEAR else len(self.corners)
            self.corners[number : number + 1] = [box]
            ids.append(number)
        return ids


plan = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("demo.plan")
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "out")
folder.mkdir(parents=True, exist_ok=True)
if len(sys.argv) > 3:
    video, track = Path(sys.argv[3]), "supervision"
else:
    video, track = folder / "people.mp4", StandingPeople()
    draw_clip(video)

with Predictor(plan, layout="split") as predictor:
    every = dict.fromkeys(predictor.labels, 30)  # frames
    with predictor.stream(video, track=track, every=every) as stream:
        for prediction in stream:
            for event in stream.events:
                changed = "" if event.before is None else f", {event.before} before"
                print(f"frame {event.frame}: person {event.track}: {event.label}: {event.name}{changed}")
            if prediction.frame == 2:
                prediction.save(folder / "tracks.jpg")
            who = [person.track for person in prediction]
            print(f"frame {prediction.frame}: persons {who}, {prediction.timings['engine']:.0f} ms of engine")
