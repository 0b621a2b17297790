"""`run_batch`: every image of a list once through a plan, into one Parquet file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftsdk.arguments import whole_number
from graftsdk.errors import InputError
from graftsdk.graft import joints_of
from graftsdk.offline.job import Job, plain_options
from graftsdk.offline.packages import parquet, pyarrow
from graftsdk.offline.parts import Parts, discard_parts, is_result
from graftsdk.offline.ray_data import Actors, run_chunks
from graftsdk.offline.rows import compute_rows, open_predictor
from graftsdk.offline.summary import Summary, summarise
from graftsdk.plan import open_plan
from graftsdk.preprocess.decode import check_decoding

__all__ = ["CHUNK", "run_batch"]

CHUNK = 256  # images a part file: what a kill costs at most
_FREE = ("threads",)  # options of a predictor that change no answer: a rerun may have others


def run_batch(
    plan: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    chunk: int = CHUNK,
    reduce: int = 1,
    options: Mapping[str, Any] | None = None,
    actors: Actors | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Write one row an image, in order; `graftsdk.offline.rows.schema` says what is in it. Memory stays constant.

    An image that cannot be used has a row with its `error`. What is done is kept beside the output, in
    `OUTPUT.parts`, until all of it is: after a kill, a Ctrl-C or a full disk the same call goes on, and gives the file
    that it would have given. A file that is whole already is left as it is.

    Args:
        plan: its path.
        images: paths, each once.
        output: the Parquet file; nothing else may be there.
        chunk: images that are done and kept together.
        reduce: as for `Predictor.predict`.
        options: those of `Predictor`.
        actors: None works here; else on Ray, where plan, images and output are at the same paths on every node.
        progress: called with the number of images that were done since, at first with those of earlier runs.

    Raises:
        InputError: no images, or one twice; an output or parts of another job; another argument.
        MissingDependency: pyarrow or Ray is absent. PlanError, EngineError: as `Predictor`, and where the plan was
            replaced meanwhile, or where a chunk of images ended several actors.
    """
    pyarrow(), parquet()  # before anything is opened
    paths = tuple(_path(image) for image in images)
    if not paths or len(set(paths)) != len(paths):
        found = "none" if not paths else f"{len(paths) - len(set(paths))} of them twice"
        raise InputError(f"images: expected paths, each once, found {found}")
    check_decoding("bgr", reduce)
    chosen = dict(options or {})
    with open_plan(plan) as opened:
        digest = opened.digest
        asked = chosen.pop("labels", None)
        labels = tuple(joints_of(opened.manifest, asked))
    chosen = plain_options(chosen)
    said = {name: value for name, value in chosen.items() if name not in _FREE and value is not None}
    if asked is not None:
        chosen["labels"] = list(labels)  # the record has them by themselves
    size = whole_number("chunk", chunk, 1, 1_000_000)
    job = Job(digest, labels, {**said, "reduce": int(reduce)}, paths, size)
    target = Path(output)
    report = progress or (lambda count: None)
    if is_result(target, job):
        discard_parts(target, job)  # of a run that was killed when all was done
        report(len(paths))
        return summarise(target)
    with Parts(target, job) as parts:
        done = parts.done()
        report(sum(len(job.images_of(each)) for each in done))
        left = [each for each in range(job.chunks) if each not in done]
        if left and actors is not None:
            run_chunks(os.path.abspath(plan), chosen, job, parts.folder, left, actors, report)
        elif left:
            with open_predictor(plan, chosen, job) as predictor:
                for each in left:
                    parts.write(each, compute_rows(predictor, job.images_of(each), reduce))
                    report(len(job.images_of(each)))
        parts.merge()
    return summarise(target)


def _path(image: Any) -> str:
    try:
        return os.fsdecode(image)
    except TypeError as error:
        raise InputError(f"images: expected paths, found {image!r:.80}") from error
