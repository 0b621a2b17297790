"""Hostile bytes for the readers: `python tests/fuzz/run.py --seconds 60 [--target NAME] [--seed N]`.

By atheris where it is installed, else by a mutation loop of its own, whose seed is printed. Only GraftError is
swallowed: anything else that comes out of a target is a finding, and its input is saved beside its message. Seeds are
synthetic. A finding becomes a regression test in tests/security.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import onnx
import toys
from PIL import Image
from plan import forge

from graftsdk.errors import GraftError
from graftsdk.graft import externalize, graft
from graftsdk.plan import Part, load_plan
from graftsdk.plan.edit import create_plan
from graftsdk.plan.onnx_part import part_from_model  # noqa: F401  imported before atheris counts edges
from graftsdk.preprocess import decode_image

FOLDER = Path(tempfile.mkdtemp(prefix="graftsdk-fuzz-"))
LIMIT = 20.0  # seconds for one input
INTERESTING = [
    0,
    1,
    -1,
    7,
    8,
    127,
    255,
    256,
    1023,
    1024,
    65535,
    2**31 - 1,
    2**31,
    2**53,
    2**63,
    2**64,
    0.5,
    1e308,
    -0.0,
]
WORDS = [
    "",
    "x",
    "e\u0301",
    "\u202e",
    "a" * 300,
    "os.system",
    "../x",
    "yes",
    "no",
    "trunk",
    "branch",
    "F32",
    "0" * 64,
    "0" * 16,
]

GOOD = forge.good(FOLDER)
TRUNK, BRANCH = toys.trunk(), toys.branch("child", 1)
OTHER = toys.branch("gender", 2, seed=3)


def plan_raw(data: bytes) -> None:
    """The plan reader on any bytes."""
    load_plan(data).close()


def plan_structured(data: bytes) -> None:
    """The plan reader on a plan whose header or manifest was changed by `data`, digests repaired."""
    rng = random.Random(data)
    header, manifest, body = forge.split(GOOD)
    for _ in range(rng.randrange(1, 4)):
        target = header if rng.random() < 0.3 else manifest
        change(target, rng)
    if rng.random() < 0.1:
        text = forge.dump(manifest)
        at = rng.randrange(len(text))
        manifest = text[:at] + rng.choice(['"', "{", "]", ",", "\\", "9" * 400, "\ud800", "NaN"]) + text[at + 1 :]
    try:
        made = forge.join(header, manifest, body)
    except (KeyError, TypeError, AttributeError):
        return  # the forge needs a header with metadata
    with load_plan(made) as plan:
        list(plan.parts.values())
        if plan.labels:
            externalize(graft(plan))


def graft_models(data: bytes) -> None:
    """Graft of a trunk and two branches, one or two of which were changed as ONNX by `data`."""
    rng = random.Random(data)
    parts = [TRUNK[0], BRANCH[0], OTHER[0]]
    for index in rng.sample(range(3), rng.randrange(1, 3)):
        part = parts[index]
        content = mutate(part.graph, rng) if rng.random() < 0.4 else reshape_model(part.graph, rng)
        tensors = dict(part.tensors)
        if rng.random() < 0.2 and tensors:
            tensors[rng.choice(["tap", "crops", "scores", "x", "fc.bias"])] = tensors.pop(rng.choice(list(tensors)))
        parts[index] = Part(part.role, content, tensors)
    path = FOLDER / "graft.plan"
    create_plan(path, (parts[0], TRUNK[1]), [(parts[1], BRANCH[1]), (parts[2], OTHER[1])])
    with load_plan(path) as plan:
        externalize(graft(plan))


def image(data: bytes) -> None:
    """Decoding of any bytes."""
    decoded = decode_image(data)
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3 and decoded.shape[2] == 3


def change(value: object, rng: random.Random) -> None:
    """Change one thing somewhere inside a JSON value."""
    while isinstance(value, (dict, list)) and value:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(list(keys))
        inner = value[key]  # type: ignore[call-overload,index]
        if isinstance(inner, (dict, list)) and inner and rng.random() < 0.85:
            value = inner
            continue
        what = rng.randrange(6)
        if what == 0:
            del value[key]  # type: ignore[arg-type]
        elif what == 1 and isinstance(value, dict):
            value[rng.choice(WORDS)] = inner
        elif what == 2 and isinstance(value, list):
            value.extend(value * rng.randrange(1, 4))
        elif what == 3 and isinstance(inner, (int, float)) and not isinstance(inner, bool):
            value[key] = inner + rng.choice([-1, 1, 8, -8])  # type: ignore[call-overload,index]
        else:
            value[key] = rng.choice([*INTERESTING, *WORDS, None, True, [], {}])  # type: ignore[call-overload,index]
        return


def reshape_model(content: bytes, rng: random.Random) -> bytes:
    """An ONNX model with one or two of its pieces changed, still a valid protobuf."""
    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)] + ["", "crops", "tap", "scores", "x"]
    for _ in range(rng.randrange(1, 3)):
        what, node = rng.randrange(9), rng.choice(graph.node) if graph.node else onnx.NodeProto()
        if what == 0 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif what == 1 and node.output:
            node.output[rng.randrange(len(node.output))] = rng.choice(names)
        elif what == 2 and graph.node:
            graph.node.append(node)
        elif what == 3 and graph.node:
            del graph.node[rng.randrange(len(graph.node))]
        elif what == 4 and graph.initializer:
            tensor = rng.choice(graph.initializer)
            tensor.dims.append(rng.choice([0, -1, 2, 2**40]))
        elif what == 5 and graph.initializer:
            tensor = rng.choice(graph.initializer)
            tensor.data_type = rng.randrange(0, 30)
        elif what == 6 and graph.output:
            rng.choice(graph.output).name = rng.choice(names)
        elif what == 7:
            inner = onnx.GraphProto.FromString(graph.SerializeToString())  # protobuf cannot copy a message into itself
            node.attribute.add(name="body", type=rng.choice([5, 10])).g.CopyFrom(inner)
        elif graph.input:
            graph.input.add(name=rng.choice(names))
    return bytes(model.SerializeToString())


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed: flipped, set, cut, repeated, or taken from elsewhere."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if not out:
            return bytes(rng.randbytes(8))
        at = rng.randrange(len(out))
        kind = rng.randrange(6)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice([0, 1, 0x22, 0x7B, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del out[at : at + rng.choice([1, 4, 64, len(out)])]
        elif kind == 3:
            out[at:at] = out[at : at + rng.choice([1, 8, 256])]
        elif kind == 4:
            width = rng.choice([1, 2, 4, 8])
            number = int(rng.choice(INTERESTING[:16])) & (256**width - 1)
            out[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))
        else:
            out[at : at + 8] = rng.randbytes(8)
    return bytes(out)


def images() -> list[bytes]:
    """One small picture in each format."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    found = []
    for kind, mode in [
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
        ("PNG", "L"),
    ]:
        out = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(out, kind)
        found.append(out.getvalue())
    return found


TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "plan-raw": (plan_raw, [GOOD]),
    "plan-structured": (plan_structured, [bytes([index]) * 8 for index in range(16)]),
    "graft": (graft_models, [bytes([index]) * 8 for index in range(16)]),
    "image": (image, images()),
}


def attempt(target: Callable[[bytes], None], data: bytes) -> None:
    """One input. Raises whatever is no GraftError, and if it took too long."""
    began = time.perf_counter()
    try:
        target(data)
    except GraftError as error:
        if not str(error):
            raise AssertionError("an error without a message") from error
    if time.perf_counter() - began > LIMIT:
        raise AssertionError(f"one input took {time.perf_counter() - began:.0f} s")


def loop(name: str, seconds: float, seed: int) -> int:
    """The mutation loop; the number of findings."""
    target, seeds = TARGETS[name]
    rng = random.Random(f"{name}{seed}")
    until, count, findings, kept = time.monotonic() + seconds, 0, 0, list(seeds)
    while time.monotonic() < until and findings < 10:
        data = mutate(rng.choice(kept), rng)
        count += 1
        try:
            attempt(target, data)
        except Exception:
            findings += 1
            saved = Path(tempfile.gettempdir()) / f"finding-{name}-{os.getpid()}-{findings}"
            saved.write_bytes(data)
            print(f"{name}: finding {findings}, saved as {saved}\n{traceback.format_exc()}", flush=True)
        if len(kept) < 256 and rng.random() < 0.01:
            kept.append(data)  # mutations of mutations
    print(
        json.dumps({"target": name, "engine": "mutation loop", "seed": seed, "executions": count, "findings": findings})
    )
    return findings


def with_atheris(name: str, seconds: float) -> None:
    """One target under atheris, which ends the process."""
    import atheris

    target, seeds = TARGETS[name]
    corpus = Path(tempfile.mkdtemp(prefix=f"graftsdk-corpus-{name}-"))
    for index, data in enumerate(seeds):
        (corpus / str(index)).write_bytes(data)
    print(json.dumps({"target": name, "engine": "atheris", "corpus": str(corpus)}), flush=True)
    atheris.instrument_all()
    options = [f"-max_total_time={int(seconds)}", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: attempt(target, data))
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 without a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="default: all, one after another")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args(arguments)
    names = options.target or list(TARGETS)
    try:
        import atheris  # noqa: F401
    except ImportError:
        return min(1, sum(loop(name, options.seconds, options.seed) for name in names))
    failed = 0
    for name in names:  # atheris runs one target a process
        pid = os.fork()
        if pid == 0:
            with_atheris(name, options.seconds)
            os._exit(0)
        failed |= os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main())
