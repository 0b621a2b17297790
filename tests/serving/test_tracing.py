"""Spans of requests, where OpenTelemetry is installed; else nothing."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from graftsdk.serving import tracing
from graftsdk.serving.tracing import Tracing

TIMINGS = {"decode": 5.0, "segment": 20.0, "crop": 1.0, "engine": 30.0, "other": 9.0}


def test_without_opentelemetry_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(tracing.importlib, "import_module", absent)
    found = Tracing()
    found.request("POST", "/v1/predict", 200, 0.1, "7", TIMINGS)
    assert not found.on


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
    trace = importlib.import_module("opentelemetry.sdk.trace")
    export = importlib.import_module("opentelemetry.sdk.trace.export")
    kept = importlib.import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    provider = trace.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    api = importlib.import_module("opentelemetry.trace")
    monkeypatch.setattr(api, "get_tracer", provider.get_tracer)  # the process's own provider can be set once only
    return kept


def test_a_request_and_its_stages(spans: Any) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    Tracing().request("POST", "/v1/predict", 200, 0.1, "7", TIMINGS, parent)
    *stages, request = spans.get_finished_spans()
    assert request.name == "POST /v1/predict" and request.end_time - request.start_time == 100_000_000
    assert format(request.context.trace_id, "032x") == parent.split("-")[1]
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "graftsdk.request_id": "7",
    }
    assert [(span.name, (span.end_time - span.start_time) / 1e6) for span in stages] == list(TIMINGS.items())[:4]
    assert all(span.parent.span_id == request.context.span_id for span in stages)
    assert stages[-1].end_time == request.end_time


def test_stages_stay_inside_their_request(spans: Any) -> None:
    Tracing().request("POST", "/v1/predict", 500, 0.01, "7", TIMINGS, "no traceparent")
    *stages, request = spans.get_finished_spans()
    assert all(request.start_time <= span.start_time <= span.end_time <= request.end_time for span in stages)
    assert not request.status.is_ok
