"""The service on Ray Serve: replicas by load, on whole or shared GPUs, with the same HTTP API as `graftsdk serve`.

    serve run graftsdk.serving.ray:build_app plan=engine.plan max_replicas=8 num_gpus=0.25 device=cuda

A replica is a process with a predictor and a batcher of its own; before them stands a front (`ray_front`). Where a
replica dies, its requests go to the others, and Ray starts another one.

Who may reach the ports of a Ray cluster may run code on it: Ray asks for a closed network. A Ray that `run` starts
listens on 127.0.0.1, but for one port of each of Serve's processes, which Ray opens on every interface.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from graftsdk.errors import InputError, MissingDependency
from graftsdk.offline.cluster import connect, prepare
from graftsdk.plan import open_plan
from graftsdk.serving.ray_front import Front, Replica
from graftsdk.serving.settings import ServeSettings, check_binding, read_keys

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["Args", "build_app", "run"]


@dataclass(frozen=True)
class Args:
    """What a deployment is told. Texts are taken for numbers where numbers belong: `serve run` has nothing else.

    Attributes:
        plan: its path, the same on every node.
        min_replicas, max_replicas: how many there may be; Ray starts and ends them by the load.
        num_cpus: CPUs a replica, and threads of its predictor. num_gpus: GPUs a replica; fractions share one.
        max_ongoing_requests: requests that a replica works on at once; they share batches.
        max_queued_requests: requests that wait before a proxy refuses more with 503.
        device: as for `Predictor`. labels: those to compute, with commas between; "" for all.
        fronts: processes that speak HTTP; they take no CPU of those that Ray counts.
        health_s: seconds between looks at a replica's health: so late at most is it missed that one hangs.
        keys: path of a file of keys; GRAFTSDK_API_KEYS of this process counts too.
        settings: other fields of `ServeSettings`, name -> value; `serve run` takes them as they are.
    """

    plan: str
    min_replicas: int = 1
    max_replicas: int = 4
    num_cpus: int = 1
    num_gpus: float = 0.0
    max_ongoing_requests: int = 16
    max_queued_requests: int = 64
    device: str = "auto"
    labels: str = ""
    fronts: int = 1
    health_s: float = 2.0
    keys: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (
            ("min_replicas", 0),
            ("max_replicas", 1),
            ("num_cpus", 1),
            ("max_ongoing_requests", 1),
            ("max_queued_requests", 1),
            ("fronts", 1),
        ):
            object.__setattr__(self, name, _number(name, getattr(self, name), int, least))
        for name in ("num_gpus", "health_s"):
            object.__setattr__(self, name, _number(name, getattr(self, name), float, 0))
        if self.min_replicas > self.max_replicas:
            raise InputError(
                f"min_replicas: expected at most max_replicas, {self.max_replicas}, found {self.min_replicas}"
            )

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Args:
        """From the words of `serve run`: those that are no field of this class are settings.

        Raises:
            InputError: no plan, an unknown word, or a value that is no number where one belongs.
        """
        own = {each.name for each in fields(cls)} - {"settings"}
        kinds = {each.name: type(each.default) for each in fields(ServeSettings) if each.name != "keys"}
        unknown = sorted(set(words) - own - set(kinds))
        if unknown or "plan" not in words:
            found = f"{unknown[0]!r}" if unknown else "no plan"
            raise InputError(
                f"build_app: expected plan=PATH and of {', '.join(sorted(own | set(kinds)))}, found {found}"
            )
        settings = {
            name: value if kinds[name] is str else _number(name, value, kinds[name], 0)
            for name, value in words.items()
            if name in kinds
        }
        return cls(**{name: value for name, value in words.items() if name in own}, settings=settings)


def build_app(args: Args | Mapping[str, Any]) -> Application:
    """The application of Ray Serve: for `serve.run`, or named to `serve run` with its words.

    Raises:
        InputError: an argument. PlanError: the plan, which is looked at here first. MissingDependency: Ray is absent.
    """
    found = args if isinstance(args, Args) else Args.of(args)
    settings = replace(ServeSettings(**found.settings), keys=read_keys(found.keys))
    plan = os.path.abspath(found.plan)
    open_plan(plan).close()
    serve = _serve()
    options: dict[str, Any] = {"device": found.device, "threads": found.num_cpus}
    if found.labels:
        options["labels"] = [label.strip() for label in found.labels.split(",") if label.strip()]
    replicas = serve.deployment(
        Replica,
        name="replicas",
        autoscaling_config={
            "min_replicas": found.min_replicas,
            "max_replicas": found.max_replicas,
            "target_ongoing_requests": max(1, found.max_ongoing_requests // 2),
        },
        ray_actor_options={"num_cpus": found.num_cpus, "num_gpus": found.num_gpus},
        max_ongoing_requests=found.max_ongoing_requests,
        max_queued_requests=found.max_queued_requests,
        health_check_period_s=found.health_s,
        health_check_timeout_s=max(10.0, 2 * found.health_s),
        graceful_shutdown_timeout_s=settings.grace,
    ).bind(plan, options, settings)
    front = serve.deployment(
        serve.ingress()(Front),
        name="front",
        num_replicas=found.fronts,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=settings.connections,
        health_check_period_s=found.health_s,
    )
    application: Application = front.bind(replicas, settings)
    return application


def run(args: Args, *, host: str = "127.0.0.1", port: int = 8000, insecure: bool = False) -> None:
    """Serve until `ray.serve.shutdown()`; returns when the first replicas are ready.

    Joins the cluster that RAY_ADDRESS names, or starts Ray here: on 127.0.0.1, without dashboard or usage statistics.

    Raises:
        InputError: a host that other machines reach, without a key and without `insecure`. Others as `build_app`.
    """
    serve = _serve()
    check_binding(host, read_keys(args.keys), insecure)
    application = build_app(args)
    connect()
    serve.start(http_options={"host": host, "port": port})
    serve.run(application, name="graftsdk", route_prefix="/")


def _number(name: str, value: Any, kind: type, least: float) -> Any:
    """`value` as an int or a float. Raises InputError."""
    try:
        number = kind(value)
        if isinstance(value, bool) or number != float(value) or not number >= least:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: expected a number of at least {least}, found {value!r:.40}") from error
    return number


def _serve() -> Any:
    prepare()
    try:
        return import_module("ray.serve")
    except ImportError as error:
        raise MissingDependency(f'expected Ray Serve, found {error}; pip install "graftsdk[ray]"') from error
