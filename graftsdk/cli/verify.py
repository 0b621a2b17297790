"""`graftsdk verify`: is a plan still right?"""

from __future__ import annotations

import argparse

from graftsdk.cli.output import megabytes, print_json, print_table
from graftsdk.lifecycle.comparing import TOLERANCE, Comparison
from graftsdk.lifecycle.verify import Verification, verify_plan
from graftsdk.text import one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Hash every byte of a plan and of the engine cache, recompute the golden scores stored in the plan, and "
        f"compare the engine that serves in float32 with a reference, score by score (tolerance {TOLERANCE:g}). What "
        "lower precisions do to a label is for graftsdk quantize and evaluate. Exit code 1 where a check fails."
    )
    parser.epilog = (
        "examples:\n  graftsdk verify engine.plan --samples photos/ --bisect\n"
        "  graftsdk verify engine.plan --against trunk.safetensors child.safetensors"
    )
    # Spelled out: argparse would print the options first, where `--against A B` swallows the plan after it.
    parser.usage = (
        "%(prog)s [-h] PLAN [--samples DIR] [--bisect] [--against FILE...] [--layout {merged,split}]\n"
        "         [--device {auto,cpu,cuda}] [--json]"
    )
    parser.add_argument("plan", metavar="PLAN", help="the plan")
    parser.add_argument("--samples", metavar="DIR", help="images to compare on, each one person; else generated crops")
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="compare every trunk block (tap to tap) and branch alone, and name the first part outside tolerance",
    )
    parser.add_argument(
        "--against",
        metavar="FILE",
        nargs="+",
        default=(),
        help="checkpoints (need torch) or exported parts to compare with; else the plan's own parts, not optimised",
    )
    parser.add_argument("--layout", choices=("merged", "split"), default="merged", help="of the engine")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="of the engine")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 where every check passed, else 1."""
    found = verify_plan(
        args.plan,
        samples=args.samples,
        bisect=args.bisect,
        against=args.against,
        layout=args.layout,
        device=args.device,
    )
    if args.json:
        print_json(found.to_dict())
    else:
        _print(found)
    return 0 if found.ok else 1


def _print(found: Verification) -> None:
    nbytes = sum(check.nbytes for check in found.parts)
    damaged = [check for check in found.parts if check.problem is not None]
    print(f"{one_line(found.path or 'plan')}, digest {found.digest[:16]}")
    print(f"bytes    {len(found.parts)} parts, {megabytes(nbytes)}: {_all_or(len(damaged), 'every digest is right')}")
    for check in damaged:
        labels = one_line(", ".join(check.labels)) or "none"
        print(f"         {check.role} {one_line(check.problem or '')}; labels concerned: {labels}")
    print(f"cache    {_all_or(len(found.cache), 'sound')}")
    for name, why in found.cache.items():
        print(f"         {name[:16]}: {one_line(why)}; removed, it is compiled again")
    for path, why in (found.samples.unreadable or {}).items():
        print(f"sample   left out: {one_line(path)}: {one_line(why)}")
    if found.golden:
        print(f"engine   {found.layout} on {found.device}, tolerance {TOLERANCE:g}\n")
        print("golden scores stored in the plan against this engine")
        _print_comparisons(found.golden)
        images = f", {found.samples.read} of them your images" if found.samples.read else ""
        print(f"\nthis engine against {one_line(found.reference)}, {found.scores[0].crops} crops{images}")
        _print_comparisons(found.scores)
    if found.bisection is not None:
        print("\neach part alone, fed with what the engine gave it (taps: share of the greatest activation)")
        rows = [["part", "difference", "result"]]
        for probe in found.bisection.probes:
            result = "OUTSIDE" if probe.guilty else "ok" if probe.known else "unknown: fed with nonsense"
            rows.append([probe.part, f"{probe.comparison.difference:.1e}", result])
        print_table(rows, right=(1,), indent="  ")
        print(f"\nfirst part outside tolerance: {one_line(found.bisection.first or 'none')}")
    print(f"\n{'ok' if found.ok else 'FAILED'}")
    for problem in found.problems:
        print(f"  {one_line(problem)}")


def _print_comparisons(comparisons: tuple[Comparison, ...]) -> None:
    rows = [["label", "difference", "flips", "result"]]
    for each in comparisons:
        rows.append([each.name, f"{each.difference:.1e}", f"{each.flips}/{each.crops}", "ok" if each.ok else "OUTSIDE"])
    print_table(rows, right=(1, 2), indent="  ")


def _all_or(wrong: int, right: str) -> str:
    return right if not wrong else f"{wrong} DAMAGED"
