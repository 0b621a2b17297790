"""What prepares and records the GPU tests and the benchmark; it needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import checkout_tree as tree
import gpu_results as results
import gpu_survey as survey
import pytest

HERE = Path(__file__).parent
HEAD = """# Results

<!-- until something is run -->
nothing was run
<!-- end -->
<!-- until something is run -->
nothing was measured
<!-- end -->
<!-- states: kept by tests/gpu/gpu_results.py -->
| GPU | compute capability | runtime | state | what | when |
| --- | --- | --- | --- | --- | --- |
| any | 8.9 | tensorrt_rtx 1.7.1.116 | built only | 5 builds | 2026-11-27 |
| A | 9.0 | cuda-core 1.2.2 | tested | old | 2026-01-01 |
<!-- end of states -->

## First

text
"""
ROWS = [survey.Found("machine", "Linux", ""), survey.Found("GPU 0", "A", ""), survey.Found("cupy", "", "arrays")]
JUNIT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase name="test_conformance[cuda-core-a]"/>
<testcase name="test_conformance[pycuda-a]"><skipped message="no  pycuda"/></testcase>
<testcase name="test_x"><properties><property name="runtime" value="tensorrt"/><property name="note" value="n: 1e-6"/>
</properties><failure message="wrong"/></testcase>
<testcase name="test_y"><properties><property name="runtime" value="tensorrt"/></properties></testcase>
<testcase name="test_z"><error message="broken"/></testcase>
</testsuite></testsuites>"""


def test_the_survey_names_what_is_here_and_what_is_missing() -> None:
    rows = survey.survey()
    by_name = {row.what: row for row in rows}
    assert by_name["numpy"].version and by_name["numpy"].required
    assert by_name["pytest"].version == pytest.__version__
    text = survey.as_table([*rows, survey.Found("nowhere", "", "showing this", required=True)])
    assert "MISSING: showing this (required)" in text and len(text.splitlines()) == len(rows) + 1
    assert survey.missing(rows) == []
    assert survey.missing([*ROWS, survey.Found("x", "", "y", required=True)], ("cupy",)) == ["cupy", "x"]


def test_a_tally_of_pytests_report(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(JUNIT)
    tally = results.read_junit(report)
    assert (tally.passed, tally.failed, tally.skipped) == (2, 2, {"no pycuda": 1})
    assert tally.by_runtime == {"cuda-core": [1, 0, 0], "pycuda": [0, 0, 1], "tensorrt": [1, 1, 0]}
    assert tally.notes == ["n: 1e-6"]


def test_a_run_is_appended_and_its_states_replace_older_ones(tmp_path: Path) -> None:
    path = tmp_path / "gpu-results.md"
    path.write_text(HEAD)
    new = results.State("A", "9.0", "cuda-core 1.2.2", "tested", "33 | passed")
    other = results.State("B", "8.9", "tensorrt 11.4", "tested", "40 passed")
    results.add_run("Tests", "make gpu-test RECORD=1", ROWS, "3 passed.", [new, other], path)
    text = path.read_text()
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(table) == 5 and table[2].startswith("| any | 8.9 | tensorrt_rtx 1.7.1.116 | built only | 5 builds |")
    assert table[3].startswith("| A | 9.0 | cuda-core 1.2.2 | tested | 33 / passed | 2")
    assert table[4].startswith("| B | 8.9 | tensorrt 11.4 | tested | 40 passed | 2")
    assert "old" not in text and "nothing was" not in text and text.index("## First") < text.index("## Tests, 2")
    assert "    make gpu-test RECORD=1\n" in text and "Missing: cupy." in text and text.endswith("3 passed.\n")
    path.write_text("no table")
    with pytest.raises(ValueError, match="expected the marks"):
        results.add_run("Tests", "x", ROWS, "y", path=path)
    assert path.read_text() == "no table"


def test_the_results_that_are_kept_have_their_table() -> None:
    text = results.RESULTS.read_text(encoding="utf-8")
    assert results.with_states(text, [], "2026-01-01") == text


def test_the_checkout_runs_by_a_folder_of_links(tmp_path: Path) -> None:
    """As an installation: `graftsdk.export` is there, the native module too, and a child process sees the same."""
    native = tmp_path / "build" / "native" / f"_native{tree.SUFFIX}"
    import graftsdk._native

    native.parent.mkdir(parents=True)  # building it takes longer than all tests here together
    native.write_bytes(Path(graftsdk._native.__file__).read_bytes())
    site = tree.link_tree(tmp_path / "build")
    (site / "graftsdk" / "gone.py").symlink_to(tmp_path / "gone.py")
    assert tree.link_tree(tmp_path / "build") == site and not (site / "graftsdk" / "gone.py").is_symlink()
    code = "import graftsdk, graftsdk.export.build, graftsdk._native as native"
    code += "; print(graftsdk.__file__, bool(native.cpu_features()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(site / "graftsdk" / "__init__.py"), "True"]


@pytest.mark.parametrize("require", [False, True])
def test_what_is_missing_is_said(require: bool) -> None:
    """Without any of the packages: no traceback, what to install, and a code of its own."""
    words = [sys.executable, "-I", "-S", str(HERE / "prepare.py"), "test", *(["--require-gpu"] * require)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 3 and "numpy" in done.stderr and "pip install" in done.stderr
    assert "MISSING" in done.stdout and "Traceback" not in done.stderr
