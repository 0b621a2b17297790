"""A picture goes in, people with attributes come out: `python examples/predict.py [FOLDER]`.

The plan, demo.plan, lies beside this file: a trunk, five labels and a segmenter that learnt from drawn people alone
(demo_plan.sh is how). The picture was drawn too, by another seed, so that what is true of everybody on it is known.
No torch is needed, here or to use any other plan.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from graftsdk import Predictor

HERE = Path(__file__).parent
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)
plan = Path(shutil.copyfile(HERE / "demo.plan", folder / "engine.plan"))

with Predictor(plan) as predictor:  # compiles once, into ~/.cache/graftsdk
    prediction = predictor.predict(HERE / "lobby.jpg")
prediction.save(folder / "prediction.png")


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width, height = (max(0.0, min(one[k + 2], other[k + 2]) - max(one[k], other[k])) for k in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


truth = json.loads((HERE / "lobby.json").read_text(encoding="utf-8"))["people"]
found = right = asked = 0
for person in prediction:
    true = max(truth, key=lambda each: overlap(each["box"], person.box.tolist()))
    print(f"person {person.index} (found with {person.score:.2f})")
    if overlap(true["box"], person.box.tolist()) < 0.5:
        print("  nobody stands there")
        continue
    found += 1
    for attribute in person:
        known = true["attributes"][attribute.label]  # None: of no class, such as a hood, which is no hat and no helmet
        asked += known is not None
        right += known == attribute.name
        verdict = "" if known in (attribute.name, None) else "  <- wrong"
        probability = attribute.scores[attribute.name]
        print(f"  {attribute.label:15} {attribute.name:8} {probability:.2f}   true: {known or '-'}{verdict}")

print(f"{found} of {len(truth)} people found; {right} of {asked} answers are true")
print("milliseconds:", ", ".join(f"{stage} {spent:.1f}" for stage, spent in prediction.timings.items()))
print(f"the picture: {folder / 'prediction.png'}; the plan, for `graftsdk info` and the like: {plan}")
