"""OpenTelemetry spans of requests and their stages, where opentelemetry is installed; else nothing.

Where spans go is OpenTelemetry's own matter: its environment variables, or what the process set up. Without any of
that its API drops them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["Tracing"]

_STAGES = ("decode", "segment", "crop", "engine")


class Tracing:
    """Tells OpenTelemetry of requests once they are over.

    A request's span has the times that were measured. Its stages are child spans as long as each took, laid one after
    another at its end: waiting, and work that was shared with other requests, leave no span, so where a stage's span
    begins is not when that stage began.

    Attributes:
        on: whether opentelemetry is installed.
    """

    def __init__(self) -> None:
        try:
            self._api: Any = importlib.import_module("opentelemetry.trace")
            self._propagate: Any = importlib.import_module("opentelemetry.propagate")
        except ImportError:
            self._api = None
        self.on = self._api is not None
        if self._api is not None:
            self._tracer: Any = self._api.get_tracer("graftsdk.serving")  # finds a provider that is set up later, too

    def request(
        self,
        method: str,
        route: str,
        status: int,
        seconds: float,
        request_id: str,
        timings: Mapping[str, float],
        traceparent: str | None = None,
    ) -> None:
        """A request is over, now.

        Args:
            route: the pattern of its path.
            timings: stage -> milliseconds, as `Prediction.timings`.
            traceparent: the header of that name (W3C Trace Context): whose child this is.
        """
        if self._api is None:
            return
        ended = time.time_ns()
        started = ended - round(1e9 * seconds)
        parent = None if traceparent is None else self._propagate.extract({"traceparent": traceparent})
        # Names as in OpenTelemetry's conventions for HTTP servers; the address and the query are left out on purpose.
        told = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "graftsdk.request_id": request_id,
        }
        span = self._tracer.start_span(
            f"{method} {route}", parent, kind=self._api.SpanKind.SERVER, attributes=told, start_time=started
        )
        if status >= 500:
            span.set_status(self._api.Status(self._api.StatusCode.ERROR))
        inside = self._api.set_span_in_context(span)
        lengths = {stage: round(1e6 * timings[stage]) for stage in _STAGES if stage in timings}
        begin = max(started, ended - sum(lengths.values()))
        for stage, length in lengths.items():
            child = self._tracer.start_span(stage, inside, start_time=begin)
            begin = min(begin + length, ended)
            child.end(begin)
        span.end(ended)
