"""`graftsdk bench`: how fast a plan is on this machine, stage by stage, and against what it promises."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial

from graftsdk.cli.engine_options import ENGINE_USAGE, add_engine_options, engine_options
from graftsdk.cli.labels import chosen_labels
from graftsdk.cli.output import INTERRUPTED, print_json, print_table, problem
from graftsdk.cli.sources import find_images
from graftsdk.engines import default_threads, share_threads
from graftsdk.lifecycle.bench import Bench, bench_plan
from graftsdk.lifecycle.picture_cases import STAGES, PictureRow
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]

LONGEST_NAME = 24  # of a picture; the table has 98 columns then


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Measure a plan here: the engine on prepared crops, against what the plan's multiply-adds promise; and whole "
        "pictures, stage by stage. All cases run in turns, an equal part of the time for each, after one run of each "
        "that does not count. Ctrl-C ends early and prints what there is."
    )
    parser.epilog = (
        "examples:\n"
        "  graftsdk bench engine.plan\n"
        "  graftsdk bench engine.plan --images photos/ --seconds 60\n"
        "  graftsdk bench engine.plan --labels child gender --batch 1,2,4,8,16 --threads 1 --json > bench.json"
    )
    # Spelled out: argparse would print the options first, where `--images A B` swallows the plan after it.
    parser.usage = (
        "%(prog)s [-h] PLAN [--images SOURCES... | --persons N,N...] [--batch N,N...] [--seconds S]\n"
        "         [--labels LABEL...] [--share-threads] [--json]\n" + ENGINE_USAGE
    )
    parser.add_argument("plan", metavar="PLAN", help="the plan")
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument(
        "--images",
        nargs="+",
        metavar="SOURCES",
        help="after the plan: measure on these image files, folders or patterns; default: drawn 1080p pictures",
    )
    pictures.add_argument(
        "--persons",
        type=_numbers,
        default=(0, 1, 3, 8),
        metavar="N,N...",
        help="in the drawn pictures, given as boxes and masks; default: 0,1,3,8",
    )
    parser.add_argument(
        "--batch",
        type=_numbers,
        default=(1, 8),
        metavar="N,N...",
        help="crops that the engine takes at once; default: 1,8",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="for all cases together, but three runs of each at least; default: 20",
    )
    parser.add_argument(
        "--labels", nargs="+", metavar="LABEL", help="after the plan: compute only these; or --labels=child,gender"
    )
    add_engine_options(parser)
    parser.add_argument(
        "--share-threads", action="store_true", help="one thread pool for all sessions (graftsdk.share_threads)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, 1 where a picture could not be used and was left out, or 130 where it was interrupted."""
    pictures = None if args.images is None else find_images(args.images)
    if args.share_threads:
        share_threads(args.threads or default_threads())
    found = bench_plan(
        args.plan,
        pictures=pictures,
        persons=args.persons,
        batches=args.batch,
        seconds=args.seconds,
        labels=chosen_labels(args.labels, args.plan),
        **engine_options(args),
        starting=partial(_starting, args.seconds),
    )
    if args.json:
        print_json(found.to_dict())
    else:
        _print(found)
    if found.interrupted:
        print(f"interrupted after {found.seconds:.0f} s", file=sys.stderr)
    return INTERRUPTED if found.interrupted else 1 if found.unreadable else 0


def _starting(seconds: float, cases: int, unreadable: Mapping[str, str]) -> None:
    for path, why in unreadable.items():
        print(f"{problem(one_line(path), why)}; left out", file=sys.stderr)
    print(f"measuring {counted(cases, 'case')} for {seconds:g} s or more", file=sys.stderr)


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers with commas between them, each once."""
    try:
        return tuple(dict.fromkeys(int(each) for each in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers like 1,8, found {text!r:.80}") from None


def _print(found: Bench) -> None:
    machine = found.machine
    print(f"{one_line(found.plan)}: {counted(len(found.labels), 'label')} on {one_line(', '.join(found.trunks))}")
    segmenter = f"segmenter {found.segmenter}" if found.segmenter else "no segmenter"
    kept = f" ({counted(found.in_float32, 'part')} in float32)" if found.precision != "float32" else ""
    print(f"runs      layout {found.layout}, {segmenter}, {found.precision}{kept}; ready after {found.ready_s:.2f} s")
    pool = "one pool for all sessions" if machine.shared else "a pool for each session"
    print(f"device    {machine.device}, {counted(machine.threads, 'thread')}, {pool}")
    print(
        f"machine   {one_line(machine.cpu) or 'unknown CPU'}, {counted(machine.cores, 'core')} for this process, "
        f"load {machine.load:.1f} in the minute before"
    )
    if machine.load > machine.cores / 2:
        print("          others are at work on it: rely on min and on ratios, not on p50 and p95")
    print(f"          {' '.join(machine.features)}")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in machine.versions.items())}")
    print(f"measured  {found.seconds:.1f} s, all cases in turns, after one run of each that does not count")
    if found.seconds > 1.2 * found.asked:
        least = min([row.spent.runs for row in found.engine] + [row.total.runs for row in found.pictures])
        print(f"          {found.asked:g} s were asked for; {counted(least, 'run')} of each took longer")
    print("reading   min: the fastest run, each column its own; p50: half of the runs took no longer;")
    print("          p95: 95% of them took no longer; of fewer than 20 runs the slowest")
    _print_engine(found)
    _print_promise(found)
    _print_pictures(found)


def _print_engine(found: Bench) -> None:
    print("\nENGINE: prepared crops to scores, ms a crop")
    rows = [["crops at once", "min", "p50", "p95", "crops/s", "runs"]]
    for row in found.engine:
        spent = row.spent
        times = (_ms(value) for value in (spent.least_ms, spent.median_ms, spent.p95_ms))
        rows.append([f"{row.batch}", *times, f"{1e3 / spent.median_ms:.1f}", f"{spent.runs}"])
    print_table(rows, right=range(6), indent="  ")


def _print_promise(found: Bench) -> None:
    count = len(found.labels)
    print(
        f"\nPROMISE: a crop costs {found.networks:.2f} networks by multiply-adds ({found.macs / 1e6:,.0f} million); "
        f"{counted(count, 'separate model')} would cost {count}"
    )
    rows = [["crops at once", "one network", "expected", "measured", "measured/expected", "networks"]]
    for row in found.engine:
        times = (_ms(value) for value in (row.network_ms, row.expected_ms, row.spent.least_ms))
        rows.append([f"{row.batch}", *times, f"{row.measured_to_expected:.2f}", f"{row.networks:.2f}"])
    print_table(rows, right=range(6), indent="  ")
    print("\n  ms a crop, fastest runs. one network: the whole trunk alone, measured here; expected: as many of")
    print("  it as the plan costs. measured/expected is 1 where branches run as fast as the trunk; thin layers")
    print("  run slower. networks: measured / one network")


def _print_pictures(found: Bench) -> None:
    print("\nPICTURES: encoded picture to attributes, ms a picture")
    head = ["picture", "", *STAGES, "total", "pictures/s", "persons/s"]
    rows = [head]
    for row in found.pictures:
        rows += [[""] * len(head)] if len(rows) > 1 else []
        rows += _picture_lines(row, segments=bool(found.segmenter))
    print_table(rows, right=range(2, len(head)), indent="  ")
    print()
    for line in _notes(found):
        print(f"  {line}")


def _picture_lines(row: PictureRow, *, segments: bool) -> list[list[str]]:
    """Of its fastest, middle and slow runs a line each; beside them what the picture is, how often it ran, rates."""
    lines = []
    for statistic, field in (("min", "least_ms"), ("p50", "median_ms"), ("p95", "p95_ms")):
        stages = [_ms(getattr(row.stages[stage], field)) if stage in row.stages else "" for stage in STAGES]
        if not segments:
            stages[STAGES.index("segment")] = ""
        lines.append(["", statistic, *stages, _ms(getattr(row.total, field)), "", ""])
    whole = row.persons == round(row.persons)
    persons = counted(round(row.persons), "person") if whole else f"{row.persons:.1f} persons"
    lines[0][0] = row.name if len(row.name) <= LONGEST_NAME else f"{row.name[: LONGEST_NAME - 1]}…"
    lines[1][0] = f"{row.size[1]}x{row.size[0]}, {persons}" if row.at_once == 1 else f"{persons} in each"
    lines[2][0] = counted(row.total.runs, "run")
    if segments and row.stages:
        lines[2][0] += f", {_share(row, 'segment'):.0%} segment"
    each = 1e3 / row.total.median_ms
    lines[1][-2:] = [f"{each:.1f}", f"{each * row.persons:.1f}"]
    return lines


def _notes(found: Bench) -> list[str]:
    lines = ["decode: JPEG, PNG... to pixels; crop: people cut out, resized, normalised; engine: crops to scores"]
    if found.segmenter:
        lines.append("segment: the segmenter and the decoding of what it gives; % segment: its share of the p50 total")
    alone = [row for row in found.pictures if row.stages]
    most = max(_share(row, "rest") for row in alone)
    lines.append(f"rest: everything that is none of these, at most {most:.1%} of a picture; rates: by the p50")
    if len(alone) < len(found.pictures):
        lines.append("in one list: decoded ahead, people share batches; ms a picture; no stages, for they overlap")
    if found.drawn and found.segmenter:
        lines.append(
            "drawn: the segmenter runs on the picture and finds nobody; the people, and their masks, are given"
        )
    elif found.drawn:
        lines.append("drawn: the people are given as boxes and masks; --images measures photographs")
    if found.left_out:
        lines.append(f"{len(alone)} of {len(alone) + found.left_out} pictures, evenly chosen")
    return lines


def _share(row: PictureRow, stage: str) -> float:
    return row.stages[stage].median_ms / row.total.median_ms if row.total.median_ms else 0.0


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
