"""uvicorn around the application: one process, signals that end it gracefully, an exit code."""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from graftsdk.serving.app import create_app
from graftsdk.serving.protocol import paced
from graftsdk.serving.service import Service

__all__ = ["Server", "server_of"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 2048  # connections that may wait to be accepted; all of them can be in one go
_FILES = 256  # beyond connections: plans, caches, harvest, the runtime's own

_log = logging.getLogger("graftsdk.serving")


class Server(uvicorn.Server):
    """uvicorn's, which after SIGTERM or Ctrl-C finishes what it accepted and returns.

    uvicorn itself raises the signal once more at its end, so that the process dies of it: a graceful stop would look
    like a crash to whoever started it. A second Ctrl-C ends at once.

    Attributes:
        told: called with the address once it listens.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self.told: Callable[[str], None] = lambda address: None

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.told(self.address)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: Any = None) -> None:
        self._service.ready = False  # whoever asks on a connection that is open already
        await super().shutdown(sockets)

    @property
    def address(self) -> str:
        """Where it listens, as a URL; once `started`."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        scheme = "https" if self.config.is_ssl else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def server_of(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    certificate: str | None = None,
    private_key: str | None = None,
) -> Server:
    """A server of a service, not yet running: `server.run()` blocks until a signal came and all is done.

    Args:
        port: 0 takes a free one. certificate, private_key: PEM files; with both of them it speaks TLS.
    """
    settings = service.settings

    def refused(code: str) -> None:
        if service.metrics is not None:
            service.metrics.refused(code)

    config = uvicorn.Config(
        create_app(service),
        host=host,
        port=port,
        http=paced(settings.pace, _possible(settings.connections), refused),
        backlog=_BACKLOG,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.grace,  # type: ignore[arg-type]  # asyncio takes fractions too
        ssl_certfile=certificate,
        ssl_keyfile=private_key,
    )
    return Server(config, service)


def _possible(connections: int) -> int:
    """How many connections this process can have: it raises its limit of open files, or takes fewer of them.

    A service without a free file accepts nobody, and so refuses nobody; plans and caches fail as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _BACKLOG + _FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if connections > soft - _FILES:
            possible = max(1, soft - _FILES)
            _log.warning("%d connections instead of %d: ulimit -n allows %d open files", possible, connections, soft)
            return possible
    return connections
