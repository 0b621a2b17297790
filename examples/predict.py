"""The way through, from a trunk and three branches to a picture: `python examples/predict.py [FOLDER]`.

The weights are random, so the answers mean nothing yet; everything else is real: checkpoints on disk,
one plan, one grafted graph, a picture with three people in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scene import lift_scene

from graftsdk import Predictor
from graftsdk.export import export_plan
from graftsdk.models import Branch, Trunk

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)

# 1. Checkpoints, as training would leave them: one trunk, and one file for each label.
trunk = Trunk.create("inception_v3", input_size=(299, 299), seed=0)
trunk.save(folder / "trunk.safetensors")
labels = {
    "child": Branch.create(trunk, "child", tap=6, until=8, pooling="bilinear", seed=1),
    "gender": Branch.create(trunk, "gender", classes=("other", "female", "male"), tap=8, width=0.5, seed=2),
    "backpack": Branch.create(trunk, "backpack", tap=9, width=0.25, seed=3),
    "hat": Branch.create(trunk, "hat", tap=11, seed=4),  # no blocks of its own: the cheapest label there is
}
labels["gender"].thresholds = {"female": 0.5, "male": 0.5}
for name, branch in labels.items():
    branch.save(folder / f"{name}.safetensors")

# 2. One plan. The same as: graftsdk-export --trunk trunk.safetensors --branches ... -o engine.plan
report = export_plan(
    folder / "engine.plan",
    trunk=folder / "trunk.safetensors",
    branches=[folder / f"{name}.safetensors" for name in labels],
    progress=True,
)
print(report.table())

# 3. A picture goes in, people with attributes come out. The masks are our own here; a plan may hold a segmenter.
image, masks = lift_scene()
with Predictor(folder / "engine.plan") as predictor:
    prediction = predictor.predict(image, masks=masks)
prediction.save(folder / "prediction.png")
for person in prediction:
    print(f"person {person.index}:", ", ".join(str(attribute) for attribute in person))
print("milliseconds:", ", ".join(f"{stage} {spent:.1f}" for stage, spent in prediction.timings.items()))
print(f"The weights are untrained: the answers above mean nothing. The picture: {folder / 'prediction.png'}")
