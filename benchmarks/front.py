"""From a photograph to attributes, stage by stage. `python benchmarks/front.py --photos FOLDER --segmenter FILE.onnx`

1080p pictures with 0, 1, 3, 4 and 8 people, put together from photographs, through the reference plan (18 labels,
InceptionV3 at 299x299) with a real segmenter, as JPEG bytes and, with 4 people, as an array. Everything in one
interleaved run. "around" is what graftsdk adds to what must be computed: all but the decoder, the segmenter's session,
the crop kernel and the engine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH the folder of the script is not on the path

from measure import interleave, machine
from plans import build_front

from graftsdk import Predictor
from graftsdk.engines import default_threads
from graftsdk.preprocess import crop

TARGET = 0.03  # of the whole: "around", 4 people, a decoded array
# Photographs side by side in one 1080p frame, and how many people a segmenter finds in it.
PICTURES = {
    0: ("airport.jpg",),
    1: ("attribute_human_demo.jpg",),
    3: ("bus.jpg",),
    4: ("zidane.jpg", "sergey.png"),
    8: ("bus.jpg", "bus.jpg", "street.jpg"),
}
STAGES = ("decoder", "segmenter", "kernel", "engine", "around")


def picture(folder: Path, names: tuple[str, ...]) -> np.ndarray:
    """uint8[1080, 1920, 3]: the photographs beside each other on grey, each as large as fits."""
    frame = np.full((1080, 1920, 3), 114, np.uint8)
    room = 1920 // len(names)
    for place, name in enumerate(names):
        photo = cv2.imread(str(folder / name))
        scale = min(1080 / photo.shape[0], room / photo.shape[1])
        photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:1080, :room]
        frame[: photo.shape[0], place * room : place * room + photo.shape[1]] = photo
    return frame


class Clock:
    """Milliseconds inside what must be computed, in one call of `predict`."""

    def __init__(self, predictor: Predictor) -> None:
        self.spent: dict[str, float] = {}
        for name, owner, attribute in (
            ("segmenter", predictor._loaded.segmenter.engine, "run"),
            ("engine", predictor._loaded.engine, "run"),
            ("kernel", crop, "native_mask_crop"),
        ):
            setattr(owner, attribute, self.timed(name, getattr(owner, attribute)))

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            found = work(*args, **kwargs)
            self.spent[name] = self.spent.get(name, 0.0) + 1e3 * (time.perf_counter() - started)
            return found

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help=f"with {PICTURES}")
    parser.add_argument("--segmenter", type=Path, required=True, metavar="FILE.onnx", help="YOLO-seg, without nms")
    parser.add_argument("--folder", type=Path, default=Path("out/bench"), help="where the plans are built and kept")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"instruction sets: {machine()}; threads: {default_threads()}; float32; {options.rounds} rounds, interleaved")
    plan = build_front(options.folder, options.segmenter)
    sources: dict[str, Any] = {}
    for people, names in PICTURES.items():
        frame = picture(options.photos, names)
        sources[f"JPEG, {people} people"] = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        if people == 4:
            sources["array, 4 people"] = frame

    rows: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
    with Predictor(plan) as predictor:
        clock = Clock(predictor)

        def run(name: str) -> None:
            clock.spent.clear()
            started = time.perf_counter()
            prediction = predictor.predict(sources[name])
            whole = 1e3 * (time.perf_counter() - started)
            if f" {len(prediction)} " not in name:
                raise SystemExit(
                    f"{name}: the segmenter found {len(prediction)}; another segmenter, other photographs?"
                )
            inside = {"decoder": prediction.timings["decode"], **{s: clock.spent.get(s, 0.0) for s in STAGES[1:4]}}
            rows[name].append({**inside, "around": whole - sum(inside.values()), "whole": whole})

        interleave({name: lambda name=name: run(name) for name in sources}, options.rounds)

    print(f"\n{'milliseconds, median':22s}" + "".join(f"{stage:>11s}" for stage in (*STAGES, "whole")), end="")
    print(f"{'segmenter':>12s}{'around':>9s}")
    for name, found in rows.items():
        found = found[1:]  # the first was the warm-up
        middle = {stage: statistics.median(row[stage] for row in found) for stage in (*STAGES, "whole")}
        print(f"{name:22s}" + "".join(f"{value:11.2f}" for value in middle.values()), end="")
        print(f"{middle['segmenter'] / middle['whole']:12.1%}{middle['around'] / middle['whole']:9.2%}")
    share = statistics.median(row["around"] / row["whole"] for row in rows["array, 4 people"][1:])
    verdict = "met" if share <= TARGET else "MISSED"
    print(f"\naround, array of 1080p, 4 people: {share:.2%} of the whole, target {TARGET:.0%}: {verdict}")


if __name__ == "__main__":
    main()
