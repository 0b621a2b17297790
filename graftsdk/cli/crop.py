"""`graftsdk crop`: every person of images and videos as a picture of its own, for annotation and training."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.arguments import whole_number
from graftsdk.attribute import shortest
from graftsdk.cli.crop_folder import Crop, CropFolder
from graftsdk.cli.output import problem
from graftsdk.cli.sources import Source, find_sources
from graftsdk.errors import GraftError, InputError, NonFiniteOutput
from graftsdk.lifecycle.segmenters import holds_network, open_plan_of, open_segmenter
from graftsdk.preprocess.ahead import decode_ahead
from graftsdk.preprocess.cutout import cut_out
from graftsdk.preprocess.decode import MAX_ENCODED_BYTES
from graftsdk.preprocess.frames import open_frames
from graftsdk.preprocess.image import MAX_SIDE, MIN_SIDE
from graftsdk.scores import check_fraction
from graftsdk.segment import MAX_PERSONS
from graftsdk.segment.demo import DEMO
from graftsdk.segmenter import Segmenter
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]

MOST_PAD = 4.0  # as a crop specification has it


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Cut every person out of images and videos and save it as a PNG: all colours are kept, and the mask is the "
        "alpha channel. Found and cut as graftsdk predict does, so that what is annotated and trained on is what the "
        "plan will see. DIR/index.csv tells where each crop comes from; DIR/contact_sheet.jpg shows up to 48 of them. "
        "A source that cannot be read is reported and left out (exit code 1 at the end). Ctrl-C ends at once, with an "
        "index of what is there."
    )
    parser.epilog = _EPILOG
    parser.usage = (
        "%(prog)s [-h] SOURCES... -o DIR [--segmenter FILE] [--overwrite] [--json | --quiet]\n"
        "         [--pad X] [--min-score X] [--min-size PIXELS] [--max-persons N] [--stride N]\n"
        "         [--person-class N] [--segmenter-family NAME] [--segmenter-size H W]\n"
        "         [--device {auto,cpu,cuda}] [--threads N]"
    )
    parser.add_argument(
        "sources",
        metavar="SOURCES",
        nargs="+",
        help="images, videos, folders of them, patterns (quoted: 'photos/**/*.jpg'), cameras (0), addresses (rtsp://...)",
    )
    out = parser.add_argument_group("what comes out")
    out.add_argument("-o", "--output", metavar="DIR", required=True, help="the folder for crops, index and sheet")
    out.add_argument("--overwrite", action="store_true", help="replace the crops of an earlier index in DIR")
    out.add_argument(
        "--pad",
        type=float,
        metavar="X",
        help="room on each side of the box, in parts of its width and height; default: what the plan's own crops have, "
        "else 0",
    )
    form = out.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a line of JSON for each image or frame")
    form.add_argument("--quiet", action="store_true", help="no line for each image, no bar, no summary")
    who = parser.add_argument_group("who is cut out")
    who.add_argument(
        "--segmenter",
        metavar="FILE",
        default=DEMO,
        help="a plan, an ONNX file (.onnx) or a checkpoint (.safetensors, needs the extra [export]); default: demo, "
        "a checkpoint that learnt from drawn people",
    )
    who.add_argument("--min-score", type=float, metavar="X", help="least score of a person; default: the segmenter's")
    who.add_argument(
        "--min-size",
        type=int,
        metavar="PIXELS",
        default=MIN_SIDE,
        help=f"least short side of a person's box; default and least: {MIN_SIDE}, as of every image",
    )
    who.add_argument("--max-persons", type=int, metavar="N", help="at most so many of an image, the surest")
    who.add_argument(
        "--stride", type=int, default=1, metavar="N", help="every N-th frame of videos, but every image; default: 1"
    )
    network = parser.add_argument_group("how the segmenter is run")
    network.add_argument("--person-class", type=int, metavar="N", help="of an ONNX file; default: by the name 'person'")
    network.add_argument("--segmenter-family", metavar="NAME", help="of an ONNX file whose shapes leave it open")
    network.add_argument("--segmenter-size", type=int, nargs=2, metavar=("H", "W"), help="likewise: its input's sides")
    network.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="cuda never falls back")
    network.add_argument("--threads", type=int, metavar="N", help="default: the cores that this process may use")
    parser.set_defaults(run=run)


_EPILOG = """\
A crop is named after its image and its place in it, the surest person first: street_0.png; of a video
after the frame too: clip_000012_0.png. Where two images share a name, the second is street-2_0.png.
The index has a row for each crop: crop, source, frame, x0, y0, x1, y1 (the person's box in pixels of the
source, upright), score, mask_area (pixels), left, top (where the crop begins in the source), width,
height, truncated (1: there were more persons than were taken). graftsdk-export --samples DIR takes the
crops as they are.

examples:
  graftsdk crop photos/ -o crops/ --segmenter engine.plan
  graftsdk crop photos/ 'more/**/*.jpg' -o crops/ --segmenter yolov8n-seg-640.onnx --pad 0.1
  graftsdk crop clip.mp4 --stride 25 -o crops/ --segmenter engine.plan --min-size 48 --min-score 0.6"""


def run(args: argparse.Namespace) -> int:
    """0, or 1 where a source could not be read."""
    started = time.perf_counter()
    args.stride = whole_number("--stride", args.stride, 1, 2**31 - 1)
    args.min_size = whole_number("--min-size", args.min_size, MIN_SIDE, MAX_SIDE)
    if args.min_score is not None:
        args.min_score = check_fraction("--min-score", args.min_score)
    if args.max_persons is not None:
        args.max_persons = whole_number("--max-persons", args.max_persons, 1, MAX_PERSONS)
    if args.pad is None:
        args.pad = _plans_pad(args.segmenter)
    if not 0.0 <= args.pad <= MOST_PAD:
        raise InputError(f"--pad: expected a number from 0 to {MOST_PAD:g}, found {args.pad:g}")
    sources = find_sources(args.sources)
    folder = CropFolder(args.output, sources, overwrite=args.overwrite)
    with ExitStack() as stack:
        segmenter = stack.enter_context(
            open_segmenter(
                args.segmenter,
                device=args.device,
                threads=args.threads,
                person_class=args.person_class,
                family=args.segmenter_family,
                input_size=None if args.segmenter_size is None else tuple(args.segmenter_size),
            )
        )
        bar = stack.enter_context(_progress(sources, args.quiet))
        cropping = _Cropping(segmenter, folder, bar, args)
        folder.begin()
        if args.segmenter == DEMO and not args.quiet:
            cropping.note("the demo segmenter learnt from drawn people alone; for photographs say --segmenter FILE")
        try:
            cropping.all(sources)
        finally:
            bar.close()
            folder.finish()
            if not args.quiet:
                print(f"{cropping.summary()}; {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return 1 if cropping.failed else 0


class _Cropping:
    """Goes through the sources; each person is written as soon as it is found."""

    def __init__(self, segmenter: Segmenter, folder: CropFolder, bar: Any, args: argparse.Namespace) -> None:
        self._segmenter = segmenter
        self._folder = folder
        self._bar = bar
        self._args = args
        self._images, self._frames, self._crops, self._small = 0, 0, 0, 0
        self.failed = 0

    def all(self, sources: Sequence[Source]) -> None:
        """In order; images that follow each other are decoded ahead."""
        for still, some in groupby(sources, key=lambda source: source.kind == "image"):
            if still:
                self._still(list(some))
            else:
                for source in some:
                    self._video(source)

    def summary(self) -> str:
        """What was done, in one line."""
        kinds = [counted(self._images, "image")] if self._images or not self._frames else []
        kinds += [counted(self._frames, "frame")] if self._frames else []
        kinds.append(f"{counted(self._crops, 'crop')} in {one_line(str(self._folder.path))}")
        kinds += [f"{counted(self._small, 'person')} under {self._args.min_size} pixels left out"] * bool(self._small)
        return ", ".join(kinds + [f"{self.failed} not read"] * bool(self.failed))

    def _still(self, sources: Sequence[Source]) -> None:
        with closing(decode_ahead([source.place for source in sources])) as images:
            for source, decoded in zip(sources, images, strict=True):
                try:
                    if isinstance(decoded.image, GraftError):
                        raise decoded.image
                    self._people(source, None, decoded.image)
                    self._images += 1
                except (InputError, NonFiniteOutput) as error:
                    self._fail(source, error)
                self._bar.update()

    def _video(self, source: Source) -> None:
        try:
            with closing(open_frames(source.place, stride=self._args.stride)) as frames:
                if frames.count and not frames.live and self._bar.total is not None:
                    self._bar.total += -(-frames.count // self._args.stride)
                else:
                    self._bar.total = None
                for frame in frames:
                    self._people(source, frame.index, frame.image)
                    self._frames += 1
                    self._bar.update()
        except (InputError, NonFiniteOutput) as error:
            self._fail(source, error)

    def _people(self, source: Source, frame: int | None, image: npt.NDArray[np.uint8]) -> None:
        """Cut out everybody in one image or frame, and say so."""
        found = self._segmenter.find(image, self._args.min_score)
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        large = np.flatnonzero(sides.min(axis=1) >= self._args.min_size)
        chosen = large[: self._args.max_persons]
        truncated = found.truncated or len(chosen) < len(large)
        name = self._folder.name(source, frame) if len(chosen) else ""
        crops = []
        for place, index in enumerate(chosen.tolist()):
            cutout = cut_out(image, found.boxes[index], found.masks, index, self._args.pad)
            height, width = cutout.pixels.shape[:2]
            x0, y0, x1, y1 = found.boxes[index].tolist()
            crop = Crop(
                f"{name}_{place}.png",
                _named(source),
                frame,
                (x0, y0, x1, y1),
                float(found.scores[index]),
                int(np.count_nonzero(cutout.mask)),
                cutout.left,
                cutout.top,
                width,
                height,
                truncated,
            )
            size = self._folder.add(crop, cutout)
            crops.append(crop)
            self._crops += 1
            if size > MAX_ENCODED_BYTES:
                most = f"{MAX_ENCODED_BYTES >> 20} MiB"
                self.note(f"{one_line(crop.name)}: is written, but larger than {most}, which graftsdk itself reads")
        small = len(found) - len(large)
        self._small += small
        self._tell(source, frame, crops, small, truncated)

    def _tell(self, source: Source, frame: int | None, crops: Sequence[Crop], small: int, truncated: bool) -> None:
        if self._args.quiet:
            return
        if self._args.json:
            told = {
                "source": _named(source),
                **({} if frame is None else {"frame": frame}),
                "too_small": small,
                "truncated": truncated,
                "crops": [_json(crop) for crop in crops],
            }
            text = json.dumps(told, ensure_ascii=False, allow_nan=False)
        else:
            where = source.name if frame is None else f"{source.name} frame {frame}"
            text = f"{where}: {counted(len(crops), 'crop')}"
            text += f", {small} too small" * bool(small) + ", more persons than were taken" * truncated
        self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def _fail(self, source: Source, error: GraftError) -> None:
        self.failed += 1
        self.note(problem(source.name, str(error)))

    def note(self, text: str) -> None:
        """On stderr, above the bar."""
        self._bar.write(text, file=sys.stderr)


def _named(source: Source) -> str:
    """As index and JSON have it: a path is the one that was given."""
    return source.name if source.kind == "live" else str(source.place)


def _json(crop: Crop) -> dict[str, Any]:
    return {
        "crop": crop.name,
        "box": [shortest(value) for value in crop.box],
        "score": shortest(crop.score),
        "mask_area": crop.mask_area,
        "offset": [crop.left, crop.top],
        "size": [crop.height, crop.width],
    }


def _plans_pad(segmenter: str) -> float:
    """The padding of the crops that a plan is asked about; 0 for a network that is in no plan."""
    if holds_network(segmenter):
        return 0.0
    with open_plan_of(segmenter) as plan:
        return plan.manifest.crop.pad


def _progress(sources: Sequence[Source], quiet: bool):  # type: ignore[no-untyped-def]  # tqdm comes without types
    """A bar on stderr where that is a terminal; its `write` prints above it."""
    from tqdm import tqdm

    images = sum(source.kind == "image" for source in sources)
    return tqdm(total=images, unit="picture", disable=True if quiet else None, leave=False, file=sys.stderr)
