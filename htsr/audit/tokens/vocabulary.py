"""The output embedding and the tokenizer that lie beside a model's weights."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from htsr.audit.table import shortened
from htsr.audit.tokens.reload import Reload
from htsr.errors import InputError
from htsr.text import visible
from htsr.weights import Layer
from htsr.weights.configs import nearest_config
from htsr.weights.readers.archives import check_no_lfs_pointer
from htsr.weights.readers.json_files import MAX_JSON_BYTES, read_json
from htsr.weights.readers.optional import import_optional

TOKENIZER = "tokenizer.json"
# What transformers, GPT-NeoX, BERT, RoBERTa, fairseq, RWKV, llama.cpp and Meta's Llama call the two tables.
OUTPUT = re.compile(
    r"(^|\.)(lm_head|embed_out|output_projection|((cls\.)?predictions|lm_head)\.decoder)$|^(model\.)?(output|head)$"
)
INPUT = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings?|tok_embeddings|token_embd|embed_in|shared|tokens_embed|embeddings?|emb)$"
)
# Classes of transformers with an output embedding; by default it is the input embedding.
WITH_OUTPUT = re.compile(r"(LMHeadModel|ForCausalLM|ForMaskedLM|ForConditionalGeneration|ForPreTraining)\b")
# A table with fewer rows that have a token, or a tokenizer with fewer tokens that have a row, belongs to another model.
MIN_SHARED = 0.5
# What stands in front of a piece for the space before it: in SentencePiece, and in byte-level BPE.
SPACES = ("\u2581", "\u0120")
MAX_TOKEN = 40


@dataclass(frozen=True)
class Vocabulary:
    """Where the tokens of a model and their directions are.

    Attributes:
        reload: The weights that the embedding is one of.
        embedding: Its layer.
        about: What the embedding is, in words.
        ids: The tokens that have a row, ascending.
        pieces: Their texts as the tokenizer spells them.
        decoder: What turns a piece into text; None if the tokenizer has none.
    """

    reload: Reload
    embedding: Layer
    about: str
    ids: np.ndarray
    pieces: list[str]
    decoder: Any = field(repr=False, compare=False)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.embedding.shape[1]

    def load(self) -> torch.Tensor:
        """Return the rows of the tokens less their mean, shape (tokens, d_model), float32."""
        # The mean shifts the scores of all tokens alike, which changes no probability; and it is the longest direction of many
        # embeddings, so that without this every direction would seem to say the same tokens.
        rows = self.reload.load(self.embedding.name)[torch.from_numpy(self.ids)].to("cpu", torch.float32)
        return rows.sub_(rows.mean(0))

    def text(self, row: int) -> str:
        """Return a token for people: a space in front of it shows as a low bar, and one that might mislead stands in quotes."""
        piece = self.pieces[row]
        space = SPACES[0] if piece.startswith(SPACES) and len(piece) > 1 else ""
        text = piece if self.decoder is None else self.decoder.decode([piece])
        if not text or "\ufffd" in text:  # a part of a character
            return visible(piece, MAX_TOKEN)
        shown = visible(space + text.removeprefix(" " if space else ""), MAX_TOKEN)
        return f'"{shown}"' if re.search(r"[\s,\"]", shown) else shown


def find_vocabulary(sides: Sequence[Reload]) -> Vocabulary:
    """Return the vocabulary of the first of these that has both tables; raise ``InputError`` that says what is missing."""
    missing = []
    for side in sides:
        try:
            return _vocabulary(side)
        except InputError as err:
            missing.append(err)
    raise missing[0]


def _vocabulary(reload: Reload) -> Vocabulary:
    path = next((path for folder in reload.folders if (path := folder / TOKENIZER).exists()), None)
    if path is None:
        raise InputError(_no_tokenizer(reload))
    tokenizer = _tokenizer(path)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tables = {name: layer for name, layer in reload.layers.items() if len(layer.shape) == 2}
    enough = {name: layer for name, layer in tables.items() if layer.shape[0] >= MIN_SHARED * len(vocabulary)}
    out = next((layer for name, layer in enough.items() if OUTPUT.search(name)), None)
    into = next((layer for name, layer in enough.items() if INPUT.search(name)), None)
    embedding = out or into
    if embedding is None:
        found = [f"{name} ({' x '.join(map(str, layer.shape))})" for name, layer in tables.items()]
        raise InputError(
            f"{reload.source}: expected an output embedding (lm_head, embed_out, cls.predictions.decoder) or a word embedding "
            f"(embed_tokens, wte, word_embeddings) with a row for each of the {len(vocabulary)} tokens of {path}, found "
            f"{shortened(found) or 'no matrix'}; analyse the directory of the whole model"
        )
    rows = embedding.shape[0]
    pieces = {number: piece for piece, number in vocabulary.items() if 0 <= number < rows}
    if len(pieces) < MIN_SHARED * max(rows, len(vocabulary)):
        raise InputError(
            f"{path}: expected the tokenizer of the model, got one with {len(vocabulary)} tokens, {len(pieces)} of which have a "
            f"row among the {rows} of {embedding.name}"
        )
    ids = np.array(sorted(pieces))
    about = _about(embedding, out is not None, path.parent)
    return Vocabulary(reload, embedding, about, ids, [pieces[number] for number in ids], tokenizer.decoder)


def _about(embedding: Layer, is_output: bool, folder: Path) -> str:
    """Return what an embedding is, in words."""
    if is_output:
        return f"{embedding.name}, the output embedding"
    try:
        config: Mapping[str, object] = read_json(folder / "config.json")
    except (FileNotFoundError, InputError):
        config = {}
    tied = nearest_config(embedding.name, config).get("tie_word_embeddings", config.get("tie_word_embeddings"))
    has_output = WITH_OUTPUT.search(str(config.get("architectures")))
    if tied is True or (tied is None and has_output):
        return f"{embedding.name}, the output embedding, tied to the input"
    return f"{embedding.name}, the input embedding, as there is no output embedding"


def _tokenizer(path: Path) -> Any:
    """Return the tokenizer in a file."""
    tokenizers = import_optional("tokenizers", "tokens", path)
    if not path.is_file():
        raise InputError(f"{path}: expected a file, got a folder, a device, a pipe or another special file")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path}: expected at most {MAX_JSON_BYTES:,} bytes, got {path.stat().st_size:,}")
    check_no_lfs_pointer(path)
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as err:  # the library raises Exception itself for a damaged file
        raise InputError(f"{path}: expected a tokenizer that the library tokenizers reads, got {err}") from err


def _no_tokenizer(reload: Reload) -> str:
    folders = reload.folders
    beside = sorted({file.name for folder in folders for file in folder.iterdir() if _is_vocabulary(file.name)})
    return (
        f"{reload.source}: expected {TOKENIZER} beside the weights, in {', '.join(map(str, folders)) or 'no folder'}; found "
        f"{', '.join(beside) or 'no tokenizer'}. Fetch it (hf download ORG/NAME {TOKENIZER}), or write it with transformers: "
        "AutoTokenizer.from_pretrained(PATH).save_pretrained(PATH)"
    )


def _is_vocabulary(name: str) -> bool:
    return bool(re.search(r"token|vocab|merges|\.model$|tekken", name))
