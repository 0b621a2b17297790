"""Chunks of a job on Ray Data: a pool of actors, each of which opens the predictor once.

Exactly once follows from the part files: a chunk that Ray computes again, because an actor died, has one file all the
same, and rows reach the result from files only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftsdk import errors
from graftsdk.errors import EngineError, GraftError
from graftsdk.offline.cluster import connect, prepare
from graftsdk.offline.job import Job
from graftsdk.offline.packages import ray_data
from graftsdk.offline.parts import begin_part, forget_begun, part_path, write_part
from graftsdk.offline.rows import compute_rows, open_predictor

__all__ = ["Actors", "run_chunks"]

_TRIES = 3  # processes that a chunk may take with it; Ray itself would go on for ever


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
        self._failure = ""
        try:
            self._predictor = open_predictor(plan, options, job)
        except (GraftError, OSError) as error:
            self._failure = _told(error)
        self._job, self._record = job, record
        self._folder, self._root = Path(folder), root

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """How many images the batch's chunk has, once its part is written; or the error: Ray would lose what it was."""
        images = os.fsdecode(bytes(batch["images"][0])).split("\0")
        failure = self._failure
        if not failure:
            try:
                self._compute(int(batch["chunk"][0]), images)
            except (GraftError, OSError) as error:
                failure = _told(error)
        return {"count": [len(images)], "failure": [failure]}

    def _compute(self, chunk: int, images: Sequence[str]) -> None:
        if begin_part(self._folder, chunk) > _TRIES:
            raise EngineError(
                f"chunk {chunk}, {images[0]!r:.200} to {images[-1]!r:.200}: expected its rows, found that {_TRIES} "
                "processes ended while they computed them; run fewer actors if memory ran out, or leave out the image "
                "that ends them"
            )
        rows = compute_rows(self._predictor, images, int(self._job.options["reduce"]), self._root)
        write_part(part_path(self._folder, chunk), rows, self._job.labels, self._record)


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
        MissingDependency: Ray is absent. GraftError, OSError: what an actor could not do.
    """
    prepare()
    data = ray_data()
    items = [{"chunk": each, "images": os.fsencode("\0".join(job.images_of(each)))} for each in chunks]
    threads = options.get("threads") or actors.cpus
    forget_begun(folder)
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
            with closing(iter(work.iter_rows())) as rows:  # or Ray would go on after an error of ours
                for row in rows:
                    if row["failure"]:
                        raise _failed(row["failure"])
                    progress(int(row["count"]))
        except library.exceptions.RayError as error:
            raise _ours(error) from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _failed(told: str) -> Exception:
    """What `_told` was given, as it would have been raised here."""
    name, _, text = told.partition(": ")
    kind: type[Exception] = getattr(errors, name, OSError)
    return kind(text)


def _ours(error: BaseException) -> EngineError:
    """What went wrong in Ray itself, or in an actor without being foreseen."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    found = next((line for line in lines if re.match(r"[\w.]+Error\b", line)), lines[-1])
    return EngineError(f"Ray: expected every chunk done, found {found:.300}; what is done is kept, run it again")


@contextmanager
def _ray() -> Iterator[Any]:
    library, ours = connect()
    try:
        yield library
    finally:
        if ours:
            library.shutdown()
