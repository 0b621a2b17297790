"""The GPU tests and the GPU benchmark out of a checkout, on a machine that may have no network. `make gpu-test`.

    python tests/gpu/prepare.py report                       what is here and what is missing
    python tests/gpu/prepare.py test [PYTEST ARGUMENTS]      the tests that need a GPU
    python tests/gpu/prepare.py bench [ARGUMENTS]            benchmarks/gpu.py

Nothing is installed: `graftsdk` is the checkout's, by a folder of links in build/gpu; the native module is built there
where it is missing. Exit codes: 0 nothing failed; 1 a test or case failed; 3 something is missing without which
nothing can be run. Without a GPU every test is skipped and says why, and the code is 0, or 3 with --require-gpu.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "gpu"
sys.path.insert(0, str(HERE))  # under PYTHONSAFEPATH the folder of the script is not on the path

from checkout_tree import NativeMissing, link_tree  # noqa: E402
from gpu_results import State, Tally, add_run, markdown_table, read_junit  # noqa: E402
from gpu_survey import Found, as_table, gpus, missing, survey  # noqa: E402

MISSING = 3
NOTHING = "no GPU here: nothing was run on one, and nothing is shown by this"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("report", "test", "bench"))
    parser.add_argument("--require-gpu", action="store_true", help="exit code 3 where there is no GPU")
    parser.add_argument("--record", action="store_true", help="put the results into docs/gpu-results.md")
    options, rest = parser.parse_known_args()
    rows = survey()
    print(as_table(rows), flush=True)
    if options.what == "report":
        return 0
    lacking = missing(rows, ("pytest", "pytest-timeout", "hypothesis") if options.what == "test" else ("torch",))
    if lacking:
        print(f"\nexpected {', '.join(lacking)}, found none; pip install {' '.join(lacking)}", file=sys.stderr)
        return MISSING
    try:
        site = link_tree(BUILD)
    except NativeMissing as error:
        print(f"\n{error}", file=sys.stderr)
        return MISSING
    sys.path.insert(0, str(site))  # for gpu_results.py
    paths = [str(site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONSAFEPATH": "1"}
    code = (_test if options.what == "test" else _bench)(rows, environment, rest, options.record)
    if not gpus():
        print(f"\n{NOTHING}")
        return code or (MISSING if options.require_gpu else 0)
    return code


def _test(rows: list[Found], environment: dict[str, str], rest: list[str], record: bool) -> int:
    report = BUILD / "tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-rs", "-o", "junit_family=xunit1"]
    command += [f"--junitxml={report}", *(rest or ["tests/engines/cuda", "tests/gpu"])]
    print(f"\n$ {shlex.join(command)}", flush=True)
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if not report.exists():
        return code or 1
    tally = read_junit(report)
    body = _described(tally)
    print(f"\n{body.partition('Skipped:')[0]}")  # pytest has just said why
    if record and gpus() and tally.passed + tally.failed:
        add_run("Tests", "make gpu-test RECORD=1", rows, body, _states(rows, tally))
        print("\nput into docs/gpu-results.md")
    return code


def _bench(rows: list[Found], environment: dict[str, str], rest: list[str], record: bool) -> int:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *rest, *(["--record"] if record else [])]
    print(f"\n$ {shlex.join(command)}", flush=True)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _described(tally: Tally) -> str:
    skipped = sum(tally.skipped.values())
    parts = [f"{tally.passed} passed, {tally.failed} failed, {skipped} skipped."]
    if tally.by_runtime:
        counts = [[runtime, *map(str, found)] for runtime, found in sorted(tally.by_runtime.items())]
        parts.append(markdown_table(("runtime", "passed", "failed", "skipped"), counts))
    if tally.skipped:
        parts.append("Skipped:\n\n" + "\n".join(f"* {count}: {reason}" for reason, count in tally.skipped.items()))
    if tally.notes:
        parts.append("Written down by tests:\n\n" + "\n".join(f"* {note}" for note in sorted(set(tally.notes))))
    return "\n\n".join(parts)


def _states(rows: list[Found], tally: Tally) -> list[State]:
    """A row for each runtime of which a test ran."""
    gpu, versions = gpus()[0], {row.what: row.version for row in rows}
    found = []
    for runtime, (passed, failed, skipped) in sorted(tally.by_runtime.items()):
        name = "onnxruntime-gpu" if runtime.startswith("onnxruntime") else runtime
        version = versions.get(name, "") or versions.get("onnxruntime", "")
        if passed + failed:
            what = f"tests: {passed} passed, {failed} failed, {skipped} skipped"
            found.append(State(gpu.name, gpu.capability, f"{runtime} {version}".strip(), "tested", what))
    return found


if __name__ == "__main__":
    sys.exit(main())
