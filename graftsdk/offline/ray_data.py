"""Chunks of a job on Ray Data: a pool of actors, each of which opens the predictor once.

Exactly once follows from the part files: a chunk that Ray computes again, because an actor died, has one file all the
same, and rows reach the result from files only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftsdk.errors import EngineError, GraftError, PlanError
from graftsdk.offline.cluster import connect, prepare
from graftsdk.offline.job import Job
from graftsdk.offline.packages import ray_data
from graftsdk.offline.parts import part_path, write_part
from graftsdk.offline.rows import compute_rows
from graftsdk.predictor import Predictor

__all__ = ["Actors", "run_chunks"]


@dataclass(frozen=True)
class Actors:
    """How a job is spread over a cluster.

    Attributes:
        count: at most so many actors; None for as many as the cluster has room for.
        cpus: CPUs an actor, and threads of its predictor. gpus: GPUs an actor; fractions share one.
    """

    count: int | None = None
    cpus: int = 1
    gpus: float = 0.0


class ChunkActor:
    """One process of the pool. Called with a batch of one chunk, it writes the chunk's part file.

    Args:
        plan: its path. options: those of `Predictor`. job: what all of it is; its images are not looked at.
        record: the text of the whole job. folder: of the part files. root: the folder that relative paths begin in.
    """

    def __init__(self, plan: str, options: Mapping[str, Any], job: Job, record: str, folder: str, root: str) -> None:
        self._predictor = Predictor(plan, **options)
        if self._predictor.plan.digest != job.plan:
            raise PlanError(
                f"{plan}: expected plan {job.plan[:16]}, found {self._predictor.plan.digest[:16]}; it was "
                "replaced while the job ran, or differs between nodes"
            )
        self._job, self._record = job, record
        self._folder, self._root = Path(folder), root

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch's chunk and how many images it has, once its part is written."""
        chunk = int(batch["chunk"][0])
        images = os.fsdecode(bytes(batch["images"][0])).split("\0")
        rows = compute_rows(self._predictor, images, int(self._job.options["reduce"]), self._root)
        write_part(part_path(self._folder, chunk), rows, self._job.labels, self._record)
        return {"chunk": [chunk], "count": [len(images)]}


def run_chunks(
    plan: str,
    options: Mapping[str, Any],
    job: Job,
    folder: Path,
    chunks: Sequence[int],
    actors: Actors,
    progress: Callable[[int], None],
) -> None:
    """Compute these chunks of the job into part files in `folder`, which every node sees at the same path.

    Raises:
        MissingDependency: Ray is absent. GraftError: what an actor could not do.
    """
    prepare()
    data = ray_data()
    items = [{"chunk": each, "images": os.fsencode("\0".join(job.images_of(each)))} for each in chunks]
    threads = options.get("threads") or actors.cpus
    slim = Job(job.plan, job.labels, job.options, (), job.chunk)
    with _ray() as library:
        context = data.DataContext.get_current()
        context.enable_progress_bars = False  # ours counts images
        room = max(1, int(library.cluster_resources().get("CPU", 1) // actors.cpus))
        work = data.from_items(items, override_num_blocks=len(items)).map_batches(
            ChunkActor,
            fn_constructor_args=(
                plan,
                {**options, "threads": threads},
                slim,
                job.text(),
                os.path.abspath(folder),
                os.getcwd(),
            ),
            batch_size=1,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(min_size=1, max_size=min(len(items), actors.count or room)),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus or None,
        )
        try:
            for row in work.iter_rows():
                progress(int(row["count"]))
        except library.exceptions.RayError as error:
            raise _ours(error) from error


def _ours(error: BaseException) -> GraftError:
    """What went wrong in an actor, as it would have been raised here."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, GraftError):
        cause = cause.__cause__ or getattr(cause, "cause", None)
    if isinstance(cause, GraftError):
        return cause
    last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return EngineError(f"Ray: expected every chunk done, found {last[0]:.300}; what is done is kept, run it again")


@contextmanager
def _ray() -> Iterator[Any]:
    library, ours = connect()
    try:
        yield library
    finally:
        if ours:
            library.shutdown()
