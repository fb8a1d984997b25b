"""For each setting of LoRA, the change and the merged weight of every adapted layer are those that peft computes."""

import json
import warnings

import pytest
import torch
from torch import nn

from htsr import InputError
from htsr.weights import open_source

peft = pytest.importorskip("peft", reason="peft is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


def llama():
    config = transformers.LlamaConfig(
        vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4
    )
    return transformers.LlamaForCausalLM(config)


def gpt2():
    return transformers.GPT2Model(
        transformers.GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=2, n_positions=20)
    )


def experts():
    config = transformers.Qwen3MoeConfig(
        vocab_size=40, hidden_size=32, intermediate_size=40, moe_intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, num_experts=3, num_experts_per_tok=2, head_dim=8,
    )  # fmt: skip
    return transformers.Qwen3MoeForCausalLM(config)


def convolutions():
    return nn.Sequential(nn.Conv1d(8, 6, 5), nn.Conv2d(10, 12, 3), nn.Conv3d(6, 8, 2), nn.Conv2d(9, 7, 1))


def table():
    return nn.Sequential(nn.Embedding(30, 12), nn.Linear(12, 12))


QK = ["q_proj", "k_proj"]
SETTINGS = {
    "plain": (llama, {"target_modules": [*QK, "down_proj"]}),
    "alternation": (llama, {"target_modules": QK, "alpha_pattern": {"q_proj|k_proj": 64}}),
    "precedence": (llama, {"target_modules": QK, "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 3, "q_proj": 20}}),
    "rank pattern": (llama, {"target_modules": QK, "rank_pattern": {r"layers\.1\..*_proj": 2}, "use_rslora": True}),
    "dora": (llama, {"target_modules": [*QK, "up_proj"], "use_dora": True}),
    "pissa": (llama, {"target_modules": QK, "init_lora_weights": "pissa"}),
    "olora": (llama, {"target_modules": ["up_proj", "q_proj"], "init_lora_weights": "olora"}),
    "pissa with dora": (llama, {"target_modules": QK, "init_lora_weights": "pissa", "use_dora": True}),
    "orthogonal": (llama, {"target_modules": QK, "init_lora_weights": "orthogonal"}),
    "eva": (llama, {"target_modules": QK, "init_lora_weights": "gaussian"}),
    "embedding of a model": (llama, {"target_modules": ["embed_tokens", "q_proj"]}),
    "saved module": (llama, {"target_modules": QK, "modules_to_save": ["lm_head"]}),
    "fan in, fan out": (gpt2, {"target_modules": ["c_proj", "c_fc"], "fan_in_fan_out": True}),
    "fan in, fan out, dora": (gpt2, {"target_modules": ["c_fc"], "fan_in_fan_out": True, "use_dora": True}),
    "fan in, fan out, pissa": (gpt2, {"target_modules": ["c_fc"], "fan_in_fan_out": True, "init_lora_weights": "pissa"}),
    "convolutions": (convolutions, {"target_modules": ["0", "1", "2", "3"]}),
    "convolutions, dora": (convolutions, {"target_modules": ["0", "1", "2"], "use_dora": True}),
    "embedding": (table, {"target_modules": ["0", "1"], "use_rslora": True}),
    "embedding, dora": (table, {"target_modules": ["0", "1"], "use_dora": True}),
    "experts": (
        experts,
        {"target_modules": QK, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
    "one parameter": (
        experts,
        {"target_modules": [], "target_parameters": ["mlp.experts.down_proj"], "alpha_pattern": {"experts.down_proj": 9}},
    ),
    "bias": (lambda: nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 8)), {"target_modules": ["0", "1"], "lora_bias": True}),
}  # fmt: skip


def trained(path, build, settings):
    """Return the base, the changes and the merged weights, after saving an adapter with random factors."""
    torch.manual_seed(0)
    base = build()
    before = {key: value.detach().clone() for key, value in base.state_dict().items()}
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=6, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(path)
    fresh = build()
    fresh.load_state_dict(before)
    loaded = peft.PeftModel.from_pretrained(fresh, path)
    changes = {}
    for name, module in loaded.named_modules():
        if hasattr(module, "get_delta_weight") and getattr(module, "lora_A", None) is not None:
            parameter = getattr(module, "parameter_name", "weight")
            key = f"{name.removeprefix('base_model.model.').replace('.base_layer', '')}.{parameter}"
            changes[key] = module.get_delta_weight("default").detach().clone()
    after = {key: value.detach().clone() for key, value in loaded.merge_and_unload().state_dict().items()}
    return before, changes, after


def whole(layers, key, suffix=""):
    """Return the matrix or the stack of matrices of a weight."""
    name = key.removesuffix(".weight") + suffix
    if name in layers:
        return layers[name].load()
    return torch.stack([layers[f"{name}[{number}]"].load() for number in range(3)])


@pytest.mark.parametrize(("build", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_changes_and_merged_weights_are_those_of_peft(tmp_path, build, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, changes, after = trained(tmp_path, build, settings)
    inventory = open_source(tmp_path, base=before)
    layers = {x.name: x for x in inventory.layers}
    turned = bool(settings.get("fan_in_fan_out"))
    started = settings.get("init_lora_weights") in ("pissa", "olora")
    assert changes
    for key, change in changes.items():
        assert after[key].shape == change.shape
        found, merged = whole(layers, key, "[delta]"), whole(layers, key)
        if started and "use_dora" in settings:
            pass  # peft then has no matrix that is the change
        else:
            truth = after[key] - before[key] if started else change
            torch.testing.assert_close(found.float().reshape(change.shape), truth, atol=3e-6, rtol=1e-4)
        torch.testing.assert_close(
            merged.reshape(change.shape), after[key], atol=3e-6, rtol=1e-4, msg=f"{key} {turned}"
        )
    for key in set(after) - set(changes):  # everything else is what peft leaves
        name = key.removesuffix(".weight")
        if name in layers and after[key].shape == layers[name].shape:
            torch.testing.assert_close(layers[name].load(), after[key])


def test_the_base_may_be_a_module_a_file_or_a_directory(tmp_path):
    settings = {"target_modules": ["q_proj", "lm_head"]}
    before, changes, after = trained(tmp_path / "adapter", llama, settings)
    module = llama()
    module.load_state_dict(before)
    module.save_pretrained(tmp_path / "base")
    for base in (module, tmp_path / "base", tmp_path / "base" / "model.safetensors"):
        layers = {x.name: x for x in open_source(tmp_path / "adapter", base=base).layers}
        for key in changes:
            torch.testing.assert_close(whole(layers, key), after[key], atol=3e-6, rtol=1e-4)


def test_a_weight_that_is_tied_to_a_merged_one_changes_with_it(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(20, 9)
            self.head = nn.Linear(9, 20, bias=False)
            self.head.weight = self.emb.weight

    before, _, after = trained(tmp_path, Tied, {"target_modules": ["emb"]})
    base = Tied()
    base.load_state_dict(before)
    layers = {x.name: x for x in open_source(tmp_path, base=base).layers}
    for name in ("emb", "head"):
        torch.testing.assert_close(layers[name].load(), after[f"{name}.weight"], atol=3e-6, rtol=1e-4)
    assert layers["head"].tied_to == "emb"


@pytest.mark.parametrize(("channels", "groups", "rank"), [((8, 12), 4, 8), ((6, 6), 3, 6)])
def test_the_change_of_a_grouped_convolution_is_what_the_forward_pass_adds(tmp_path, channels, groups, rank):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(*channels, 3, groups=groups), nn.Conv2d(channels[1], 5, 3))
    weights = {key: value.detach().clone() for key, value in base.state_dict().items()}
    config = peft.LoraConfig(r=rank, lora_alpha=6, target_modules=["0", "1"], init_lora_weights=False)
    model = peft.get_peft_model(base, config)
    model.save_pretrained(tmp_path)
    inventory = open_source(tmp_path, base=weights, conv="unfold")
    layers = {x.name: x for x in inventory.layers}
    assert "groups" in {x.name: x.reason for x in inventory.skipped}["0.weight"]
    x = torch.randn(2, channels[0], 7, 7)
    adapted = model.base_model.model[0]
    with torch.no_grad():
        added = adapted(x) - adapted.base_layer(x)
        kernel = layers["0[delta]"].load().float().reshape(channels[1], channels[0], 3, 3)
        torch.testing.assert_close(nn.functional.conv2d(x, kernel), added, atol=1e-5, rtol=1e-4)
    assert "1" in layers


def test_both_projections_of_multihead_attention(tmp_path):
    def build():
        return nn.Sequential(nn.MultiheadAttention(16, 2))

    before, changes, after = trained(
        tmp_path, build, {"target_modules": ["0"], "alpha_pattern": {"0": 12, "out_proj": 99}}
    )
    for base in (None, before):
        layers = {x.name: x for x in open_source(tmp_path, base=base).layers}
        parts = [layers[f"0.in_proj_weight[delta][{part}]"].load() for part in "qkv"]
        torch.testing.assert_close(torch.cat(parts).float(), changes["0.weight"], atol=3e-6, rtol=1e-4)
    merged = torch.cat([layers[f"0.in_proj_weight[{part}]"].load() for part in "qkv"])
    torch.testing.assert_close(merged, after["0.in_proj_weight"], atol=3e-6, rtol=1e-4)
    torch.testing.assert_close(
        layers["0.out_proj[delta]"].load().float(), changes["0.out_proj.weight"], atol=3e-6, rtol=1e-4
    )
    assert "0.out_proj" not in layers  # peft 0.21 adds this change twice


class Speaker(nn.Module):
    """A table, a matrix, and an output that may share the table."""

    def __init__(self, tied=False):
        super().__init__()
        self.tokens = nn.Embedding(20, 9)
        self.fc = nn.Linear(9, 9)
        self.head = nn.Linear(9, 20, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def get_input_embeddings(self):
        return self.tokens

    def forward(self, x):
        return self.head(self.fc(self.tokens(x)))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("tokens", [{"tokens": [3, 17, 4]}, {"tokens": [0]}])
def test_rows_of_trained_tokens_are_merged(tmp_path, tokens, tied):
    torch.manual_seed(0)
    base = Speaker(tied)
    before = {key: value.detach().clone() for key, value in base.state_dict().items()}
    config = peft.LoraConfig(r=2, target_modules=["fc"], trainable_token_indices=tokens, init_lora_weights=False)
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter.add_(1)
    model.save_pretrained(tmp_path)
    after = model.merge_and_unload().state_dict()
    source = Speaker(tied)
    source.load_state_dict(before)
    layers = {x.name: x for x in open_source(tmp_path, base=source).layers}
    assert not torch.equal(after["tokens.weight"], before["tokens.weight"])
    for name in ("tokens", "fc") if tied else ("tokens", "fc", "head"):  # peft unties what it adapts here
        torch.testing.assert_close(layers[name].load(), after[f"{name}.weight"], atol=3e-6, rtol=1e-4)
    assert "trained" in layers["tokens"].note
    if tied:
        assert layers["head"].tied_to == "tokens"
    if tokens != {"tokens": [0]}:
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        for wrong in ({"tokens": [3, 17]}, {"tokens": [3, 17, 20]}, "all", {"other": [3, 17, 4]}):
            (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "trainable_token_indices": wrong}))
            inventory = open_source(tmp_path, base=before)
            assert "tokens" not in {x.name for x in inventory.layers}
            assert "does not fit" in {x.name: x.reason for x in inventory.skipped}["tokens.weight"]


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["tokens", "fc"]},
        {"target_modules": ["head"]},
        {"target_modules": ["fc"], "modules_to_save": ["tokens"]},
        {"target_modules": ["fc"], "trainable_token_indices": {"tokens": [5, 2]}},
    ],
)
def test_weights_that_peft_keeps_tied(tmp_path, options):
    torch.manual_seed(0)
    base = Speaker(tied=True)
    before = {key: value.detach().clone() for key, value in base.state_dict().items()}
    config = peft.LoraConfig(r=2, init_lora_weights=False, ensure_weight_tying=True, **options)
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name or "modules_to_save" in name:
                parameter.add_(1)
    model.save_pretrained(tmp_path)
    after = model.merge_and_unload().state_dict()
    source = Speaker(tied=True)
    source.load_state_dict(before)
    layers = {x.name: x for x in open_source(tmp_path, base=source).layers}
    assert not torch.equal(after["tokens.weight"], before["tokens.weight"])
    for name in ("tokens", "fc", "head"):
        torch.testing.assert_close(layers[name].load(), after[f"{name}.weight"], atol=3e-6, rtol=1e-4)


@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_base_with_weight_norm(tmp_path, wrap):
    before, changes, _ = trained(
        tmp_path, lambda: nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 8)), {"target_modules": ["0"]}
    )
    base = nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 8))
    base.load_state_dict(before)
    wrap(base[0])
    layers = {x.name: x for x in open_source(tmp_path, base=base.state_dict()).layers}
    torch.testing.assert_close(layers["0"].load(), before["0.weight"] + changes["0.weight"], atol=3e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"alora_invocation_tokens": [1, 2], "task_type": "CAUSAL_LM"}, "after the invocation"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "copies layers of the base"),
    ],
)
def test_settings_whose_change_is_known_but_not_merged(tmp_path, settings, why):
    torch.manual_seed(0)
    base = llama()
    before = {key: value.detach().clone() for key, value in base.state_dict().items()}
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=QK, init_lora_weights=False, **settings)
    model = peft.get_peft_model(base, config)
    model.save_pretrained(tmp_path)
    changes = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    for source in (None, before):
        inventory = open_source(tmp_path, base=source)
        layers = {x.name: x for x in inventory.layers}
        assert {name for name in layers if name.endswith("[delta]")} == {f"{name}[delta]" for name in changes}
        for name, change in changes.items():
            torch.testing.assert_close(layers[f"{name}[delta]"].load().float(), change, atol=3e-6, rtol=1e-4)
    reasons = {x.name: x.reason for x in inventory.skipped}
    assert why in reasons["model.layers.0.self_attn.q_proj.weight"]
    assert "model.layers.0.mlp.up_proj" in layers


def test_an_adapter_for_arrow_is_not_merged(tmp_path):
    before, changes, _ = trained(tmp_path, llama, {"target_modules": QK})
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "arrow_config": {"top_k": 3}}))
    inventory = open_source(tmp_path, base=before)
    assert {x.name for x in inventory.layers} >= {f"{key.removesuffix('.weight')}[delta]" for key in changes}
    assert "a router decides" in {x.name: x.reason for x in inventory.skipped}["model.layers.0.self_attn.q_proj.weight"]


def test_a_folder_of_adapters_says_which_it_holds(tmp_path):
    for name in ("first", "second"):
        trained(tmp_path / name, lambda: nn.Sequential(nn.Linear(9, 7)), {"target_modules": ["0"]})
    with pytest.raises(InputError, match=r"2 PEFT adapters, and no model: pass one of them, such as .*first"):
        open_source(tmp_path)
    assert open_source(tmp_path / "second").layers
