"""The log of the service: one JSON object a line, and nothing in it that came from outside or from a library."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from graftsdk.errors import EngineBuildError, InputError
from graftsdk.serving.logs import JsonLines, begin_request, json_log, note, noted

LOG = logging.getLogger("graftsdk.serving")
SECRET = "/home/client/holiday.jpg"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream, before = io.StringIO(), LOG.level
    LOG.setLevel(logging.INFO)
    with json_log(stream):
        yield stream
    LOG.setLevel(before)


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_request_is_one_line_of_known_fields(log: io.StringIO) -> None:
    told = {"id": "7", "route": "/v1/predict", "status": 200, "ms": 12.5, "persons": 2, "plan": "ab", "query": SECRET}
    LOG.info("%s %s", "POST", "/v1/predict", extra=told)
    (line,) = lines(log)
    assert line.pop("time").endswith("Z") and "query" not in line
    assert line == {"level": "info", "event": "POST /v1/predict"} | {k: v for k, v in told.items() if k != "query"}


@pytest.mark.parametrize("name", ["graftsdk.serving", "uvicorn.error"])
def test_of_an_exception_there_is_its_type_and_place_alone(log: io.StringIO, name: str) -> None:
    def fail() -> None:
        raise RuntimeError(f"cannot read {SECRET}")

    try:
        fail()
    except RuntimeError as error:
        logging.getLogger(name).error("failed: %s", error, exc_info=error)
    (line,) = lines(log)
    assert SECRET not in log.getvalue() and line["error"] == "RuntimeError"
    assert line["at"][-1].endswith(" fail") and "test_logs" in line["at"][-1]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("labels: expected some"), "failed: labels: expected some"),
        (EngineBuildError(f"the runtime said {SECRET}"), "failed: EngineBuildError"),
        (OSError(2, "No such file", SECRET), "failed: FileNotFoundError"),
    ],
)
def test_errors_in_messages(log: io.StringIO, error: Exception, told: str) -> None:
    LOG.error("failed: %s", error)
    assert lines(log)[0]["event"] == told


def test_values_of_other_libraries_are_left_out(log: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").warning("from %s", SECRET)
    assert lines(log)[0]["event"] == "from %s"


def test_what_any_library_logs_is_a_line_too(log: io.StringIO) -> None:
    logging.getLogger("python_multipart.multipart").warning("Found invalid character in header at %d", 12)
    logging.getLogger("asyncio").error(f"Task exception was never retrieved\nfuture: <Task of OSError({SECRET})>")
    assert [line["event"] for line in lines(log)] == [
        "Found invalid character in header at %d",
        "Task exception was never retrieved",
    ]


def test_whatever_is_logged_stays_one_line(log: io.StringIO) -> None:
    LOG.error("a\nb\u202e %s", "\r\n{}" + "x" * 9000)
    LOG.error("object", extra={"id": object()})
    assert len(lines(log)) == 2 and len(lines(log)[0]["event"]) == 500 and lines(log)[1]["id"] == "object"
    # Not through a logger: what pytest itself keeps of the log could not be written as UTF-8.
    record = logging.LogRecord("graftsdk.serving", logging.ERROR, "", 1, "%s", ("\udc80",), None)
    assert JsonLines().format(record).isascii()


def test_a_message_that_does_not_fit_its_values_is_still_a_line() -> None:
    record = logging.LogRecord("graftsdk.serving", logging.ERROR, "", 1, "%d of them", ("no number",), None)
    assert json.loads(JsonLines().format(record))["event"] == "%d of them"


def test_afterwards_the_loggers_are_as_before() -> None:
    names = (None, "graftsdk", "uvicorn")
    before = [(logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names]
    stream = io.StringIO()
    with json_log(stream):
        assert not logging.getLogger("graftsdk").propagate
    assert [(logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names] == before
    LOG.error("later")
    assert not stream.getvalue()


def test_what_is_noted_is_of_one_request() -> None:
    async def request(number: int) -> Any:
        begin_request()

        async def inner() -> None:
            await asyncio.sleep(0)
            note(persons=number)

        await asyncio.ensure_future(inner())
        await asyncio.sleep(0)
        return dict(noted())

    async def both() -> list[Any]:
        return await asyncio.gather(request(1), request(2))

    assert asyncio.run(both()) == [{"persons": 1}, {"persons": 2}]
    note(persons=3)
    assert noted() == {}
