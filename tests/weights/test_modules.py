"""A module lists its weights, skips the rest with a reason, and is not changed."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from htsr.weights import open_source


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 30, bias=False)
        self.head.weight = self.embedding.weight


def names(inventory):
    return [layer.name for layer in inventory.layers]


def reasons(inventory):
    return {item.name: item.reason for item in inventory.skipped}


def test_layers_come_in_model_order_with_their_types():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv1d(8, 8, 2), nn.Embedding(20, 4), nn.Linear(4, 2))
    inventory = open_source(model)
    assert [(x.name, x.layer_type, x.shape) for x in inventory.layers] == [
        ("0", "conv2d", (8, 3, 3, 3)),
        ("1", "conv1d", (8, 8, 2)),
        ("2", "embedding", (20, 4)),
        ("3", "dense", (2, 4)),
    ]
    assert torch.equal(inventory.layers[3].load(), model[3].weight)


def test_every_parameter_is_in_one_of_the_two_lists():
    model = nn.TransformerEncoderLayer(16, 2, 32)
    inventory = open_source(model)
    stored = {name.split("[")[0] for name in names(inventory)} | set(reasons(inventory))
    assert stored == {name.removesuffix(".weight") if p.ndim > 1 else name for name, p in model.named_parameters()}
    assert reasons(inventory)["norm1.weight"] == "1-D: not a matrix"


@pytest.mark.parametrize(
    ("module", "reason"),
    [(nn.LazyLinear(4), "lazily initialised"), (nn.Linear(4, 4, device="meta"), "meta device")],
)
def test_weights_without_values_are_skipped_with_the_reason(module, reason):
    inventory = open_source(nn.Sequential(module))
    assert not inventory.layers
    assert any(reason in item.reason for item in inventory.skipped)


def singular_values(weight):
    return torch.linalg.svdvals(weight.double())


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
def test_recurrent_weights_are_split_by_gate(cls, options):
    model = nn.ModuleDict({"r": cls(5, 6, **options)})
    gates = {nn.LSTM: "ifgo", nn.GRU: "rzn", nn.RNN: ""}[cls]
    layers = {x.name: x for x in open_source(model).layers}
    matrices = [(name, p) for name, p in model.named_parameters() if p.ndim == 2]
    assert len(layers) == len(matrices) * max(len(gates), 1)
    for name, p in matrices:
        for i, gate in enumerate(gates):
            assert torch.equal(layers[f"{name}[{gate}]"].load(), p.chunk(len(gates))[i])
    assert {x.layer_type for x in layers.values()} == {cls.__name__.lower()}
    assert [(x.name, x.shape, x.layer_type) for x in open_source(model.state_dict()).layers] == [
        (x.name, x.shape, x.layer_type) for x in layers.values()
    ]


def test_recurrent_cells_and_projections():
    model = nn.ModuleDict({"cell": nn.LSTMCell(5, 6), "proj": nn.LSTM(5, 6, proj_size=3)})
    for source in (model, model.state_dict()):
        shapes = {x.name: x.shape for x in open_source(source).layers}
        assert shapes["cell.weight_ih[f]"] == (6, 5)
        assert shapes["proj.weight_hh_l0[o]"] == (6, 3)
        assert shapes["proj.weight_hr_l0"] == (3, 6)
        assert len(shapes) == 8 + 8 + 1


@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 5}])
def test_multihead_attention_is_split(options):
    model = nn.MultiheadAttention(8, 2, **options)
    layers = {x.name: x.load() for x in open_source(model).layers}
    if options:
        assert torch.equal(layers["k_proj_weight"], model.k_proj_weight)
    else:
        assert torch.equal(layers["in_proj_weight[k]"], model.in_proj_weight[8:16])
    assert torch.equal(layers["out_proj"], model.out_proj.weight)
    assert len(layers) == 4


def test_attention_by_head():
    model = nn.MultiheadAttention(8, 2)
    layers = {x.name: x.load() for x in open_source(model, per_head=True).layers}
    assert torch.equal(layers["in_proj_weight[v][1]"], model.in_proj_weight[20:24])
    assert [n for n in layers if n.startswith("in_proj_weight[q]")] == ["in_proj_weight[q][0]", "in_proj_weight[q][1]"]


class Attention(nn.Module):
    """Attention as in timm, which keeps the number of heads in the module."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)


def test_heads_are_those_of_the_module_around():
    model = nn.ModuleList([Attention(16, 2), Attention(16, 4)])
    listed = names(open_source(model, per_head=True))
    for number, heads in enumerate((2, 4)):
        assert [n for n in listed if n.startswith(f"{number}.qkv[k]")] == [
            f"{number}.qkv[k][{i}]" for i in range(heads)
        ]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_grouped_convolutions_are_convolutions_of_their_own(dim, transposed):
    """Each group computes the same output as a convolution of its own with that group's kernel."""
    cls = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dim}d")
    conv = cls(6, 4, 3, groups=2, bias=False)
    x = torch.randn(1, 6, *[5] * dim)
    y = conv(x)
    layers = open_source(nn.Sequential(conv)).layers
    assert [(a.name, a.shape) for a in layers] == [(f"0[{i}]", (2, 3, *[3] * dim)) for i in (0, 1)]
    for i, layer in enumerate(layers):
        single = cls(3, 2, 3, bias=False)
        kernel = layer.load()
        single.weight = nn.Parameter(kernel.transpose(0, 1) if transposed else kernel)
        torch.testing.assert_close(single(x[:, 3 * i : 3 * i + 3]), y[:, 2 * i : 2 * i + 2])


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(1, 8, 3), nn.ConvTranspose2d(8, 1, 3)],
)
def test_single_channel_kernels_are_one_matrix(conv):
    (layer,) = open_source(nn.Sequential(conv)).layers
    weight = layer.load()
    assert tuple(weight.shape) == layer.shape == (conv.weight.shape[0], 9)
    assert torch.equal(weight.flatten(), conv.weight.detach().flatten())


def test_convolutions_by_slice_and_unfolded():
    kernel = torch.randn(4, 3, 2, 2)
    slices = {x.name: x.load() for x in open_source({"conv": kernel}, conv="slices").layers}
    assert list(slices) == ["conv[0,0]", "conv[0,1]", "conv[1,0]", "conv[1,1]"]
    assert torch.equal(slices["conv[1,0]"], kernel[:, :, 1, 0])
    (unfolded,) = open_source({"conv": kernel}, conv="unfold").layers
    assert torch.equal(unfolded.load(), kernel.flatten(1))
    with pytest.raises(ValueError, match="expected conv="):
        open_source({"conv": kernel}, conv="fft")


def test_bilinear_pools_its_outputs():
    layer = nn.Bilinear(5, 4, 3)
    (found,) = open_source(nn.Sequential(layer)).layers
    assert (found.layer_type, found.shape) == ("bilinear", (5, 4, 3))
    assert torch.equal(found.load()[:, :, 2], layer.weight[2])


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 7, 5))
        self.experts = nn.Parameter(torch.randn(3, 6, 4))
        self.matrix = nn.Parameter(torch.randn(4, 5))
        self.token = nn.Parameter(torch.randn(1, 1, 5))


def test_bare_parameters_and_expert_stacks():
    model = Bare()
    inventory = open_source(model)
    assert names(inventory) == ["table", "experts[0]", "experts[1]", "experts[2]", "matrix"]
    loaded = {x.name: x.load() for x in inventory.layers}
    assert torch.equal(loaded["table"], model.table[0])
    assert torch.equal(loaded["experts[1]"], model.experts[1])
    assert "vector" in reasons(inventory)["token"]


def test_conv1d_of_transformers_is_stored_in_out():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=20, n_positions=10)
    model = transformers.GPT2LMHeadModel(config)
    attention = model.transformer.h[0].attn
    for source in (model, model.state_dict()):
        layers = {x.name: x for x in open_source(source).layers}
        assert torch.equal(layers["transformer.h.0.attn.c_attn[k]"].load(), attention.c_attn.weight[:, 8:16].T)
        assert layers["lm_head"].tied_to == "transformer.wte"
    heads = {x.name: x for x in open_source(model, per_head=True).layers}
    assert torch.equal(heads["transformer.h.0.attn.c_attn[v][1]"].load(), attention.c_attn.weight[:, 20:24].T)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_query_attention(kv_heads):
    weight = torch.randn(16 + 8 * kv_heads, 16)
    attention = nn.Module()
    attention.num_heads, attention.num_key_value_heads, attention.head_dim = 4, kv_heads, 4
    attention.qkv_proj = nn.Linear(16, len(weight), bias=False)
    attention.qkv_proj.weight.data = weight
    layers = {x.name: x.load() for x in open_source(nn.ModuleDict({"attn": attention})).layers}
    assert [len(x) for x in layers.values()] == [16, 4 * kv_heads, 4 * kv_heads]
    assert torch.equal(torch.cat(list(layers.values())), weight)


def test_heads_stored_together_are_told_apart():
    """GPT-NeoX stores query, key and value head by head; its own code splits them like this."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.GPTNeoXConfig(
        hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=16, vocab_size=20
    )
    model = transformers.GPTNeoXModel(config)
    fused = model.layers[0].attention.query_key_value.weight
    layers = {x.name: x for x in open_source(model).layers}
    keys = torch.cat([fused[head * 12 + 4 : head * 12 + 8] for head in range(2)])
    assert torch.equal(layers["layers.0.attention.query_key_value[k]"].load(), keys)
    (whole,) = open_source({"layers.0.attention.query_key_value.weight": fused.detach()}).layers
    assert "unknown without a config.json" in whole.note


def test_tied_weights_are_marked():
    first, _, last = open_source(Tied()).layers
    assert (first.name, first.tied_to) == ("embedding", None)
    assert (last.name, last.tied_to) == ("head", "embedding")


def test_a_shared_weight_that_is_cut_in_another_way_is_not_tied():
    model = nn.ModuleDict({"qkv": nn.Linear(8, 24, bias=False), "other": nn.Linear(8, 24, bias=False)})
    model["other"].weight = model["qkv"].weight
    assert [(x.name, x.tied_to) for x in open_source(model).layers][2:] == [("qkv[v]", None), ("other", None)]


def test_shared_attention_is_tied_part_by_part():
    attention = nn.MultiheadAttention(8, 2)
    layers = open_source(nn.ModuleDict({"a": attention, "b": attention})).layers
    assert [x.tied_to for x in layers][4:] == [*(f"a.in_proj_weight[{part}]" for part in "qkv"), "a.out_proj"]


def test_one_module_used_twice_is_tied():
    layer = nn.Linear(4, 4)
    inventory = open_source(nn.Sequential(layer, nn.ReLU(), layer))
    assert [x.tied_to for x in inventory.layers] == [None, "0"]


@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal]
)
def test_parametrized_layers_give_their_effective_weight(wrap):
    torch.manual_seed(0)
    layer = wrap(nn.Linear(12, 8))
    model = nn.Sequential(layer).train()
    inventory = open_source(model)
    assert names(inventory) == ["0"]
    state = copy.deepcopy(model.state_dict())
    weight = inventory.layers[0].load()
    assert weight.shape == (8, 12)
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))
    assert all(part.training for part in model.modules())
    assert torch.equal(weight, layer.eval().weight)
    assert all("computes" in reason for name, reason in reasons(inventory).items() if "original" in name)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize(
    "wrap", [nn.utils.weight_norm, nn.utils.spectral_norm, lambda m: prune.random_unstructured(m, "weight", 0.5)]
)
def test_hooked_layers_give_the_weight_of_the_next_forward_pass(wrap):
    """The attribute itself is stale once the parameters have changed."""
    torch.manual_seed(0)
    layer = wrap(nn.Linear(12, 8)).eval()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name != "bias":
                parameter.mul_(3)
    (found,) = open_source(nn.Sequential(layer)).layers
    weight = found.load()
    layer(torch.zeros(1, 12))
    torch.testing.assert_close(weight, layer.weight)


def test_buffers_and_missing_weights_are_skipped():
    model = nn.Sequential(nn.BatchNorm2d(8), nn.Linear(3, 3, bias=False))
    model[1].weight = None
    inventory = open_source(model)
    assert not inventory.layers
    assert reasons(inventory)["0.running_mean"] == "a buffer, not a parameter: it is not trained"


def test_quantized_layers_are_listed():
    class Packed(
        nn.Module
    ):  # like torch.ao.nn.quantized.Linear, it has no parameters but a method that unpacks the weight
        def weight(self):
            return torch.zeros(4, 4)

    assert "quantized" in reasons(open_source(nn.Sequential(Packed())))["0"]


def test_names_stay_unique_behind_wrappers():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)
            self._orig_mod = nn.Module()
            self._orig_mod.lin = nn.Linear(4, 4)

    assert names(open_source(Model())) == ["lin", "_orig_mod.lin"]


def test_wrapper_names_are_stripped():
    model = torch.compile(nn.Sequential(nn.Linear(4, 4)))
    (layer,) = open_source(model).layers
    assert (layer.name, layer.longname) == ("0", "_orig_mod.0")


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_parallel_wrappers_are_stripped(wrap):
    wrapped = wrap(nn.Sequential(nn.Linear(4, 4)))
    for source in (wrapped, wrapped.state_dict()):
        assert names(open_source(source)) == ["0"]


def test_an_attribute_called_module_is_no_wrapper():
    assert names(open_source(nn.ModuleDict({"module": nn.Linear(4, 4), "b": nn.Linear(4, 4)}))) == ["module", "b"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, parametrizations.weight_norm])
def test_any_parametrized_tensor_is_found(wrap):
    model = wrap(nn.LSTM(4, 4), "weight_hh_l0")
    layers = {x.name: x.load() for x in open_source(model).layers}
    assert len(layers) == 8
    assert torch.equal(layers["weight_hh_l0[f]"], model.weight_hh_l0[4:8])


def test_a_bare_layer_is_called_weight():
    assert names(open_source(nn.Linear(4, 4))) == ["weight"]


def test_a_frozen_integer_weight_is_skipped():
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False)
    assert "uint8" in reasons(open_source(nn.Sequential(layer)))["0.weight"]


SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)


def small_transformer(name):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    text = SIZES | {"vocab_size": 100, "num_key_value_heads": 2, "pad_token_id": 0}
    return {
        "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**text)),
        "phi3": lambda: transformers.Phi3ForCausalLM(transformers.Phi3Config(**text)),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=32, n_head=4, n_layer=1, vocab_size=100, n_positions=20)
        ),
        "bloom": lambda: transformers.BloomForCausalLM(
            transformers.BloomConfig(hidden_size=32, n_layer=1, n_head=4, vocab_size=100)
        ),
        "falcon": lambda: transformers.FalconForCausalLM(
            transformers.FalconConfig(
                hidden_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=100, num_kv_heads=2,
                new_decoder_architecture=True,
            )
        ),
        "t5": lambda: transformers.T5Model(
            transformers.T5Config(d_model=32, d_ff=64, num_layers=1, num_heads=4, d_kv=8, vocab_size=100)
        ),
    }[name]()  # fmt: skip


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2", "bloom", "falcon", "t5"])
def test_a_saved_transformer_has_the_rows_of_the_live_one(name, per_head, tmp_path):
    model = small_transformer(name)
    model.save_pretrained(tmp_path)
    live, saved = (
        {x.name: x for x in open_source(source, per_head=per_head).layers if x.tied_to is None}
        for source in (model, tmp_path)
    )
    assert {key: (x.layer_type, x.shape) for key, x in live.items()} == {
        key: (x.layer_type, x.shape) for key, x in saved.items()
    }
    assert all(torch.equal(live[key].load(), saved[key].load()) for key in live)
