"""From a plan's path and options to a `Service` with everything that was asked for around it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from graftsdk.engines import default_threads, share_threads
from graftsdk.engines.memory import keep_memory
from graftsdk.plan import BranchDocument
from graftsdk.predictor import Predictor
from graftsdk.reloading import Reload
from graftsdk.serving.harvest import Harvest
from graftsdk.serving.metrics import Metrics
from graftsdk.serving.profiles import load_profiles, reload_profiles
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings
from graftsdk.serving.shadow import Shadow
from graftsdk.serving.watch import PlanWatcher

__all__ = ["open_service"]


def open_service(
    plan: str,
    settings: ServeSettings,
    options: Mapping[str, Any],
    *,
    profiles: str | None = None,
    shadow: str | None = None,
    fraction: float = 0.01,
    harvest: str | None = None,
    harvest_per_day: int = 100,
    harvest_days: int = 30,
    watch: float | None = 1.0,
    own_process: bool = True,
) -> Service:
    """A service, its predictor open; `Service.stop` closes all of it.

    Args:
        options: keyword arguments of `Predictor`, also for the shadow.
        shadow: a second plan, compared on `fraction` of the images.
        profiles: a TOML file, group -> label -> threshold.
        harvest: a folder for uncertain crops, at most `harvest_per_day`, kept `harvest_days`.
        watch: seconds between looks at the plan's file; None never reloads.
        own_process: nothing else lives in this process. All its engines then run on one pool of threads
            (`graftsdk.share_threads`), and memory that was freed stays with it (`keep_memory`).

    Raises:
        GraftError: a plan, a profile or an argument cannot be used.
    """
    chosen = dict(options)
    if own_process:
        keep_memory()
        share_threads(chosen.pop("threads", None) or default_threads())
    with ExitStack() as undo:  # nothing stays open where one of them raises
        predictor = undo.enter_context(Predictor(plan, **chosen))
        known = _documents(predictor)
        chosen_profiles = None if profiles is None else load_profiles(profiles, known)
        service = Service(predictor, settings, profiles=chosen_profiles)
        metrics = Metrics(known, lambda: service.batcher.waiting, predictor.plan.digest)
        service.metrics = metrics
        service.batcher.observe = metrics.batch

        def reloaded(done: Reload | None) -> None:
            metrics.reloaded(done)
            if done is None:
                return
            found = _documents(predictor)
            metrics.follow(found, done.new)
            if profiles is not None and service.profiles is not None:
                service.profiles = reload_profiles(profiles, found, service.profiles)
            if service.harvest is not None:
                service.harvest.follow(predictor.plan.manifest.crop)

        if shadow is not None:
            service.shadow = Shadow(shadow, fraction, metrics, chosen, predictor.labels)
            undo.callback(service.shadow.close)
        if harvest is not None:
            crop = predictor.plan.manifest.crop
            service.harvest = Harvest(harvest, harvest_per_day, harvest_days, crop=crop)
            undo.callback(service.harvest.close)
        if watch is not None:
            service.watcher = PlanWatcher(predictor, reloaded, watch)
        undo.pop_all()
    return service


def _documents(predictor: Predictor) -> dict[str, BranchDocument]:
    plan = predictor.plan
    return {label: found[1].document for label in predictor.labels if (found := plan.manifest.find(label)) is not None}
