"""A service in a process of its own, for as long as a block runs."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def started(command: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """HOST:PORT of what the command (`... serve PLAN --port 0`) serves, and its process, which SIGTERM ends."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"http://(\S+) serves", line)
            if found:
                break
        else:
            raise SystemExit("the service did not start")
        threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True).start()  # its log
        try:
            yield found[1], process
        finally:
            process.terminate()
            code = process.wait(60)
            if code:
                raise SystemExit(f"the service ended with exit code {code}")
