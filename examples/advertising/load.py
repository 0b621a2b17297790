"""The load curve: how many lifts a machine serves, and what becomes of the others. `python load.py -o FOLDER`.

For each number of lifts the server is started anew on this machine, with the demo plan in its process, and the
simulated cameras post to it, each lift every `--interval` seconds, half of the lifts empty. After a warm-up it
is counted for `--seconds`. Cameras and server share the processors. Writes load.csv, and load.png with
matplotlib.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
from cameras import drawn_rides, simulate

SERVER = Path(__file__).with_name("server.py")
WARM_UP = 8.0  # seconds
COLUMNS = (
    "lifts", "sent_per_s", "answered_per_s", "replaced_share", "age_p50_s", "age_p95_s", "every_s", "refused",
    "server_cpu_s_per_s", "server_mib",
)  # fmt: skip


async def measure(rides: Sequence[list[bytes]], lifts: int, interval: float, empty: float, seconds: float) -> dict:
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), "--port", "0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert server.stdout is not None
        line = (await asyncio.wait_for(server.stdout.readline(), 60)).decode()
        address = re.match(r"(http://127\.0\.0\.1:\d+)/", line)
        if address is None:
            raise RuntimeError(f"the server did not start: {line}")
        running = asyncio.create_task(simulate(address[1], rides, lifts, interval, empty, WARM_UP + seconds + 2))
        async with httpx.AsyncClient(base_url=address[1], timeout=10, trust_env=False) as client:
            await asyncio.sleep(WARM_UP)
            before, cpu = (await client.get("/totals")).json(), _cpu(server.pid)
            await asyncio.sleep(seconds)
            after = (await client.get("/totals", params={"seconds": seconds})).json()
            cpu, memory = _cpu(server.pid) - cpu, _memory(server.pid)
        counts = await running
    finally:
        server.terminate()
        await server.wait()
    grown = {key: after[key] - before[key] for key in ("received", "answered", "replaced")}
    return dict(
        zip(
            COLUMNS,
            (
                lifts,
                round(grown["received"] / seconds, 1),
                round(grown["answered"] / seconds, 1),
                round(grown["replaced"] / max(grown["received"], 1), 3),
                after["age_p50"],
                after["age_p95"],
                round(lifts * seconds / max(grown["answered"], 1), 2),  # from one decision of a lift to its next
                counts.refused + counts.lost,
                round(cpu / seconds, 2),
                round(memory),
            ),
            strict=True,
        )
    )


def _cpu(process: int) -> float:
    """Seconds of processor time so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(process: int) -> float:
    """MiB that are resident."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def draw(rows: Sequence[dict], path: Path, interval: float) -> None:
    import matplotlib.pyplot as plt

    lifts = [row["lifts"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    left.plot(lifts, [row["sent_per_s"] for row in rows], "--", color="0.6", label="sent")
    left.plot(lifts, [row["answered_per_s"] for row in rows], "o-", color="teal", label="answered")
    left.set(xlabel=f"lifts, one snapshot every {interval:g} s each", ylabel="snapshots/s", ylim=(0, None))
    left.legend(frameon=False)
    right.plot(lifts, [row["age_p50_s"] for row in rows], "o-", color="teal", label="median")
    right.plot(lifts, [row["age_p95_s"] for row in rows], "o--", color="darkorange", label="19 in 20 within")
    right.axhline(interval, color="0.8", lw=1, zorder=0)
    right.set(xlabel="lifts", ylabel="age of a snapshot when decided, s", ylim=(0, None))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    parser.add_argument("--lifts", type=int, nargs="+", default=[10, 25, 50, 75, 100, 150, 200, 300, 500])
    parser.add_argument("--interval", type=float, default=2.0)
    parser.add_argument("--empty", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rides", type=int, default=24)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rides = drawn_rides(arguments.rides)
    rows = []
    with (arguments.output / "load.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for lifts in arguments.lifts:
            row = asyncio.run(measure(rides, lifts, arguments.interval, arguments.empty, arguments.seconds))
            table.writerow(row)
            file.flush()
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            rows.append(row)
    try:
        draw(rows, arguments.output / "load.png", arguments.interval)
    except ImportError:
        print("no picture: pip install matplotlib")


if __name__ == "__main__":
    main()
