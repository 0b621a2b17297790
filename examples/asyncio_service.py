"""Many coroutines, one predictor: the event loop goes on while images are computed, and an abandoned one is dropped.

python examples/asyncio_service.py [engine.plan] [picture.jpg]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from graftsdk import Predictor

HERE = Path(__file__).parent


async def main() -> None:
    plan = sys.argv[1] if len(sys.argv) > 1 else HERE / "demo.plan"
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "lobby.jpg"
    with Predictor(plan) as predictor, predictor.batcher() as batcher:
        found = await asyncio.gather(*(batcher.apredict(picture, timeout=60) for _ in range(6)))
        print(f"{len(found)} answers, {sum(map(len, found))} persons")
        task = asyncio.create_task(batcher.apredict(picture))
        await asyncio.sleep(0)
        task.cancel()  # its client went away
        await asyncio.wait([task])
        print(f"cancelled: {task.cancelled()}")
        print(f"alone: {len(await predictor.apredict(picture))} persons")


if __name__ == "__main__":
    asyncio.run(main())
