"""Candidates found by the CUDA kernel, compiled for the host, against the adapters' own sieves."""

from __future__ import annotations

import numpy as np
import pytest
from device_crops import upload

from graftsdk.engines.cuda.selection import DeviceField, DeviceSelection, Predictions
from graftsdk.errors import InputError, ShapeError

CLASSES = 5


def selected(kernels, predictions, least, bound=0.0):
    stream = kernels.device.stream()
    with DeviceSelection(kernels) as selection:
        for _ in range(2):  # nothing of the first stays
            selection.start(predictions, least, bound, stream)
            stream.sync()
            found = selection.finish(stream)
    return found


@pytest.fixture(params=["columns", "rows"])
def network(request, kernels, rng):
    """(values [count, 4 boxes + 1 factor + classes], what the kernel is told of them, on the device)."""

    def made(rule, count=700, person=2, factor=False, spoil=None):
        values = rng.random((count, 5 + CLASSES)).astype(np.float32)
        values[5:6, 5:] = 0.75  # equal scores: the first class is the best
        if spoil is not None:
            values[spoil] = np.inf
        priors = rng.random((count, 4)).astype(np.float32)
        stream = kernels.device.stream()
        by_columns = request.param == "columns"
        buffer = upload(kernels, values.T if by_columns else values, stream)
        second = upload(kernels, priors, stream)
        stream.sync()
        row, step = (1, count) if by_columns else (5 + CLASSES, 1)

        def field(place):
            return DeviceField(buffer.ptr + 4 * place * step, row, step)

        return (
            values,
            priors,
            Predictions(
                count, field(5 + person), field(5), CLASSES, person, rule, field(0),
                ((buffer.ptr, values.size), (second.ptr, priors.size)),
                factor=field(4) if factor else None, prior=DeviceField(second.ptr, 4),
            ),
            (buffer, second),
        )  # fmt: skip

    return made


@pytest.mark.parametrize("rule", ["any", "best", "over"])
@pytest.mark.parametrize("factor", [False, True])
@pytest.mark.parametrize("least", [0.9, 0.2, 0.0, 2.0])
def test_who_may_be_a_person(kernels, network, rule, factor, least):
    values, priors, predictions, keep = network(rule, factor=factor)
    classes = values[:, 5:]
    scores = classes[:, 2] * values[:, 4] if factor else classes[:, 2]
    good = scores >= np.float32(least)
    if rule == "best":
        good &= classes.argmax(axis=1) == 2
    elif rule == "over":
        good &= classes.max(axis=1) > np.float32(0.8)
    found = selected(kernels, predictions, least, 0.8)
    rows = np.flatnonzero(good)
    assert found.rows.tolist() == rows.tolist()
    assert found.scores.tobytes() == scores[rows].tobytes()
    assert found.boxes.tobytes() == values[rows, :4].tobytes()
    assert found.priors.tobytes() == priors[rows].tobytes()
    assert found.bad == (False, False)
    del keep


def test_a_class_that_is_a_number(kernels, rng):
    values = rng.random((40, 6)).astype(np.float32)
    values[:, 5] = rng.choice([0, 1, 0.5, 1.4, 1.5, 2], 40)
    stream = kernels.device.stream()
    buffer = upload(kernels, values, stream)
    stream.sync()
    field = [DeviceField(buffer.ptr + 4 * place, 6) for place in range(6)]
    found = selected(kernels, Predictions(40, field[4], field[5], 1, 1, "named", field[0], ()), 0.3)
    assert found.rows.tolist() == np.flatnonzero((values[:, 4] >= 0.3) & (values[:, 5].round() == 1)).tolist()
    assert not found.priors.any()
    assert field[0].ptr == buffer.ptr


@pytest.mark.parametrize("place", [(0, 0), (699, 9), (350, 4)])
def test_what_is_not_finite_is_told(kernels, network, place):
    _, _, predictions, keep = network("any", spoil=place)
    assert selected(kernels, predictions, 0.5).bad == (True, False)
    del keep


def test_the_threads_of_a_block_lose_nobody(kernels, network, threaded):
    values, _, predictions, keep = network("any", count=300)
    assert selected(kernels, predictions, 0.5).rows.tolist() == np.flatnonzero(values[:, 7] >= 0.5).tolist()
    del keep


def test_outputs_longer_than_a_block_looks_through(kernels):
    stream = kernels.device.stream()
    for place in (0, 16383, 16384, 40000):
        values = np.zeros(40001, np.float32)
        values[place] = np.nan
        buffer = upload(kernels, values, stream)
        stream.sync()
        field = DeviceField(buffer.ptr, 4)
        predictions = Predictions(1, field, field, 1, 0, "any", field, ((buffer.ptr, 40001), (buffer.ptr, 0)))
        assert selected(kernels, predictions, 0.5).bad == (True, False)


def test_nobody(kernels, network):
    _, _, predictions, keep = network("best", count=0)
    assert len(selected(kernels, predictions, 0.0).rows) == 0
    del keep


def test_what_does_not_fit_is_refused():
    field = DeviceField(16, 4)
    with pytest.raises(ShapeError, match="5 outputs, found 1 and 6"):
        Predictions(1, field, field, 1, 0, "any", field, ((16, 1),) * 6)
    with pytest.raises(InputError, match="class 1 among 1, found 'best'"):
        Predictions(1, field, field, 1, 1, "best", field, ())
