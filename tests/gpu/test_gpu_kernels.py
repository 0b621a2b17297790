"""The CUDA kernels on a device: every test that they pass as host C++, and crops of the size that is served."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from device_crops import allowed, cut
from test_mask_crop_cuda import (  # noqa: F401 - they run here again, on the device that conftest.py opens
    image,
    test_a_crop_depends_on_nothing_beside_it,
    test_a_mask_beside_the_image_has_no_box,
    test_beside_the_person_is_the_fill,
    test_calls_on_several_streams_share_their_memory,
    test_drawn_cases,
    test_half_is_float32_rounded_once,
    test_hostile_sizes,
    test_mask_boxes_are_the_references,
    test_masks_are_decided_as_the_reference_decides,
    test_no_crops_is_no_work,
    test_nothing_is_left_on_the_device,
    test_the_kernels_are_the_reference,
    test_whole_frames_of_a_size_share_their_tables,
)
from test_prototypes_cuda import (  # noqa: F401
    test_masks_may_have_memory_of_their_own,
    test_nobody_is_no_work,
    test_people_are_cut_out_by_masks_that_stay_on_the_device,
    test_sums_that_overflow_are_told,
    test_yolacts_masks_are_the_cpus_to_the_bit,
    test_yolos_masks_are_the_cpus,
)
from test_selection_cuda import (  # noqa: F401
    network,
    test_a_class_that_is_a_number,
    test_nobody,
    test_outputs_longer_than_a_block_looks_through,
    test_what_is_not_finite_is_told,
    test_who_may_be_a_person,
)

from graftsdk.engines.cuda.kernels import Kernels
from graftsdk.preprocess import BoxMasks, CropSpec, mask_crop_reference

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _runtime(record_property: Callable[[str, object], None]) -> None:
    record_property("runtime", "cuda-core")


@pytest.mark.parametrize("masked", [False, True], ids=["boxes", "box masks"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_people_of_a_frame(
    kernels: Kernels, half: bool, masked: bool, rng: np.random.Generator, note: Callable[[str], None]
) -> None:
    """1080p to 299x299, as in the benchmark; how far from the reference is written down."""
    frame = rng.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    corner = rng.uniform((0, 0), (1600, 450), (3, 2))
    boxes = np.concatenate([corner, corner + rng.uniform((80, 200), (260, 600), (3, 2))], axis=1)
    masks = BoxMasks(rng.random((3, 40, 20)).astype(np.float32), boxes.astype(np.float32)) if masked else None
    spec = CropSpec((299, 299))
    found = cut(kernels, frame, boxes, masks, spec, half=half)
    expected = mask_crop_reference(frame, boxes, masks, spec)
    worst = np.abs(found.astype(np.float64) - expected).max(axis=(0, 2, 3))
    limit = allowed(spec) + (np.abs(expected).max() * 2.0**-11 if half else 0.0)  # half's own rounding
    assert (worst <= limit).all(), (worst, limit)
    if not half:
        note(f"crops of 1080p {'with' if masked else 'without'} masks: at most {worst.max():.1e} from the reference")
