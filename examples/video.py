"""A video through a plan, and an annotated video out: `python examples/video.py out/engine.plan [FOLDER] [VIDEO]`.

`make demo` leaves it there. Without a VIDEO, one is drawn: the lift scene, seen by a camera that moves. A camera works
the same way: `predictor.stream(0)` or `predictor.stream("rtsp://...")` gives the newest frame each time, and
`stream.dropped` and `stream.lag_ms` say how far the plan is behind.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from scene import lift_scene

from graftsdk import Predictor
from graftsdk.drawing.video_file import USUAL_RATE, VideoFile

FRAMES_A_SECOND = 10
STRIDE = 2  # every second frame is enough for people who stand


def draw_clip(path: Path) -> None:
    """Two seconds of the lift scene, the camera moving to the right."""
    image, _ = lift_scene()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FRAMES_A_SECOND, (640, 480))
    for x in np.linspace(0, image.shape[1] - 640, 2 * FRAMES_A_SECOND).astype(int).tolist():
        writer.write(np.ascontiguousarray(image[160:640, x : x + 640]))
    writer.release()


plan = sys.argv[1] if len(sys.argv) > 1 else "out/engine.plan"
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "out")
folder.mkdir(parents=True, exist_ok=True)
if len(sys.argv) > 3:
    video = Path(sys.argv[3])
else:
    video = folder / "clip.mp4"
    draw_clip(video)

target = folder / "annotated.mp4"
with (
    Predictor(plan) as predictor,
    predictor.stream(video, stride=STRIDE) as stream,
    VideoFile(target, (stream.rate or USUAL_RATE) / STRIDE) as annotated,
):
    for prediction in stream:  # one at a time: memory stays as it is, however long the video
        annotated.add(prediction.plot())
        told = "; ".join(repr(person) for person in prediction)
        at = "" if prediction.timestamp is None else f" at {prediction.timestamp:.2f} s"  # not every file says
        print(f"frame {prediction.frame}{at}: {told}")
print(f"The video: {target}")
