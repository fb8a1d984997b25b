"""The parameters in the layers and in what is skipped add up to those of the source."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from htsr.weights import open_source, select


def counts(inventory):
    """Parameters in the layers, in what is skipped, and in all."""
    analysed = sum(layer.num_params for layer in inventory.layers)
    skipped = sum(item.num_params for item in inventory.skipped)
    return analysed, skipped, analysed + skipped


def elements(tensors):
    return sum(tensor.numel() for tensor in tensors)


class Net(nn.Module):
    """Tied, fused, recurrent, grouped and stacked weights, and tensors that are no matrix."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 16), nn.Linear(16, 30)
        self.head.weight = self.embed.weight
        self.attn = nn.MultiheadAttention(16, 4)
        self.lstm = nn.LSTM(16, 8, bidirectional=True, proj_size=4)
        self.grouped, self.depthwise = nn.Conv2d(8, 12, 3, groups=4), nn.Conv1d(6, 6, 5, groups=6)
        self.up = nn.ConvTranspose2d(4, 6, 3)
        self.bilinear = nn.Bilinear(5, 6, 7)
        self.norm = nn.BatchNorm1d(16)
        self.experts = nn.Parameter(torch.randn(3, 8, 10))
        self.row = nn.Parameter(torch.randn(1, 1, 9))


@pytest.mark.parametrize("options", [{}, {"per_head": True}, {"conv": "slices"}, {"conv": "unfold"}])
def test_every_layer_of_a_module_counts_once(options):
    model = Net()
    inventory = open_source(model, **options)
    analysed, _, total = counts(inventory)
    assert total == elements(model.parameters())
    assert analysed == sum(x.M * x.N * x.rf for x in inventory.layers if x.tied_to is None)
    assert [x.num_params for x in inventory.layers if x.tied_to is not None] == [0]


def test_a_state_dict_counts_buffers_too(tmp_path):
    model = Net()
    torch.save(model.state_dict(), tmp_path / "m.pt")
    expected = elements(model.parameters()) + elements(model.buffers())
    assert counts(open_source(model.state_dict()))[2] == counts(open_source(tmp_path / "m.pt"))[2] == expected
    torch.jit.script(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))).save(tmp_path / "s.pt")
    assert counts(open_source(tmp_path / "s.pt")) == (20, 4 + 8 + 9, 41)


def test_a_weight_that_is_computed_stands_for_what_it_is_computed_from(tmp_path):
    class LowRank(nn.Module):
        def forward(self, a, b):
            return a @ b

        def right_inverse(self, weight):
            return weight[:, :2].clone(), weight[:2].clone()

    model = nn.ModuleDict({
        "norm": parametrizations.weight_norm(nn.Linear(9, 8)),
        "old": nn.utils.weight_norm(nn.Linear(9, 8)),
        "spectral": parametrizations.spectral_norm(nn.Linear(9, 8)),
        "older": nn.utils.spectral_norm(nn.Linear(9, 8)),
        "pruned": prune.random_unstructured(nn.Linear(9, 8), "weight", amount=0.5),
        "low": nn.Linear(9, 8),
    })  # fmt: skip
    parametrize.register_parametrization(model["low"], "weight", LowRank(), unsafe=True)
    inventory = open_source(model)
    assert counts(inventory) == (5 * 72 + 2 * 8 + 2 * (9 + 8), 6 * 8, elements(model.parameters()))
    save_file({key: value.clone() for key, value in model.state_dict().items()}, tmp_path / "m.safetensors")
    assert counts(open_source(tmp_path / "m.safetensors"))[2] == elements(model.state_dict().values())


def test_selection_moves_parameters_and_loses_none():
    inventory = open_source(Net())
    total = counts(inventory)[2]
    embedding = {"layers": ["embed", "head"]}
    for options in ({"layers": "*attn*"}, {"skip": "embed"}, {"skip": ["embed", "head"]}, embedding):
        assert counts(select(inventory, **options))[2] == total
    # the first of two tied layers that is kept stands for the parameters of both
    assert next(x for x in select(inventory, skip="embed").layers if x.name == "head").num_params == 480
    assert counts(select(select(inventory, skip="embed"), layers="head"))[0] == 480
    assert counts(select(inventory, skip=["embed", "head"], min_eigenvalues=10**6)) == (0, total, total)


def test_packed_weights_count_as_what_they_stand_for(tmp_path):
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq"}
    tensors = {
        "fc.qweight": torch.zeros(12, 64, dtype=torch.int32),
        "fc.qzeros": torch.zeros(3, 8, dtype=torch.int32),
        "fc.scales": torch.ones(3, 64).half(),
        "fc.bias": torch.ones(64),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(f'{{"quantization_config": {settings!r}}}'.replace("'", '"'))
    assert counts(open_source(tmp_path)) == (64 * 96, 64, 64 * 97)
    fp8 = {"fc.weight": torch.ones(64, 128).to(torch.float8_e4m3fn), "fc.weight_scale_inv": torch.ones(1, 1)}
    assert counts(open_source(fp8)) == (64 * 128, 0, 64 * 128)


def test_gguf_counts_weights_not_blocks(tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_name("a name")
    blocks = gguf.quants.quantize(torch.randn(8, 64).numpy(), gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("w", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    inventory = open_source(tmp_path / "m.gguf")
    assert counts(inventory) == (512, 0, 512)
    assert inventory.metadata["name"] == "a name"
    assert inventory.metadata["architecture"] == "llama"


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ["head"]}])
def test_an_adapter_counts_its_factors(tmp_path, options):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base = nn.Sequential()
    base.add_module("fc", nn.Linear(20, 12))
    base.add_module("head", nn.Linear(12, 6))
    stored = {key: value.clone() for key, value in base.state_dict().items()}
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["fc"], **options))
    model.save_pretrained(tmp_path)
    expected = elements(p for p in model.parameters() if p.requires_grad)
    assert counts(open_source(tmp_path))[2] == expected
    saved = 6 * 13 if options.get("modules_to_save") else 0  # the adapter's head takes the place of the base's
    assert counts(open_source(tmp_path, base=stored))[2] == elements(stored.values()) + expected - saved


def test_a_state_counts_alone():
    model = nn.Linear(8, 6)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    source = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    assert counts(open_source(source)) == counts(open_source(source, state="exp_avg")) == (48, 6, 54)
