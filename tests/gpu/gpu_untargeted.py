"""What an engine does that tensorrt_rtx built without naming a target, on a GPU that it has no target for.

tensorrt_rtx 1.7 has none for 9.0 (H100, H200). Whether an engine of its default build runs there is not documented: it
is tried once, in a process of its own, and what it said is kept. graftsdk itself builds no such engines.
"""

from __future__ import annotations

import json
import subprocess
import sys

__all__ = ["try_untargeted"]

_SECONDS = 120


def try_untargeted() -> str:
    """One line: what happened, with the library's own words."""
    try:
        done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS} s"
    if done.returncode:
        last = " ".join((done.stderr.strip().splitlines() or ["no message"])[-1].split())
        return f"the process ended with {done.returncode}: {last[:300]}"
    return str(json.loads(done.stdout.strip().splitlines()[-1]))


def _try() -> str:
    import onnx
    from onnx import TensorProto, helper

    from graftsdk.engines.tensorrt import find_library
    from graftsdk.errors import EngineError, MissingDependency

    try:
        library = find_library("tensorrt_rtx")
    except (MissingDependency, EngineError) as error:
        return f"not tried: {error}"
    shape = [1, 8]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    trt = library.module
    builder = trt.Builder(library.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if not trt.OnnxParser(network, library.logger).parse(model.SerializeToString()):
        return f"not tried: the parser refuses one Relu: {'; '.join(library.last_errors())}"
    library.forget_errors()
    content = builder.build_serialized_network(network, builder.create_builder_config())
    name = f"{library.name} {library.version}"
    if content is None:
        return f"{name} builds none without a target: {'; '.join(library.last_errors())[:300]}"
    try:
        engine = library.deserialize(bytes(content))
    except EngineError as error:
        return f"{name} builds one and refuses to open it: {error}"
    return _run(library, engine, name)


def _run(library: object, engine: object, name: str) -> str:
    """Run it once on zeros and ones, by way of the engine's own classes."""
    import numpy as np

    from graftsdk.engines.cuda import open_device

    context = engine.create_execution_context()  # type: ignore[attr-defined]
    if context is None:
        return f"{name} opens one and makes no context: {'; '.join(library.last_errors())[:300]}"  # type: ignore[attr-defined]
    given = np.array([[-1, 2, -3, 4, -5, 6, -7, 8]], np.float32)
    found = np.zeros_like(given)
    with open_device() as device, device.stream() as stream, device.alloc(512) as x, device.alloc(512) as y:
        device.h2d(x, given, given.nbytes, stream)
        context.set_tensor_address("x", x.ptr)
        context.set_tensor_address("y", y.ptr)
        if not context.execute_async_v3(stream.handle):
            return f"{name} opens one and does not run it: {'; '.join(library.last_errors())[:300]}"  # type: ignore[attr-defined]
        device.d2h(found, y, found.nbytes, stream)
        stream.sync()
    right = "the right numbers" if (found == np.maximum(given, 0)).all() else f"wrong numbers: {found.tolist()}"
    return f"{name} opens and runs one, with {right}"


if __name__ == "__main__":
    print(json.dumps(_try()))
