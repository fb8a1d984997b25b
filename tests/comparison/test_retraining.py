"""Changes of alpha in units of what training again does."""

import math

import numpy as np
import pytest
import torch

import htsr
from htsr.comparison.retraining import LAYER_DEVIATION, MEDIAN_DEVIATION, medians_in_words, score_of_change
from tests.conftest import planted


def test_two_trainings_differ_by_a_score_of_one():
    rng = np.random.default_rng(0)
    alphas = 1 + 2 * np.exp(LAYER_DEVIATION * rng.normal(size=(4000, 2)))
    assert np.std([score_of_change(a, b) for a, b in alphas]) == pytest.approx(1, abs=0.03)
    assert math.isnan(score_of_change(math.nan, 2.0))
    assert score_of_change(3.0, 3.0) == 0


@pytest.mark.parametrize(("factor", "within"), [(1.05, True), (0.95, True), (2.0, False), (0.5, False)])
def test_words_say_which_side_of_the_bound_a_median_lies_on(factor, within):
    assert abs(math.log(1.05)) < 1.96 * math.sqrt(2) * MEDIAN_DEVIATION < math.log(2)
    text = medians_in_words(2.5, 1 + 1.5 * factor)
    assert ("within what training again does" in text) == within
    assert ("more than training" in text) != within


def test_a_comparison_says_so():
    rng = np.random.default_rng(0)

    def weights(alpha):
        return {f"{i}": planted(torch.tensor(rng.pareto(alpha - 1, size=80) + 1), 100) for i in range(3)}

    a, b = weights(2.2), weights(5.0)
    again, other = htsr.compare(a, weights(2.2), progress=False), htsr.compare(a, b, progress=False)
    assert "more than training one network again did" in other.headline()
    assert other.details["alpha_change_score"].min() > 2
    assert again.details["alpha_change_score"].abs().median() < 2
    same = htsr.compare(a, a, progress=False)
    assert "training" not in same.headline()
    assert (same.details["alpha_change_score"] == 0).all()
