"""State-space and recurrent language models and experts of transformers: which parameters are matrices, and which are not."""

import pytest
from torch import nn

from htsr.optim import parameter_roles
from htsr.weights import open_source

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}
MODELS = {
    "mamba": {"state_size": 6, "time_step_rank": 5},
    "falcon_mamba": {"state_size": 6, "time_step_rank": 5},
    "mamba2": {"head_dim": 8, "num_heads": 4, "n_groups": 1, "state_size": 6, "expand": 2},
    "rwkv": {"attention_hidden_size": 16},
    "jamba": {"num_attention_heads": 4, "num_key_value_heads": 2, "mamba_dt_rank": 5, "num_experts": 3, "num_experts_per_tok": 2,
              "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "use_mamba_kernels": False},
    "gpt_oss": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "num_local_experts": 3,
                "num_experts_per_tok": 2, "layer_types": ["full_attention", "sliding_attention"]},
}  # fmt: skip


def is_map(module, name, parameter):
    """Say by the class of a module if a vector is multiplied by its parameter; None for a stack."""
    if isinstance(module, nn.Linear | nn.Embedding | nn.Conv1d) or (
        type(module).__name__.endswith("Router") and parameter.ndim == 2
    ):
        return name == "weight"
    return None if parameter.ndim > 2 and "bias" not in name and min(parameter.shape[-2:]) > 1 else False


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("stored", [False, True], ids=["module", "state dict"])
def test_only_the_maps_are_layers(model_type, stored):
    config = transformers.AutoConfig.for_model(model_type, **{**SMALL, **MODELS[model_type]})
    model = transformers.AutoModel.from_config(config)
    inventory = open_source(model.state_dict() if stored else model)
    layers = {layer.name.partition("[")[0] for layer in inventory.layers}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            key = f"{path}.{name}".lstrip(".")
            wanted = is_map(module, name, parameter)
            if wanted is not None:
                assert (key.removesuffix(".weight") in layers) == wanted, key
            else:
                assert key in layers, key


@pytest.mark.parametrize("model_type", MODELS)
def test_parameter_groups_decay_no_bias_and_no_channel(model_type):
    config = transformers.AutoConfig.for_model(model_type, **{**SMALL, **MODELS[model_type]})
    model = transformers.AutoModel.from_config(config)
    roles = parameter_roles(model)
    for key, parameter in model.named_parameters():
        name = key.rpartition(".")[2]
        if name in ("A_log", "D", "dt_bias") or "bias" in name or name.startswith("time_") or parameter.ndim < 2:
            assert roles[key][:2] == ("adamw", False), key
        elif name == "weight" and key.rpartition(".")[0].endswith(
            ("in_proj", "out_proj", "x_proj", "dt_proj", "q_proj", "receptance")
        ):
            assert roles[key].algorithm == "htmuon", key
