"""A service of your own: threads share one predictor, and a batcher makes full batches of what they ask for.

python examples/embed.py [engine.plan] [picture.jpg]
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graftsdk import Predictor
from graftsdk.errors import GraftError, Overloaded

HERE = Path(__file__).parent


def main() -> None:
    plan = sys.argv[1] if len(sys.argv) > 1 else HERE / "demo.plan"
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "lobby.jpg"
    good = picture.read_bytes()
    requests = {"camera 1": good, "camera 2": good, "camera 3": b"not a picture", "camera 4": good}
    with Predictor(plan) as predictor, predictor.batcher(queue=64) as batcher, ThreadPoolExecutor(16) as pool:

        def handle(image: bytes) -> str:
            try:
                found = batcher.predict(image, timeout=60)
            except Overloaded:
                return "busy: try again later"
            except GraftError as error:  # this caller's own; the others have their answers
                return error.code
            return f"{len(found)} persons"

        for camera, said in zip(requests, pool.map(handle, requests.values()), strict=True):
            print(f"{camera}: {said}")
        told = predictor.reload()  # a new plan under the same path would serve from here on
        print(f"reloaded, largest change of a score: {told.largest:g}")


if __name__ == "__main__":
    main()
