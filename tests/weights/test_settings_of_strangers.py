"""Settings and names of a stranger's checkpoint can be anything: its weights are listed all the same."""

from collections import UserDict

import pytest
import torch

import htsr
from htsr import InputError
from htsr.weights.inventory import Listing
from htsr.weights.names import natural_order
from htsr.weights.parametrisations import effective_weights
from htsr.weights.readers.quantised import multiply_scales
from htsr.weights.splitting import Splitting, split_into_layers
from htsr.weights.state_dicts import read_state_dict

ODD = [None, True, -1, 0, 7, 10**400, 0.5, float("nan"), float("inf"), "", "x", "\ud800", "9" * 5000, [], [1], [[]], {}, {"a": 1},
       {"a": {"a": [1]}}]  # fmt: skip
WEIGHTS = {
    "h.0.attn.c_attn.weight": torch.ones(8, 24),
    "model.layers.0.self_attn.qkv_proj.weight": torch.ones(24, 8),
    "model.layers.0.self_attn.q_proj.weight": torch.ones(8, 8),
    "model.layers.0.self_attn.o_proj.weight": torch.ones(8, 8),
    "model.layers.0.mlp.experts.gate_up_proj": torch.ones(2, 8, 12),
    "fc.weight": torch.ones(8, 8, dtype=torch.int8),
    "fc.weight_scale": torch.ones(8, 1),
    "fp.weight": torch.ones(8, 8).to(torch.float8_e4m3fn),
    "fp.weight_scale_inv": torch.ones(2, 2),
}


class Asked(UserDict):
    """A mapping that notes every key that anybody asks for."""

    def __init__(self, *args) -> None:
        self.keys_asked: set[str] = set()
        super().__init__(*args)

    def get(self, key, default=None):
        self.keys_asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.keys_asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key):
        self.keys_asked.add(key)
        return super().__contains__(key)


def inventory(config):
    listing = read_state_dict(WEIGHTS)
    listing = Listing("x", listing.tensors, config)
    return split_into_layers(effective_weights(multiply_scales(listing)), Splitting("pool", per_head=True))


def asked() -> list[str]:
    """Every key of a configuration that the reading of some weights asks for, also for an architecture of GGUF's."""
    config = Asked({"general.architecture": "llama"})
    inventory(config)
    return sorted(config.keys_asked)


def test_settings_are_asked_for():
    assert {"model_type", "num_attention_heads", "quantization_config"} <= set(asked())


@pytest.mark.parametrize("value", ODD, ids=lambda value: ascii(value)[:20])
def test_any_value_of_any_setting(value):
    plain = {"model_type": "llama", "num_attention_heads": 2, "hidden_size": 8, "general.architecture": "llama"}
    for key in asked():
        for around in ({}, plain):
            found = inventory({**around, key: value})
            assert len(found.layers) + len(found.skipped) >= len(WEIGHTS)
        found = inventory({"model_type": "x", "text_config": {**plain, key: value}})
        assert len(found.layers) + len(found.skipped) >= len(WEIGHTS)
    methods = {
        "quant_method": value,
        "bits": value,
        "weight_block_size": value,
        "config_groups": value,
        "ignore": value,
    }
    for name in ("quantization_config", "quantization"):
        for key in methods:
            for method in ("fp8", "gptq", "awq", "compressed-tensors", "bitsandbytes", "mxfp4", "modelopt"):
                inventory({name: {"quant_method": method, key: methods[key]}})


@pytest.mark.parametrize(
    "key", ["9" * 5000, "a." + "0" * 5000 + "1.weight", "\ud800", "", ".", "..", "\x1b[31m", "weight", "a" * 70000]
)
def test_any_name_is_listed(tmp_path, key):
    listed = htsr.analyze({key: torch.randn(12, 10), "b": torch.randn(12, 10)}, bulk=False)
    assert len(listed) + len(listed.skipped) == 2
    torch.save({key: torch.randn(12, 10), "b": torch.randn(12, 10)}, tmp_path / "m.pt")
    read = htsr.analyze(tmp_path / "m.pt", bulk=False)
    assert len(read) + len(read.skipped) == 2


def test_numbers_in_names_are_ordered_as_numbers():
    names = ["b.10", "b.9", "b.09x", "b.0", "a", f"b.{'9' * 5000}", f"b.1{'0' * 5000}"]
    assert sorted(names, key=natural_order) == [
        "a", "b.0", "b.9", "b.09x", "b.10", f"b.{'9' * 5000}", f"b.1{'0' * 5000}"
    ]  # fmt: skip


def test_what_the_splitting_stumbles_over_is_an_input_error_with_the_file(tmp_path, monkeypatch):
    torch.save({"w": torch.randn(12, 10)}, tmp_path / "m.pt")

    def stumble(*args):
        raise KeyError("odd")

    monkeypatch.setattr("htsr.weights.source.split_into_layers", stumble)
    with pytest.raises(InputError, match=r"m\.pt: expected names.*KeyError"):
        htsr.analyze(tmp_path / "m.pt")
    with pytest.raises(KeyError):  # in memory it is a bug of ours
        htsr.analyze({"w": torch.randn(12, 10)})
