"""Checkpoints and parts -> one plan, verified before it is written, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftsdk.errors import InputError, PlanPathError
from graftsdk.export.samples import find_samples, sample_crops
from graftsdk.export.segmenter import SegmenterSource, check_segmenter, read_segmenter, write_segmenter
from graftsdk.export.sources import BranchLike, TrunkLike, check_together, read_branch, read_trunk
from graftsdk.export.validate import validate
from graftsdk.files import check_target
from graftsdk.models import Yolact
from graftsdk.plan import BranchDocument, Part, TrunkDocument
from graftsdk.plan.cost import PlanCost, cost_table, tree_cost
from graftsdk.plan.edit import create_plan
from graftsdk.plan.manifest import DEFAULT_PERSONS
from graftsdk.plan.onnx_part import write_onnx_part
from graftsdk.prediction import reported_labels
from graftsdk.text import file_names, one_line

__all__ = ["ExportReport", "export_branch", "export_parts", "export_plan", "export_trunk"]

_Path = str | os.PathLike[str]
_ROUND = 60  # real crops whose taps are held at once, twice: 310 MB for taps 6, 8, 9, 10 of inception_v3 at 299


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it compares with torch.

    Attributes:
        path: the plan that was written, or None. parts: the part files that were written, the trunk's first.
        cost: every label's row, see `graftsdk.plan.cost`.
        tap_difference: the trunk's greatest difference from torch at a tap, relative to the tap's greatest value;
            None where the trunk arrived exported.
        samples: how many real crops were compared. seconds: how long it all took.
    """

    path: Path | None
    parts: tuple[Path, ...]
    cost: PlanCost
    tap_difference: float | None
    samples: int
    seconds: float

    def table(self) -> str:
        """The rows and sums as aligned text."""
        text = cost_table(self.cost)
        if self.tap_difference is not None:
            text += f"\ntrunk against torch: {self.tap_difference:.1e} of a tap's greatest value"
        flips = sum(row.flips for row in self.cost.labels)
        if self.samples:
            text += f"\ndecisions that flip on {self.samples} sample crops: {flips}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "path": None if self.path is None else str(self.path),
            "parts": [str(path) for path in self.parts],
            "cost": self.cost.to_dict(),
            "tap_difference": self.tap_difference,
            "samples": self.samples,
            "seconds": round(self.seconds, 3),
        }


def export_plan(
    path: _Path,
    trunk: TrunkLike,
    branches: Sequence[BranchLike],
    segmenter: _Path | Yolact | None = None,
    samples: _Path | None = None,
    *,
    parts: _Path | None = None,
    segmenter_licence: str | None = None,
    segmenter_author: str | None = None,
    segmenter_family: str | None = None,
    segmenter_size: tuple[int, int] | None = None,
    person_class: int | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    nms: str | None = None,
    max_persons: int = DEFAULT_PERSONS,
    progress: bool = False,
) -> ExportReport:
    """Write a plan of one trunk and its branches, each verified against torch first.

    All files are read and checked before anything slow is done, and nothing is written before everything is verified.

    Args:
        path: the plan to write.
        trunk, branches: paths of `.safetensors` checkpoints or of exported `.onnx` parts, mixed as you like, or a
            Trunk and Branches in memory.
        segmenter: a checkpoint of `graftsdk.models.Yolact`, or one in memory, an ONNX file that `graftsdk.segment`
            knows, or "demo", the one that graftsdk brings.
        samples: a folder of person images, on which decisions are compared; a PNG's alpha is the person's mask.
        parts: a folder into which every part is written too, as `trunk.onnx` and `<label>.onnx`, and a segmenter that
            was a checkpoint as `segmenter.onnx`.
        segmenter_licence, segmenter_author: None takes what the segmenter's file says.
        segmenter_family, segmenter_size: None takes them from its shapes; to be said where those leave them open:
            a name out of `graftsdk.segment`, and (H, W), the sides of its input.
        person_class: of the segmenter; None finds it by its name.
        score_threshold, iou_threshold: of its decoding, 0..1; None takes what a checkpoint was measured with (the
            score with the greatest F1 on its validation data), else the family's own (yolact: 0.15 and 0.5, yolo:
            0.25 and 0.7).
        nms: "greedy", or for YOLACT also "fast", the original's: how overlapping boxes of one person are suppressed;
            None takes "greedy".
        max_persons: 1..1000, the most in one image, those with the highest scores.
        progress: a bar on stderr.

    Raises:
        FingerprintMismatch: a branch that was trained on another trunk. MergeConflict: two branches with one label.
        UnsupportedOp: an operator without an exact form in ONNX; names the label.
        ValidationFailed: a part that differs from torch, or weights that are not finite; names the label.
        PlanError, InputError: leaves of both for files that cannot be read or written.
        EngineBuildError: the runtime refuses a part.
    """
    if not branches:
        raise InputError("branches: expected at least one, found none; export_parts writes a trunk alone")
    check_target(Path(path))
    model = None
    if segmenter is not None:
        model = read_segmenter(
            segmenter,
            licence=segmenter_licence,
            author=segmenter_author,
            person_class=person_class,
            family=segmenter_family,
            input_size=segmenter_size,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            nms=nms,
            max_persons=max_persons,
        )
    done = _export(trunk, branches, model, samples, parts, progress)
    with _undone_on_failure() as written:
        files = _write_parts(done, Path(parts), written, model) if parts is not None else ()
        create_plan(path, done.trunk, done.branches, None if model is None else model.entry())
    return done.report(Path(path), files)


def export_parts(
    folder: _Path,
    trunk: TrunkLike,
    branches: Sequence[BranchLike] = (),
    samples: _Path | None = None,
    *,
    progress: bool = False,
) -> ExportReport:
    """Write the trunk as `trunk.onnx` and each branch as `<label>.onnx` into `folder`, verified as for a plan.

    `folder` is made where it is missing. The files go into `export_plan` and `graftsdk plan add`.

    Raises:
        As `export_plan`.
    """
    done = _export(trunk, branches, None, samples, folder, progress)
    with _undone_on_failure() as written:
        files = _write_parts(done, Path(folder), written)
    return done.report(None, files)


def export_trunk(trunk: TrunkLike, samples: _Path | None = None) -> tuple[Part, TrunkDocument]:
    """The trunk as a part (`crops` -> `tap_0`..`tap_B`), verified, and its document with what every tap costs.

    Raises:
        As `export_plan`.
    """
    return _export(trunk, (), None, samples, None, False).trunk


def export_branch(branch: BranchLike, trunk: TrunkLike, samples: _Path | None = None) -> tuple[Part, BranchDocument]:
    """The branch as a part (`tap` -> `scores`, calibrated), verified on its trunk, and its document.

    Raises:
        As `export_plan`.
    """
    return _export(trunk, [branch], None, samples, None, False).branches[0]


@dataclass(frozen=True)
class _Exported:
    trunk: tuple[Part, TrunkDocument]
    branches: tuple[tuple[Part, BranchDocument], ...]
    tap_difference: float | None
    samples: int
    started: float

    def report(self, path: Path | None, parts: Sequence[Path]) -> ExportReport:
        cost = tree_cost(self.trunk[1], [document for _, document in self.branches], reported_labels)
        seconds = time.monotonic() - self.started
        return ExportReport(path, tuple(parts), cost, self.tap_difference, self.samples, seconds)


def _export(
    trunk: TrunkLike,
    branches: Sequence[BranchLike],
    segmenter: SegmenterSource | None,
    samples: _Path | None,
    folder: _Path | None,
    progress: bool,
) -> _Exported:
    """Read, check, export, verify: everything but writing."""
    started = time.monotonic()
    images = () if samples is None else find_samples(samples)
    stock = read_trunk(trunk)
    scions = [read_branch(branch) for branch in branches]
    check_together(stock, scions)
    if folder is not None:
        for name in _part_names([scion.document.label for scion in scions]):
            _check_part_target(Path(folder) / name)
    rounds = max(1, -(-len(images) // _ROUND))
    with _bar((1 + rounds) * (1 + len(scions)) + (segmenter is not None), progress) as step:
        if segmenter is not None:
            step("segmenter")
            check_segmenter(segmenter)
        step("trunk")
        exported = stock.export()
        parts = []
        for scion in scions:
            step(scion.document.label)
            parts.append(scion.export())
        crops = sample_crops(images, stock.document.crop, _ROUND)
        difference, documents = validate(exported, parts, crops, lambda: step("verify"))
    found = tuple((part.part, document) for part, document in zip(parts, documents, strict=True))
    return _Exported((exported.part, exported.document), found, difference, len(images), started)


def _write_parts(
    done: _Exported, folder: Path, written: list[Path], segmenter: SegmenterSource | None = None
) -> tuple[Path, ...]:
    if not folder.is_dir():
        folder.mkdir(parents=True)
        written.append(folder)
    names = _part_names([document.label for _, document in done.branches])
    files = [folder / name for name in names[:-1]]
    contents: list[tuple[Part, TrunkDocument | BranchDocument]] = [done.trunk, *done.branches]
    for file, (part, document) in zip(files, contents, strict=True):
        if not file.exists():
            written.append(file)
        write_onnx_part(file, part, document)
    if segmenter is not None and segmenter.module is not None:
        file = folder / names[-1]
        if not file.exists():
            written.append(file)
        write_segmenter(file, segmenter)
        files.append(file)
    return tuple(files)


def _part_names(labels: Sequence[str]) -> list[str]:
    """trunk.onnx, a name for each label, segmenter.onnx."""
    return [f"{name}.onnx" for name in ("trunk", *file_names(labels, ("trunk", "segmenter")), "segmenter")]


def _check_part_target(path: Path) -> None:
    if path.parent.is_dir():
        check_target(path)
    elif path.parent.exists():
        raise PlanPathError(f"{path.parent}: expected a folder for the parts, found a file; name another")


@contextlib.contextmanager
def _undone_on_failure() -> Iterator[list[Path]]:
    """A list of what is new on disk: all of it goes again when the block fails or is interrupted."""
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in reversed(written):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[[str], object]]:
    """A step to call with what is begun."""
    from tqdm import tqdm

    with tqdm(total=total, unit="step", desc="export", disable=not progress, leave=False) as bar:

        def step(what: str) -> None:
            bar.set_postfix_str(one_line(what)[:24])
            bar.update()

        yield step
