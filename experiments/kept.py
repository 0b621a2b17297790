"""What an output folder was made with: nothing that lies there is taken for the result of other options."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftsdk.files import atomic_write


def same_options(folder: Path, options: Mapping[str, Any]) -> None:
    """Write them into a new `folder`; end the program where the folder was made with others."""
    folder.mkdir(parents=True, exist_ok=True)
    path, text = folder / "options.json", json.dumps(dict(options), indent=2, sort_keys=True, default=str) + "\n"
    if not path.exists():
        with atomic_write(path) as file:
            file.write(text.encode())
    elif path.read_text(encoding="utf-8") != text:
        sys.exit(f"error: {path}: expected the options that the folder was made with, found others; name another")
