"""`graftsdk cache`: the compiled engines of this user."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from graftsdk.cli.output import HelpFormatter, megabytes, print_json, print_table
from graftsdk.engines import Cache, CacheEntry
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "The engine cache ($XDG_CACHE_HOME/graftsdk, else ~/.cache/graftsdk): one entry for each graph that was "
        "compiled. It may be cleared at any time; what is needed again is compiled again."
    )
    parser.epilog = "example:\n  graftsdk cache ls"
    actions = {
        "ls": "list the entries, the most recently used first",
        "clear": "remove all entries",
        "verify": "hash every byte; damaged entries are removed (exit code 1)",
    }
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in actions.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  graftsdk cache {name}",
            formatter_class=HelpFormatter,
        )
        command.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; 1 where `verify` found a damaged entry."""
    cache = Cache()
    if args.action == "clear":
        count, nbytes = cache.clear()
        if args.json:
            print_json({"path": str(cache.root), "removed": count, "bytes": nbytes})
        else:
            print(f"{one_line(str(cache.root))}: removed {_entries(count)}, {megabytes(nbytes)}")
        return 0
    entries = cache.ls() if args.action == "ls" else cache.verify()
    if args.json:
        print_json({"path": str(cache.root), "entries": [_entry(entry) for entry in entries]})
    else:
        _print(str(cache.root), entries, removed=args.action == "verify")
    damaged = any(entry.problem is not None for entry in entries)
    return 1 if args.action == "verify" and damaged else 0


def _print(root: str, entries: list[CacheEntry], *, removed: bool) -> None:
    print(f"{one_line(root)}: {_entries(len(entries))}, {megabytes(sum(entry.size for entry in entries))}")
    if not entries:
        return
    rows = [["entry", "graph", "device", "runtime", "size", "last used", "state"]]
    for entry in entries:
        problem = entry.problem and f"{'removed' if removed else 'damaged'}: {entry.problem}"
        used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        key = [entry.key.get(name, "") for name in ("graph", "device", "runtime")]
        rows.append([entry.name[:16], key[0][:16], *key[1:], megabytes(entry.size), used, problem or "sound"])
    print_table(rows, right=(4,))


def _entry(entry: CacheEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "path": str(entry.path),
        "key": dict(entry.key),
        "bytes": entry.size,
        "created": entry.created,
        "last_used": entry.last_used,
        "problem": entry.problem,
    }


def _entries(count: int) -> str:
    return counted(count, "entry", "entries")
