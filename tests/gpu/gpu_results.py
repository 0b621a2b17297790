"""docs/gpu-results.md: a table of what was run where, and one section for each run. Written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from gpu_survey import Found, as_table

__all__ = ["State", "Tally", "add_run", "markdown_table", "read_junit"]

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "gpu-results.md"
_BEGIN, _END = "<!-- states: kept by tests/gpu/gpu_results.py -->", "<!-- end of states -->"
_BEFORE = re.compile(r"<!-- until something is run -->\n.*?<!-- end -->\n", re.DOTALL)  # true until then
_COLUMNS = ("GPU", "compute capability", "runtime", "state", "what", "when")


@dataclass(frozen=True)
class State:
    """A row of the table at the top.

    Attributes:
        gpu, capability, runtime: which row; the runtime with its version.
        state: "tested", "built only" or "untested". what: in a few words.
    """

    gpu: str
    capability: str
    runtime: str
    state: str
    what: str


@dataclass
class Tally:
    """What a run of the tests came to.

    Attributes:
        passed, failed: how many. skipped: reason -> how many.
        by_runtime: runtime -> [passed, failed, skipped], for tests that name theirs.
        notes: what tests measured and wrote down.
    """

    passed: int = 0
    failed: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    by_runtime: dict[str, list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_junit(path: Path) -> Tally:
    """The tally of pytest's report in JUnit's form; tests name their runtime and notes as properties."""
    found = Tally()
    for case in ElementTree.parse(path).iter("testcase"):
        properties = [(each.get("name", ""), each.get("value", "")) for each in case.iter("property")]
        skipped = case.find("skipped")
        failed = case.find("failure") is not None or case.find("error") is not None
        outcome = 1 if failed else 2 if skipped is not None else 0
        found.passed += outcome == 0
        found.failed += outcome == 1
        if outcome == 2 and skipped is not None:
            reason = " ".join(skipped.get("message", "").split())
            found.skipped[reason] = found.skipped.get(reason, 0) + 1
        for runtime in {value for name, value in properties if name == "runtime"} | _of_conformance(case):
            found.by_runtime.setdefault(runtime, [0, 0, 0])[outcome] += 1
        found.notes += [value for name, value in properties if name == "note"]
    return found


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; cells are one line each."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in row) + " |" for row in lines
    )


def add_run(
    title: str,
    command: str,
    rows: Sequence[Found],
    body: str,
    states: Sequence[State] = (),
    path: Path = RESULTS,
) -> None:
    """Put a run behind all others, and its states into the table at the top, in place of older ones of the same row.

    What the file says as long as nothing was run is taken out.

    Args:
        title: of the section; the date is added. command: what was typed. rows: the machine, from `survey`.
        body: Markdown. states: for the table at the top.
        path: the file, which has the table's two marks.

    Raises:
        ValueError: it has not.
    """
    from graftsdk.files import atomic_write

    now = datetime.now(UTC)
    text = path.read_text(encoding="utf-8")
    text = with_states(_BEFORE.sub("", text), states, f"{now:%Y-%m-%d}")
    found = "\n".join(line.rstrip() for line in as_table([row for row in rows if row.version]).splitlines())
    absent = ", ".join(row.what for row in rows if not row.version) or "nothing"
    section = f"\n## {title}, {now:%Y-%m-%d %H:%M} UTC\n\n    {command}\n\n```text\n{found}\n```\n\n"
    section += f"Missing: {absent}.\n\n{body}\n"
    with atomic_write(path) as out:
        out.write((text.rstrip("\n") + "\n" + section).encode("utf-8"))


def with_states(text: str, states: Sequence[State], when: str) -> str:
    """The text with these states in its table; a row of the same GPU and runtime is replaced."""
    before, begin, rest = text.partition(_BEGIN)
    table, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"expected the marks {_BEGIN!r} and {_END!r}, found none; restore docs/gpu-results.md")
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.strip().splitlines()[2:]]
    kept: Mapping[tuple[str, ...], Sequence[str]] = {tuple(row[:3]): row for row in cells}
    new = {
        (each.gpu, each.capability, each.runtime): (
            *(each.gpu, each.capability, each.runtime, each.state, each.what, when),
        )
        for each in states
    }
    return f"{before}{begin}\n{markdown_table(_COLUMNS, {**kept, **new}.values())}\n{end}{after}"


def _of_conformance(case: ElementTree.Element) -> set[str]:
    """The conformance suite has its kind of device in the test's name."""
    name = case.get("name", "")
    kinds = ("cuda-core", "pycuda")
    return {kind for kind in kinds if name.startswith(f"test_conformance[{kind}")}
