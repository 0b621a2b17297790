"""From a plan's path and options to a `Service` with everything that was asked for around it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
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
        service = Service(predictor, settings)
        if find_spec("graftsdk.serving.metrics") is not None:
            from graftsdk.serving.metrics import Metrics

            service.metrics = Metrics(documents)
            service.batcher.observe = service.metrics.batch
        if profiles is not None:
            from graftsdk.serving.profiles import load_profiles

            service.profiles = load_profiles(profiles, documents)
        if shadow is not None:
            from graftsdk.serving.shadow import Shadow

            service.shadow = Shadow(shadow, fraction, service.metrics, chosen)
        if harvest is not None:
            from graftsdk.serving.harvest import Harvest

            service.harvest = Harvest(harvest, harvest_per_day, harvest_days)
        if watch is not None and find_spec("graftsdk.serving.watch") is not None:
            from graftsdk.serving.watch import PlanWatcher

            service.watcher = PlanWatcher(predictor, lambda _: None, watch)
        undo.pop_all()
    return service
