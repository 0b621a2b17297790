"""`graftsdk status`: what is trained on which trunk, what is stale, whether the trunk is due, what the plan holds."""

from __future__ import annotations

import argparse

from graftsdk.cli.output import print_json, print_table
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]

_STATES = """\
states:
  untrained   there is no branch
  stale       its branch is not as wanted: the column why says what differs
  kept        on a former trunk: on this one its AUC fell by more than its tolerance
  current     its branch is as wanted
  broken      sub-dataset or checkpoint cannot be used

example:
  graftsdk status labels/graft.toml"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Say how the labels of a graft.toml stand. Only documents and names are read, no weights."
    parser.epilog = _STATES
    parser.add_argument(
        "registry", metavar="FILE", nargs="?", default="graft.toml", help="default: graft.toml, here; or its folder"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; always 0."""
    from graftsdk.lifecycle.registry import read_registry
    from graftsdk.lifecycle.standing import stand

    registry = read_registry(args.registry)
    standing = stand(registry)
    if args.json:
        print_json({"path": str(registry.path), "plan": str(registry.plan), **standing.to_dict()})
        return 0
    trunk = standing.trunk
    print(f"trunk  {one_line(str(registry.trunk))}, fingerprint {(trunk.fingerprint or 'none')[:16]}")
    if trunk.differing:
        print(f"       {registry.path.name} wants another {', '.join(trunk.differing)}")
    news = f"{counted(len(trunk.new), 'label')} new to it" + "".join(f", {one_line(label)}" for label in trunk.new)
    print(f"       {'DUE' if trunk.due else 'not due'}: {news}".replace("it, ", "it: ", 1))
    print(f"plan   {one_line(str(registry.plan))}{'' if registry.plan.exists() else ', not there yet'}\n")
    rows = [["label", "state", "AUC", "trunk", "in plan", "why"]]
    for one in standing.labels:
        on = "" if one.trunk is None else one.trunk[:16] if "trunk" in one.stale else "this one"
        why = one.problem or (f"{_auc(one.tried)} on this trunk" if one.state == "kept" else ", ".join(one.stale))
        rows.append([one.label, one.state, _auc(one.auc), on, one.plan, why])
    print_table(rows, right=(2,))
    if standing.unregistered:
        print(f"\nin the plan, without a sub-dataset here: {one_line(', '.join(standing.unregistered))}")
    return 0


def _auc(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
