"""`graftsdk plan`: change plans label by label, and see what changed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from graftsdk.cli.output import HelpFormatter, print_json, print_table
from graftsdk.errors import InputError
from graftsdk.lifecycle.changes import PlanChange, compare_manifests
from graftsdk.lifecycle.inspection import is_onnx
from graftsdk.plan import BranchDocument, BranchEntry, Event, Manifest, open_plan
from graftsdk.plan.edit import add_branches, merge_plans, remove_label, revert_label
from graftsdk.plan.onnx_part import read_onnx_part
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]

_Parser = argparse.ArgumentParser


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Change a plan label by label. A plan is replaced by rename, never edited in place, and every part that is not "
        "named keeps its bytes: no other label's score can move. Removed and replaced parts stay for revert."
    )
    parser.epilog = "example:\n  graftsdk plan add engine.plan child.onnx"
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def command(name: str, what: str, example: str, act: Callable[[argparse.Namespace], int]) -> _Parser:
        added = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=f"example:\n  graftsdk plan {name} {example}",
            formatter_class=HelpFormatter,
        )
        added.add_argument("--json", action="store_true", help="print JSON")
        added.set_defaults(act=act)
        return added

    add = command("add", "add exported branches, each to the trunk it was trained on", "engine.plan child.onnx", _add)
    add.add_argument("plan", metavar="PLAN", help="the plan")
    add.add_argument("parts", metavar="PART", nargs="+", help="an exported branch, .onnx")
    add.add_argument("--replace", action="store_true", help="a label that is there already is replaced")
    remove = command("remove", "remove a label; its part stays for revert", "engine.plan child", _remove)
    revert = command("revert", "take back the last change of a label", "engine.plan child", _revert)
    for each in (remove, revert):
        each.add_argument("plan", metavar="PLAN", help="the plan")
        each.add_argument("label", metavar="LABEL", help="the label")
    for each in (add, remove, revert):
        each.add_argument("-o", "--output", metavar="OUT", help="write there; default: the plan is replaced")
    merge = command(
        "merge", "put the trees of two plans into one: labels move from an old trunk to a new one",
        "old.plan new.plan -o both.plan", _merge,
    )  # fmt: skip
    merge.add_argument("old", metavar="OLD", help="the plan whose labels, history and segmenter come first")
    merge.add_argument("new", metavar="NEW", help="the plan whose trees are added")
    merge.add_argument("-o", "--output", required=True, metavar="OUT", help="the plan to write")
    merge.add_argument("--replace", action="store_true", help="a label of both is taken from NEW; else it is refused")
    diff = command("diff", "labels that differ between two plans", "old.plan new.plan", _diff)
    diff.add_argument("old", metavar="OLD", help="a plan")
    diff.add_argument("new", metavar="NEW", help="the plan that it is compared with")
    log = command("log", "what was added, replaced, removed, taken back or merged, and when", "engine.plan", _log)
    log.add_argument("plan", metavar="PLAN", help="the plan")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it; always 0."""
    code: int = args.act(args)
    return code


def _add(args: argparse.Namespace) -> int:
    branches = []
    for path in args.parts:
        if not is_onnx(path):
            raise InputError(
                f"{path}: expected an exported branch, .onnx; graftsdk-export --parts DIR makes one of a checkpoint"
            )
        part, document = read_onnx_part(path)
        if not isinstance(document, BranchDocument):
            raise InputError(f"{path}: expected a branch, found a trunk; export a new plan on it (graftsdk-export)")
        branches.append((part, document))
    before = _manifest(args.plan)
    add_branches(args.plan, branches, replace_labels=args.replace, output=args.output)
    return _report(args, args.output or args.plan, before)


def _remove(args: argparse.Namespace) -> int:
    before = _manifest(args.plan)
    remove_label(args.plan, args.label, output=args.output)
    return _report(args, args.output or args.plan, before)


def _revert(args: argparse.Namespace) -> int:
    before = _manifest(args.plan)
    revert_label(args.plan, args.label, output=args.output)
    return _report(args, args.output or args.plan, before)


def _merge(args: argparse.Namespace) -> int:
    before = _manifest(args.old)
    merge_plans(args.old, args.new, args.output, replace_labels=args.replace)
    return _report(args, args.output, before)


def _report(args: argparse.Namespace, path: str, before: Manifest) -> int:
    """What a change did to the plan that now lies at `path`."""
    change = compare_manifests(before, _manifest(path))
    if args.json:
        print_json({"path": path, **change.to_dict()})
        return 0
    print(one_line(path))
    _print_change(change)
    return 0


def _diff(args: argparse.Namespace) -> int:
    change = compare_manifests(_manifest(args.old), _manifest(args.new))
    if args.json:
        print_json({"old": args.old, "new": args.new, **change.to_dict()})
        return 0
    print(f"{one_line(args.old)} -> {one_line(args.new)}")
    _print_change(change)
    return 0


def _print_change(change: PlanChange) -> None:
    if not change.changes:
        print("  no label differs")
    for each in change.changes:
        print(f"  {each.action:<10}{one_line(each.label)}  {_sides(each.before, each.after)}")
    kept = ", ".join(one_line(label) for label in change.kept) or "none"
    scores = "same scores in float32" if change.otherwise else "same scores"
    print(f"  untouched {counted(len(change.kept), 'label')}, same parts, {scores}: {kept}")
    for precision, labels in change.otherwise.items():
        named = ", ".join(one_line(label) for label in labels)
        print(f"  {precision:<10}{counted(len(labels), 'label')} computed otherwise: {named}")
    altered = f", {change.tensors_altered} ALTERED" if change.tensors_altered else ""
    print(f"  tensors   {change.tensors_kept} kept their SHA-256, {change.tensors_new} new{altered}")


def _log(args: argparse.Namespace) -> int:
    history = _manifest(args.plan).history
    if args.json:
        print_json([_event(event) for event in history])
        return 0
    rows = [["when", "action", "label", "part", "from plan"]]
    for event in history:
        rows.append([event.when, event.action, event.label, _sides(event.before, event.after), event.source[:16]])
    if history:
        print_table(rows)
    else:
        print("no changes")
    return 0


def _event(event: Event) -> dict[str, Any]:
    return {
        "when": event.when,
        "action": event.action,
        "label": event.label,
        "source": event.source,
        "trunk": event.trunk,
        "before": None if event.before is None else event.before.part,
        "after": None if event.after is None else event.after.part,
    }


def _sides(before: BranchEntry | None, after: BranchEntry | None) -> str:
    """As "part", "part -> part" or "part -> none"."""
    if before is None:
        return after.part if after is not None else ""
    if after is not None and before.part == after.part:
        return f"{before.part} (another document)"
    return f"{before.part} -> {after.part if after is not None else 'none'}"


def _manifest(path: str) -> Manifest:
    with open_plan(path) as plan:
        return plan.manifest
