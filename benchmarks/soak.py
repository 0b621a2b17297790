"""A running service under mixed requests for an hour: memory, descriptors and threads have to stay as they are.

    python benchmarks/soak.py PLAN IMAGE... [--minutes 60] [--rate 20] [--reload-every 0] [options of graftsdk serve]

The service and the load generator are processes of their own, on 127.0.0.1. Memory is the service's resident set, read
every second from when it no longer moves by more than 1% in 20 seconds; the median of the last quarter of these
readings is compared with that of the first. Then a control runs, the same service with 4 KiB lost at every call, which
has to be found. Exit code 0: flat, and the control was found; 1: not; 2: the run is too short to tell 4 KiB a call.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH the folder of the script is not on the path

from started import started

FLAT = 0.02  # of the resident set
LOST = 4096  # bytes a call, by the control
STILL, STILL_FOR = 0.01, 20  # share of the resident set, seconds
MOST = 64  # requests at once; the generator leaves out what would be more
MIB = 2**20


@dataclass(frozen=True)
class Reading:
    rss: int  # bytes
    descriptors: int
    threads: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--control-minutes", type=float, default=5.0, help="of the control; default: 5")
    parser.add_argument(
        "--rate", type=float, default=20.0, help="requests a second, a quarter of them computed; default: 20"
    )
    parser.add_argument("--reload-every", type=float, default=0.0, metavar="SECONDS", help="replace the plan; 0: never")
    parser.add_argument("--load", metavar="HOST:PORT", help=argparse.SUPPRESS)
    args, options = parser.parse_known_args()
    if args.load:
        print(json.dumps(asyncio.run(load(args))))
        return
    found = soak(args, options, args.minutes, leak=False)
    control = soak(args, options, args.control_minutes, leak=True)
    print(f"the control that loses {LOST} bytes a call: {'found' if control == 1 else 'NOT FOUND'}")
    sys.exit(1 if found == 1 or control == 0 else max(found, 2 if control == 2 else 0))


# ---------------------------------------------------------------------------------------------------------- one service
def soak(args: argparse.Namespace, options: list[str], minutes: float, *, leak: bool) -> int:
    seconds = 60.0 * minutes
    with tempfile.TemporaryDirectory() as folder:
        plan = shutil.copyfile(args.plan, Path(folder, "engine.plan"))
        serve = [sys.executable, "-c", LEAKING] if leak else [sys.executable, "-m", "graftsdk.cli.main"]
        with started([*serve, "serve", str(plan), "--port", "0", *options]) as (address, process):
            command = [sys.executable, __file__, args.plan, *args.images, "--load", address]
            command += ["--minutes", str(minutes), "--rate", str(args.rate)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as loading:
                readings, still = watch(process, seconds, args.reload_every, plan)
                told = json.loads(loading.communicate()[0])
    if told["wrong"]:
        raise SystemExit(f"{told['wrong']} answers have another status than expected: {told['seen']}")
    return judge(readings[still:], told["sent"] / seconds, f"{'control' if leak else 'service'}, {minutes:g} minutes")


LEAKING = f"""
import os, sys
from graftsdk.cli.main import main
from graftsdk.serving.service import Service
lost, answered = [], Service.answered
def losing(self, *told):
    lost.append(os.urandom({LOST}))  # not zeros: pages that nobody wrote into are not resident
    answered(self, *told)
Service.answered = losing
sys.exit(main())
"""


def watch(process: subprocess.Popen[str], seconds: float, reload_every: float, plan: Path) -> tuple[list[Reading], int]:
    """Readings of every second, and the place of the first after warm-up."""
    readings: list[Reading] = []
    still: int | None = None
    started, reloaded = time.monotonic(), time.monotonic()
    while time.monotonic() - started < seconds:
        time.sleep(1.0)
        if process.poll() is not None:
            raise SystemExit("the service ended")
        readings.append(read(process.pid))
        if reload_every and time.monotonic() - reloaded >= reload_every:
            reloaded = time.monotonic()
            shutil.copyfile(plan, plan.with_suffix(".new")).replace(plan)
        late = len(readings) >= max(STILL_FOR, seconds / 3)
        last = [reading.rss for reading in readings[-STILL_FOR:]]
        if still is None and len(readings) >= STILL_FOR and (max(last) - min(last) <= STILL * last[-1] or late):
            still = len(readings)
            print(f"warm after {still} s" + (", not still yet" if max(last) - min(last) > STILL * last[-1] else ""))
        if len(readings) % 60 == 0:
            print(f"minute {len(readings) // 60}: {said(readings[-1])}", flush=True)
    if still is None:
        raise SystemExit(f"--minutes: expected more than the {STILL_FOR} seconds that warming up takes at least")
    return readings, still


def read(pid: int) -> Reading:
    status = Path(f"/proc/{pid}/status").read_text()
    rss, threads = (int(re.search(rf"^{name}:\s*(\d+)", status, re.MULTILINE)[1]) for name in ("VmRSS", "Threads"))  # type: ignore[index]
    return Reading(1024 * rss, len(os.listdir(f"/proc/{pid}/fd")), threads)


def said(reading: Reading) -> str:
    return f"{reading.rss / MIB:.1f} MiB, {reading.descriptors} descriptors, {reading.threads} threads"


def judge(readings: list[Reading], rate: float, name: str) -> int:
    """0: flat; 1: it grows; 2: flat, but so would be the control."""
    quarter = max(1, len(readings) // 4)
    first, last = (
        Reading(*(int(statistics.median(values)) for values in zip(*map(_values, part), strict=True)))
        for part in (readings[:quarter], readings[-quarter:])
    )
    growth = (last.rss - first.rss) / first.rss
    would = LOST * rate * (len(readings) - quarter) / first.rss
    print(f"{name}, {rate:.1f} requests/s: first quarter {said(first)}; last {said(last)}; memory {growth:+.2%}")
    grows = growth > FLAT or last.descriptors > first.descriptors + 2 or last.threads > first.threads + 2
    if grows:
        print(f"{name}: GROWS")
        return 1
    if would <= 1.5 * FLAT:
        print(f"{name}: flat, but {LOST} bytes a call would be {would:.2%} only; run it longer, or at a higher rate")
        return 2
    print(f"{name}: flat; {LOST} bytes a call would have been {would:+.2%}")
    return 0


def _values(reading: Reading) -> tuple[int, int, int]:
    return reading.rss, reading.descriptors, reading.threads


# -------------------------------------------------------------------------------------------------------- the generator
def mixed(images: list[bytes]) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """Requests as bytes, and the statuses that each may be answered with. (0: it is cut off, no answer.)"""

    def post(path: str, body: bytes, kind: str = "image/jpeg") -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def get(path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()

    def form(image: bytes) -> bytes:
        return b'--b\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\n\r\n' + image + b"\r\n--b--\r\n"

    served = (200, 503)  # busy is an answer
    for number in itertools.count():
        image = images[number % len(images)]
        whole = post("/v1/predict", image)
        yield post("/v1/predict?masks=none", image), served
        yield get("/ready"), (200,)
        yield get("/metrics"), (200,)
        yield post("/v1/predict", b"no image" * 100), (422, 503)
        yield post("/v1/predict", form(image), "multipart/form-data; boundary=b"), served
        yield post("/v1/predict?labels=nobody", image), (422,)
        yield get("/v1/plan"), (200,)
        yield whole[: len(whole) // 2], (0,)
        yield post("/v1/crops", form(image), "multipart/form-data; boundary=b"), served
        yield post("/v1/predict", b"{}", "application/json"), (415,)
        yield get("/nowhere"), (404,)
        yield get("/v2/models/graftsdk"), (200,)


async def load(args: argparse.Namespace) -> dict[str, Any]:
    host, port = args.load.rsplit(":", 1)
    seen: Counter[str] = Counter()
    wrong = 0

    async def one(request: bytes, expected: tuple[int, ...]) -> None:
        nonlocal wrong
        status = 0
        reader, writer = await asyncio.open_connection(host, int(port))
        with suppress(OSError, asyncio.IncompleteReadError):
            writer.write(request)
            await writer.drain()
            if expected != (0,):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                status = int(head.split(b" ", 2)[1])
        writer.close()
        seen[f"{status}"] += 1
        wrong += status not in expected

    started, running = time.monotonic(), set[asyncio.Task[None]]()
    requests = mixed([Path(path).read_bytes() for path in args.images])
    for count in itertools.count():
        due = started + count / args.rate
        if due >= started + 60.0 * args.minutes:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if len(running) < MOST:
            task = asyncio.create_task(one(*next(requests)))
            running.add(task)
            task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return {"sent": sum(seen.values()), "wrong": wrong, "seen": dict(seen)}


if __name__ == "__main__":
    main()
