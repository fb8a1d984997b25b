"""Is a change of alpha larger than the one that training again makes by itself?

The measure is log(alpha - 1), whose error for a given length of the tail is the same for every alpha. Its deviations over
trainings are the smallest of three networks (``benchmarks/repeatability.py``), so a change within them is within what training
again does to any of these; a larger change may still be no more than that.
"""

import math

# Standard deviation over trainings of log(alpha - 1) of one layer, and of that of the median alpha of a model.
LAYER_DEVIATION, MEDIAN_DEVIATION = 0.13, 0.085
# Of two trainings of one network, 95 % differ by at most so many deviations of a difference.
NORMAL_95 = 1.96


def score_of_change(alpha_a: float, alpha_b: float) -> float:
    """Return a change of alpha in standard deviations of the difference between two trainings; NaN if either has no fit."""
    if math.isnan(alpha_a + alpha_b):
        return math.nan
    return (math.log(alpha_b - 1) - math.log(alpha_a - 1)) / (math.sqrt(2) * LAYER_DEVIATION)


def medians_in_words(alpha_a: float, alpha_b: float) -> str:
    """Return whether two medians differ by more than training again does; empty if they are equal."""
    if alpha_a == alpha_b:
        return ""
    factor = math.exp(NORMAL_95 * math.sqrt(2) * MEDIAN_DEVIATION)
    low, high = 1 + (alpha_a - 1) / factor, 1 + (alpha_a - 1) * factor
    if low <= alpha_b <= high:
        return f"within what training again does ({low:.2f} to {high:.2f})"
    return f"more than training one network again did ({low:.2f} to {high:.2f})"
