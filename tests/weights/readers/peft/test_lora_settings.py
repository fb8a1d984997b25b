"""Settings of a LoRA adapter that cannot be followed make a reason for the layers that they concern, and for no others."""

import json
import time

import pytest
import torch
from safetensors.torch import save_file

from htsr.weights import open_source
from htsr.weights.readers.peft.lora_settings import FOLLOWED, WITHOUT_EFFECT, first_matches

R = 3


def adapter(path, tensors=None, **settings):
    generator = torch.Generator().manual_seed(0)
    stored = {}
    for name, (out, into) in {"one.q_proj": (12, 10), "one.k_proj": (8, 10), "two.fc": (9, 7)}.items():
        stored[f"base_model.model.{name}.lora_A.weight"] = torch.randn(R, into, generator=generator)
        stored[f"base_model.model.{name}.lora_B.weight"] = torch.randn(out, R, generator=generator)
    save_file(stored | (tensors or {}), path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": R, "lora_alpha": 6} | settings
    (path / "adapter_config.json").write_text(json.dumps(config))
    return stored


def opened(path, **options):
    inventory = open_source(path, **options)
    return {x.name: x for x in inventory.layers}, {x.name: x.reason for x in inventory.skipped}


@pytest.mark.parametrize(
    "settings",
    [
        {"init_lora_weights": "loftq"},
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "lora_ga"},
        {"init_lora_weights": "pissa_niter_16"},
        {"init_lora_weights": "a start of next year"},
        {"init_lora_weights": [1]},
        {"use_bdlora": {"nblocks": 2}},
        {"use_qalora": True},
        {"kasa_config": {"beta": 1}},
        {"monteclora_config": {"n": 1}},
        {"megatron_config": {"tp": 2}},
        {"a_setting_of_next_year": 7},
        {"use_rslora": "yes"},
        {"r": 0},
        {"r": "3"},
        {"r": True},
        {"r": 4},
        {"lora_alpha": 10**400},
        {"lora_alpha": float("nan")},
        {"lora_alpha": "6"},
        {"alpha_pattern": [1]},
        {"alpha_pattern": {"(": 3}},
        {"alpha_pattern": {"(a+)+b": 3, "(": 3}},
    ],
    ids=str,
)
def test_settings_that_cannot_be_followed_make_reasons(tmp_path, settings):
    adapter(tmp_path, **settings)
    layers, reasons = opened(tmp_path)
    assert not layers
    assert set(reasons) == {"one.q_proj.weight", "one.k_proj.weight", "two.fc.weight"}
    assert all(reasons.values())


def test_a_base_keeps_its_other_weights_when_the_change_is_refused(tmp_path):
    adapter(tmp_path, init_lora_weights="corda")
    base = {f"{name}.weight": torch.randn(*shape) for name, shape in {"one.q_proj": (12, 10), "head": (6, 5)}.items()}
    layers, reasons = opened(tmp_path, base=base)
    assert set(layers) == {"head"}
    assert "save_pretrained" in reasons["one.q_proj.weight"]


def test_an_unknown_setting_that_is_off_changes_nothing(tmp_path):
    adapter(tmp_path, a_setting_of_next_year=None, another=False, more={}, others=[])
    layers, reasons = opened(tmp_path)
    assert len(layers) == 3
    assert not reasons


def test_a_pattern_concerns_only_the_names_that_it_matches(tmp_path):
    adapter(tmp_path, alpha_pattern={"two.fc": "none", "^one": 4, "^one.k_proj|nothing": 12})
    layers, reasons = opened(tmp_path)
    assert set(layers) == {"one.q_proj[delta]", "one.k_proj[delta]"}
    assert "expected a number for lora_alpha" in reasons["two.fc.weight"]
    assert "scaled by 2" in layers["one.q_proj[delta]"].note
    assert "scaled by 4" in layers["one.k_proj[delta]"].note


def test_a_pattern_that_would_match_for_years_is_given_up(tmp_path):
    name = "a" * 60
    extra = {
        f"base_model.model.{name}.lora_A.weight": torch.ones(R, 4),
        f"base_model.model.{name}.lora_B.weight": torch.ones(5, R),
    }
    adapter(tmp_path, extra, alpha_pattern={"(a+)+b": 3})
    started = time.monotonic()
    layers, reasons = opened(tmp_path)
    assert time.monotonic() - started < 120
    assert not layers
    assert "take too long" in reasons[f"{name}.weight"]


def test_factors_that_do_not_fit_leave_the_others_alone(tmp_path):
    stored = adapter(tmp_path)
    stored["base_model.model.two.fc.lora_B.weight"] = torch.ones(9, R + 1)
    stored["base_model.model.odd.lora_magic.weight"] = torch.ones(4, 4)
    save_file(stored, tmp_path / "adapter_model.safetensors")
    layers, reasons = opened(tmp_path)
    assert set(layers) == {"one.q_proj[delta]", "one.k_proj[delta]"}
    assert "expected factors of rank 3" in reasons["two.fc.weight"]
    assert "variant of LoRA" in reasons["odd.lora_magic.weight"]


def test_factors_that_cannot_be_read_name_themselves(tmp_path):
    stored = adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    stored["base_model.model.two.fc.lora_A.weight"] = torch.empty(R, 7, device="meta")
    torch.save(stored, tmp_path / "adapter_model.bin")
    layers, reasons = opened(tmp_path)
    assert set(layers) == {"one.q_proj[delta]", "one.k_proj[delta]"}
    assert "two.fc.lora_A.weight cannot be read" in reasons["two.fc.weight"]


def test_first_matches_are_those_of_peft():
    other = pytest.importorskip("peft.utils.other", reason="peft is not installed")
    patterns = ["q_proj|k_proj", "^model.layers.1.mlp.fc", "fc", r".*\.2\..*_proj", "layers.[03].x"]
    names = [
        "q_proj", "model.layers.0.q_proj", "xq_proj", "model.layers.1.mlp.fc", "layers.1.mlp.fc", "fc1",
        "model.layers.2.v_proj", "model.layers.3.x", "layers.4.x",
    ]  # fmt: skip
    for order in (patterns, patterns[::-1]):
        wanted = [other.get_pattern_key(order, name) for name in names]
        found = [
            name if key is None else order[key] for name, key in zip(names, first_matches(order, names), strict=True)
        ]
        assert found == wanted


def test_every_setting_of_peft_is_followed_or_refused_knowingly():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    refused = {"megatron_config", "use_qalora", "monteclora_config", "use_bdlora", "kasa_config"}
    fields = set(peft.LoraConfig.__dataclass_fields__)
    assert fields == FOLLOWED | WITHOUT_EFFECT | refused, "read what the new settings do, then sort them in"
