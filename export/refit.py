"""Engines whose weights can be exchanged: refitted from one of the same structure, or built, and proven either way.

A refit that fails may have changed a part of the weights (the library says so), and a refittable build may lose the
bias of a matrix product (`tensorrt` 11.3 says so; whether later ones do is not known). So a refit works on a copy that
nothing else runs, and no engine is handed out before the bytes themselves, opened on the device, have given the plan's
golden scores. Runs in the child process of `graftsdk.export.build`, where a GPU is at hand. Tested with a stand-in; not
run on a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from graftsdk.engines.feeds import Port
from graftsdk.engines.record import EngineRecord, read_engine_file, read_record
from graftsdk.engines.refittable import Refittable, renamed
from graftsdk.engines.tensorrt import Library
from graftsdk.engines.trust import built_here
from graftsdk.errors import EngineBuildError, GraftError
from graftsdk.export.parity import Parity
from graftsdk.export.structure import Structure
from graftsdk.export.tensorrt import Built, Wanted, build_graph, checked_weights

__all__ = ["make_refittable", "refit"]

_PIECE = 64 << 20

_log = logging.getLogger("graftsdk")


def make_refittable(
    library: Library,
    structure: Structure,
    wanted: Wanted,
    sources: Sequence[str],
    parity: Parity,
    write: Callable[[bytes], object],
    begin: Callable[[str], object],
) -> tuple[Built, Refittable]:
    """An engine that can be refitted, refitted itself where one of `sources` has its structure; else built.

    Args:
        library: what builds, on this machine's GPU. structure: the graph. wanted: what it is built for.
        sources: paths of records of engines that fit but for the structure.
        parity: proves that an engine gives the plan's scores.
        write, begin: as of `build_graph`; nothing is written of an engine that was not proven.

    Raises:
        EngineBuildError: as `build_graph`, or the engine that was built in full does not give the plan's scores.
        EngineIncompatible, EngineOutOfMemory: as `build_graph`.
    """
    found = None
    try:
        found = _refitted(library, structure, wanted, sources, parity, begin)
    except GraftError as error:
        _log.warning("%s is built in full, not refitted: %s", wanted.subject, error)
    if found is not None:
        built, content, refittable = found
        for start in range(0, len(content), _PIECE):
            write(content[start : start + _PIECE])
        return _outside(built, structure), refittable
    pieces: list[bytes] = []
    wanted = replace(wanted, refittable=True)
    built = build_graph(library, structure.content, structure.weights, wanted, pieces.append, begin)
    begin("comparing scores")
    try:
        change = parity.check(b"".join(pieces))
    except EngineBuildError as error:
        raise EngineBuildError(f"{error}; build it without --refittable") from error
    for piece in pieces:
        write(piece)
    return _outside(built, structure), Refittable(structure.digest, structure.names, change)


def refit(library: Library, content: bytes, structure: Structure, wanted: Wanted) -> bytes:
    """The engine `content` with the weights of `structure`, serialised. **Engines are code**: check it before.

    Raises:
        EngineBuildError: the library refuses a weight, misses one, or fails; names it. The copy is lost then.
        EngineIncompatible: the engine cannot be opened here. EngineOutOfMemory: memory ran out.
    """
    held = checked_weights(structure.weights, wanted)  # as long as the refitter
    engine = library.deserialize(content)
    doing = f"refitting {wanted.subject}"

    def check(done: object, what: str) -> None:
        if not done:
            raise library.failure(f"{doing}, {what}", "it has to be built in full")

    check(engine.refittable, "asking whether the engine can be")
    library.forget_errors()
    try:
        refitter = library.module.Refitter(engine, library.logger)
        parser = library.module.OnnxParserRefitter(refitter, library.logger)
    except TypeError as error:  # how the bindings tell that the library gave nothing
        raise library.failure(doing, "it has to be built in full") from error
    check(parser.load_model_proto(structure.content, ""), "reading the graph")
    for name, array in held.items():
        check(parser.load_initializer(name, array.ctypes.data, array.nbytes), f"weights {name!r}")
    check(parser.refit_model_proto(), "giving it the weights")
    missing = refitter.get_missing_weights()
    if missing:
        raise EngineBuildError(f"{doing}: expected to be given all weights, found {missing[:4]} missing")
    check(refitter.refit_cuda_engine(), "putting in the weights")
    flags = library.module.SerializationFlag
    how = engine.create_serialization_config()
    check(how is not None, "serialising")
    check(how.set_flag(flags.INCLUDE_REFIT), "keeping it refittable")  # left out unless it is asked for
    check(not how.get_flag(flags.EXCLUDE_WEIGHTS), "keeping its weights")
    host = engine.serialize_with_config(how)
    check(host is not None, "serialising")
    return bytes(memoryview(host))


def _source(structure: Structure, sources: Sequence[str]) -> EngineRecord | None:
    """The first that this machine built and whose structure is the same; one is tried, no more."""
    for source in sources:
        record = read_record(source)
        same = record.refittable is not None and record.refittable.structure == structure.digest
        if same and built_here(record):  # an engine is code
            return record
    return None


def _refitted(
    library: Library,
    structure: Structure,
    wanted: Wanted,
    sources: Sequence[str],
    parity: Parity,
    begin: Callable[[str], object],
) -> tuple[Built, bytes, Refittable] | None:
    """Ports by their names inside, and the engine; None where there is nothing to start from. A doubt is an error."""
    record = _source(structure, sources)
    if record is None or record.refittable is None:
        return None
    begin("refitting")
    former = read_engine_file(record, Path(sources[0]).with_name(record.file))
    content = refit(library, former, structure, wanted)
    begin("comparing scores")
    change = parity.check(content, former, unchanged=record.parts)
    former_names = record.refittable.names
    ports = [tuple(_called(port, former_names) for port in each) for each in (record.inputs, record.outputs)]
    _log.info("%s was refitted from %s", wanted.subject, record.name)
    refittable = Refittable(structure.digest, structure.names, change, record.sha256)
    return Built(ports[0], ports[1], record.profiles), content, refittable


def _outside(built: Built, structure: Structure) -> Built:
    """With the names that the plan gives."""
    names = {position: name for name, position in structure.names.items()}
    return replace(
        built,
        inputs=tuple(_called(port, names) for port in built.inputs),
        outputs=tuple(_called(port, names) for port in built.outputs),
    )


def _called(port: Port, names: Mapping[str, str]) -> Port:
    return replace(port, name=renamed(port.name, names))
