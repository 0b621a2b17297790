"""One graph -> one TensorRT engine, streamed out in pieces. Runs in the child process of `graftsdk.export.build`.

Weights are handed to the parser where they lie, mapped from the plan, and the engine leaves in pieces, so that neither
lives twice in memory. The library fails silently: every result is looked at. No error recorder: where one is set, the
logger, which keeps the errors, is told nothing (measured, tensorrt_rtx 1.7.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graftsdk.engines.driver import driver_problem
from graftsdk.engines.feeds import Port
from graftsdk.engines.record import Profile
from graftsdk.engines.tensorrt import Library, capability_number
from graftsdk.errors import EngineBuildError, EngineError, EngineIncompatible
from graftsdk.text import one_line

__all__ = ["Built", "Wanted", "build_graph", "checked_weights", "profile_of", "read_layers"]

_PART = re.compile(r"[0-9a-f]{16}(?:\.[0-9a-f]{16})?(?=/)")  # how graft names what belongs to a part
_TURING = "7.5"


@dataclass(frozen=True)
class Wanted:
    """What an engine is built for.

    Attributes:
        targets: compute capabilities, as "8.9". batches: sizes that will be fed.
        owners: part name, as values in the graph begin -> what to call it: "label 'child'", "the trunk".
        subject: what to call the whole graph.
        refittable: so that its weights can be exchanged, at some cost in speed. Needs a GPU while it is built: without
            one tensorrt_rtx 1.7.1 gives nothing (measured). Not run on a GPU.
    """

    targets: tuple[str, ...]
    batches: tuple[int, ...]
    owners: Mapping[str, str]
    subject: str
    refittable: bool = False


@dataclass(frozen=True)
class Built:
    """What the network says of itself: inputs and outputs in the engine's order, and the profiles that were set."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    profiles: tuple[Profile, ...]


def build_graph(
    library: Library,
    content: bytes,
    weights: Mapping[str, np.ndarray[Any, Any]],
    wanted: Wanted,
    write: Callable[[bytes], object],
    begin: Callable[[str], object],
) -> Built:
    """Build the graph and hand the engine to `write`, piece by piece.

    Args:
        library: what builds.
        content: ONNX whose big initialisers are external. weights: those; read where they are, so keep them.
        wanted: what it is built for.
        write: takes up to 64 MiB at a time. begin: is told each phase, "parsing" first.

    Raises:
        EngineBuildError: an operator that the parser does not know, a graph or number that it refuses; names label,
            node and operator. EngineIncompatible: a compute capability or precision that the library has not.
        EngineOutOfMemory: memory ran out.
    """
    library.forget_errors()
    begin("checking weights")
    held = checked_weights(weights, wanted)
    try:
        builder = library.module.Builder(library.logger)
    except TypeError as error:  # how the bindings tell that the library gave nothing
        raise library.failure(
            f"building {wanted.subject}", "the NVIDIA driver may be too old for it: update that, see graftsdk doctor"
        ) from error
    flag = library.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    if network is None:
        raise library.failure(f"building {wanted.subject}", "see graftsdk doctor")
    begin("parsing")
    _parse(library, network, content, held, wanted)
    config = builder.create_builder_config()
    config.clear_flag(library.module.BuilderFlag.TF32)  # on by default: 10 bits of the mantissa
    if hasattr(library.module.BuilderFlag, "REQUIRE_USER_ALLOCATION") and not _counts_on_data(library, network):
        # tensorrt_rtx alone: a run that allocates can neither be captured nor live in memory that is given to it.
        config.set_flag(library.module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if wanted.refittable:
        config.set_flag(library.module.BuilderFlag.REFIT)
    _set_targets(library, config, wanted)
    profiles = _set_profiles(library, builder, config, network, wanted)
    monitor = config.progress_monitor = _monitor(library.module, begin)
    writer, failures = _writer(library.module, write)
    library.forget_errors()
    done = builder.build_serialized_network_to_stream(network, config, writer)
    if failures:
        raise failures[0]
    if not done:
        raise _refusal(library, wanted)
    del monitor
    names = [[get(i) for i in range(count)] for get, count in _ends(network)]
    inputs, outputs = (tuple(_port(library, tensor) for tensor in ends) for ends in names)
    return Built(inputs, outputs, profiles)


def _counts_on_data(library: Library, network: Any) -> bool:
    """Whether a value is as large as the data make it, as behind suppression in a segmenter: such a run allocates."""
    kinds = library.module.LayerType
    odd = {getattr(kinds, name) for name in ("NMS", "NON_ZERO") if hasattr(kinds, name)}
    return any(network.get_layer(index).type in odd for index in range(network.num_layers))


def read_layers(library: Library, content: bytes) -> tuple[str, ...] | None:
    """The engine's layers as its inspector names them; None without a device that can open it, or where it fails."""
    if driver_problem() is not None:
        return None
    try:
        engine = library.deserialize(content)
    except EngineError:  # built for another GPU, or too large for this one
        return None
    inspector = engine.create_engine_inspector()
    form = library.module.LayerInformationFormat.ONELINE
    text = None if inspector is None else inspector.get_engine_information(form)
    if text is None:
        return None
    return tuple(line[:200].strip() for line in map(one_line, text.splitlines()) if line.strip())


def profile_of(batches: Sequence[int]) -> Profile:
    """One profile from the least to the most size that is fed, tuned for the middle one: 8 of 1, 8, 32.

    Only these sizes are fed, with padding; one profile serves all contexts, and a second one doubles the build
    (measured, tensorrt_rtx 1.7.1: 2.2 s for 1.2 s).
    """
    ordered = sorted(batches)
    return Profile(ordered[0], ordered[len(ordered) // 2], ordered[-1])


def checked_weights(weights: Mapping[str, np.ndarray[Any, Any]], wanted: Wanted) -> dict[str, np.ndarray[Any, Any]]:
    """The weights in C order; the library would take NaN and infinity without a word. Raises EngineBuildError."""
    held = {}
    for name, array in weights.items():
        if array.dtype.kind not in "biu" and not np.isfinite(array).all():
            raise EngineBuildError(
                f"{_owner(name, wanted)}: expected finite weights, found NaN or infinity in {name!r}; "
                f"what does not fit into a lower precision stays in float32"
            )
        held[name] = np.ascontiguousarray(array)
    return held


def _parse(
    library: Library, network: Any, content: bytes, weights: Mapping[str, np.ndarray[Any, Any]], wanted: Wanted
) -> None:
    parser = library.module.OnnxParser(network, library.logger)
    if not parser.load_model_proto(content, ""):
        raise _parser_error(library, parser, wanted)
    for name, array in weights.items():
        if not parser.load_initializer(name, array.ctypes.data, array.nbytes):
            raise _parser_error(library, parser, wanted, f"weights {name!r}")
    if not parser.parse_model_proto():
        raise _parser_error(library, parser, wanted)
    if network.num_outputs == 0:  # an empty model is parsed without a word
        raise EngineBuildError(f"{wanted.subject}: expected a graph with outputs, found none; export it again")


def _parser_error(library: Library, parser: Any, wanted: Wanted, what: str = "") -> Exception:
    """Every node that the parser refused, with its label and operator."""
    refused, other = [], []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node, operator = error.node_name(), error.node_operator()
        if error.code() == library.module.ErrorCode.UNSUPPORTED_NODE:
            refused.append(f"{_owner(node, wanted)}: operator {operator} (node {node!r})")
        else:
            place = f"{_owner(node, wanted)}: operator {operator} (node {node!r}): " if node else ""
            other.append(f"{place}{one_line(' '.join(error.desc().split()))[:300]}")
    name = f"{library.name} {library.version}"
    if refused:
        return EngineBuildError(
            f"{wanted.subject}: expected operators that {name} has, found {'; '.join(dict.fromkeys(refused))}; "
            f"leave these labels out with --labels, run them on ONNX Runtime, or export them with other operators"
        )
    found = "; ".join(dict.fromkeys(other)) or "; ".join(library.last_errors()) or "no reason"
    return EngineBuildError(
        f"{wanted.subject}: expected a graph that {name} can read, found {f'{what}: ' if what else ''}{found}; "
        f"leave the label out with --labels, or run it on ONNX Runtime"
    )


def _set_targets(library: Library, config: Any, wanted: Wanted) -> None:
    if not library.targets:  # it builds for this machine's GPU, and was checked to be asked for that one
        return
    kinds = library.module.ComputeCapability
    config.num_compute_capabilities = len(wanted.targets)
    for index, target in enumerate(wanted.targets):
        if not config.set_compute_capability(kinds(capability_number(target)), index):
            raise EngineIncompatible(
                f"compute capability {target}: expected one of {', '.join(library.targets)}, which is what "
                f"{library.name} {library.version} builds for"
            )


def _set_profiles(library: Library, builder: Any, config: Any, network: Any, wanted: Wanted) -> tuple[Profile, ...]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not dynamic:
        return ()
    found = profile_of(wanted.batches)
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise EngineBuildError(
                f"{wanted.subject}: expected an input whose batch alone is free, {tensor.name!r} has the shape "
                f"{list(shape)}; export it with fixed sides"
            )
        profile.set_shape(tensor.name, *((size, *shape[1:]) for size in (found.least, found.best, found.most)))
    if config.add_optimization_profile(profile) < 0:
        raise library.failure(f"batches {list(wanted.batches)}", "ask for other sizes with --batch")
    return (found,)


def _refusal(library: Library, wanted: Wanted) -> Exception:
    """The error for a build that failed: which labels the library's own message is about, and what is known to help."""
    told = " ".join(library.last_errors())
    owners = dict.fromkeys(wanted.owners.get(name, name) for name in _PART.findall(told))
    advice = "run it on ONNX Runtime, or report it with this message"
    if _TURING in wanted.targets:
        advice = f"leave {_TURING} out: TensorRT has no float32 matrix product for it, which every label needs"
    elif "HW-specific datatypes" in told:
        advice = "leave out the compute capabilities that lack this precision, or take another --precision"
    where = f" ({', '.join(owners)})" if owners else ""
    return library.failure(f"building {wanted.subject} for {', '.join(wanted.targets)}{where}", advice)


def _owner(name: str, wanted: Wanted) -> str:
    """Whose node or weight it is: graft names everything `<part>/<its own name>`."""
    return wanted.owners.get(name.split("/", 1)[0], wanted.subject)


def _ends(network: Any) -> list[tuple[Callable[[int], Any], int]]:
    return [(network.get_input, network.num_inputs), (network.get_output, network.num_outputs)]


def _port(library: Library, tensor: Any) -> Port:
    shape = tuple(None if size < 0 else int(size) for size in tensor.shape)
    return Port(tensor.name, np.dtype(library.module.nptype(tensor.dtype)), shape)


def _monitor(module: Any, begin: Callable[[str], object]) -> Any:
    """Tells each phase. It never cancels: the process that runs this is killed instead, which is prompt."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            begin(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True

    return Monitor()


def _writer(module: Any, write: Callable[[bytes], object]) -> tuple[Any, list[Exception]]:
    """A stream for the engine, and what was raised while writing: the library must not see an exception."""
    failures: list[Exception] = []

    class Writer(module.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IStreamWriter.__init__(self)

        def write(self, data: bytes) -> int:
            try:
                write(data)
            except (OSError, MemoryError) as error:
                failures.append(error)
                return 0
            return len(data)

    return Writer(), failures
