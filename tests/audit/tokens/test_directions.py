"""Directions named by tokens: planted words come back, noise does not speak, and what is missing is said."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

import htsr
from htsr.errors import InputError
from htsr.report.page.analysis import analysis_data
from tests.audit.tokens.conftest import DOWN, FF, LAYER, OUT, UP, D, Q, normal, row_of, weights, write


def other(size, seed=9):
    return torch.nn.functional.normalize(normal(size, seed=seed), dim=0)


def analyze(source, **options):
    return htsr.analyze(source, bulk=False, **options)


def compare(a, b, layer):
    """The comparison of one layer."""
    return htsr.compare(a, b, bulk=False, layers=layer)[layer]


@pytest.mark.parametrize(
    ("layer", "side", "stream"),
    [(DOWN, "out", "writes"), (OUT, "out", "writes"), (UP, "in", "reads"), (Q, "in", "reads"), ("lm_head", "in", "reads"),
     ("model.embed_tokens", "in", "writes")],
)  # fmt: skip
def test_a_planted_word_names_the_direction(tmp_path, layer, side, stream):
    """A change along the rows of two words, 3 to 1, has them as its directions, by closed form."""
    tensors = weights()
    a = write(tmp_path / "a", tensors)
    key = f"{layer}.weight"
    rows, columns = tensors[key].shape
    first, second = torch.linalg.qr(
        torch.stack([row_of(tensors, word) for word in (7, 31)], dim=1)
    ).Q.T  # +- word 7 first
    free = torch.linalg.qr(normal(rows if side == "in" else columns, 2, seed=5)).Q.T
    pairs = [(first, free[0], 3.0), (second, free[1], 1.0)]
    change = sum(s * (torch.outer(u, v) if side == "out" else torch.outer(v, u)) for u, v, s in pairs)
    b = write(tmp_path / "b", tensors | {key: tensors[key] + change})
    # of a change to the embedding itself, the embedding of B would have moved
    c = compare(b, a, layer) if layer == "lm_head" else compare(a, b, layer)
    named = c.tokens(2)
    assert list(named["singular_value"]) == pytest.approx([3, 1], rel=1e-4)
    assert list(named["share"]) == pytest.approx([0.9, 0.1], rel=1e-4)
    assert list(named["side"]) == [side] * 2
    assert list(named["stream"]) == [stream] * 2
    assert named["promoted"][0].split(", ")[0] == "w7"
    assert named["alignment"][0] == pytest.approx(1, abs=1e-5)
    assert list(named["p_value"][:1]) == pytest.approx([2 / 501])
    assert not named["reads_as_noise"][0]
    assert set(named["embedding"]) == {"lm_head, the output embedding"}
    assert len(c.tokens(9)) == 2  # what rounding leaves is no direction


def test_the_sign_of_a_direction_is_arbitrary(tmp_path):
    tensors = weights()
    a = write(tmp_path / "a", tensors)
    key = f"{DOWN}.weight"
    for sign in (1, -1):
        change = sign * torch.outer(row_of(tensors, 7), other(FF))
        b = write(tmp_path / f"b{sign}", tensors | {key: tensors[key] + change})
        assert compare(a, b, DOWN).tokens(1)["promoted"][0].startswith("w7, ")


def test_random_weights_say_nothing(tmp_path):
    tensors = {f"model.layers.{i}.mlp.down_proj.weight": normal(D, FF, seed=100 + i) for i in range(20)}
    a = analyze(write(tmp_path / "a", weights() | tensors), layers="*.down_proj", tokens=5)
    noise = a.tokens_named["reads_as_noise"]
    assert len(noise) == 100
    assert sum(noise) >= 98


def test_an_analysis_may_name_all_of_them_at_once(model):
    a = analyze(model, tokens=2)
    named = a.tokens_named
    assert analysis_data(a)["directions"] == a.tokens_lines()
    assert list(named["name"].unique()) == list(a.keys())
    assert list(named.columns[1:]) == list(a[0].tokens(1).columns)
    alone = analyze(model, layers=OUT)[OUT].tokens(2)
    assert a[OUT].tokens(2).equals(alone)
    assert len(a[OUT].tokens(1)) == 1
    assert len(a[OUT].tokens(4)) == 4  # the weights are loaded again
    assert a.about.settings["tokens"] == 2


def test_layers_outside_the_stream_and_unchanged_ones_have_no_row(tmp_path):
    tensors = weights() | {f"{LAYER}mlp.up_proj.weight": normal(FF, FF), "pooler.weight": normal(D, D, seed=8)}
    tensors["broken.weight"] = torch.full((D, FF), torch.nan)
    folder = write(tmp_path / "a", tensors)
    a = analyze(folder, layers=[UP, OUT, "pooler", "broken"], tokens=1)
    assert list(a.tokens_named["name"]) == [OUT]
    with pytest.raises(InputError, match="does not lie in the residual stream"):
        a[UP].tokens()
    with pytest.raises(InputError, match="say side='out' or side='in'"):
        a["pooler"].tokens()
    with pytest.raises(InputError, match="broken: expected finite weights"):
        a["broken"].tokens()
    assert list(a["pooler"].tokens(1, side="in")["side"]) == ["in"]
    b = write(tmp_path / "b", tensors | {f"{OUT}.weight": tensors[f"{OUT}.weight"] + 1})
    c = htsr.compare(folder, b, layers=[OUT, DOWN], bulk=False, tokens=1)
    assert list(c.tokens_named["name"]) == [OUT]
    assert not len(c[DOWN].tokens())


def test_what_cannot_be_named_is_said(model, tmp_path):
    a = analyze(model, layers=OUT)
    with pytest.raises(InputError, match="keeps no weights of a model in memory: save the model and its tokenizer"):
        analyze({"w": normal(9, 9)})["w"].tokens()
    with pytest.raises(InputError, match="a model in memory"):
        compare(model, weights(), OUT).tokens()
    with pytest.raises(InputError, match="a model in memory"):
        analyze({"w": normal(9, 9)}, tokens=3)
    with pytest.raises(InputError, match="an analysis keeps spectra, not weights"):
        htsr.compare(a, model, tokens=3)
    with pytest.raises(InputError, match="the spectrum of a change"):
        htsr.compare(model, model, bulk=False, layers=OUT).delta[OUT].tokens()
    for wrong, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="expected k to be a whole number"):
            a[OUT].tokens(wrong)
    with pytest.raises(ValueError, match="expected side='out', side='in' or None, got 'left'"):
        a[OUT].tokens(side="left")
    assert len(pickle.loads(pickle.dumps(a))[OUT].tokens(1)) == 1
    os.utime(model / "model.safetensors", ns=(1, 1))
    with pytest.raises(InputError, match=r"model\.safetensors: the file changed since the analysis; analyse it again"):
        a[OUT].tokens()
    (model / "model.safetensors").unlink()
    with pytest.raises(InputError, match="the file is gone since the analysis"):
        a[OUT].tokens()


def test_a_file_beside_the_tokenizer_will_do(model):
    assert len(analyze(model / "model.safetensors", layers=OUT)[OUT].tokens(1)) == 1


def test_an_adapter_is_named_with_the_embedding_of_its_base(tmp_path):
    tensors = weights()
    base, adapter = write(tmp_path / "base", tensors), tmp_path / "adapter"
    adapter.mkdir()
    prefix = f"base_model.model.{DOWN}.lora"
    B, A = row_of(tensors, 7)[:, None], other(FF)[None]
    save_file(
        {f"{prefix}_A.weight": A.contiguous(), f"{prefix}_B.weight": B.contiguous()},
        adapter / "adapter_model.safetensors",
    )
    (adapter / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["down_proj"]}'
    )
    assert compare(base, adapter, DOWN).tokens(1)["promoted"][0].startswith("w7, ")
