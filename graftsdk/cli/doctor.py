"""`graftsdk doctor`: what this machine can do, and what is wrong with the installation."""

from __future__ import annotations

import argparse
import logging

from graftsdk.cli.output import megabytes, print_json
from graftsdk.lifecycle.doctor import Diagnosis, diagnose
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Look at installed packages, CPU, threads, devices, runtimes of a GPU and engine cache, open engines on small "
        "graphs, and check whether ONNX Runtime keeps the bits here. Changes nothing. Exit code 1 where something is "
        "wrong."
    )
    parser.epilog = "example:\n  graftsdk doctor --json"
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 on a sound machine, 1 where something is wrong."""
    logging.getLogger("graftsdk").setLevel(logging.WARNING)  # its own small graphs are nobody's news
    found = diagnose()
    if args.json:
        print_json(found.to_dict())
    else:
        _print(found)
    return 0 if found.ok else 1


def _print(found: Diagnosis) -> None:
    for name, text in found.versions.items():
        print(f"{name:<12}{text}")
    print(f"{'cpu':<12}{' '.join(found.cpu)}")
    threads = found.threads
    quota = "none" if threads.quota is None else f"{threads.quota:g}"
    print(
        f"{'threads':<12}{threads.engine} for an engine; {threads.cpus} CPUs, {threads.affinity} in the affinity mask, "
        f"quota of the control group: {quota}"
    )
    print("\npackages")
    for package, version in found.packages.items():
        print(f"  {package:<16}{version or 'not installed'}")
    print("\ndevices")
    for device in found.devices:
        print(f"  {device.device:<6}{'works' if device.works else f'not here: {one_line(device.says)}'}")
    print("\nruntimes of a GPU")
    for each in found.runtimes:
        kind = "works" if each.works else "builds engines, runs none" if each.builds else "not here"
        print(f"  {each.name:<22}{kind}{f': {one_line(each.says)}' if each.says else ''}")
    cache = found.cache
    print("\nengine cache")
    print(
        f"  {one_line(cache.path)}: {counted(cache.entries, 'entry', 'entries')}, {megabytes(cache.nbytes)}, "
        f"{'writable' if cache.writable else 'not writable'}"
    )
    print("\nbits (a small tree on the CPU, score by score)")
    for check in found.bits:
        print(f"  {check.promise:<28}{'holds' if check.holds else f'DIFFERS by {check.difference:.1e}'}")
    if not found.bits:
        print("  not checked: no engine works")
    print(f"\n{counted(len(found.problems), 'problem') if found.problems else 'no problems'}")
    for problem in found.problems:
        print(f"  {one_line(problem)}")
