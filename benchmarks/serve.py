"""The HTTP service against the same batcher in this process; and what it does at three times what it can.

    python benchmarks/serve.py PLAN IMAGE... [--clients 16] [--seconds 5] [--rounds 3]
    python benchmarks/serve.py PLAN IMAGE... --overload 300

The service and the load generator are processes of their own; all of them share this machine's cores, so that the
ratio is what one machine gets, its clients included. In overload the generator sends at a fixed rate, whatever the
answers are: three times what 16 clients were served at, before and after, since others use the machine too. Every
answer has to have its own request's id, and to say of its image what the first one said.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH the folder of the script is not on the path

from started import started

HEAD = (
    b"POST /v1/predict?masks=none HTTP/1.1\r\nHost: a\r\nX-Request-ID: %d\r\n"
    b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
)
CONNECTIONS = 256
REFUSED_WITHIN = 50.0  # milliseconds
RESTED = 2.0  # seconds after which a connection is not used again: the service closes it after 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--factor", type=float, default=3.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--load", metavar="HOST:PORT", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        print(json.dumps(asyncio.run(load(args))))
        return
    command = [sys.executable, "-m", "graftsdk.cli.main", "serve", args.plan, "--port", "0"]
    command += [] if args.threads is None else ["--threads", str(args.threads)]
    with started(command) as (address, process):
        compare(args, address, process.pid)
        if args.overload:
            overload(args, address, process.pid)


# ------------------------------------------------------------------------------------------------- who serves, who asks
def ask(args: argparse.Namespace, address: str, seconds: float, rate: float = 0.0) -> dict[str, Any]:
    """What the generator counted, in a process of its own."""
    command = [sys.executable, __file__, args.plan, *args.images, "--load", address, "--seconds", str(seconds)]
    command += ["--clients", str(args.clients), "--rate", str(rate)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


# -------------------------------------------------------------------------------------------------------- both, in turn
def compare(args: argparse.Namespace, address: str, pid: int) -> None:
    from graftsdk import Predictor, share_threads
    from graftsdk.engines import default_threads
    from graftsdk.engines.memory import keep_memory

    keep_memory()
    share_threads(args.threads or default_threads())
    images = [Path(path).read_bytes() for path in args.images]
    with Predictor(args.plan) as predictor, predictor.batcher() as batcher:
        ask(args, address, 1.0)
        in_process(batcher, images, args.clients, 1.0)
        ratios: list[float] = []
        own: list[float] = []  # milliseconds of CPU an image, which others on this machine disturb less
        theirs: list[float] = []
        for turn in range(args.rounds):
            spent = time.process_time()
            inside, count = in_process(batcher, images, args.clients, args.seconds)
            own.append(1e3 * (time.process_time() - spent) / count)
            spent = cpu_seconds(pid)
            told = ask(args, address, args.seconds)
            check(told)
            theirs.append(1e3 * (cpu_seconds(pid) - spent) / told["answered"])
            outside = told["answered"] / told["seconds"]
            ratios.append(outside / inside)
            print(
                f"round {turn}: in-process {inside:.1f} images/s, HTTP {outside:.1f}, ratio {ratios[-1]:.3f}; "
                f"HTTP latency p50 {told['p50']:.1f} ms, p99 {told['p99']:.1f} ms"
            )
        print(f"HTTP against in-process, {args.clients} clients: median ratio {statistics.median(ratios):.3f}")
        inside, outside = statistics.median(own), statistics.median(theirs)
        print(f"CPU an image: in-process {inside:.1f} ms, the service {outside:.1f} ms, ratio {inside / outside:.3f}")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_process(batcher: Any, images: list[bytes], clients: int, seconds: float) -> tuple[float, int]:
    """Images a second of so many threads, each with one image at a time, and how many they were."""
    until, done, lock = time.perf_counter() + seconds, 0, threading.Lock()
    turn = itertools.cycle(images)

    def client() -> None:
        nonlocal done
        while time.perf_counter() < until:
            with lock:
                image = next(turn)
            batcher.predict(image)
            with lock:
                done += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done / (time.perf_counter() - started), done


def overload(args: argparse.Namespace, address: str, pid: int) -> None:
    alone = [ask(args, address, args.seconds) for _ in range(4)]
    capacity = statistics.median(told["answered"] / told["seconds"] for told in alone)
    rss: list[float] = []
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.5):
            rss.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20)

    watching = threading.Thread(target=watch)
    watching.start()
    told = ask(args, address, args.overload, args.factor * capacity)
    stopped.set()
    watching.join()
    check(told)
    alone += [ask(args, address, args.seconds) for _ in range(4)]
    rates = sorted(each["answered"] / each["seconds"] for each in alone)
    capacity = statistics.median(rates)
    goodput = told["answered"] / told["seconds"]
    late = sum(ms > REFUSED_WITHIN for ms in told["refused_ms"])
    refused = sorted(told["refused_ms"]) or [0.0]
    quarter = max(1, len(rss) // 4)
    print(
        f"capacity {capacity:.1f} images/s ({rates[0]:.1f} to {rates[-1]:.1f}), "
        f"offered {told['sent'] / told['seconds']:.1f} for {args.overload:g} s: "
        f"answered {goodput:.1f} ({goodput / capacity:.3f} of capacity), {len(told['refused_ms'])} refused, "
        f"{told['failed']} failed"
    )
    print(
        f"refusals: p50 {refused[len(refused) // 2]:.1f} ms, p99 {refused[int(0.99 * (len(refused) - 1))]:.1f} ms, "
        f"largest {refused[-1]:.1f} ms, {late} later than {REFUSED_WITHIN:g} ms; "
        f"answers: p50 {told['p50']:.1f} ms, p99 {told['p99']:.1f} ms"
    )
    print(
        f"RSS of the service: {statistics.mean(rss[quarter : 2 * quarter]):.0f} MiB in the second quarter, "
        f"{statistics.mean(rss[-quarter:]):.0f} MiB in the last, at most {max(rss):.0f} MiB"
    )


def check(told: dict[str, Any]) -> None:
    if told["wrong"] or told["failed"]:
        raise SystemExit(f"{told['wrong']} answers are wrong, {told['failed']} requests have none")


# -------------------------------------------------------------------------------------------------------- the generator
async def load(args: argparse.Namespace) -> dict[str, Any]:
    host, port = args.load.rsplit(":", 1)
    images = [Path(path).read_bytes() for path in args.images]
    told: dict[str, Any] = {"sent": 0, "answered": 0, "wrong": 0, "failed": 0, "refused_ms": [], "seconds": 0.0}
    took: list[float] = []
    expected: dict[int, Any] = {}
    turn = itertools.cycle(range(len(images)))
    idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one(number: int) -> None:
        told["sent"] += 1
        own = told["sent"]
        started = time.perf_counter()
        try:
            while idle and started - idle[-1][0] > RESTED:
                idle.pop()[2].close()
            reader, writer = idle.pop()[1:] if idle else await asyncio.open_connection(host, int(port))
            writer.write(HEAD % (own, len(images[number])) + images[number])
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError):
            told["failed"] += 1
            return
        ms = 1e3 * (time.perf_counter() - started)
        if b"connection: close" in head.lower():
            writer.close()
        else:
            idle.append((time.perf_counter(), reader, writer))
        status = int(head.split(b" ", 2)[1])
        found = json.loads(body)
        if found.get("id") != str(own) or status not in (200, 503):
            told["wrong"] += 1
            return
        if status == 503:
            told["refused_ms"].append(ms)
            return
        told["answered"] += 1
        took.append(ms)
        if expected.setdefault(number, found["persons"]) != found["persons"]:
            told["wrong"] += 1

    started = time.perf_counter()
    until = started + args.seconds
    if args.rate:
        running: set[asyncio.Task[None]] = set()
        for count in itertools.count():
            due = started + count / args.rate
            if due >= until:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if len(running) < CONNECTIONS:
                task = asyncio.create_task(one(next(turn)))
                running.add(task)
                task.add_done_callback(running.discard)
        await asyncio.gather(*running)
    else:

        async def client() -> None:
            while time.perf_counter() < until:
                await one(next(turn))

        await asyncio.gather(*(client() for _ in range(args.clients)))
    told["seconds"] = time.perf_counter() - started
    for _, _, writer in idle:
        writer.close()
    took.sort()
    told["p50"] = took[len(took) // 2] if took else 0.0
    told["p99"] = took[int(0.99 * (len(took) - 1))] if took else 0.0
    return told


if __name__ == "__main__":
    main()
