"""`graftsdk update`: train what is due, and end in a new plan."""

from __future__ import annotations

import argparse
import os

from graftsdk.cli.output import print_json, print_table
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]

_MORE = """\
A label whose AUC on validation falls by more than its tolerance on a new trunk keeps its old branch, and the plan the
old trunk for it. Labels that are not trained keep the bytes of their parts. After Ctrl-C or a kill the next update goes
on; until the end the plan is the old one.

exit status: 1 where the training of a label failed; the others are done.

examples:
  graftsdk update labels/graft.toml --dry-run
  graftsdk update labels/graft.toml
  graftsdk update labels/graft.toml --trunk
  graftsdk update labels/graft.toml --only backpack"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Do what is due by a graft.toml: branches of labels that are new or stale, then the plan; with --trunk, first "
        "the trunk. Needs the extra [train]."
    )
    parser.epilog = _MORE
    add = parser.add_argument
    add("registry", metavar="FILE", nargs="?", default="graft.toml", help="default: graft.toml, here; or its folder")
    add("--only", nargs="+", default=[], metavar="LABEL", help="no other label's branch is trained or replaced")
    add("--trunk", action="store_true", help="train a new trunk first, where anything is new since it was trained")
    add("--dry-run", action="store_true", help="say what is due and do nothing")
    add("--quiet", action="store_true", help="no progress bars")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it; 1 where a label failed, else 0."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave the CPU to those that decode images
    from graftsdk.lifecycle.registry import read_registry
    from graftsdk.lifecycle.standing import stand
    from graftsdk.lifecycle.updating import due_steps, update

    registry = read_registry(args.registry)
    if args.dry_run:
        steps = due_steps(stand(registry), args.only, args.trunk)
        if args.json:
            print_json([{"do": step.what, "label": step.label, "why": step.why} for step in steps])
        elif steps:
            print_table([["do", "label", "why"], *([step.what, step.label, step.why] for step in steps)])
        else:
            print("nothing is due")
        return 0
    report = update(registry, only=args.only, trunk=args.trunk, progress=not args.quiet)
    failed = any(one.result == "failed" for one in report.labels)
    if args.json:
        print_json({"path": str(registry.plan), **report.to_dict()})
        return int(failed)
    if report.trunk:
        print(f"{one_line(str(registry.trunk))}: a new trunk")
    rows = [["label", "branch", "AUC before", "AUC after", "note"]]
    for one in report.labels:
        aucs = ["" if value is None else f"{value:.4f}" for value in (one.before, one.after)]
        note = "the old one stays, on its former trunk" if one.result == "kept" else one.note
        rows.append([one.label, one.result, *aucs, note])
    if report.labels:
        print_table(rows, right=(2, 3))
    if report.change is None:
        print(f"{one_line(str(registry.plan))}: not changed")
    else:
        kept, changed = len(report.change.kept), len(report.change.changes)
        print(f"{one_line(str(registry.plan))}: {counted(changed, 'label')} changed, {kept} untouched, same scores")
    return int(failed)
