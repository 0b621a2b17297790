"""The service's log as JSON, one object a line: what happened, when, to which request; nothing of what came in.

What a line may have is listed (`_FIELDS`), so no image, body, query, header or name of a client's file gets into one.
Of an error that a library raised there is its type and where it was raised, never its text: that quotes data and paths.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from graftsdk.errors import EngineError, GraftError
from graftsdk.text import one_line

__all__ = ["JsonLines", "begin_request", "json_log", "note", "noted"]

_FIELDS = ("id", "method", "route", "status", "ms", "code", "persons", "plan")  # of a record's `extra`
_OURS = "graftsdk"
_LONGEST = 500  # characters of an event
_FRAMES = 8  # of an error, the innermost ones

_noted: ContextVar[dict[str, Any] | None] = ContextVar("graftsdk_request", default=None)


def begin_request() -> None:
    """From here on `note` is about a new request: of this task and those that it starts."""
    _noted.set({})


def note(**facts: Any) -> None:
    """Keep something that is known of the current request, for its line in the log; nothing outside of one."""
    found = _noted.get()
    if found is not None:
        found.update(facts)


def noted() -> Mapping[str, Any]:
    """What was noted of the current request."""
    return _noted.get() or {}


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, event, then those of id, method, route, status and so on it has.

    An event of our own is its message, in which errors of libraries are their types; that of another library is the
    first line of its text before values were put in: below it asyncio has errors, and uvicorn whole tracebacks.
    """

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": _event(record),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, where = record.exc_info
            line |= {"error": kind.__name__, "at": _places(where)}
        return json.dumps(line, ensure_ascii=True, default=lambda value: type(value).__name__)


@contextmanager
def json_log(stream: TextIO | None = None) -> Iterator[None]:
    """While the block runs, what is logged by whomever goes to `stream` as JSON, and nowhere else.

    Args:
        stream: None for stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    loggers = map(logging.getLogger, (None, _OURS, "uvicorn"))  # None: whoever has no handler of its own
    changed = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger, _, _ in changed:
        logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        for logger, handlers, propagate in changed:
            logger.handlers, logger.propagate = handlers, propagate


def _event(record: logging.LogRecord) -> str:
    text = str(record.msg)
    if record.name.partition(".")[0] != _OURS:
        text = text.partition("\n")[0]
    elif record.args:
        with suppress(TypeError, ValueError, KeyError):  # a message that does not fit its values: the text will do
            text = text % _told(record.args)
    return one_line(" ".join(text.split()))[:_LONGEST]


def _told(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _value(value) for name, value in values.items()}
    return tuple(map(_value, values))


def _value(value: Any) -> Any:
    """Errors as what may be told of them: ours are written for it, but for what a runtime said of its own."""
    if not isinstance(value, BaseException):
        return value
    if isinstance(value, GraftError) and not isinstance(value, EngineError):
        return str(value)
    return type(value).__name__


def _places(where: TracebackType | None) -> list[str]:
    """Of the innermost calls, the last one last: "module:line function". No source lines, no paths."""
    found = list(traceback.walk_tb(where))[-_FRAMES:]
    return [f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_name}" for frame, line in found]
