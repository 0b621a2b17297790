"""`graftsdk quantize`: a plan's parts in INT8, fp16 or bf16, as far as its labels stand it."""

from __future__ import annotations

import argparse

from graftsdk.cli.output import print_json, print_table
from graftsdk.lifecycle.lowering_report import FLIPS, MEAN, LoweringReport, TrunkLowering
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]

_MORE = """\
INT8 parts are calibrated on a part of the samples (every second at most, and no more than 128) and judged on all the
others. They lie in the plan beside those in float32, and graftsdk predict --precision int8 uses them. fp16 and bf16
need no parts of their own, only the verdict, and are emulated here. A trunk that was lowered stays as it is when a
label is added and lowered later: nobody else moves.

exit status: 1 where a label is not within its tolerance as it is now computed, because of a trunk that was settled
before.

examples:
  graftsdk quantize engine.plan --samples crops/
  graftsdk quantize engine.plan --samples crops/ --data labels/ -o engine-int8.plan
  graftsdk quantize engine-int8.plan --samples crops/ --method entropy --labels age   # a second try for a branch
  graftsdk quantize engine.plan --precision fp16 --data labels/"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Lower the precision of a plan's trunk and branches part by part, and report for each label how far its "
        "scores, decisions and AUC are then from float32. A trunk is lowered only if every label stands it, a branch "
        "only if its own label does; what fails stays in float32. Needs the extra [train] for --data."
    )
    parser.epilog = _MORE
    parser.usage = (
        "%(prog)s [-h] PLAN [--samples DIR] [--precision {int8,fp16,bf16}] [--data ROOT]\n"
        "         [--labels LABEL...] [--tolerance X] [--method {entropy,percentile}] [--again] [-o OUT]\n"
        "         [--json] [--quiet]"
    )
    add = parser.add_argument
    add("plan", metavar="PLAN", help="the plan")
    add("--samples", metavar="DIR", help="folder of person images; INT8 is refused without")
    add("--precision", choices=("int8", "fp16", "bf16"), default="int8", help="default: int8")
    add("--data", metavar="ROOT", help="folder of sub-datasets: labels are judged by AUC on their test images too")
    add("--labels", metavar="LABEL", nargs="+", help="whose branches are lowered; default: those not tried yet")
    add(
        "--tolerance",
        type=float,
        metavar="X",
        help=(
            "most that a label's AUC may change; default 0.005 for int8, else 0.001. Without annotated images: "
            f"{FLIPS:g} times X as a share of decisions that flip, {MEAN:g} times X as mean difference of a probability"
        ),
    )
    add("--method", choices=("percentile", "entropy"), default="percentile", help="of INT8 ranges; default: percentile")
    add("--again", action="store_true", help="all labels anew, trunks too: every label may move")
    add("-o", "--output", metavar="OUT", help="write there; default: the plan is replaced")
    add("--json", action="store_true", help="print JSON")
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Lower and report; 1 where a label moved beyond its tolerance, else 0."""
    from graftsdk.lifecycle.lowering import lower_plan

    found = lower_plan(
        args.plan,
        args.precision,
        args.samples,
        output=args.output,
        labels=args.labels,
        data=args.data,
        tolerance=args.tolerance,
        method=args.method,
        again=args.again,
        progress=not args.quiet,
    )
    if args.json:
        print_json(found.to_dict())
    else:
        _print(found)
    return 0 if found.ok else 1


def _print(found: LoweringReport) -> None:
    print(f"{one_line(str(found.path))}: {found.precision}, tolerance {found.tolerance:g}, {found.seconds:.1f} s")
    if found.method:
        print(f"ranges    by {found.method} on {counted(found.calibrated, 'sample')} that are used for nothing else")
    print(f"compared  {counted(found.compared, 'other crop')} with float32, {found.annotated} of them annotated")
    for trunk in found.trunks:
        print(f"trunk     {trunk.part}: {_told(trunk, found.precision)}")
    print()
    print_table([[one_line(cell) for cell in row] for row in found.rows()], right=range(3, 9))


def _told(trunk: TrunkLowering, precision: str) -> str:
    if trunk.reused:
        return f"{precision if trunk.lowered else 'float32'}, as it was settled before"
    if trunk.figures is None:
        return "float32, nothing in it to lower"
    change = trunk.figures.auc_change
    moved = "" if change is None else f", AUC by at most {abs(change):.4f}"
    told = f"alone it moves a probability by at most {trunk.figures.largest:.4f}{moved}"
    if trunk.lowered:
        return f"{precision}; {told}"
    return f"stays in float32, for the sake of {', '.join(one_line(label) for label in trunk.blocking)}; {told}"
