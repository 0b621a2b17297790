"""The service against its own description: whatever schemathesis makes of it is answered in a form that it states."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from graftsdk.predictor import Predictor
from graftsdk.serving.app import create_app
from graftsdk.serving.service import Service
from graftsdk.serving.settings import ServeSettings

schemathesis = pytest.importorskip("schemathesis")


def test_no_request_made_from_the_schema_gets_a_5xx_or_another_form(toy_path: Path) -> None:
    """GRAFTSDK_EXAMPLES asks for so many of each operation; else a few of those that read something."""
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.python.asgi import get_client
    from schemathesis.specs.openapi import checks

    app = create_app(Service(Predictor(toy_path, threads=1), ServeSettings()))
    # Not asked: whether what fits the schema is accepted. A schema cannot say which bytes are an image.
    asked = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
    ]
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 12
    examples = os.environ.get("GRAFTSDK_EXAMPLES")
    if examples is None:
        operations = [one for one in operations if one.method == "post" and "versions" not in one.path]
        assert len(operations) == 3
    with get_client(app) as session:
        for operation in operations:

            @settings(
                max_examples=int(examples or 4),
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                deadline=None,
                database=None,
            )
            @given(case=_cases(operation))
            def attack(case: Any) -> None:
                answer = case.call(session=session)
                assert answer.status_code < 500, answer.text
                if answer.status_code >= 400:
                    assert answer.headers["content-type"] == ["application/problem+json"]
                    assert answer.json()["code"]
                case.validate_response(answer, checks=asked)

            attack()


def _cases(operation: Any) -> Any:
    """Requests that fit the schema, and such that do not."""
    fitting = operation.as_strategy()
    try:
        return fitting | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
    except schemathesis.errors.SchemathesisError:
        return fitting
