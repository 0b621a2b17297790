"""How many threads: the affinity mask, the control groups' quotas, hyper-threads once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graftsdk.engines import default_threads

CPU = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
GROUP = "sys/fs/cgroup"
PAIRS = {CPU.format(cpu): f"{cpu % 4},{cpu % 4 + 4}\n" for cpu in range(8)}  # eight threads on four cores


@pytest.mark.parametrize(
    ("files", "mask", "expected"),
    [
        ({}, range(8), 8),
        ({}, [3], 1),
        (PAIRS, range(8), 4),
        (PAIRS, [0, 4], 1),
        (PAIRS, [0, 1, 4], 2),
        ({"proc/self/cgroup": "0::/a/b\n", f"{GROUP}/a/b/cpu.max": "250000 100000\n"}, range(8), 3),
        ({"proc/self/cgroup": "0::/a/b\n", f"{GROUP}/a/cpu.max": "100000 100000\n"}, range(8), 1),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                f"{GROUP}/a/cpu.max": "200000 100000\n",
                f"{GROUP}/a/b/cpu.max": "max 100000\n",
            },
            range(8),
            2,
        ),
        ({"proc/self/cgroup": "0::/host/only\n", f"{GROUP}/cpu.max": "50000 100000\n"}, range(8), 1),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "max 100000\n"}, range(8), 8),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "rubbish\n"}, range(8), 8),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "1600000 100000\n"}, range(8), 8),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n",
                f"{GROUP}/cpu,cpuacct/x/cpu.cfs_quota_us": "150000\n",
                f"{GROUP}/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            range(8),
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                f"{GROUP}/cpu/cpu.cfs_quota_us": "-1\n",
                f"{GROUP}/cpu/cpu.cfs_period_us": "100000\n",
            },
            range(8),
            8,
        ),
        ({**PAIRS, "proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "600000 100000\n"}, range(8), 4),
    ],
)
def test_default_threads(
    files: dict[str, str], mask: object, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(mask))  # type: ignore[call-overload]
    assert default_threads(tmp_path) == expected


def test_default_threads_here() -> None:
    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))
