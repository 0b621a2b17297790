"""The child process that builds, seen from its parent: started, listened to, and never outliving the caller."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from graftsdk import errors
from graftsdk.errors import EngineBuildError, EngineOutOfMemory, GraftError
from graftsdk.export.build_child import Job
from graftsdk.text import one_line

__all__ = ["Child"]

TICK = 0.5  # seconds without a frame after which the caller hears so, to show that time passes
_PIECE = 1 << 20
# Not multiprocessing: its children run the caller's script again, which must then guard itself.
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); "
    "from graftsdk.export.build_child import main; main()"
)


class Child:
    """A process of our own for one job. `with Child(job) as child` ends it, whatever happens inside.

    It stands in a process group of its own: the terminal's Ctrl-C reaches the parent alone, which then kills it. It
    holds nothing that would have to be put in order.
    """

    def __init__(self, job: Job) -> None:
        self.what = "starting"
        self._buffer = bytearray()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in __exit__
        command = [sys.executable, "-P", "-X", "utf8", "-c", _CODE]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                process_group=0,
                bufsize=0,
            )
        except BaseException:
            self._errors.close()
            raise
        self._job = job

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()
        self._errors.close()

    def frames(self) -> Iterator[dict[str, Any]]:
        """Each frame, log lines aside, which go into logging; {"kind": "tick"} where none comes for half a second.

        A frame of kind "chunk" is to be followed by `piece` until its bytes are read.

        Raises:
            GraftError: what went wrong in the child. EngineBuildError, EngineOutOfMemory: it crashed or was killed.
        """
        places = [entry for entry in sys.path if isinstance(entry, str)]  # Python looks into no others
        self._send(json.dumps(places) + "\n" + self._job.to_json() + "\n")
        while True:
            line = self._line()
            if line is None:
                yield {"kind": "tick"}
                continue
            if not line:
                return self._ended()
            frame = json.loads(line)
            if frame["kind"] == "log":
                logging.getLogger(frame["name"]).log(frame["level"], "%s", frame["text"])
            elif frame["kind"] == "error":
                raise _error(frame["type"], frame["text"])
            else:
                yield frame

    def piece(self, left: int) -> bytes:
        """The next bytes of a chunk, at most `left` of them.

        Raises:
            EngineBuildError: the child ended before.
        """
        if self._buffer:
            found = bytes(self._buffer[:left])
            del self._buffer[:left]
            return found
        found = os.read(self._out(), min(left, _PIECE))
        if not found:
            self._ended(whole=False)
        return found

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode())
        except BrokenPipeError:
            self._ended(whole=False)

    def _out(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _line(self) -> bytes | None:
        """The next line; empty at the end; None where none is there yet."""
        while (end := self._buffer.find(b"\n")) < 0:
            if not select.select([self._out()], [], [], TICK)[0]:
                return None
            more = os.read(self._out(), 1 << 16)
            if not more:
                return b""
            self._buffer += more
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line

    def _ended(self, *, whole: bool = True) -> None:
        """Raise where the child did not end by itself and well."""
        code = self._process.wait()
        if code == 0 and whole:
            return
        how = f"it ended with code {code}"
        if code < 0:
            how = f"it was ended by signal {-code} ({_signal_name(-code)})"
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        lines = [one_line(line) for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        said = f"; its last words: {'; '.join(lines[-3:])[-600:]}" if lines else ""
        kind: type[GraftError] = EngineBuildError
        advice = "a crash of the library: build fewer labels, or --layout split, and report it with this message"
        if code == -signal.SIGKILL:  # what the kernel does where memory runs out; a user can, too
            kind = EngineOutOfMemory
            advice = "the system does this where memory runs out: free some, build fewer labels, or --layout split"
        raise kind(f"building ({self.what}): expected the building process to end well, found: {how}{said}; {advice}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _error(name: str, text: str) -> GraftError:
    kind = getattr(errors, name, EngineBuildError)
    return kind(text) if isinstance(kind, type) and issubclass(kind, GraftError) else EngineBuildError(text)
