"""The learning rate and the options that it follows."""

from __future__ import annotations

import pytest

from graftsdk.errors import InputError
from graftsdk.training import NetworkOptions, SegmenterOptions
from graftsdk.training.learning_rate import Length, rate

STEPS = SegmenterOptions(steps=800, learning_rate=1.0, schedule="step", warmup=0)


@pytest.mark.parametrize(
    "step, wanted",
    [(0, 1), (279, 1), (280, 0.1), (599, 0.1), (600, 0.01), (700, 1e-3), (749, 1e-3), (750, 1e-4), (799, 1e-4)],
)
def test_the_papers_steps(step, wanted):
    length = Length.of(STEPS, 100)
    assert rate(STEPS, step, length.done(step, 0.0), length) == pytest.approx(wanted)


@pytest.mark.parametrize("done, wanted", [(0.0, 1.0), (0.5, 0.505), (1.0, 0.01)])
def test_the_cosine(done, wanted):
    options = SegmenterOptions(minutes=1, learning_rate=1.0, warmup=0)
    assert rate(options, 10**6, done, Length.of(options, 1)) == pytest.approx(wanted)


def test_warm_up_is_linear_and_short_in_a_short_training():
    options = SegmenterOptions(steps=10**6, learning_rate=2.0, schedule="step", warmup=100)
    length = Length.of(options, 1)
    assert [rate(options, step, 0.0, length) for step in (0, 50, 100)] == pytest.approx([0.2, 1.1, 2.0])
    for short in ({"steps": 200}, {"minutes": 5}):  # a tenth of the length, by steps or by the clock
        options = SegmenterOptions(**short, learning_rate=2.0, schedule="step", warmup=100)
        length = Length.of(options, 1)
        assert [rate(options, 20, done, length) for done in (0.05, 0.1)] == pytest.approx([1.1, 2.0])


def test_what_comes_first_ends_it():
    length = Length.of(SegmenterOptions(steps=100, epochs=3, minutes=2), epoch=10)
    assert length == Length(30, 120.0)
    assert length.done(15, 30.0) == 0.5 and length.done(3, 90.0) == 0.75 and length.done(31, 0.0) == 1.0


@pytest.mark.parametrize(
    "values, message",
    [
        ({}, "expected steps, epochs or minutes"),
        ({"steps": 0}, "steps: expected an integer from 1"),
        ({"minutes": -1}, "minutes: expected a number"),
        ({"minutes": float("nan")}, "minutes: expected a number"),
        ({"steps": 1, "batch": 0}, "batch"),
        ({"steps": 1, "learning_rate": 0}, "learning_rate"),
        ({"steps": 1, "ema": 1.0}, "ema"),
        ({"steps": 1, "copy_paste": 1.5}, "copy_paste"),
        ({"steps": 1, "schedule": "plateau"}, "schedule: expected one of 'cosine', 'step', found 'plateau'"),
        ({"steps": 1, "precision": "float16"}, "precision: expected one of 'float32', 'bfloat16'"),
        ({"steps": 1, "optimizer": "adam"}, "optimizer: expected one of 'sgd', 'adamw', found 'adam'"),
        ({"steps": 1, "clip": "no"}, "clip: expected a number"),
    ],
    ids=str,
)
def test_options_that_cannot_be(values, message):
    with pytest.raises(InputError, match=message):
        SegmenterOptions(**values)


@pytest.mark.parametrize(
    "size, wanted",
    [
        ((192, 320), {(192, 320), (160, 256), (224, 384), (256, 416)}),
        ((64, 64), {(64, 64), (96, 96)}),
    ],
)
def test_mixed_sizes_are_multiples_of_32(size, wanted):
    options = SegmenterOptions(NetworkOptions(input_size=size), steps=1)
    assert options.sizes()[0] == size and set(options.sizes()) == wanted
    assert SegmenterOptions(NetworkOptions(input_size=size), steps=1, mixed_sizes=False).sizes() == (size,)
