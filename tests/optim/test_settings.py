"""What HTMuon and spectral_power say to settings that are wrong, unknown, or of the wrong type."""

import inspect

import pytest
import torch

from htsr.errors import InputError
from htsr.optim import HTMuon, spectral_power
from htsr.optim.settings import ADAMW_ONLY, READING, SETTINGS
from tests.optim.test_htmuon import gradients, weights

OUT_OF_RANGE = {
    "lr": -1.0, "power": 1.5, "momentum": 1.0, "weight_decay": float("nan"), "scale": "frobenius", "method": "magic",
    "adamw_lr": -1, "betas": (0.9, 1.0), "eps": -1e-9, "steps": 4, "dtype": torch.int32, "interval": 0,
    "adjust_lr": "muon", "row_beta": -0.1, "layout": "columns", "split": 3, "split_dim": 2, "momentum_dtype": torch.int64,
}  # fmt: skip
WRONG_TYPE = {
    "lr": "0.02", "power": None, "momentum": "0.9", "nesterov": "no", "weight_decay": None, "scale": None, "row_normalize": "yes",
    "method": 1, "adamw_lr": "fast", "betas": 0.9, "eps": "small", "steps": "six", "dtype": "bfloat16", "interval": 1.5,
    "adjust_lr": 0.2, "row_beta": [0.9], "cautious": None, "layout": 0, "split": "heads", "split_dim": "rows",
    "momentum_dtype": "float32", "compile": "max-autotune",
}  # fmt: skip
SWITCHES = {"nesterov", "row_normalize", "cautious", "compile"}


def test_the_settings_are_the_arguments_of_the_constructor():
    parameters = inspect.signature(HTMuon).parameters
    assert list(SETTINGS) == [name for name in parameters if name not in {"params", "process_group"}]
    defaults = HTMuon(weights((4, 4))).defaults
    assert {name: defaults[name] for name in SETTINGS} == {name: parameters[name].default for name in SETTINGS}
    assert ADAMW_ONLY | READING < set(SETTINGS)


def test_every_setting_is_tried_below():
    assert set(WRONG_TYPE) == set(SETTINGS)
    assert set(OUT_OF_RANGE) == set(SETTINGS) - SWITCHES


@pytest.mark.parametrize("name", OUT_OF_RANGE)
@pytest.mark.parametrize("in_group", [False, True])
def test_values_out_of_range_are_value_errors_that_name_the_setting(name, in_group):
    setting = {name: OUT_OF_RANGE[name]}
    with pytest.raises(ValueError, match=rf"expected (a )?{name}\b") as caught:
        HTMuon([{"params": weights((4, 4)), **setting}]) if in_group else HTMuon(weights((4, 4)), **setting)
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize("name", WRONG_TYPE)
@pytest.mark.parametrize("in_group", [False, True])
def test_values_of_the_wrong_type_are_type_errors_that_name_the_setting(name, in_group):
    setting = {name: WRONG_TYPE[name]}
    with pytest.raises(TypeError, match=rf"expected {name} .*got {WRONG_TYPE[name]!r}".replace("[", r"\[")):
        HTMuon([{"params": weights((4, 4)), **setting}]) if in_group else HTMuon(weights((4, 4)), **setting)


@pytest.mark.parametrize("name", ["power", "method", "steps", "scale", "dtype"])
def test_spectral_power_asks_the_same_checks(name):
    for wrong, error in ((OUT_OF_RANGE[name], ValueError), (WRONG_TYPE[name], TypeError)):
        with pytest.raises(error, match=f"expected {name} "):
            spectral_power(torch.ones(3, 3), **{"power": 0.5, name: wrong})


@pytest.mark.parametrize(
    ("key", "meant"),
    [("pwoer", "power"), ("momentun", "momentum"), ("weight_dacay", "weight_decay"), ("algoritm", "algorithm")],
)
@pytest.mark.parametrize("algorithm", [{}, {"algorithm": "htmuon"}, {"algorithm": "adamw"}])
def test_an_unknown_key_of_a_group_is_refused_with_what_it_may_have_meant(key, meant, algorithm):
    optimizer = HTMuon(weights((4, 4)))
    with pytest.raises(ValueError, match=rf"got '{key}' \(did you mean '{meant}'\?\)") as caught:
        optimizer.add_param_group({"params": weights((5, 5)), key: 0.5, **algorithm})
    assert all(name in str(caught.value) for name in SETTINGS)
    assert len(optimizer.param_groups) == 1


def test_all_unknown_keys_are_named():
    with pytest.raises(ValueError, match=r"got 'betta'.*'foreach'"):
        HTMuon([{"params": weights((4, 4)), "foreach": True, "betta": 0.5}])


@pytest.mark.parametrize("key", ["lr_scale", "name", "initial_lr", "max_lr"])
def test_keys_that_other_tools_read_may_stand_in_a_group(key):
    assert HTMuon([{"params": weights((4, 4)), key: 0.5}]).param_groups[0][key] == 0.5


def test_groups_of_one_optimizer_serve_another():
    first = HTMuon([*weights((4, 4)), *weights((3,))], power=lambda step: 0.5 / (1 + step))
    second = HTMuon([dict(group) for group in first.param_groups])
    assert [group.get("power") for group in second.param_groups] == [0.5, None]


def test_settings_changed_to_wrong_values_stop_the_next_step_before_anything_moves():
    for name, value, error in (("scale", "muon", ValueError), ("interval", 0, ValueError), ("method", None, TypeError)):
        params = weights((4, 4), (3,))
        optimizer = HTMuon(params)
        gradients(params, 0)
        before = [p.detach().clone() for p in params]
        optimizer.param_groups[0][name] = value
        with pytest.raises(error, match=f"expected {name} "):
            optimizer.step()
        assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_a_learning_rate_that_a_scheduler_rounds_below_zero_is_taken():
    params = weights((4, 4))
    optimizer = HTMuon(params)
    gradients(params, 0)
    optimizer.param_groups[0]["lr"] = -1e-18
    optimizer.step()
