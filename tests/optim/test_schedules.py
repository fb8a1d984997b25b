"""Schedules of the power, against numbers worked out by hand."""

import pytest

from htsr.optim import CosinePower, LinearPower, StepPower
from htsr.optim.schedules import power_at


def test_linear():
    assert [LinearPower(0.5, -0.1, steps=4)(step) for step in (0, 1, 2, 4, 9)] == pytest.approx(
        [0.5, 0.35, 0.2, -0.1, -0.1]
    )


def test_cosine():
    assert [CosinePower(1.0, 0.0, steps=3)(step) for step in (0, 1, 2, 3, 9)] == pytest.approx([1, 0.75, 0.25, 0, 0])


def test_steps():
    assert [StepPower({0: 0.25, 10: 0.125, 20: 0.0})(step) for step in (0, 9, 10, 20, 99)] == [
        0.25, 0.25, 0.125, 0.0, 0.0,
    ]  # fmt: skip


def test_values_hold_after_the_last():
    assert [power_at([0.3, 0.2], step) for step in (0, 1, 2, 50)] == [0.3, 0.2, 0.2, 0.2]


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="steps >= 1, got 0"):
        LinearPower(0.5, 0.0, steps=0)
    with pytest.raises(ValueError, match=r"from step 0 on, got values for steps \[5\]"):
        StepPower({5: 0.1})
