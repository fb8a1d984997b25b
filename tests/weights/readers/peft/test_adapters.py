"""LoRA adapters give the weights that the peft library computes."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import htsr
from htsr import InputError
from htsr.weights import open_source

peft = pytest.importorskip("peft", reason="peft is not installed")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(40, 16)
        self.q_proj = nn.Linear(16, 24)
        self.conv = nn.Conv2d(16, 12, 3)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        return self.head(self.q_proj(self.emb(x)))


OPTIONS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 32}},
    "saved modules": {"modules_to_save": ["head"]},
}


def adapted(tmp_path, targets=("q_proj", "emb", "conv"), **options):
    torch.manual_seed(0)
    base = Model()
    before = {key: value.clone() for key, value in base.state_dict().items()}
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=list(targets), init_lora_weights=False, **options)
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path)
        return before, model.merge_and_unload().state_dict()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_deltas_and_merged_weights_are_those_of_peft(tmp_path, options):
    before, after = adapted(tmp_path, **options)
    deltas = {x.name: x.load() for x in open_source(tmp_path).layers}
    assert {"q_proj[delta]", "emb[delta]", "conv[delta]"} <= set(deltas)
    for name, delta in deltas.items():
        if name.endswith("[delta]"):
            key = f"{name.removesuffix('[delta]')}.weight"
            torch.testing.assert_close(delta.float(), after[key] - before[key], atol=2e-6, rtol=1e-5)
    merged = {x.name: x.load() for x in open_source(tmp_path, base=before).layers}
    assert set(merged) == {"emb", "q_proj", "conv", "head", "emb[delta]", "q_proj[delta]", "conv[delta]"}
    for name in ("emb", "q_proj", "conv", "head"):
        torch.testing.assert_close(merged[name], after[f"{name}.weight"], atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_dora(tmp_path):
    before, after = adapted(tmp_path, targets=("q_proj",), use_dora=True)
    merged = {x.name: x.load() for x in open_source(tmp_path, base=before).layers}
    torch.testing.assert_close(merged["q_proj"], after["q_proj.weight"], atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_rows_say_rank_and_scaling(tmp_path):
    before, _ = adapted(tmp_path)
    save_file(before, tmp_path.parent / "base.safetensors")
    details = htsr.analyze(tmp_path, base=tmp_path.parent / "base.safetensors").details.set_index("name")
    assert "LoRA of rank 4, scaled by 1.5" in details.loc["q_proj[delta]", "reason"]
    assert details.loc["q_proj[delta]", "hard_rank"] == 4
    assert details.loc["q_proj", "hard_rank"] == 16
    assert "merged with LoRA" in details.loc["q_proj", "reason"]


@pytest.mark.filterwarnings("ignore")
def test_what_does_not_fit_is_refused(tmp_path):
    before, _ = adapted(tmp_path)
    with pytest.raises(InputError, match=r"has no weight conv\.weight"):
        open_source(tmp_path, base={"other.weight": torch.zeros(4, 4)})
    inventory = open_source(tmp_path, base=before | {"q_proj.weight": torch.zeros(4, 4)})
    assert "expected the same shape" in {x.name: x.reason for x in inventory.skipped}["q_proj.weight"]
    assert "conv" in {x.name for x in inventory.layers}
    with pytest.raises(InputError, match="expected the directory of an adapter"):
        open_source(before, base=before)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({key: value for key, value in tensors.items() if "q_proj.lora_B" not in key}, file)
    reasons = {x.name: x.reason for x in open_source(tmp_path).skipped}
    assert reasons == {"q_proj.weight": "expected lora_A and lora_B, got only A"}
    (tmp_path / "adapter_config.json").write_text("[")
    with pytest.raises(InputError, match="expected a JSON object"):
        open_source(tmp_path)


def test_other_adapters_are_listed_as_stored(tmp_path):
    save_file({"base_model.model.fc.hada_w1_a": torch.randn(12, 10)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LOHA"}))
    (layer,) = open_source(tmp_path).layers
    assert "stored by a LOHA adapter" in layer.note


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_the_file_of_an_adapter_is_read_as_the_adapter(tmp_path, kind):
    factors = {
        "base_model.model.q.lora_A.weight": torch.randn(2, 12),
        "base_model.model.q.lora_B.weight": torch.randn(9, 2),
    }
    path = tmp_path / f"adapter_model.{kind}"
    save_file(factors, path) if kind == "safetensors" else torch.save(factors, path)
    layers = open_source(path).layers
    assert all("not the change itself" in layer.note for layer in layers)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    save_file({"q.weight": torch.zeros(9, 12)}, tmp_path / "model.safetensors")
    for source in (path, tmp_path):
        inventory = open_source(source)
        assert [layer.name for layer in inventory.layers] == ["q[delta]"]
        assert [item.name for item in inventory.skipped] == ["model.safetensors"]


@pytest.mark.parametrize(("kind", "key"), [("VERA", "vera_A"), ("RANDLORA", "q.randlora_B")])
def test_adapters_that_are_not_lora(tmp_path, kind, key):
    tensors = {f"base_model.{key}": torch.randn(4, 12), "base_model.q.hada_w1_a": torch.randn(4, 12)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    inventory = open_source(tmp_path)
    assert [layer.name for layer in inventory.layers] == ["base_model.q.hada_w1_a"]
    assert "random projection" in inventory.skipped[0].reason
    with pytest.raises(InputError, match=f"kind {kind}"):
        open_source(tmp_path, base={"q.weight": torch.randn(4, 12)})
