"""What a rule takes from a group, and what it says of memories and learning rates."""

import dataclasses

import pytest
import torch

from htsr.optim import HTMuon
from htsr.optim.rule import UpdateRule
from tests.optim.test_htmuon import weights


def rule(**settings):
    return UpdateRule.of(HTMuon(weights((4, 4)), **settings).param_groups[0])


def test_a_rule_holds_the_settings_of_its_group_and_does_not_follow_them():
    optimizer = HTMuon(weights((4, 4)), power=[0.5, 0.25], lr=0.3, split=2)
    group = optimizer.param_groups[0]
    found = UpdateRule.of(group)
    assert (found.power, found.lr, found.reading.split, found.step) == (0.5, 0.3, 2, 0)
    group["power"] = 0.1
    assert found.power == 0.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.power = 0.1


def test_rules_of_two_groups_differ_even_with_the_same_settings():
    assert rule() != rule()


def test_the_power_is_taken_every_interval_steps():
    group = HTMuon(weights((4, 4)), interval=3).param_groups[0]
    assert [UpdateRule.of({**group, "step": step}).takes_power for step in range(7)] == [
        True, False, False, True, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "shape", "counts"),
    [
        ({}, (6, 4), {"resolved": 1}),
        ({"row_normalize": True}, (6, 4), {"resolved": 1, "row_second_moment": 6}),
        ({"row_normalize": True, "layout": "stack"}, (3, 6, 4), {"resolved": 3, "row_second_moment": 18}),
        ({"method": "stream"}, (6, 4), {"resolved": 1, "basis": 16}),
        ({"method": "stream", "split": (4, 2)}, (6, 5), {"resolved": 2, "basis": 20}),
        ({"interval": 2}, (6, 4), {"resolved": 1}),
        ({"interval": 2, "scale": "raw", "split": 2}, (6, 4), {"resolved": 2, "norm_ratio": 2}),
    ],
)
def test_memory_counts(settings, shape, counts):
    group = HTMuon(weights(shape), **settings).param_groups[0]
    assert UpdateRule.of(group).memory_counts(torch.Size(shape)) == counts
