"""How `graftsdk info` shows engines that were built ahead."""

from __future__ import annotations

from collections.abc import Sequence

from graftsdk.cli.output import megabytes, print_table
from graftsdk.engines.feeds import Port
from graftsdk.lifecycle.engine_files import EngineFile
from graftsdk.text import counted, one_line

__all__ = ["print_engine", "print_engines"]


def print_engine(engine: EngineFile) -> None:
    """One engine, line by line."""
    record = engine.record
    print(f"{one_line(str(engine.path))}: an engine of {megabytes(record.size)}, SHA-256 {record.sha256}")
    print(f"state      {one_line(engine.problem) if engine.problem else 'every byte is as it was built'}")
    print(f"holds      {record.role}, layout {record.layout}, graph {record.graph[:16]}, of plan {record.plan[:16]}")
    print(f"labels     {one_line(', '.join(record.labels)) or 'none: it feeds other engines'}")
    print(f"runs on    compute capability {', '.join(record.targets)}, with {record.runtime} {record.version} alone")
    forms = [form for _, form in record.parts.values()]
    kinds = ", ".join(f"{counted(forms.count(form), 'part')} in {form}" for form in dict.fromkeys(forms))
    print(f"precision  {record.precision}: {kinds}")
    sizes = ", ".join(f"{each.least} to {each.most}, tuned for {each.best}" for each in record.profiles)
    print(f"batches    {', '.join(map(str, record.batches))} (profile {sizes or 'none: the batch is fixed'})")
    print(f"inputs     {_ports(record.inputs)}")
    print(f"outputs    {_ports(record.outputs)}")
    print(f"built      {record.when}, in {record.seconds:.1f} s, {megabytes(record.peak_bytes)} of memory at most")
    layers = "unknown: no device could open it when it was built" if record.layers is None else f"{len(record.layers)}"
    print(f"layers     {layers}")
    if (found := record.refittable) is not None:
        how = f"refitted from {found.refitted_from[:16]}" if found.refitted_from else "built in full"
        print(f"refittable structure {found.structure[:16]}; {how}; golden scores within {found.golden:.1e}")


def print_engines(engines: Sequence[EngineFile]) -> None:
    """Several, as a table; below it what is wrong with some."""
    rows = [["engine", "labels", "precision", "runs on", "runtime", "batches", "size", "SHA-256", ""]]
    for each in engines:
        record = each.record
        rows.append(
            [
                record.name,
                ", ".join(record.labels),
                record.precision,
                " ".join(record.targets),
                f"{record.runtime} {record.version}",
                ",".join(map(str, record.batches)),
                megabytes(record.size),
                record.sha256[:16],
                "" if each.problem is None else "damaged",
            ]
        )
    print_table(rows, right=(6,))
    for each in engines:
        if each.problem is not None:
            print(f"\n{one_line(each.problem)}")


def _ports(ports: Sequence[Port]) -> str:
    shown = [one_line(f"{port.name} {port}") for port in ports[:4]]
    return ", ".join(shown) + (f" and {len(ports) - 4} more" if len(ports) > 4 else "")
