"""Code blocks of the README and of the documentation, run as they stand, in order, in one folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Blocks one after another, each with names of its own, as if each were a file: the libraries are loaded once.
_RUN = """
import json, sys
for place, text in enumerate(json.load(sys.stdin)):
    print("block", place, file=sys.stderr)
    exec(compile(text, f"block {place}", "exec"), {"__name__": "__main__"})
"""


def blocks(document: Path) -> list[tuple[str, str]]:
    """(language, text) of those that are said to be Python or a shell's, in order."""
    return re.findall(r"^```(python|sh)\n(.*?)^```$", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def run(document: Path, folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for kind, group in groupby(blocks(document), key=itemgetter(0)):
        texts = [text for _, text in group]
        command = [sys.executable, "-c", _RUN] if kind == "python" else ["sh", "-e"]
        source = json.dumps(texts) if kind == "python" else "\n".join(texts)
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(source, timeout=600)
        finally:
            with suppress(ProcessLookupError):  # a service that a block started and did not live to stop
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.returncode == 0, f"{document.name}: {source}\n{out}\n{err}"
