"""Alignment, contrast and their null against plain NumPy; what counts as meaning in a real embedding."""

import numpy as np
import pytest
import torch

import htsr
from htsr.audit.tokens import alignment
from htsr.audit.tokens.alignment import SHOWN, Embedding, Ends, p_values
from htsr.spectra.leading import leading_directions
from tests.audit.tokens.conftest import normal


@pytest.mark.parametrize("block", [7, 10_000])
def test_ends(monkeypatch, block):
    monkeypatch.setattr(alignment, "BLOCK", block)
    rows = normal(50, 6)
    rows -= rows.mean(0)
    directions = torch.nn.functional.normalize(normal(6, 3, seed=1), dim=0)
    ends = Embedding(rows).ends(directions)
    scores = (rows @ directions).double().numpy()
    for k in range(3):
        order = np.argsort(-scores[:, k])
        assert list(ends.promoted[k]) == list(order[:SHOWN])
        assert list(ends.suppressed[k]) == list(order[::-1][:SHOWN])
        cosines = scores[:, k] / rows.norm(dim=1).numpy()
        first, second = (np.abs(cosines[end]).max() for end in (order[:SHOWN], order[-SHOWN:]))
        assert ends.alignment[k] == pytest.approx(max(first, second), rel=1e-5)
        assert ends.is_first[k] == (first > second)
        assert ends.contrast[k] == pytest.approx(np.abs(scores[:, k]).max() / scores[:, k].std(), rel=1e-5)


def test_p_values_are_the_largest_over_kinds_and_measures():
    """Of 99 drawn values 0 ... 98, those at or above the found one are counted, and one is added to both."""
    drawn = np.arange(99.0)
    null = np.stack([np.stack([drawn, drawn]), np.stack([drawn - 50, drawn])])
    none = torch.empty(0)
    ends = Ends(none, none, np.array([99.0, 90.0, 99.0]), np.array([99.0, 99.0, 0.0]), np.array([True] * 3))
    np.testing.assert_allclose(p_values(ends, null), [0.01, 0.10, 1])


def test_fewer_tokens_than_are_shown():
    assert Embedding(normal(3, 5)).ends(torch.eye(5)).promoted.shape == (5, 3)


@pytest.mark.slow
def test_noise_says_nothing_on_minilm_and_words_do(minilm):
    """At most 5 % of random directions are beyond the null: uniform ones, and noise with the embedding's covariance."""
    vocabulary = htsr.analyze(minilm, bulk=False, layers="pooler*")[0]._directions.sources.vocabulary()
    embedding = Embedding(vocabulary.load())
    null = embedding.null(500, 0)
    rows = embedding.rows_VD.double()
    root = torch.linalg.cholesky(rows.T @ rows / len(rows) + 1e-9 * torch.eye(384))
    draw = torch.Generator().manual_seed(1)

    def share_beyond(directions):
        return np.mean(p_values(embedding.ends(directions.float()), null) <= 0.05)

    for shape in (torch.eye(384).double(), root):
        noise = torch.randn(384, 300, generator=draw).double()
        single = torch.nn.functional.normalize(shape @ noise, dim=0)
        assert share_beyond(single) <= 0.05
        _, leading, _ = leading_directions(shape @ noise, 50)  # of root: the principal directions of the embedding
        assert share_beyond(torch.from_numpy(leading)) <= 0.05
    words = [row for row, piece in enumerate(vocabulary.pieces) if piece.isascii() and piece.isalpha()]
    chosen = torch.tensor(words)[torch.randperm(len(words), generator=draw)[:200]]
    planted = torch.nn.functional.normalize(embedding.rows_VD[chosen].T, dim=0)
    assert share_beyond(planted) >= 0.98
    assert torch.equal(embedding.ends(planted).promoted[:, 0], chosen)
