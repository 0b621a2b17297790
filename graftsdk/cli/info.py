"""`graftsdk info`: what a plan, part, checkpoint or engine holds, and what each label costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from graftsdk.cli.engines import print_engine, print_engines
from graftsdk.cli.output import megabytes, print_json, print_table
from graftsdk.errors import InputError
from graftsdk.lifecycle.description import describe_cost, describe_part, describe_plan
from graftsdk.lifecycle.engine_files import find_engines, holds_engines
from graftsdk.lifecycle.inspection import PartFile, open_file
from graftsdk.lifecycle.timing import time_plan
from graftsdk.plan import Plan
from graftsdk.text import one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Show what a plan holds: labels with their classes and thresholds, trunk, crop, segmenter, licences. "
        "Also shows an exported part (.onnx), a checkpoint (.safetensors), and engines that graftsdk build made: one "
        "(.engine, or the record .json beside it) or a folder of them, each compared with its record."
    )
    parser.epilog = "examples:\n  graftsdk info engine.plan --cost\n  graftsdk info engine.engines/"
    parser.add_argument(
        "plan", metavar="PLAN", help="a plan, an exported part, a checkpoint, an engine or their folder"
    )
    parser.add_argument(
        "--cost",
        action="store_true",
        help="the price of each label: parameters, multiply-adds, MB, and milliseconds measured here on one crop",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where --cost measures")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for --cost; default: this process's cores")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; 0, or 1 where an engine is not what its record says."""
    if holds_engines(args.plan):
        return _engines(args)
    found = open_file(args.plan)
    if isinstance(found, PartFile):
        if args.cost:
            raise InputError(f"{args.plan}: expected a plan for --cost, found a {found.form}; export it first")
        described = describe_part(found)
        if args.json:
            print_json(described)
        else:
            _print_part(described)
        return 0
    with found as plan:
        described = describe_plan(plan)
        if args.cost:
            described["cost"] = _cost(plan, args)
    if args.json:
        print_json(described)
        return 0
    _print_plan(described)
    if described["lowered"]:
        _print_lowered(described["lowered"])
    if args.cost:
        _print_cost(described["cost"])
    return 0


def _engines(args: argparse.Namespace) -> int:
    if args.cost:
        raise InputError(f"{args.plan}: expected a plan for --cost, found engines")
    found = find_engines(args.plan)
    if args.json:
        described = [each.to_dict() for each in found]
        print_json(described if Path(args.plan).is_dir() else described[0])
    elif Path(args.plan).is_dir():
        print_engines(found)
    else:
        print_engine(found[0])
    return int(any(each.problem is not None for each in found))


def _cost(plan: Plan, args: argparse.Namespace) -> dict[str, Any]:
    return describe_cost(plan, time_plan(plan, device=args.device, threads=args.threads))


def _print_plan(plan: dict[str, Any]) -> None:
    print(f"{one_line(plan['path'])}: a plan of {megabytes(plan['bytes'])}, digest {plan['digest'][:16]}")
    for trunk in plan["trunks"]:
        print(
            f"trunk      {trunk['arch']}{_width(trunk)}, {trunk['blocks']} blocks, {megabytes(trunk['bytes'])}, "
            f"{trunk['precision']}, part {trunk['part']}, fingerprint {trunk['fingerprint'][:16]}{_whose(trunk)}"
        )
    print(f"crop       {_crop(plan['crop'])}")
    print(f"segmenter  {_segmenter(plan['segmenter'])}")
    golden = plan["golden"]
    print(f"golden     {golden['count']} generated crops (seed {golden['seed']}), scores stored for every label")
    kept = len(plan["kept_for_revert"])
    print(
        f"history    {plan['history']} changes{f', {kept} parts kept for revert' if kept else ''} (graftsdk plan log)"
    )
    print(f"labels     {len(plan['labels'])}\n")
    several = len(plan["trunks"]) > 1
    head = ["label", "classes", "reports", "thresholds", "tap", "pooling", "width", "precision", "size", "part"]
    rows = [[*head, "trunk", "licence", "author"]]
    for label in plan["labels"]:
        rows.append(
            [
                label["label"],
                ", ".join(label["classes"]),
                ", ".join(label["reports"]),
                _thresholds(label),
                _tap(label),
                label["pooling"],
                f"{label['width']:g}",
                label["precision"],
                megabytes(label["bytes"]),
                label["part"],
                label["trunk"] if several else "",
                label["licence"],
                label["author"],
            ]
        )
    if plan["labels"]:
        print_table(rows, right=(8,))


def _print_cost(cost: dict[str, Any]) -> None:
    rows = [["part", "parameters", "MMAC", "share", "size", "least ms", "median ms"]]
    for trunk in cost["trunks"]:
        rows.append([f"trunk {trunk['arch']} to tap {trunk['tap']}", *_price(trunk)])
    rows += [[label["label"], *_price(label)] for label in cost["labels"]]
    timed = [part for part in (*cost["trunks"], *cost["labels"]) if "median_ms" in part]
    total = [sum(part[name] for part in timed) for name in ("least_ms", "median_ms")]
    nbytes = sum(part["bytes"] for part in (*cost["trunks"], *cost["labels"]))
    share = f"{bool(cost['macs']):.0%}"
    sums = [f"{cost['parameters']:,}", f"{cost['macs'] / 1e6:,.1f}", share, megabytes(nbytes)]
    rows.append(["total", *sums, *(f"{value:.2f}" for value in total)])
    print()
    print_table(rows, right=(1, 2, 3, 4, 5, 6))
    count, measured = cost["separate_networks"], cost["measured"]
    print(
        f"\n{cost['networks']:.2f} networks for {count} labels, against {count} separate networks: "
        f"{cost['saving']:.2f} times less"
    )
    print(
        f"measured: one crop at a time on {measured['device']}, {measured['threads']} threads, "
        f"{measured['repeats']} repeats in turns, each part alone (layout split); CPU: {' '.join(measured['cpu'])}"
    )


def _print_lowered(records: list[dict[str, Any]]) -> None:
    """What graftsdk quantize found: against float32, on real crops."""
    rows = [["precision", "of", "computed so", "crops", "largest", "mean", "flips", "AUC change", "tolerance", "part"]]
    for each in records:
        if not each["tried"]:
            rows.append([each["precision"], ", ".join(each["of"]), "not tried", *[""] * 7])
            continue
        change = each["auc_change"]
        rows.append(
            [
                each["precision"],
                ", ".join(each["of"]),
                "yes" if each["passed"] else "no: float32",
                f"{each['samples']}",
                f"{each['largest']:.1e}",
                f"{each['mean']:.1e}",
                f"{each['flips']}",
                "" if change is None else f"{change:+.4f}",
                f"{each['tolerance']:g}",
                each["part"],
            ]
        )
    print()
    print_table(rows, right=(3, 4, 5, 6, 7, 8))
    if not all(each["tried"] for each in records):
        print("\nnot tried: its trunk is lowered and moves it; graftsdk quantize says how far")


def _price(part: dict[str, Any]) -> list[str]:
    times = [f"{part[name]:.2f}" if name in part else "" for name in ("least_ms", "median_ms")]
    counted = [f"{part['parameters']:,}", f"{part['macs'] / 1e6:,.1f}", f"{part['share']:.1%}"]
    return [*counted, megabytes(part["bytes"]), *times]


def _print_part(part: dict[str, Any]) -> None:
    print(f"{one_line(part['path'])}: a {part['kind']} of {megabytes(part['bytes'])}")
    if part["digest"] is not None:
        print(f"digest       {part['digest']}")
    if "label" in part:
        print(f"label        {one_line(part['label'])}: {one_line(', '.join(part['classes']))}")
        print(f"reports      {one_line(', '.join(part['reports'])) or 'nothing: its classes have no thresholds'}")
        print(f"thresholds   {one_line(_thresholds(part))}")
        print(f"place        tap {_tap(part)} of {part['arch']}, {part['pooling']}, width {part['width']:g}")
        print(f"wants trunk  fingerprint({part['tap']}) {part['trunk_fingerprint']}")
    elif "classes" in part:
        height, width = part["input_size"]
        print(
            f"segmenter    {part['family']}, {part['arch']}{_width(part)}, {part['channels']} channels, "
            f"{height}x{width} (HxW)"
        )
        print(f"classes      {one_line(', '.join(part['classes']))}")
    else:
        print(f"trunk        {part['arch']}{_width(part)}, {part['blocks']} blocks, fingerprint {part['fingerprint']}")
    for name, value in part.get("metrics", {}).items():
        print(f"metric       {one_line(name)} {value:g}")
    if "crop" in part:
        print(f"crop         {_crop(part['crop'])}")
    print(f"licence      {one_line(part['licence']) or 'not stated'}")
    print(f"author       {one_line(part['author']) or 'not stated'}")


def _crop(crop: dict[str, Any]) -> str:
    height, width = crop["size"]
    resized = f"{crop['fit']} to {height}x{width} (HxW){', antialiased' if crop['antialias'] else ''}"
    filled = f"background filled with {crop['fill']}" if crop["background"] == "fill" else "background kept"
    numbers = [" ".join(f"{value:g}" for value in crop[name]) for name in ("mean", "std")]
    padded = f", box padded by {crop['pad']:g}" if crop["pad"] else ""
    along = ", cut along the mask" if crop["box"] == "mask" else ""
    return f"{resized}, {filled}, {crop['order']}, mean {numbers[0]}, std {numbers[1]}{padded}{along}"


def _segmenter(info: dict[str, Any] | None) -> str:
    if info is None:
        return "none: give masks or boxes, or the whole image is one person"
    height, width = info["input_size"]
    return (
        f"{info['family']} {height}x{width}, score {info['score_threshold']:g}, IoU {info['iou_threshold']:g}, "
        f"{megabytes(info['bytes'])}, part {info['part']}, licence {one_line(info['licence']) or 'not stated'}"
    )


def _whose(part: dict[str, Any]) -> str:
    said = [f"{name} {one_line(part[name])}" for name in ("licence", "author") if part[name]]
    return "".join(f", {each}" for each in said)


def _width(part: dict[str, Any]) -> str:
    return "" if part["width"] == 1.0 else f" at width {part['width']:g}"


def _tap(label: dict[str, Any]) -> str:
    return f"{label['tap']}" if label["tap"] == label["until"] else f"{label['tap']}..{label['until']}"


def _thresholds(label: dict[str, Any]) -> str:
    stated = ", ".join(f"{name} {value:g}" for name, value in label["thresholds"].items())
    return stated or ("0.5 (default)" if len(label["classes"]) == 2 else "none")
