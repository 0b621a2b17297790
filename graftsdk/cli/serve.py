"""`graftsdk serve`: a plan behind HTTP."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from graftsdk.cli.engine_options import (
    BUILT_USAGE,
    ENGINE_USAGE,
    add_built_options,
    add_engine_options,
    built_options,
    engine_options,
)
from graftsdk.cli.labels import chosen_labels
from graftsdk.errors import InputError, MissingDependency

__all__ = ["configure", "run"]

_LIMITS = {  # option -> type, metavar, help; defaults are those of ServeSettings, named in the help
    "max_bytes": (int, "N", "of one request's body; default: 20971520, which is the most"),
    "max_persons": (int, "N", "in one answer, the surest; default: 300"),
    "max_parts": (int, "N", "pictures in one form; default: 64"),
    "max_batch": (int, "N", "crops computed together; default: 32"),
    "max_wait_ms": (float, "X", "that a batch waits for more crops; default: 0"),
    "queue": (int, "N", "images that may wait, more get 503; default: 64"),
    "seconds": (float, "X", "for an answer, later it is 503; default: 30"),
    "pace": (float, "X", "seconds for a request's head, and for its body; default: 10"),
    "connections": (int, "N", "open at once; default: 1024"),
    "grace": (float, "X", "seconds for what was accepted before SIGTERM or Ctrl-C; default: 30"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Serve a plan over HTTP: POST an image to /v1/predict, get people and attributes as JSON. Also the Open "
        "Inference Protocol under /v2, Prometheus's metrics, and a page to look at. One process computes for all "
        "callers, in common batches; more machines or GPUs get a process each. Needs graftsdk[serve]."
    )
    parser.epilog = _EPILOG
    parser.usage = (
        "%(prog)s [-h] PLAN [--host HOST] [--port N] [--keys FILE | --insecure]\n"
        "         [--ssl-certfile FILE --ssl-keyfile FILE] [--labels LABEL...] [--min-score X]\n"
        "         [--profiles FILE] [--shadow PLAN [--fraction X]] [--harvest DIR] [--watch SECONDS]\n"
        "         [limits] " + ENGINE_USAGE.strip() + BUILT_USAGE
    )
    parser.add_argument("plan", metavar="PLAN", help="the plan")
    where = parser.add_argument_group("where it listens, and to whom")
    where.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    where.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0: a free one")
    access = where.add_mutually_exclusive_group()
    access.add_argument("--keys", metavar="FILE", help="a key a line; also from the variable GRAFTSDK_API_KEYS")
    access.add_argument("--insecure", action="store_true", help="other machines may come without a key")
    where.add_argument("--ssl-certfile", metavar="FILE", help="certificate, PEM: speak TLS")
    where.add_argument("--ssl-keyfile", metavar="FILE", help="its private key, PEM")
    changing = parser.add_argument_group("labels in production")
    changing.add_argument("--profiles", metavar="FILE", help="TOML: group -> label -> threshold, chosen with profile=")
    changing.add_argument("--shadow", metavar="PLAN", help="compare this plan on live traffic; answers stay the old's")
    changing.add_argument("--fraction", type=float, default=0.01, metavar="X", help="of the images; default: 0.01")
    changing.add_argument("--harvest", metavar="DIR", help="keep uncertain crops there, pictures of persons")
    changing.add_argument("--harvest-per-day", type=int, default=100, metavar="N", help="default: 100")
    changing.add_argument(
        "--harvest-days", type=int, default=30, metavar="N", help="until they are deleted; default 30"
    )
    changing.add_argument(
        "--watch", type=float, default=1.0, metavar="X", help="seconds between looks at the plan's file; 0: never"
    )
    limits = parser.add_argument_group("limits")
    for name, (kind, metavar, text) in _LIMITS.items():
        limits.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=text)
    computed = parser.add_argument_group("what is computed")
    computed.add_argument("--labels", nargs="+", metavar="LABEL", help="after the plan: compute only these")
    computed.add_argument("--min-score", type=float, metavar="X", help="least score of a person; default: the plan's")
    computed.add_argument("--model", default="graftsdk", metavar="NAME", help="in the Open Inference Protocol")
    add_engine_options(computed)
    add_built_options(computed)
    parser.set_defaults(run=run)


_EPILOG = """\
Health (/live, /ready) and the page's own files need no key; images, the plan and /metrics do.
The plan's file is watched: a new one, as of graftsdk plan revert, serves within seconds, and one
that is damaged does not: the old one goes on, and /ready says why. SIGTERM and Ctrl-C: no new
connections, what was accepted is answered; exit code 0, or 1 where the time was not enough.

examples:
  graftsdk serve engine.plan
  curl --data-binary @lobby.jpg -H 'Content-Type: image/jpeg' 'localhost:8000/v1/predict?labels=child,headwear'
  graftsdk serve engine.plan --host 0.0.0.0 --keys keys.txt --ssl-certfile cert.pem --ssl-keyfile key.pem"""


def run(args: argparse.Namespace) -> int:
    """0 after a graceful stop; 1 where requests were cut off."""
    try:
        import fastapi  # noqa: F401
        import httptools  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f'expected the packages of graftsdk[serve], found {error}; pip install "graftsdk[serve]"'
        ) from error
    from graftsdk.serving.logs import json_log
    from graftsdk.serving.opening import open_service
    from graftsdk.serving.run import server_of
    from graftsdk.serving.settings import KEYS_VARIABLE, ServeSettings, check_binding, read_keys

    if (args.ssl_certfile is None) != (args.ssl_keyfile is None):
        raise InputError("--ssl-certfile, --ssl-keyfile: expected both or none, found one")
    if not 0 <= args.port <= 65535:
        raise InputError(f"--port: expected a number from 0 to 65535, found {args.port}")
    keys = read_keys(args.keys)
    if args.insecure and keys:
        raise InputError(
            f"--insecure: expected no keys, found some in the variable {KEYS_VARIABLE}; leave out one or the other"
        )
    check_binding(args.host, keys, args.insecure)
    chosen = {name: getattr(args, name) for name in _LIMITS if getattr(args, name) is not None}
    settings = ServeSettings(keys=keys, model=args.model, **chosen)
    options: dict[str, Any] = {
        "labels": chosen_labels(args.labels, args.plan),
        "min_score": args.min_score,
        **engine_options(args),
        **built_options(args),
    }
    service = open_service(
        args.plan,
        settings,
        options,
        profiles=args.profiles,
        shadow=args.shadow,
        fraction=args.fraction,
        harvest=args.harvest,
        harvest_per_day=args.harvest_per_day,
        harvest_days=args.harvest_days,
        watch=args.watch or None,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = server_of(
        service, host=args.host, port=args.port, certificate=args.ssl_certfile, private_key=args.ssl_keyfile
    )
    server.told = lambda address: print(f"{address} serves {args.plan}; Ctrl-C stops it", file=sys.stderr, flush=True)
    logging.getLogger("graftsdk").setLevel(logging.INFO)
    with json_log():
        try:
            server.run()
        except SystemExit:  # uvicorn's, after a start that failed
            if service.failed is None:
                raise
    if service.failed is not None:
        raise service.failed
    return 1 if service.cut else 0
