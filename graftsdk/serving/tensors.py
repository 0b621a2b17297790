"""Bodies of the Open Inference Protocol: a JSON head, and tensors in it or, as raw bytes, behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.errors import PlanCorrupt
from graftsdk.plan.strict_json import load_json
from graftsdk.serving.problems import Problem

__all__ = ["HEAD_LENGTH", "INPUT", "InferRequest", "read_request", "write_answer"]

HEAD_LENGTH = "Inference-Header-Content-Length"
INPUT = "crops"
MAX_OUTPUTS = 1024
# A float in JSON takes a hundred times the time of one in bytes, and an image's worth of them a gigabyte: large
# tensors come as bytes.
MAX_HEAD = 4 * 2**20


@dataclass(frozen=True)
class InferRequest:
    """What a client asked for.

    Attributes:
        crops: float32[N, 3, H, W]. id: the client's own, or "".
        outputs: (label, as raw bytes) for each that was named; None where all are wanted.
        binary: whether outputs that nobody named go out as raw bytes.
    """

    crops: npt.NDArray[np.float32]
    id: str
    outputs: tuple[tuple[str, bool], ...] | None
    binary: bool


def read_request(body: bytes, head_length: str | None, size: tuple[int, int]) -> InferRequest:
    """The request in a body.

    Args:
        head_length: the header Inference-Header-Content-Length: bytes of JSON before the raw tensors.
        size: (H, W) of a crop.

    Raises:
        Problem: 400, whatever is wrong with it; 413, more JSON than is read.
    """
    head, raw = _split(body, head_length)
    if len(head) > MAX_HEAD:
        raise Problem(413, "head_too_large", f"expected at most {MAX_HEAD} bytes of JSON; send the tensor as raw bytes")
    try:
        fields = load_json(head, "request")
    except PlanCorrupt as error:
        raise _refused("the body: expected one JSON object, each key once, at most 16 levels deep") from error
    _only(fields, ("id", "parameters", "inputs", "outputs"), "the request")
    told = fields.get("id", "")
    if not isinstance(told, str) or len(told) > 256 or re.search("[\ud800-\udfff]", told):
        raise _refused("id: expected text of at most 256 characters that UTF-8 holds")
    inputs = fields.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _refused(f"inputs: expected one, {INPUT!r}")
    crops = _crops(inputs[0], raw, size)
    return InferRequest(crops, told, _outputs(fields.get("outputs")), _flag(fields, "binary_data_output"))


def write_answer(
    head: dict[str, Any], outputs: Sequence[tuple[str, npt.NDArray[np.float32], bool]]
) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of JSON are before the raw ones; None where there are none.

    Args:
        head: its fields beside the outputs. outputs: label, float32[N, C], whether it goes as raw bytes.
    """
    told, tails = [], []
    for label, values, binary in outputs:
        tensor: dict[str, Any] = {"name": label, "datatype": "FP32", "shape": list(values.shape)}
        if binary:
            tail = values.astype("<f4").tobytes()
            tensor["parameters"] = {"binary_data_size": len(tail)}
            tails.append(tail)
        else:
            tensor["data"] = [float(value) for value in values.ravel()]
        told.append(tensor)
    text = json.dumps({**head, "outputs": told}, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return (b"".join([text, *tails]), len(text)) if tails else (text, None)


def _split(body: bytes, head_length: str | None) -> tuple[bytes, bytes]:
    if head_length is None:
        return body, b""
    if not head_length.isdecimal() or len(head_length) > 9 or int(head_length) > len(body):
        raise _refused(f"{HEAD_LENGTH}: expected the number of bytes of JSON in the body")
    length = int(head_length)
    return body[:length], body[length:]


def _crops(tensor: dict[str, Any], raw: bytes, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    _only(tensor, ("name", "datatype", "shape", "parameters", "data"), "inputs[0]")
    height, width = size
    if tensor.get("name") != INPUT or tensor.get("datatype") != "FP32":
        raise _refused(f"inputs[0]: expected the name {INPUT!r} and the datatype 'FP32'")
    shape = tensor.get("shape")
    whole = isinstance(shape, list) and len(shape) == 4 and all(type(side) is int for side in shape)
    if not isinstance(shape, list) or not whole or shape[1:] != [3, height, width] or not 1 <= shape[0] <= 2**20:
        raise _refused(f"inputs[0].shape: expected [N, 3, {height}, {width}] with N at least 1")
    count = shape[0] * 3 * height * width
    told = _parameters(tensor)
    _only(told, ("binary_data_size",), "inputs[0].parameters")
    if "binary_data_size" in told:
        if "data" in tensor or told["binary_data_size"] != len(raw) or len(raw) != 4 * count:
            raise _refused(f"inputs[0]: expected {4 * count} raw bytes behind the JSON, as its shape says, and no data")
        values = np.frombuffer(raw, "<f4").astype(np.float32)
    else:
        if raw:
            raise _refused("inputs[0].parameters: expected binary_data_size, for raw bytes came")
        values = _numbers(tensor.get("data"), count)
    if not np.isfinite(values).all():
        raise Problem(422, "crops", "crops: expected finite values, found others")
    return values.reshape(shape)


def _numbers(data: Any, count: int) -> npt.NDArray[np.float32]:
    """float32[count] of numbers in a list, nested or flat."""
    flat = data if isinstance(data, list) else []
    while flat and isinstance(flat[0], list):
        if not all(isinstance(item, list) for item in flat):
            break
        flat = [value for item in flat for value in item]
    if len(flat) != count or not all(type(value) in (int, float) for value in flat):
        raise _refused(f"inputs[0].data: expected {count} numbers, as its shape says")
    try:
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as such
            return np.array(flat, np.float64).astype(np.float32)
    except OverflowError as error:
        raise _refused("inputs[0].data: expected numbers that float32 holds") from error


def _outputs(outputs: Any) -> tuple[tuple[str, bool], ...] | None:
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list) or len(outputs) > MAX_OUTPUTS:
        raise _refused("outputs: expected a list of labels that GET /v1/plan has")
    found = []
    for index, output in enumerate(outputs):
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise _refused(f"outputs[{index}]: expected an object with a name")
        _only(output, ("name", "parameters"), f"outputs[{index}]")
        _only(_parameters(output), ("binary_data",), f"outputs[{index}].parameters")
        found.append((output["name"], _flag(output, "binary_data")))
    return tuple(found)


def _parameters(value: dict[str, Any]) -> dict[str, Any]:
    found = value.get("parameters", {})
    if not isinstance(found, dict):
        raise _refused("parameters: expected an object")
    return found


def _flag(value: dict[str, Any], name: str) -> bool:
    found = _parameters(value).get(name, False)
    if not isinstance(found, bool):
        raise _refused(f"{name}: expected true or false")
    return found


def _only(fields: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    """Nothing is ignored that a client may rely on: shared memory, classification, raw tensors of other kinds."""
    if any(name not in known for name in fields):
        raise _refused(f"{where}: expected {', '.join(known)} alone, found another field")


def _refused(detail: str) -> Problem:
    return Problem(400, "malformed_request", detail)
