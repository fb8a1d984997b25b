"""Compare a power law with other distributions on the same tail: fits of the powerlaw package and Vuong's test."""

import math
import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from htsr.tails.xmin_scan import LOG_LARGEST

Alternative = Literal["lognormal", "exponential", "stretched_exponential", "truncated_power_law"]
ALTERNATIVES: tuple[Alternative, ...] = get_args(Alternative)

_CLASSES: dict[str, str] = {
    "lognormal": "Lognormal",
    "exponential": "Exponential",
    "stretched_exponential": "Stretched_Exponential",
    "truncated_power_law": "Truncated_Power_Law",
}
# Families that contain a power law as a limit: the power law cannot beat their best member.
HAVE_A_POWER_LAW_LIMIT = ("lognormal", "stretched_exponential", "truncated_power_law")
# Without these ranges powerlaw 2.0 keeps the alpha of a truncated power law in [0, 3].
_RANGES = {"truncated_power_law": {"alpha": (0, None), "Lambda": (0, None)}}


@dataclass(frozen=True)
class TailComparison:
    """A power law compared with another distribution on the same tail.

    Attributes:
        alternative: The other distribution.
        log_likelihood_ratio: Natural log-likelihood of the power law minus that of the other distribution: positive values
            favour the power law.
        p_value: Probability of a ratio at least this far from zero if both were equally good (Vuong 1989; Clauset et al. 2009,
            appendix C.1). A truncated power law contains the power law, so there it is the probability of a gain at least
            this large without a cut-off (chi-square with one degree of freedom).
        parameters: Fitted parameters of the other distribution, in units of the data.
        favours: ``power_law`` or the name of the other distribution if the p-value is below 0.1 (Clauset's level), else
            ``neither``. If powerlaw computed an infinite density, the ratio, the p-value and the parameters are NaN and this
            is ``neither``.

    Notes:
        The power law sits on the edge of the truncated family (Lambda = 0), so the p-value as Clauset and powerlaw compute it
        is up to twice too large: the test errs in favour of the power law. The alpha of the truncated law is kept >= 0.

        Lognormals and stretched exponentials come arbitrarily close to a power law at the edge of their parameters, so a
        ratio clearly above 0 says only that the optimizer stopped short of that edge. They can win, but they cannot lose.
    """

    alternative: str
    log_likelihood_ratio: float
    p_value: float
    parameters: dict[str, float]
    favours: str


def compare_tail(tail: np.ndarray, xmin: float, alpha: float, alternative: str) -> TailComparison:
    """Return how a power law compares with another distribution on a tail that starts at ``xmin``.

    Raises:
        ValueError: If the alternative is unknown.
    """
    if alternative not in ALTERNATIVES:
        raise ValueError(f"expected alternative to be one of {', '.join(ALTERNATIVES)}, got {alternative!r}")
    import powerlaw

    log_y = np.log(tail) - math.log(xmin)
    y = np.exp(np.minimum(log_y, LOG_LARGEST))  # powerlaw's optimizers start from guesses that suit values close to 1
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        other = getattr(powerlaw, _CLASSES[alternative])(
            data=y, xmin=1.0, parameter_ranges=_RANGES.get(alternative), verbose=0
        )
        density = np.asarray(other.likelihoods(y), dtype=np.float64)
        parameters = {name: float(value) for name, value in other.parameters.items()}
        # the density of a far value can underflow to 0; the smallest normal number in its place errs in that density's favour
        difference = np.log(alpha - 1) - alpha * log_y - np.log(np.maximum(density, np.finfo(np.float64).tiny))
        ratio, deviation = float(difference.sum()), float(difference.std())
    if not (math.isfinite(ratio) and math.isfinite(deviation)):
        nan = float("nan")
        return TailComparison(alternative, nan, nan, dict.fromkeys(parameters, nan), "neither")
    if alternative == "truncated_power_law":
        ratio = min(
            ratio, 0.0
        )  # the family contains Lambda = 0, so a positive ratio only means that the optimizer missed it
        p_value = math.erfc(math.sqrt(-ratio))  # P(chi2_1 > 2 |ratio|)
    else:
        p_value = math.erfc(abs(ratio) / (math.sqrt(2 * len(y)) * deviation)) if deviation > 0 else 1.0
    favours = "neither"
    if p_value < 0.1 and ratio < 0:
        favours = alternative
    elif p_value < 0.1 and alternative not in HAVE_A_POWER_LAW_LIMIT:
        favours = "power_law"
    return TailComparison(alternative, ratio, p_value, _in_units_of_the_data(parameters, alternative, xmin), favours)


def _in_units_of_the_data(parameters: dict[str, float], alternative: str, xmin: float) -> dict[str, float]:
    """Return the parameters of the data, from those of the data divided by xmin."""
    scaled = dict(parameters)
    if alternative == "lognormal":
        scaled["mu"] += math.log(xmin)
    else:
        scaled["Lambda"] /= xmin
    return scaled
