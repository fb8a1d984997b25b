"""Largest eigenvalues that stand apart from the tail are left out of the fit if the user asks for it."""

import numpy as np
import pytest
import torch

import htsr


def fingered() -> torch.Tensor:
    """A diagonal weight whose eigenvalues follow a power law of exponent 3, but the largest makes the fit jump to 5.6."""
    return torch.diag(torch.from_numpy(np.sqrt(np.random.default_rng(31).pareto(2.0, size=40) + 1)))


def test_fingers_are_counted_and_alpha_is_that_of_the_rest():
    torch.manual_seed(0)
    weights = {"fingered": fingered(), "noise": torch.randn(90, 60)}
    plain = htsr.analyze(weights, bulk=False, progress=False)
    clipped = htsr.analyze(weights, clip_fingers=True, progress=False)
    for layer in clipped:
        fit = htsr.fit_power_law(layer.spectrum.nonzero, clip_fingers=True)
        assert (layer.row["alpha"], layer.row["num_fingers"]) == (fit.alpha, fit.num_fingers)
        assert np.isnan(layer.row["null_alpha"]) == (fit.num_fingers > 0)
    assert plain.details["num_fingers"].isna().all()
    found = clipped["fingered"]
    assert found.row["num_fingers"] == 1
    assert found.row["alpha"] < plain["fingered"].row["alpha"] - 1


def test_no_resamples_of_clipped_fits():
    with pytest.raises(ValueError, match="bootstrap=0 with clip_fingers"):
        htsr.analyze({"w": torch.randn(30, 20)}, clip_fingers=True, bootstrap=50)
