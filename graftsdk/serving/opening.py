"""From a plan's path and options to a `Service` with everything that was asked for around it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from graftsdk.engines import default_threads, share_threads
from graftsdk.predictor import Predictor
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings

__all__ = ["open_service"]


def open_service(
    plan: str,
    settings: ServeSettings,
    options: Mapping[str, Any],
    *,
    profiles: str | None = None,
    shadow: str | None = None,
    fraction: float = 0.01,
    watch: float | None = 1.0,
    harvest: str | None = None,
    harvest_per_day: int = 100,
    harvest_days: int = 7,
    shared_pool: bool = True,
) -> Service:
    """A service, its predictor open; `Service.stop` closes all of it.

    Args:
        options: keyword arguments of `Predictor`, also for the shadow.
        profiles: a TOML file, group -> label -> threshold. shadow: a second plan, compared on `fraction` of the images.
        watch: seconds between looks at the plan's file; None never reloads.
        harvest: a folder for uncertain crops, at most `harvest_per_day`, kept `harvest_days`.
        shared_pool: all engines of this process run on one pool of threads, so that they do not get into each other's
            way (`graftsdk.share_threads`); other code must not open sessions of ONNX Runtime then.

    Raises:
        GraftError: a plan, a profile or an argument cannot be used.
    """
    from graftsdk.serving.harvest import Harvest
    from graftsdk.serving.metrics import Metrics
    from graftsdk.serving.profiles import load_profiles
    from graftsdk.serving.shadow import Shadow
    from graftsdk.serving.watch import PlanWatcher

    chosen = dict(options)
    if shared_pool:
        share_threads(chosen.pop("threads", None) or default_threads())
    with ExitStack() as undo:  # nothing stays open where one of them raises
        predictor = undo.enter_context(Predictor(plan, **chosen))
        documents = {
            label: found[1].document
            for label in predictor.labels
            if (found := predictor.plan.manifest.find(label)) is not None
        }
        metrics = Metrics(documents)
        service = Service(
            predictor,
            settings,
            metrics=metrics,
            profiles=None if profiles is None else load_profiles(profiles, documents),
            shadow=None if shadow is None else Shadow(shadow, fraction, metrics, chosen),
            harvest=None if harvest is None else Harvest(harvest, harvest_per_day, harvest_days),
            watcher=None if watch is None else PlanWatcher(predictor, metrics.reloaded, watch),
        )
        undo.pop_all()
    return service
