"""Rows: what the Parquet file says of one image, and the two functions that compute them, wherever they run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from graftsdk.errors import GraftError, PlanError
from graftsdk.offline.job import Job
from graftsdk.offline.packages import pyarrow
from graftsdk.prediction import Prediction
from graftsdk.predictor import Predictor
from graftsdk.text import one_line

__all__ = ["JOB_KEY", "compute_rows", "open_predictor", "row", "schema"]

JOB_KEY = b"graftsdk.batch"  # in the file's metadata: the job's record
_AT_ONCE = 16  # images that are held at one time; their persons share batches


def schema(labels: Sequence[str], job: str) -> Any:
    """The file's `pyarrow.Schema`; `job` is the record of the job, kept as metadata.

    image; width, height (pixels); persons, a list of {box {x0, y0, x1, y1} (pixels, half-open), score,
    attributes {LABEL {name, score}}}; truncated (there were more persons than the limit); error. Where `error` is not
    null the image could not be used, and everything between is null.
    """
    pa = pyarrow()
    number = pa.float32()
    answer = pa.struct([("name", pa.string()), ("score", number)])
    person = pa.struct(
        [
            ("box", pa.struct([(corner, number) for corner in ("x0", "y0", "x1", "y1")])),
            ("score", number),
            ("attributes", pa.struct([(label, answer) for label in labels])),
        ]
    )
    columns = [
        ("image", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("persons", pa.list_(person)),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
    ]
    return pa.schema(columns, metadata={JOB_KEY: job.encode("utf-8")})


def row(image: str, found: Prediction | GraftError) -> dict[str, Any]:
    """The row of one image: see `schema`."""
    name = image.encode("utf-8", "backslashreplace").decode("utf-8")  # a path need not be UTF-8, a column must
    if isinstance(found, GraftError):
        cause = found.__cause__ if isinstance(found.__cause__, GraftError) else found  # without the path before it
        text = one_line(str(cause).removeprefix("image: "))
        empty = dict.fromkeys(("width", "height", "persons", "truncated"))
        return {"image": name, **empty, "error": f"{found.code}: {text}"}
    height, width = found.size
    persons = [
        {
            "box": dict(zip(("x0", "y0", "x1", "y1"), person.box.tolist(), strict=True)),
            "score": person.score,
            "attributes": {each.label: {"name": each.name, "score": each.score} for each in person},
        }
        for person in found
    ]
    return {
        "image": name,
        "width": width,
        "height": height,
        "persons": persons,
        "truncated": found.truncated,
        "error": None,
    }


def open_predictor(plan: str | os.PathLike[str], options: Mapping[str, Any], job: Job) -> Predictor:
    """The predictor of a job.

    Raises:
        PlanError: there is another plan now. Others as `Predictor`.
    """
    predictor = Predictor(plan, **options)
    found = predictor.plan.digest
    if found != job.plan:
        predictor.close()
        raise PlanError(
            f"{os.fspath(plan)}: expected plan {job.plan[:16]}, found {found[:16]}; it was replaced while the job ran, "
            "or differs between nodes: put the job's plan back, or begin anew with another output"
        )
    return predictor


def compute_rows(predictor: Predictor, images: Sequence[str], reduce: int, root: str = "") -> list[dict[str, Any]]:
    """A row for each image, in order; one that cannot be used has its error as its row.

    Args:
        predictor: what computes. images: paths. reduce: as for `Predictor.predict`.
        root: the folder that relative paths begin in; "" for the working one.

    Raises:
        PlanCorrupt, EngineError: nothing can be computed; no fault of an image.
    """
    rows = []
    for first in range(0, len(images), _AT_ONCE):
        some = images[first : first + _AT_ONCE]
        found = predictor.predict([os.path.join(root, image) for image in some], reduce=reduce, errors="return")
        rows += [row(image, each) for image, each in zip(some, found, strict=True)]
    return rows
