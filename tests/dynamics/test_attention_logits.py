import math

import pytest
import torch
from torch import nn

import htsr

D, H = 24, 6  # width of the model, size of a head


def weights(draw, *, kv=2, bias=False, shift=False, gains=True):
    """Query and key of four heads behind a norm, under the names of a language model."""

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    at = "model.layers.0"
    found = {
        f"{at}.input_layernorm.weight": 1 + 0.5 * normal(D) if gains else torch.ones(D, dtype=torch.float64),
        f"{at}.self_attn.q_proj.weight": normal(4 * H, D),
        f"{at}.self_attn.k_proj.weight": normal(kv * H, D),
    }
    if shift:
        found[f"{at}.input_layernorm.bias"] = 0.3 * normal(D)
    if bias:
        found |= {f"{at}.self_attn.{letter}_proj.bias": normal(n * H) for letter, n in (("q", 4), ("k", kv))}
    return found


def config(kv, rope):
    return {
        "num_attention_heads": 4,
        "num_key_value_heads": kv,
        **({"rope_theta": 1e4} if rope else {"n_positions": 9}),
    }


def rotated(x):
    """Vectors (head, position, H) rotated as RoPE rotates them."""
    angles = torch.arange(x.shape[1])[:, None] * 100.0 ** -(torch.arange(H // 2) / (H // 2))
    a, b = x[..., : H // 2], x[..., H // 2 :]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def logits(found, kv, rope, n):
    """All logits (head, query position, key position) of normalised vectors (position, D)."""
    at, zero = "model.layers.0", torch.zeros(1, dtype=torch.float64)
    x = n * found[f"{at}.input_layernorm.weight"] + found.get(f"{at}.input_layernorm.bias", zero)
    q, k = (
        (x @ found[f"{at}.self_attn.{letter}_proj.weight"].T + found.get(f"{at}.self_attn.{letter}_proj.bias", zero))
        .unflatten(-1, (heads, H)).transpose(0, 1)
        for letter, heads in (("q", 4), ("k", kv))
    )  # fmt: skip
    if rope:
        q, k = rotated(q), rotated(k)
    return q @ k.repeat_interleave(4 // kv, 0).mT / math.sqrt(H)


@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize(("kv", "bias", "shift"), [(4, False, False), (2, True, False), (1, True, True)])
def test_no_logit_exceeds_the_bound(rope, kv, bias, shift):
    draw = torch.Generator().manual_seed(kv)
    found = weights(draw, kv=kv, bias=bias, shift=shift)
    source = found if rope else {**found, "model.embed_positions.weight": torch.randn(9, D)}
    table = htsr.attention_logits(source, config=config(kv, rope))
    assert table["how"].tolist() == ["norms" if rope else "product"] * 4
    assert table["key_head"].tolist() == [head * kv // 4 for head in range(4)]
    assert set(table["input_norm"]) == {"model.layers.0.input_layernorm"}
    assert table["may_clip"].tolist() == (table["bound"] > 100).tolist()
    worst = torch.zeros(4, dtype=torch.float64)
    for _ in range(20):
        n = torch.randn(60, D, generator=draw, dtype=torch.float64)
        for normed in (n / n.square().mean(-1, keepdim=True).sqrt(), nn.functional.layer_norm(n, (D,))):
            worst = torch.maximum(worst, logits(found, kv, rope, normed).abs().amax((1, 2)))
    bound = torch.tensor(table["bound"].to_numpy())
    assert (worst <= bound).all()
    assert (worst > bound / 12).all()  # chance does not come close in 24 dimensions


def test_the_worst_inputs_reach_the_bound():
    found = weights(torch.Generator().manual_seed(0))
    at = "model.layers.0"
    gain = found[f"{at}.input_layernorm.weight"]
    q, k = (found[f"{at}.self_attn.{letter}_proj.weight"] * gain for letter in "qk")
    fixed = {**found, "model.embed_positions.weight": torch.randn(9, D)}
    table = htsr.attention_logits(fixed, config=config(2, rope=False))
    for head in range(4):
        product = q[head * H :][:H].T @ k[head // 2 * H :][:H]
        U, _, Vh = torch.linalg.svd(product)
        reached = logits(found, 2, False, math.sqrt(D) * torch.stack([U[:, 0], Vh[0]]))[head, 0, 1]
        assert table["bound"][head] == pytest.approx(abs(float(reached)), rel=1e-9)
    # with one matrix for query and key, a token that looks at itself reaches the product of norms, under RoPE, too
    found[f"{at}.self_attn.k_proj.weight"] = found[f"{at}.self_attn.q_proj.weight"]
    table = htsr.attention_logits(found, config=config(4, rope=True))
    for head in range(4):
        top = torch.linalg.svd(q[head * H :][:H])[2][:1]
        reached = logits(found, 4, True, math.sqrt(D) * top)[head, 0, 0]
        assert table["bound"][head] == pytest.approx(float(reached), rel=1e-9)


def hf_model(name):
    import transformers

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 16,
        "vocab_size": 20,
    }
    kinds = {
        "Llama": {"num_key_value_heads": 2}, "Qwen3": {"num_key_value_heads": 2, "head_dim": 8}, "Bert": {},
        "Gemma": {"num_key_value_heads": 1, "head_dim": 8}, "GPT2": {},
    }  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes, **kinds[name]))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "norm", "how"),
    [
        ("Llama", "layers.1.input_layernorm", "norms"),
        ("Gemma", "layers.1.input_layernorm", "norms"),
        ("Qwen3", "layers.1.input_layernorm", "query and key norms"),
        ("Bert", "encoder.layer.0.output.LayerNorm", "product"),
        ("GPT2", "h.1.ln_1", "product"),
    ],
)
def test_models_of_transformers(name, norm, how):
    """What q and k really are, before any rotation, has no larger products."""
    model = hf_model(name)
    table = htsr.attention_logits(model)
    assert len(table) == 8
    last = table.tail(4)
    assert set(last["input_norm"]) == {norm}
    assert set(last["how"]) == {how}
    seen = {}

    def watch(end):
        return lambda module, args, output: seen.update({end: output})

    ends = {"Qwen3": ("q_norm", "k_norm"), "Bert": ("query", "key"), "GPT2": ("c_attn",)}.get(
        name, ("q_proj", "k_proj")
    )
    for path, module in model.named_modules():
        end = path.rpartition(".")[2]
        if end in ends and ".1." in path:
            module.register_forward_hook(watch(end))
    with torch.no_grad():
        model(torch.randint(20, (8, 16)))
    outputs = seen["c_attn"].split(32, -1)[:2] if name == "GPT2" else [seen[end] for end in ends]
    q, k = (out.reshape(-1, n, 8) for out, n in zip(outputs, (4, last["key_head"].max() + 1), strict=True))
    for row in last.itertuples(index=False):
        if how == "product":
            largest = (q[:, row.head] @ k[:, row.key_head].T).abs().max()
        else:
            largest = q[:, row.head].norm(dim=-1).max() * k[:, row.key_head].norm(dim=-1).max()
        assert row.bound / 30 < float(largest) / math.sqrt(8) <= row.bound


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 2)


def test_growth_in_a_history():
    torch.manual_seed(0)
    block = Block()
    with htsr.Monitor(block, per_head=True, every=1, bootstrap=0, bulk=False) as monitor:
        for _ in range(2):
            with torch.no_grad():
                block.attention.in_proj_weight *= 2
            monitor.step()
    table = htsr.attention_logits(monitor.history)
    assert table["step"].tolist() == [0, 0, 1, 1, 2, 2]
    bounds = table.pivot(index="step", columns="head", values="bound")
    assert (bounds.loc[2] / bounds.loc[0]).tolist() == pytest.approx([16, 16], rel=1e-5)
    # a fresh norm has gains of 1, and the bias of the attention is 0
    alone = htsr.attention_logits(block)
    assert alone["bound"].tolist() == pytest.approx(bounds.loc[2].tolist(), rel=1e-5)
    assert set(alone["input_norm"]) == {"ln_1"}
    of_analysis = htsr.attention_logits(htsr.analyze(block, per_head=True, bulk=False))
    assert of_analysis["bound"].tolist() == pytest.approx(alone["bound"].tolist(), rel=1e-5)


@pytest.mark.parametrize(
    "source", [{"w": torch.ones(4, 4)}, {"q_proj.weight": torch.ones(4, 4), "k_proj.weight": torch.ones(4, 4)}]
)
def test_heads_must_be_known(source):
    with pytest.raises(htsr.InputError, match="no query and key weights with a known number of heads"):
        htsr.attention_logits(source)
    with pytest.raises(htsr.InputError, match="no rows of query and key heads"):
        htsr.attention_logits(htsr.analyze(source, per_head=True))


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_cross_attention_has_no_norm_before_it(norm_first):
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first, dropout=0.0)
    with torch.no_grad():
        layer.norm1.weight.mul_(0.01)
    table = htsr.attention_logits(nn.Sequential(layer))
    cross = table[table["attention"].str.contains("multihead_attn")]
    assert len(cross) == 4
    assert (cross["input_norm"] == "").all()
    W = layer.multihead_attn.in_proj_weight.detach().double()
    q, k = W[:8], W[32:40]
    least = 32 * torch.linalg.matrix_norm(q.T @ k, 2) / 8**0.5  # of inputs with a root mean square of 1
    assert cross["bound"].iloc[0] >= 0.999 * float(least)
