"""`graftsdk predict`: people and their attributes in images, one line each."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from graftsdk.errors import InputError, NonFiniteOutput
from graftsdk.plan import open_plan
from graftsdk.prediction import PICTURES, Prediction
from graftsdk.predictor import Predictor
from graftsdk.preprocess import list_images
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Find the people in images and say what the plan knows of them: one line an image on stdout, times on stderr. "
        "An image that cannot be read is reported and left out (exit code 1 at the end)."
    )
    parser.epilog = (
        "examples:\n  graftsdk predict engine.plan street.jpg photos/ 'more/*.png' -o pictures/\n"
        "  graftsdk predict engine.plan street.jpg --json --threshold child=0.7 --threshold gender.male=0.6"
    )
    # Spelled out: argparse would print the options first, where `--labels A B` swallows the images after it.
    parser.usage = (
        "%(prog)s [-h] PLAN IMAGES... [-o DIR] [--json] [--labels LABEL...] [--threshold LABEL=X]\n"
        "         [--min-score X] [--device {auto,cpu,cuda}] [--layout {merged,split}] [--threads N]"
    )
    parser.add_argument("plan", metavar="PLAN", help="the plan")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="image files, folders of images, or patterns")
    parser.add_argument("-o", "--output", metavar="DIR", help="save each image with what was found drawn on it")
    parser.add_argument("--json", action="store_true", help="print one line of JSON an image")
    parser.add_argument("--labels", nargs="+", metavar="LABEL", help="after the images: compute only these")
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="LABEL=X",
        help="LABEL=0.7 or LABEL.CLASS=0.6: report from this probability on; may be repeated",
    )
    parser.add_argument("--min-score", type=float, metavar="X", help="least score of a person; default: the plan's")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="cuda never falls back")
    parser.add_argument(
        "--layout", choices=("merged", "split"), default="merged", help="one grafted graph, or trunk and branches apart"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: the cores that this process may use")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, or 1 where an image could not be read."""
    started = time.perf_counter()
    paths = _find(args.images)
    pictures = _picture_paths(paths, args.output)
    with Predictor(
        args.plan,
        device=args.device,
        labels=args.labels,
        thresholds=_thresholds(args.threshold, args.plan),
        layout=args.layout,
        threads=args.threads,
        min_score=args.min_score,
    ) as predictor:
        ready = time.perf_counter() - started
        failed, times = 0, _Times()
        with _progress(len(paths)) as bar:
            for path in paths:
                try:
                    prediction = predictor.predict(path)
                except (InputError, NonFiniteOutput) as error:
                    failed += 1
                    bar.write(f"{one_line(str(path))}: {one_line(str(error))}", file=sys.stderr)
                else:
                    with times.saving():
                        if path in pictures:
                            prediction.save(pictures[path])
                    times.add(prediction)
                    bar.write(prediction.to_json() if args.json else repr(prediction), file=sys.stdout)
                bar.update()
        print(times.summary(ready, failed), file=sys.stderr)
    return 1 if failed else 0


class _Times:
    """Sums the stages' milliseconds over the images."""

    def __init__(self) -> None:
        self._stages: dict[str, float] = {}
        self._images = 0
        self._persons = 0
        self._saving = 0.0

    def add(self, prediction: Prediction) -> None:
        self._images += 1
        self._persons += len(prediction)
        for stage, spent in prediction.timings.items():
            self._stages[stage] = self._stages.get(stage, 0.0) + spent

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._saving += 1e3 * (time.perf_counter() - started)

    def summary(self, ready: float, failed: int) -> str:
        counts = f"{counted(self._images, 'image')}, {counted(self._persons, 'person')}"
        counts += f", {failed} not read" if failed else ""
        if not self._images:
            return f"{counts}; ready after {ready:.2f} s"
        stages = {**self._stages, **({"save": self._saving} if self._saving >= 0.1 else {})}
        each = ", ".join(f"{stage} {spent / self._images:.1f}" for stage, spent in stages.items())
        return f"{counts}; ready after {ready:.2f} s; ms an image: {each}"


def _find(sources: Sequence[str]) -> list[Path]:
    """The image files, each once, in the order in which they were named."""
    found: list[Path] = []
    for source in sources:
        if os.path.isdir(source):
            inside = list_images(source)
            if not inside:
                raise InputError(f"{source}: expected a folder with images, found none in it")
            found += inside
        elif not os.path.lexists(source) and glob.has_magic(source):
            matches = sorted(Path(name) for name in glob.glob(source, recursive=True) if os.path.isfile(name))
            if not matches:
                raise InputError(f"{source}: expected a pattern of image files, found none that fit")
            found += matches
        else:
            found.append(Path(source))
    return list(dict.fromkeys(found))


def _picture_paths(paths: Sequence[Path], folder: str | None) -> dict[Path, Path]:
    """Where each image's picture goes: under its own name, numbered where two images share one."""
    if folder is None:
        return {}
    target = Path(folder)
    if any(path.parent.resolve() == target.resolve() for path in paths):
        raise InputError(f"-o {folder}: expected another folder than the images', or pictures replace their originals")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"-o {folder}: expected a folder, found a file; name another") from error
    except OSError as error:
        raise InputError(f"-o {folder}: expected a folder that can be made, found: {error.strerror}") from error
    taken: set[str] = set()
    pictures = {}
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in PICTURES else f"{path.suffix}.jpg"
        name, count = f"{path.stem}{suffix}", 1
        while name.casefold() in taken:
            count += 1
            name = f"{path.stem}-{count}{suffix}"
        taken.add(name.casefold())
        pictures[path] = target / name
    return pictures


def _thresholds(texts: Sequence[str], plan: str) -> dict[str, float | dict[str, float]]:
    """`LABEL=X` and `LABEL.CLASS=X`; a label's own name may hold dots and equals signs."""
    if not texts:
        return {}
    with open_plan(plan) as opened:
        labels = opened.labels
    found: dict[str, float | dict[str, float]] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"--threshold: expected LABEL=X or LABEL.CLASS=X with a number X, found {text!r}")
        owners = [label for label in labels if name == label or name.startswith(f"{label}.")]
        if not owners:
            raise InputError(f"--threshold {text}: expected a label of {', '.join(labels)}, found {name!r}")
        owner = max(owners, key=len)
        if name == owner:
            found[owner] = number
            continue
        classes = found.setdefault(owner, {})
        if not isinstance(classes, dict):
            raise InputError(f"--threshold {text}: {owner!r} has a threshold already; name its classes only")
        classes[name[len(owner) + 1 :]] = number
    return found


def _progress(total: int):  # type: ignore[no-untyped-def]  # tqdm comes without types
    """A bar on stderr where that is a terminal; its `write` prints above it."""
    from tqdm import tqdm

    return tqdm(total=total, unit="image", disable=None, leave=False, file=sys.stderr)
