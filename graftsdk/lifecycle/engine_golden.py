"""Engines that were just built, on the GPU that is here: how far each label is from the scores stored in its plan."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graftsdk.engines.golden import GoldenChange, check_golden
from graftsdk.engines.opener import Opener
from graftsdk.graft import joints_of, scores_name
from graftsdk.plan import open_plan
from graftsdk.prediction import decisions
from graftsdk.preprocess import golden_crops

__all__ = ["golden_changes"]


def golden_changes(
    plan: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    runtime: str,
    precision: str,
    layout: str,
    labels: Sequence[str] | None = None,
) -> tuple[GoldenChange, ...]:
    """Every label's golden scores by the engines in `folder`, against the plan's; the segmenter is left alone.

    Of a merged engine every label may have moved, whichever was the new one.

    Raises:
        PlanError, EngineError, MissingDependency: the engines cannot be run here.
    """
    with open_plan(plan) as opened:
        joints = joints_of(opened.manifest, labels)
        names = {label: scores_name(joint) for label, joint in joints.items()}
        opener = Opener(
            plan,
            engine="tensorrt",
            runtime=runtime,
            engines=folder,
            precision=precision,
            layout=layout,
            labels=None if labels is None else tuple(joints),
        )
        try:
            with opener.open(opener.graphs(opened, joints)) as engine:

                def run(crops: npt.NDArray[np.float32], asked: Sequence[str]) -> dict[str, np.ndarray]:
                    values = engine.run({"crops": crops}, list(dict.fromkeys(names[label] for label in asked)))
                    return {label: values[names[label]] for label in asked}

                crops = golden_crops(opened.manifest.crop)
                return check_golden(run, opened.manifest, crops, decisions, tuple(joints))
        finally:
            opener.close()
