"""The output embedding and the tokenizer of a directory, under the names that models have; hostile tokens."""

import json

import pytest

import htsr
from htsr.audit.tokens import reload_of
from htsr.audit.tokens.vocabulary import find_vocabulary
from htsr.errors import InputError
from htsr.weights import open_source
from tests.audit.tokens.conftest import D, V, normal, weights, write

tokenizers = pytest.importorskip("tokenizers")


def vocabulary(folder):
    return find_vocabulary([reload_of(open_source(folder), folder)])


@pytest.mark.parametrize(
    ("names", "config", "about"),
    [
        (["lm_head", "model.embed_tokens"], {}, "lm_head, the output embedding"),
        (["embed_out", "gpt_neox.embed_in"], {}, "embed_out, the output embedding"),
        (["bert.embeddings.word_embeddings", "cls.predictions.decoder"], {}, "cls.predictions.decoder, the output embedding"),
        (["lm_head.decoder", "roberta.embeddings.word_embeddings"], {}, "lm_head.decoder, the output embedding"),
        (["output", "tok_embeddings"], {}, "output, the output embedding"),
        (["transformer.wte"], {"architectures": ["GPT2LMHeadModel"]}, "transformer.wte, the output embedding, tied to the input"),
        (["model.embed_tokens"], {"tie_word_embeddings": True}, "model.embed_tokens, the output embedding, tied to the input"),
        (
            ["language_model.embed_tokens"],
            {"text_config": {"tie_word_embeddings": True}},
            "language_model.embed_tokens, the output embedding, tied to the input",
        ),
        (
            ["model.embed_tokens"],
            {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False},
            "model.embed_tokens, the input embedding, as there is no output embedding",
        ),
        (
            ["embeddings.word_embeddings"],
            {"architectures": ["BertModel"]},
            "embeddings.word_embeddings, the input embedding, as there is no output embedding",
        ),
    ],
)  # fmt: skip
def test_embedding(tmp_path, names, config, about):
    tensors = {f"{name}.weight": normal(V, D, seed=i) for i, name in enumerate(names)}
    tensors |= {"embeddings.position_embeddings.weight": normal(9, D), "layers.0.attn.output.weight": normal(D, D)}
    found = vocabulary(write(tmp_path / "m", tensors, config={"model_type": "x", **config}))
    assert found.about == about
    rows = tensors[f"{found.embedding.name}.weight"]
    assert found.load().allclose(rows - rows.mean(0), atol=1e-6)


def test_rows_without_a_token_are_left_out(tmp_path):
    found = vocabulary(write(tmp_path / "m", weights(), words=V - 50))
    rows = weights()["lm_head.weight"][: V - 50]
    assert found.load().allclose(rows - rows.mean(0), atol=1e-6)
    assert found.text(V - 51) == f"w{V - 51}"


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (
            lambda m: (m / "tokenizer.json").unlink(),
            r"expected tokenizer\.json beside the weights, in .*; found no tokenizer",
        ),
        (lambda m: (m / "tokenizer.json").rename(m / "tokenizer.model"), r"found tokenizer\.model\. Fetch it"),
        (lambda m: (m / "tokenizer.json").write_text("{"), "expected a tokenizer that the library tokenizers reads"),
        (lambda m: write(m, weights(), words=20), "expected the tokenizer of the model, got one with 20 tokens"),
        (
            lambda m: write(m, weights(), words=700),
            "one with 700 tokens, 400 of which have a row among the 400 of lm_head",
        ),
        (lambda m: write(m, {"w.weight": normal(D, D)}), r"expected an output embedding .* found w \(40 x 40\)"),
    ],
)
def test_what_is_missing_is_said(model, break_it, said):
    break_it(model)
    if "700" in said:
        assert vocabulary(model).d_model == D  # added tokens without a row happen
        return
    with pytest.raises(InputError, match=said):
        vocabulary(model)


def test_without_the_library(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'htsr\[tokens\]'"):
        vocabulary(model)


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        ("\u0120cat", "\u2581cat"),
        ("cat", "cat"),
        ("\u00c3\u00a9", "é"),  # two bytes as byte-level BPE spells them
        ("\u00c3", "\u00c3"),  # half of a character
        ("\u0120", '" "'),
        ("a,b", '"a,b"'),
        ("\u010a", "\\n"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202eabc", "\\u202eabc"),
    ],
)
def test_tokens_for_people(model, piece, text):
    vocab = {f"w{number}": number for number in range(V - 1)} | {piece: V - 1}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="w0"))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(model / "tokenizer.json"))
    assert vocabulary(model).text(V - 1) == text


def test_hostile_tokens_reach_no_terminal(model, tmp_path):
    """A file with control characters, marks of direction and endless tokens is shown escaped and short."""
    vocab = {f"\x1b]0;{number}\x07\u202e\n{'x' * 5000}": number for number in range(V)}
    (model / "tokenizer.json").write_text(
        json.dumps(
            {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "x"}}
        )
    )
    a = htsr.analyze(model, bulk=False, layers="*o_proj", tokens=1)
    shown = [*a.tokens_named["promoted"], *a.tokens_named["suppressed"], *a.tokens_lines()]
    assert all(text.isprintable() for text in shown)
    assert max(map(len, a.tokens_named["promoted"])) < 500
    loaded = htsr.load(a.save(tmp_path / "a.htsr"))
    assert loaded.tokens_named.equals(a.tokens_named)
