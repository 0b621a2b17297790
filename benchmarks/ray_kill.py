"""A replica of the Ray Serve deployment is killed under load: what becomes of the requests, and when all is as before.

    python benchmarks/ray_kill.py PLAN IMAGE [--replicas 2] [--clients 4] [--kills 3]

Clients post one image after another to 127.0.0.1. Every few seconds a replica gets SIGKILL. Told of each kill: answers
other than 200 and how long after the kill the last of them came, the longest gap without any answer, and how long until
all replicas answered again; and at the end, whether all 200 answers were alike.
"""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

from graftsdk.serving.ray import Args, run

PORT = 8719


class Load:
    """Clients that post until they are told to stop; every answer with its time."""

    def __init__(self, image: bytes, clients: int) -> None:
        self._image = image
        self.answers: list[tuple[float, float, int, str]] = []  # sent, done, status, beginning of an error
        self.bodies: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._post) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _post(self) -> None:
        while not self._stop.is_set():
            sent = time.monotonic()
            status, text = post(self._image)
            if status == 200:
                document = json.loads(text)
                self.bodies[json.dumps([document["plan"], document["persons"]], sort_keys=True)] += 1
                text = ""
            self.answers.append((sent, time.monotonic(), status, text[:120]))

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def post(image: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    try:
        connection.request("POST", "/v1/predict?masks=none", image, {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


def replicas() -> list[psutil.Process]:
    found = []
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # gone meanwhile
            if "ServeReplica:graftsdk:replicas" in "".join(each.cmdline()):
                found.append(each)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("image")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="between kills")
    args = parser.parse_args()
    import ray
    from ray import serve

    run(Args(args.plan, args.replicas, args.replicas, device="cpu"), port=PORT)
    while len(replicas()) < args.replicas:
        time.sleep(0.2)
    load = Load(Path(args.image).read_bytes(), args.clients)
    try:
        time.sleep(3)
        for _ in range(args.kills):
            before = {each.pid for each in replicas()}
            killed = replicas()[0]
            at = time.monotonic()
            killed.kill()
            back = None
            while time.monotonic() - at < args.seconds:
                running = serve.status().applications["graftsdk"].deployments["replicas"]
                new = {each.pid for each in replicas()} - before
                if back is None and new and running.replica_states.get("RUNNING") == args.replicas:
                    back = time.monotonic() - at
                time.sleep(0.05)
            told(load, at, back, args.seconds)
    finally:
        load.close()
        serve.shutdown()
        ray.shutdown()
    print(f"answers of 200 that differ: {len(load.bodies) - 1} kinds more than one, of {load.bodies.total()}")


def told(load: Load, at: float, back: float | None, seconds: float) -> None:
    during = [each for each in load.answers if each[1] >= at and each[1] < at + seconds]
    done = sorted([at, *(each[1] for each in during if each[2] == 200)])
    gap = max(b - a for a, b in pairwise(done)) if len(done) > 1 else float("inf")
    bad = [each for each in during if each[2] != 200]
    last = max((each[1] - at for each in bad), default=0.0)
    kinds = Counter((each[2], each[3]) for each in bad)
    print(
        f"{len(during)} answers, {len(bad)} not 200, the last {last:.2f} s after the kill; longest gap {gap:.2f} s; "
        f"all replicas back after {'never' if back is None else f'{back:.2f} s'}"
    )
    for (status, text), count in kinds.items():
        print(f"  {count} x {status} {text!r}")


if __name__ == "__main__":
    main()
