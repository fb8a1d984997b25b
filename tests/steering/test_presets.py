"""The presets against the published formulas, written out, on fixed alphas."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.optim import AdamW

from htsr.spectra.spectrum import Spectrum
from htsr.steering import AlphaDecay, TailAlpha, TBSigmoid, TempBalance
from htsr.steering.signals import Reader

ALPHAS = np.array([2.4, 5.1, 3.3, 2.9, 4.2, 3.0])


@pytest.fixture
def optimized(monkeypatch):
    """A model with three blocks of two matrices whose alphas are fixed, and its optimizer."""
    signals = []

    def read(reader, model, names, *, interval):
        signals.append(reader.signal)
        assert len(names) == len(ALPHAS)
        return pd.DataFrame({"value": ALPHAS, "low": ALPHAS - 9, "high": ALPHAS + 9}, index=names)

    monkeypatch.setattr(Reader, "read_model", read)
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(5, 8),
            "blocks": nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(3)),
            "head": nn.Linear(8, 5),
        }
    )
    return model, AdamW(model.parameters(), lr=0.1, weight_decay=0.1)


def used(schedule, optimizer, setting):
    """Return the values with which the steered groups go into a step."""
    values = []
    optimizer.register_step_pre_hook(lambda *_: values.extend(group[setting] for group in optimizer.param_groups))
    optimizer.step()
    return values


def test_temp_balance(optimized):
    model, optimizer = optimized
    schedule = TempBalance(optimizer, model, low=0.6, high=1.4, min_eigenvalues=1)
    published = np.interp(ALPHAS, [min(ALPHAS), max(ALPHAS)], [0.6 * 0.1, 1.4 * 0.1])
    assert used(schedule, optimizer, "lr") == pytest.approx([0.1, *published], rel=1e-14)
    assert schedule._reader.signal == TailAlpha("median")


def test_alpha_decay(optimized):
    model, optimizer = optimized
    schedule = AlphaDecay(optimizer, model, min_eigenvalues=1)
    published = np.interp(ALPHAS, [min(ALPHAS), max(ALPHAS)], [2 / 3 * 0.1, 5 * 0.1])
    assert used(schedule, optimizer, "weight_decay") == pytest.approx([0.1, *published], rel=1e-14)


@pytest.mark.parametrize(("strength", "slope", "strength_low"), [(1.0, 10.0, None), (2.0, 3.0, 1.0)])
def test_tb_sigmoid(optimized, strength, slope, strength_low):
    model, optimizer = optimized
    schedule = TBSigmoid(optimizer, model, strength=strength, slope=slope, strength_low=strength_low, min_eigenvalues=1)
    means = ALPHAS.reshape(3, 2).mean(axis=1)
    diffs = means - means.mean()
    strengths = [strength if x > 0 or strength_low is None else strength_low for x in diffs]
    published = [10 ** (s * (1 / (1 + np.exp(-slope * x)) - 0.5)) for s, x in zip(strengths, diffs, strict=True)]
    assert list(schedule.multipliers.values()) == pytest.approx(published, rel=1e-13)
    assert used(schedule, optimizer, "lr") == pytest.approx([0.1, *(0.1 * x for x in published)], rel=1e-13)


@pytest.mark.parametrize("preset", [TempBalance, TBSigmoid, AlphaDecay])
def test_presets_take_arms_and_means(optimized, preset):
    model, optimizer = optimized
    by_arm = {}
    for arm in ("measured", "shuffled", "inverted", "uniform"):
        schedule = preset(optimizer, model, min_eigenvalues=1, arm=arm, mean="geometric", seed=1, every=7)
        by_arm[arm] = np.array(list(schedule.multipliers.values()))
        assert np.log(by_arm[arm]).mean() == pytest.approx(0, abs=1e-12)
        schedule.remove()
    assert sorted(by_arm["shuffled"]) == sorted(by_arm["inverted"]) == sorted(by_arm["measured"])
    assert not np.array_equal(by_arm["shuffled"], by_arm["measured"])
    assert np.array_equal(np.argsort(by_arm["inverted"]), np.argsort(by_arm["measured"])[::-1])
    assert (by_arm["uniform"] == 1).all()


def test_hill_is_the_alpha_of_the_published_code():
    torch.manual_seed(0)
    evals = torch.linalg.svdvals(torch.randn(41, 33, dtype=torch.float64)).square().sort().values
    log, n = evals.log(), len(evals)
    start = n // 2
    published = 1 + (n - start) / (log[start:].sum() - (n - start) * log[start])
    alpha, low, high = TailAlpha("median").reading(Spectrum(evals.numpy(), (41, 33)))
    assert alpha == pytest.approx(float(published), rel=1e-12)
    assert high - alpha == pytest.approx(1.96 * (alpha - 1) / np.sqrt(n - start))
    assert low + high == pytest.approx(2 * alpha)
