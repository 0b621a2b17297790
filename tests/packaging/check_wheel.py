"""Check a built wheel: `python check_wheel.py WHEEL...` prints its size, or says what is wrong with it and fails.

A wheel installs one top-level package, carries what an installation needs, and runs on any Linux of its platform tag.
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

REQUIRED = ("graftsdk/__init__.py", "graftsdk/py.typed", "graftsdk/plan/FORMAT.md", "graftsdk/export/__init__.py")


def problems(wheel: Path) -> list[str]:
    """What is wrong with the wheel, one line each; empty when nothing is."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    found = []
    tops = {name.split("/")[0] for name in names}
    strangers = sorted(top for top in tops if top != "graftsdk" and not re.fullmatch(r"graftsdk-.+\.dist-info", top))
    if strangers:
        found.append(f"top level: expected graftsdk alone, found {', '.join(strangers)} too")
    found.extend(f"{name}: missing" for name in REQUIRED if name not in names)
    if not any(re.fullmatch(r"graftsdk/_native\..*(so|pyd)", name) for name in names):
        found.append("graftsdk/_native: missing")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("LICENSE: missing")
    found.extend(f"{name}: belongs to no wheel" for name in names if re.search(r"__pycache__|\.pyc$|/tests?/", name))
    if "-linux_" in wheel.name:
        found.append(f"{wheel.name}: expected a manylinux tag; run auditwheel repair on it")
    return found


def main(paths: list[str]) -> int:
    found = [f"{Path(path).name}: {problem}" for path in paths for problem in problems(Path(path))]
    for path in paths:
        print(f"{Path(path).name}: {Path(path).stat().st_size / 1024:.0f} KiB")
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found or not paths else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
