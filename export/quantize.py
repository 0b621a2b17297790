"""Trunks and branches as INT8 parts: ONNX Runtime's own calibrators and quantiser, run on one part at a time.

A trunk's ranges are found once and are part of the trunk; a branch's own are found when the branch is lowered, and its
input is quantised with the trunk's scale of that tap. The grafted graph is never calibrated: every label's ranges would
then depend on which labels are there, and a new one would move all of them.

The form is QDQ: activations U8 with one scale a tensor, weights S8 with one scale an output channel and one bit less
than they could have, so that a CPU without VNNI does not saturate where it adds two products. Convolutions and what
stands between them are lowered. What follows the last of them stays in float32, on purpose: the signed square root of
bilinear pooling has an infinite slope at zero, where eight bits would decide most of its values; normalisation divides
by a sum of which one rounding moves everything; global pooling, the classifier and softmax are a thousandth of the
work, and their result is the score.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from graftsdk.engines import onnxruntime as runtime
from graftsdk.errors import InputError, UnsupportedOp
from graftsdk.export.pools import pools_as_convolutions
from graftsdk.files import atomic_write
from graftsdk.plan import BranchDocument, Part, TrunkDocument
from graftsdk.plan.onnx_part import check_interface, model_from_part, part_from_model

if TYPE_CHECKING:
    import onnx

__all__ = ["METHODS", "Method", "TapScale", "quantizable", "quantize_branch", "quantize_trunk", "tap_scales"]

Method = Literal["entropy", "percentile"]
METHODS: tuple[Method, ...] = get_args(Method)

_Array = np.ndarray[Any, np.dtype[Any]]
_OPS = ("Conv", "Relu", "Clip", "MaxPool", "AveragePool", "Concat", "Add")
_AT_ONCE = 2  # crops whose every value is held at once
# The calibrators' own bins. More of them for entropy, which compares with 128 steps over both signs, cut off half of a
# Relu's range: on PETA (resnet18 of width 0.25) 1024 bins moved probabilities by 0.020 on average, 128 by 0.005.
# Percentile's own 99.999 leaves too much to outliers: it moved those of a thin inception_v3 with bilinear pooling by
# 0.006 to 0.036, 100 by 0.009 to 0.054 and 99.99 by 0.004 to 0.022. The resnet18 does not care (0.0043, 0.0044 and
# 0.0042), but 99.9 doubles it (0.0080 for 0.0044).
_OPTIONS: Mapping[str, Mapping[str, float]] = {
    "entropy": {"num_bins": 128},
    "percentile": {"num_bins": 2048, "percentile": 99.99},
}


@dataclass(frozen=True)
class TapScale:
    """How a trunk quantises one tap: value = (number - zero_point) * scale, number 0..255."""

    scale: float
    zero_point: int


def quantizable(part: Part) -> bool:
    """Whether there is anything in a part that INT8 makes faster: a convolution."""
    return any(node.op_type == "Conv" for node in model_from_part(part).graph)


def quantize_trunk(part: Part, document: TrunkDocument, crops: Iterable[_Array], method: Method = "percentile") -> Part:
    """A float32 trunk as an INT8 part with the same inputs and outputs, in float32: taps are dequantised at the end.

    Args:
        crops: float32[n, 3, H, W] each; to be told from those that the result is judged on. Held a few at a time.
        method: how ranges are found: "percentile" takes those that hold all values but one in ten thousand,
            "entropy" those that keep the distribution of values best.

    Raises:
        InputError: no crop, or an unknown method. UnsupportedOp: the quantiser refuses the part.
        MissingDependency: onnxruntime is not at hand.
    """
    taps = [f"tap_{k}" for k in range(document.blocks + 1)]
    found = _quantize(part, "trunk", "crops", crops, method, outputs=taps)
    check_interface(found, document, "trunk in int8")
    tap_scales(found)
    return found


def quantize_branch(
    part: Part,
    document: BranchDocument,
    taps: Iterable[_Array],
    tap_scale: TapScale | None = None,
    method: Method = "percentile",
) -> Part:
    """A float32 branch as an INT8 part with the same input and output, in float32.

    Args:
        taps: float32[n, C, H, W] each, as the trunk gives them that the branch will read.
        tap_scale: how that trunk quantises the tap; None for a trunk in float32, whose taps get a range of their own.
        method: as for `quantize_trunk`, and errors too.

    Raises:
        InputError: nothing in the branch can be lowered, see `quantizable`.
    """
    where = f"label {document.label!r}"
    if not quantizable(part):
        raise InputError(f"{where}: expected a branch with convolutions, found none; it stays in float32")
    found = _quantize(part, where, "tap", taps, method, scales={} if tap_scale is None else {"tap": tap_scale})
    check_interface(found, document, f"{where} in int8")
    return found


def tap_scales(trunk: Part) -> dict[int, TapScale]:
    """Tap -> how an INT8 trunk quantises it.

    Raises:
        UnsupportedOp: a tap that is not quantised.
    """
    found = {}
    for value in model_from_part(trunk).graph.outputs:
        node = value.producer()
        if node is None or node.op_type != "DequantizeLinear":
            raise UnsupportedOp(f"trunk: expected {value.name} to come out of DequantizeLinear; it is not in int8")
        constants = [source.const_value.numpy() for source in node.inputs[1:3] if source and source.const_value]
        scale, zero_point = constants
        found[int((value.name or "").removeprefix("tap_"))] = TapScale(float(scale), int(zero_point))
    return found


def _quantize(
    part: Part,
    where: str,
    entry: str,
    batches: Iterable[_Array],
    method: str,
    *,
    outputs: Collection[str] = (),
    scales: Mapping[str, TapScale] = {},
) -> Part:
    """Find ranges on `batches` and rewrite; `outputs` are quantised whatever reads them."""
    import onnx_ir as ir

    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, found {method!r:.40}")
    runtime.version()  # imports onnxruntime as the package does, or says what is missing
    with tempfile.TemporaryDirectory(prefix="graftsdk-") as name:
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

        path = Path(name) / "part.onnx"
        model = model_from_part(part)
        pools_as_convolutions(model.graph)
        with atomic_write(path) as file:
            file.write(ir.to_proto(model).SerializeToString())
        ranges = _ranges(path, entry, batches, method, outputs)
        overrides = {value: [_override(QuantType.QUInt8, own)] for value, own in scales.items()}
        try:
            with _quiet():
                quantizer = QDQQuantizer(
                    load_model_with_shape_infer(path),
                    per_channel=True,
                    reduce_range=True,
                    weight_qType=QuantType.QInt8,
                    activation_qType=QuantType.QUInt8,
                    tensors_range=ranges,
                    nodes_to_quantize=[],
                    nodes_to_exclude=[],
                    op_types_to_quantize=list(_OPS),
                    extra_options={"TensorQuantOverrides": overrides},
                )
                for value in outputs:
                    quantizer.quantize_activation_tensor(value)
                found: onnx.ModelProto = quantizer.quantize_model()
        except (ValueError, RuntimeError, KeyError, AssertionError) as error:
            raise UnsupportedOp(f"{where}: expected a part that ONNX Runtime can quantise, found: {error}") from error
    model = ir.from_proto(found)
    model.graph.sort()  # the quantiser adds its nodes at the end
    return part_from_model(model, part.role)


def _ranges(path: Path, entry: str, batches: Iterable[_Array], method: str, outputs: Collection[str]) -> Any:
    """The range of every value that is going to be quantised, as the quantiser takes it."""
    from onnxruntime.quantization.calibrate import EntropyCalibrater, PercentileCalibrater

    kind: Any = {"entropy": EntropyCalibrater, "percentile": PercentileCalibrater}[method]
    rounded: dict[str, str] = {}  # value that goes into nothing but a Relu -> what the Relu gives

    class Calibrater(kind):  # type: ignore[misc]
        def select_tensors_to_calibrate(self, model: onnx.ModelProto) -> Any:
            """Nothing twice: the quantiser makes Relu a part of the rounding and asks for one range."""
            names, infos = super().select_tensors_to_calibrate(model)
            readers: dict[str, list[onnx.NodeProto]] = {}
            for node in model.graph.node:
                for value in node.input:
                    readers.setdefault(value, []).append(node)
            for value, nodes in readers.items():
                if [node.op_type for node in nodes] in (["Relu"], ["Clip"]) and value not in outputs:
                    rounded[value] = nodes[0].output[0]
            return (names - set(rounded)) | set(outputs), infos

    calibrater = Calibrater(path, _OPS, augmented_model_path=str(path.with_name("augmented.onnx")), **_OPTIONS[method])
    calibrater.augment_graph()
    calibrater.create_inference_session()
    seen = 0
    for crops in batches:
        for start in range(0, len(crops), _AT_ONCE):
            some = np.ascontiguousarray(crops[start : start + _AT_ONCE], np.float32)
            with _quiet():
                calibrater.collect_data(_Reader({entry: some}))  # keeps histograms, and the values of this call only
            seen += len(some)
    if not seen:
        raise InputError("samples: expected at least one crop to find the ranges of int8 on, found none")
    with _quiet():
        found = calibrater.compute_data()
    # What is joined has the range of the whole: the kernel then copies it (half the time, 1.32) and nothing is rounded
    # twice. PETA's inception_v3 did not move by it.
    for node in reversed(calibrater.model.graph.node):
        if node.op_type == "Concat" and node.output[0] in found.data:
            found.data.update({value: found.data[node.output[0]] for value in node.input if value in found.data})
    found.data.update({value: found.data[result] for value, result in rounded.items() if result in found.data})
    return found


def _override(kind: Any, own: TapScale) -> dict[str, Any]:
    return {
        "quant_type": kind,
        "scale": np.array(own.scale, np.float32),
        "zero_point": np.array(own.zero_point, np.uint8),
    }


class _Reader:
    """One batch, as the calibrators ask for it."""

    def __init__(self, feeds: Mapping[str, _Array]) -> None:
        self._left: list[Mapping[str, _Array]] = [feeds]

    def get_next(self) -> Mapping[str, _Array] | None:
        return self._left.pop() if self._left else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The calibrators print what they do, and the quantiser warns through the root logger of what is so on purpose."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
