"""`graftsdk evaluate`: how good the labels of a plan or of checkpoints are, on images that are annotated."""

from __future__ import annotations

import argparse

from graftsdk.cli.engine_options import (
    BUILT_USAGE,
    ENGINE_USAGE,
    add_built_options,
    add_engine_options,
    built_options,
    engine_options,
)
from graftsdk.cli.output import print_json
from graftsdk.errors import InputError
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Judge labels on the images of their sub-datasets (ROOT/LABEL/test/CLASS/): the paper's Table 2 with AUC, "
        "calibration and 95% intervals over identities. Thresholds are those stored in the plan or the branch. A plan "
        "is judged through the engine that serves it. Needs the extra [train]."
    )
    parser.epilog = (
        "examples:\n  graftsdk evaluate engine.plan --data labels/ --by camera -o evaluation/\n"
        "  graftsdk evaluate child.safetensors gender.safetensors --trunk trunk.safetensors --data labels/"
    )
    parser.usage = (
        "%(prog)s [-h] (PLAN | BRANCH... --trunk TRUNK) --data ROOT [--labels LABEL...]\n"
        "         [--split {train,val,test}] [--by camera] [-o DIR] [--draws N] [--seed N]\n"
        "         [--json] [--quiet]\n" + ENGINE_USAGE + BUILT_USAGE
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a plan; or branches' checkpoints, with --trunk")
    parser.add_argument("--trunk", metavar="FILE", help="the branches' trunk, a checkpoint; needs torch")
    parser.add_argument("--data", metavar="ROOT", required=True, help="folder of sub-datasets")
    parser.add_argument(
        "--labels", metavar="LABEL", nargs="+", help="of the plan; default: all that have a sub-dataset"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument("--by", choices=("camera",), help="a second table, with a row for each camera")
    parser.add_argument("-o", "--output", metavar="DIR", help="write evaluation.md, evaluation.csv and pictures there")
    parser.add_argument("--draws", type=int, metavar="N", default=1000, help="of the bootstrap; default 1000, 0: none")
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="of the bootstrap; default 0")
    add_engine_options(parser)
    add_built_options(parser)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge and print; always 0."""
    from graftsdk.lifecycle.evaluation import evaluate_branches, evaluate_plan
    from graftsdk.training.evaluation import evaluation_text, write_evaluation

    bar = not args.quiet
    if args.trunk is not None:
        _check_checkpoints(args)
        device = "cpu" if args.device == "auto" else args.device
        found = evaluate_branches(args.trunk, args.files, args.data, split=args.split, device=device, progress=bar)
    elif len(args.files) == 1:
        found = evaluate_plan(
            args.files[0],
            args.data,
            args.labels,
            split=args.split,
            progress=bar,
            **engine_options(args),
            **built_options(args),
        )
    else:
        raise InputError(f"expected one plan, or branches and --trunk, found {len(args.files)} files without --trunk")
    heading = f"{', '.join(args.files) if len(args.files) <= 3 else counted(len(args.files), 'branch', 'branches')}"
    said = {"heading": f"{heading}: {args.split}", "by_camera": args.by == "camera"}
    text, rows = evaluation_text(found.judged, found.thresholds, **said, seed=args.seed, draws=args.draws)
    if args.json:
        told = [{"label": row.label, "class": row.name, "camera": row.camera, **row.figures()} for row in rows]
        print_json({"images": found.images, "rows": [_finite(row) for row in told]})
    else:
        print(text, end="")
        print(f"\n{counted(found.images, 'picture')}")
    if args.output is not None:
        written = write_evaluation(
            args.output, found.judged, found.thresholds, **said, seed=args.seed, draws=args.draws
        )
        if not args.json:
            print(f"written: {', '.join(one_line(str(path)) for path in written)}")
    return 0


def _check_checkpoints(args: argparse.Namespace) -> None:
    """Raises InputError: an option that says how a plan is served, where torch computes checkpoints."""
    if args.labels is not None:
        raise InputError("--labels: expected a plan, found --trunk; name the branches that are to be judged")
    given = {"--layout": args.layout != "merged", "--precision": args.precision is not None}
    given |= {"--threads": args.threads is not None, "--engines": args.engines is not None}
    given["--trust-engines"] = args.trust_engines
    for option, said in given.items():
        if said:
            raise InputError(f"{option}: expected a plan, found --trunk; checkpoints are computed by torch, in float32")


def _finite(row: dict[str, object]) -> dict[str, object]:
    """What is undefined is null: JSON has no NaN."""
    return {name: None if value != value else value for name, value in row.items()}
