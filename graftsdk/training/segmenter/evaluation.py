"""A segmenter judged on annotated images through the decoding that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from graftsdk.models import Yolact
from graftsdk.plan import SegmenterDocument, SegmenterInfo
from graftsdk.segment.yolact import OUTPUTS, YolactAdapter
from graftsdk.training.segmenter.batches import load_image
from graftsdk.training.segmenter.datasets import AnnotatedImage
from graftsdk.training.segmenter.mask_ap import MaskAP, average_precision, detections, truth_of

__all__ = ["LEAST_SCORE", "decoding_of", "evaluate", "network_outputs"]

LEAST_SCORE = 0.05  # the original's: below it, priors take no part in NMS
PERSONS = 100
IOU = YolactAdapter.iou_threshold


def evaluate(model: Yolact, images: Sequence[AnnotatedImage], batch: int = 8) -> MaskAP:
    """COCO mask AP of the class "person" (of the first class where none has that name) at the network's input size.

    Images are prepared and outputs decoded by the adapter `yolact`, so the AP is that of the served network.

    Raises:
        DecodeError, InputError: an image that cannot be used.
    """
    document = model.document()
    person = document.classes.index("person") if "person" in document.classes else 0
    adapter = YolactAdapter(decoding_of(document, person))
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found: list[dict[str, Any]] = []
    try:
        for start in range(0, len(images), batch):
            some = images[start : start + batch]
            prepared = [adapter.prepare(load_image(image)) for image in some]
            outputs = network_outputs(
                model, torch.from_numpy(np.concatenate([feed for feed, _ in prepared])).to(device)
            )
            for index, (image, (_, geometry)) in enumerate(zip(some, prepared, strict=True)):
                own = [value if name == "priors" else value[index : index + 1] for name, value in outputs.items()]
                instances = adapter.decode(own, geometry, LEAST_SCORE)
                found += detections(instances, image.size, start + index + 1, person + 1)
    finally:
        model.train(was_training)
    return average_precision(truth_of(images), found, range(1, len(images) + 1), person + 1)


def network_outputs(model: Yolact, images: torch.Tensor) -> dict[str, npt.NDArray[np.float32]]:
    """The outputs of the exported network, in its order, of normalised images float32[B, 3, H, W]."""
    with torch.inference_mode():
        made = model(images)
        priors = model.priors((images.shape[2], images.shape[3]))
    conf = made.conf.softmax(-1)
    values = (made.loc, conf, made.mask, priors, made.proto)
    return {name: value.float().cpu().contiguous().numpy() for name, value in zip(OUTPUTS, values, strict=True)}


def decoding_of(document: SegmenterDocument, person: int) -> SegmenterInfo:
    """As export makes it, with as many persons as COCO's AP looks at."""
    return SegmenterInfo(
        part="segmenter",
        family="yolact",
        input="images",
        input_size=document.input_size,
        outputs=OUTPUTS,
        person_class=person,
        score_threshold=LEAST_SCORE,
        iou_threshold=IOU,
        max_persons=PERSONS,
        nms=YolactAdapter.nms[0],
    )
