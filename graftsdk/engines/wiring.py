"""Which graph needs which value: what is fed, what is handed on, what is run for the outputs that are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftsdk.engines.feeds import Port
from graftsdk.errors import EngineBuildError, InputError

__all__ = ["Wires", "Wiring"]


@dataclass(frozen=True)
class Wires:
    """One graph's ends."""

    inputs: Mapping[str, str]  # the graph's input name -> value
    outputs: tuple[str, ...]


class Wiring:
    """The graphs of an engine in the order in which they run.

    Raises:
        InputError: no graph, an output named twice, or a graph that needs a value of a later one.
    """

    def __init__(self, graphs: Sequence[tuple[Mapping[str, str], tuple[str, ...]]]) -> None:
        if not graphs:
            raise InputError("graphs: expected at least one")
        self.graphs = tuple(Wires(dict(inputs), tuple(outputs)) for inputs, outputs in graphs)
        self._maker: dict[str, int] = {}  # value -> graph that gives it
        for index, wires in enumerate(self.graphs):
            for value in wires.outputs:
                if value in self._maker:
                    raise InputError(f"graphs: expected each output once, found {value!r} twice")
                self._maker[value] = index
        for index, wires in enumerate(self.graphs):
            for value in wires.inputs.values():
                if self._maker.get(value, -1) >= index:
                    raise InputError(f"graphs: {value!r} is needed by graph {index}, before graph {self._maker[value]}")
        self.inputs = frozenset(self.feeds(range(len(self.graphs))))

    def needed(self, asked: Sequence[str]) -> list[int]:
        """The graphs that must run for the asked values, in order."""
        found: set[int] = set()
        left = [self._maker[value] for value in asked]
        while left:
            index = left.pop()
            if index not in found:
                found.add(index)
                left += [self._maker[value] for value in self.graphs[index].inputs.values() if value in self._maker]
        return sorted(found)

    def feeds(self, needed: Sequence[int]) -> dict[str, tuple[int, int]]:
        """Value that must be fed -> (graph, position) of an input that takes it."""
        found: dict[str, tuple[int, int]] = {}
        for index in needed:
            for position, value in enumerate(self.graphs[index].inputs.values()):
                if value not in self._maker:
                    found.setdefault(value, (index, position))
        return found

    def wanted(self, needed: Sequence[int], asked: Sequence[str]) -> dict[int, list[str]]:
        """Graph -> those of its outputs that are asked for or handed on."""
        used = set(asked) | {value for index in needed for value in self.graphs[index].inputs.values()}
        return {index: [value for value in self.graphs[index].outputs if value in used] for index in needed}

    def last_use(self, index: int, needed: Sequence[int], asked: Sequence[str]) -> set[str]:
        """The values that nobody needs once graph `index` has run."""
        later = {value for other in needed if other > index for value in self.graphs[other].inputs.values()}
        return set(self.graphs[index].inputs.values()) - later - set(asked)

    def check(self, ports: Sequence[tuple[tuple[Port, ...], tuple[Port, ...]]]) -> None:
        """Compare what was said about the graphs with what was compiled (inputs in the order of `Wires.inputs`).

        Raises:
            EngineBuildError: names differ, an input has no batch dimension, or two takers of one value disagree.
        """
        for index, (inputs, outputs) in enumerate(ports):
            wires = self.graphs[index]
            for kind, found, expected in (("inputs", inputs, wires.inputs), ("outputs", outputs, wires.outputs)):
                if [port.name for port in found] != list(expected):
                    names = [port.name for port in found]
                    raise EngineBuildError(f"graph {index}: expected the {kind} {list(expected)}, found {names}")
            if any(not port.shape for port in inputs) or len({port.shape[0] for port in inputs}) > 1:
                raise EngineBuildError(f"graph {index}: expected inputs of one batch dimension, found {_shown(inputs)}")
        self._check_shared(ports)

    def _check_shared(self, ports: Sequence[tuple[tuple[Port, ...], tuple[Port, ...]]]) -> None:
        first: dict[str, Port] = {}
        for index, (inputs, outputs) in enumerate(ports):
            for port, value in zip(inputs, self.graphs[index].inputs.values(), strict=True):
                other = first.setdefault(value, port)
                if not _fits(other, port):
                    raise EngineBuildError(f"graph {index}: {value!r} is {other} elsewhere, found {port} here")
            first.update({port.name: port for port in outputs})


def _fits(one: Port, other: Port) -> bool:
    return (
        one.dtype == other.dtype
        and len(one.shape) == len(other.shape)
        and all(None in sizes or len(set(sizes)) == 1 for sizes in zip(one.shape[1:], other.shape[1:], strict=True))
    )


def _shown(ports: Sequence[Port]) -> str:
    return ", ".join(f"{port.name} {port}" for port in ports)
