from __future__ import annotations

from pathlib import Path

import pytest

from graftsdk.plan.manifest import SegmenterInfo
from graftsdk.segment import open_adapter, recognise


@pytest.fixture
def info():
    """What the manifest would say of a YOLO-seg network with 64 x 96 inputs and three classes."""
    return SegmenterInfo(
        part="segmenter",
        family="yolo",
        input="images",
        input_size=(64, 96),
        outputs=("output0", "output1"),
        person_class=1,
        score_threshold=0.25,
        iou_threshold=0.7,
    )


@pytest.fixture(scope="session")
def yolo(shared: Path):
    """(adapter, function from the network's input to its outputs) of a real segmenter."""
    path = shared / "models" / "yolov8n-seg-640.onnx"
    if not path.is_file():
        pytest.skip("needs models/yolov8n-seg-640.onnx in the data folder ../shared")
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    fields = recognise(
        {value.name: value.shape for value in session.get_inputs()},
        {value.name: value.shape for value in session.get_outputs()},
    )
    info = SegmenterInfo(part="segmenter", **fields)
    return open_adapter(info), lambda feed: session.run(list(info.outputs), {info.input: feed})
