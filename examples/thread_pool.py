"""One predictor in a service with a thread pool: `python examples/thread_pool.py out/engine.plan`.

`make demo` leaves it there. A predictor is made once, at the start, and shared: its compiled graphs are in memory once,
and every call gives the same bits as it would alone. A request that cannot be served raises one error of
`graftsdk.errors`, and the next one is served.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
from scene import lift_scene

from graftsdk import GraftError, Predictor

image, masks = lift_scene()
encoded = cv2.imencode(".jpg", image)[1].tobytes()
requests: list[tuple[Any, Any]] = [(encoded, masks)] * 6 + [(encoded[:999], masks)]  # the last one is cut off

with Predictor(sys.argv[1] if len(sys.argv) > 1 else "out/engine.plan") as predictor:
    alone = predictor.predict(encoded, masks=masks)

    def answer(request: tuple[Any, Any]) -> dict[str, Any]:
        """What a handler would send: JSON types only."""
        try:
            return {"status": 200, **predictor.predict(request[0], masks=request[1]).to_dict()}
        except GraftError as error:
            return {"status": 400, "code": error.code, "message": str(error)}

    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = list(pool.map(answer, requests))

for number, found in enumerate(answers):
    text = f"{len(found['persons'])} persons" if found["status"] == 200 else f"{found['code']}: {found['message']}"
    print(f"request {number}: {found['status']} {text}")
same = all(found["persons"] == alone.to_dict()["persons"] for found in answers if found["status"] == 200)
print("every answer is the one that a call alone gives:", same)
if not same:
    raise SystemExit(1)
