"""The verdict: three sentences that name what is wrong, what alpha says and how far to trust it."""

import numpy as np
import pytest
import torch

import htsr
from tests.conftest import planted


def pareto(alpha, n, seed=0):
    return torch.from_numpy(np.sort((1 - np.random.default_rng(seed).random(n)) ** (-1 / (alpha - 1))))


def noise(seed):
    return np.random.default_rng(seed).normal(size=(128, 128))


def test_a_trained_model(minilm):
    first, second, third = htsr.analyze(minilm, progress=False).verdict_sentences()
    assert first == "1 of 39 fitted matrices is noise, as if it had never been trained: pooler.dense."
    assert second.startswith("3 have alpha above 6, so hardly a heavy tail: encoder.layer.4.attention.self.value, ")
    assert third.startswith("15 tails rest on fewer than 30 values, so read their alpha as ± ")


def test_nothing_stands_out():
    verdict = htsr.analyze(
        {"a": planted(pareto(3, 400), 400), "b": planted(pareto(2.5, 400, 1), 400)}
    ).verdict_sentences()
    assert verdict[0] == "None of 2 fitted matrices is noise, and none has lost rank."
    assert verdict[1].startswith("Every alpha lies between 2 and 6: ")
    assert len(verdict) == 2


@pytest.mark.parametrize(
    ("weights", "first"),
    [
        ({str(i): noise(i) for i in range(5)}, "5 of 5 fitted matrices are noise, as if they had never been trained: "),
        ({"w": np.full((20, 20), np.nan)}, "No matrix has a power-law fit; 1 could not be used: w."),
        ({"w": np.eye(40)}, "1 of 1 has lost rank: w."),
        ({"w": np.random.default_rng(0).normal(size=(40, 4))}, "No matrix has a power-law fit."),
    ],
)
def test_what_is_wrong(weights, first):
    if "lost" in first:
        weights = {"w": np.random.default_rng(0).normal(size=(64, 8)) @ np.random.default_rng(1).normal(size=(8, 64))}
    assert htsr.analyze(weights).verdict.startswith(first)


def test_many_names_are_counted():
    verdict = htsr.analyze({f"layer{i}": noise(i) for i in range(5)}).verdict
    assert "and 2 more" in verdict


def test_names_cannot_break_a_line():
    verdict = htsr.analyze({"a\nb\x1b[31m": noise(0)}).verdict
    assert "\n" not in verdict
    assert "\x1b" not in verdict


def test_without_a_bulk_nothing_is_said_about_noise():
    assert "noise" not in htsr.analyze({"w": noise(0)}, bulk=False).verdict
