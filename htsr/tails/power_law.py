"""The continuous power law p(x) ~ x^-alpha for x >= xmin, fitted to the tail of a spectrum."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from htsr.tails.alternatives import Comparison, compare_tail
from htsr.tails.resampling import MIN_RESAMPLES, Interval, Refits, refit_resamples, symmetric_interval
from htsr.tails.xmin_scan import KS, Tail, candidates, deviations, distance, fit_exponent, scan_all, scan_best

XminName = Literal["ks", "median", "median-paper", "peak", "peak-as-published"]
XminRule = float | XminName
XMIN_RULES: tuple[XminName, ...] = get_args(XminName)
SCANNED = ("ks", "peak", "peak-as-published")

# A fit needs this many distinct values. WeightWatcher 0.7.7 takes layers from 8 eigenvalues on.
MIN_DISTINCT = 8
# Values closer together than this, relative to the largest, count as equal: an orthogonal matrix stored in float32 has
# eigenvalues 1 +- 1e-7, and a fit to that rounding would answer alpha = 2e7 and call it a success.
MIN_SPREAD = 1e-5
# Below this many values in the tail the fit says so. At 10 the standard error is a third of alpha - 1.
SHORT_TAIL = 10
# WeightWatcher's clip_xmax: at most this many large values are taken for "fingers", each attempt must lower alpha by 1.
MAX_FINGERS, FINGER_DROP = 9, 1.0
LARGEST = float(np.finfo(np.float64).max)
# Bins of the histogram of log10 eigenvalues whose peak bounds xmin (AlphaPruning's xmin_peak).
PEAK_BINS, PEAK_LOW, PEAK_HIGH = 100, 0.95, 1.5


@dataclass(frozen=True)
class _Rule:
    """How a tail is chosen: everything needed to choose it again in a resample."""

    xmin: XminRule
    ks: KS
    num_left_out: int = 0


@dataclass(frozen=True)
class PowerLawFit:
    """A power law fitted to the tail of a spectrum, or the reason why there is none.

    Attributes:
        alpha: Exponent of the density, ``p(x) ~ x^-alpha``. NaN if the fit failed.
        xmin: Where the tail starts.
        xmax: The largest value that was fitted.
        D: Kolmogorov-Smirnov distance between tail and fit; see ``htsr.tails.xmin_scan``.
        sigma: ``(alpha - 1) / sqrt(n_tail)``, the standard error of alpha for a given xmin. It does not count the
            choice of xmin; ``confidence_interval`` does.
        n_tail: Number of values >= xmin; above it with ``xmin="median-paper"``.
        n: Number of positive values the fit chose from.
        log_likelihood: Natural log-likelihood of the tail.
        status: ``success`` or ``failed``.
        reason: Why it failed, with the numbers; on success empty, or what to be wary of.
        num_fingers: How many of the largest values were left out as spurious; 0 unless ``clip_fingers`` was set.
        values: The n values, ascending.
    """

    alpha: float
    xmin: float
    xmax: float
    D: float
    sigma: float
    n_tail: int
    n: int
    log_likelihood: float
    status: Literal["success", "failed"] = "success"
    reason: str = ""
    num_fingers: int = 0
    values: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    _rule: _Rule = field(default=_Rule("ks", KS()), repr=False, compare=False)

    @classmethod
    def failed(cls, reason: str, n: int = 0) -> "PowerLawFit":
        """A refused fit: every number NaN, and the reason."""
        nan = float("nan")
        return cls(nan, nan, nan, nan, nan, 0, n, nan, "failed", reason)

    @property
    def tail(self) -> np.ndarray:
        """The n_tail values that were fitted, ascending."""
        return self.values[len(self.values) - self.n_tail :]

    @property
    def alpha_bias_corrected(self) -> float:
        """The exponent without the bias of maximum likelihood for a given xmin.

        Notes:
            The logarithms of a Pareto tail over its start are exponential with rate ``a = alpha - 1``. Where xmin is itself
            one of the values, its own term is 0 and the sum of the other ``n_tail - 1`` is Gamma distributed, so that
            ``E[n_tail / sum] = a n_tail / (n_tail - 2)``; a given xmin that is no value leaves all ``n_tail`` terms and
            ``a n_tail / (n_tail - 1)``. The estimate is multiplied by the inverse. What the choice of xmin adds is left:
            on exact Pareto samples of 100 values about half of the bias goes.
        """
        terms = self.n_tail - (self.values[len(self.values) - self.n_tail] == self.xmin) if self.n_tail else 0
        return 1 + (self.alpha - 1) * (terms - 1) / self.n_tail if terms > 1 else float("nan")

    def confidence_interval(self, level: float = 0.95, n_boot: int = 500, seed: int = 0) -> Interval:
        """Interval for alpha that counts the choice of xmin.

        A symmetric bootstrap interval on log(alpha - 1) from semiparametric resamples in each of which xmin is chosen anew;
        see ``htsr.tails.resampling``.

        Args:
            level: Nominal coverage.
            n_boot: Number of resamples.
            seed: Seed; the same seed gives the same interval.

        Returns:
            ``(low, high)``; NaN for a failed fit.

        Raises:
            ValueError: If ``level`` is not between 0 and 1, ``n_boot`` is below 20, ``seed`` is negative, or the largest values
                were left out of the fit by ``xmax`` or ``clip_fingers``.

        Example:
            >>> x = np.random.default_rng(0).pareto(1.5, size=200) + 1
            >>> low, high = fit_power_law(x).confidence_interval()
            >>> print(f"{low:.2f} to {high:.2f}")
            2.19 to 2.67
        """
        _check_level(level)
        refits = self._refits(n_boot, seed)
        if refits is None:
            return Interval(float("nan"), float("nan"))
        return symmetric_interval(self.alpha, self.n_tail, refits, level)

    def xmin_interval(self, level: float = 0.95, n_boot: int = 500, seed: int = 0) -> Interval:
        """Percentile interval of the xmin that resamples choose.

        Args:
            level: Share of the resamples inside.
            n_boot: Number of resamples.
            seed: Seed.

        Returns:
            ``(low, high)``; NaN for a failed fit.

        Raises:
            ValueError: As ``confidence_interval``.
        """
        _check_level(level)
        refits = self._refits(n_boot, seed)
        if refits is None:
            return Interval(float("nan"), float("nan"))
        low, high = np.quantile(refits.xmin, [(1 - level) / 2, (1 + level) / 2])
        return Interval(float(low), float(high))

    def goodness_of_fit(self, n_boot: int = 200, seed: int = 0) -> float:
        """Clauset's p-value: how often data that *are* a power law above xmin fit no better.

        Args:
            n_boot: Number of resamples; the p-value is known to about ``0.5 / sqrt(n_boot)``.
            seed: Seed.

        Returns:
            Share of the resamples with a D at least as large. Small values (Clauset: up to 0.1) rule the power law out;
            large ones do not prove it, least of all with few values. NaN for a failed fit.

        Raises:
            ValueError: As ``confidence_interval``.
        """
        refits = self._refits(n_boot, seed)
        return float("nan") if refits is None else float(np.mean(refits.D >= self.D))

    def compare(self, alternative: str) -> Comparison:
        """The power law against another distribution on the same tail.

        Args:
            alternative: ``lognormal``, ``exponential``, ``stretched_exponential`` or ``truncated_power_law``. For the
                E-TPL of the literature, a truncated power law from the peak of the spectrum on, compare a fit made with
                ``xmin="peak"``.

        Returns:
            Log-likelihood ratio, p-value and what they favour.

        Raises:
            ValueError: If the alternative is unknown, or the fit failed.
        """
        if self.status == "failed":
            raise ValueError(f"there is no fit to compare: {self.reason}")
        return compare_tail(self.tail, self.xmin, self.alpha, alternative)

    def scan(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every candidate for xmin with its alpha and D, for the picture of D against xmin.

        Returns:
            Three rows: xmin ascending, alpha, D.

        Raises:
            ValueError: If the fit failed.
        """
        if self.status == "failed":
            raise ValueError(f"there is no scan to show: {self.reason}")
        starts, alphas, distances = scan_all(self.values, ks=self._rule.ks)
        return self.values[starts], alphas, distances

    def _refits(self, n_boot: int, seed: int) -> Refits | None:
        check_resampling(n_boot, seed)
        if self.status == "failed":
            return None
        if self._rule.num_left_out:
            raise ValueError(
                f"resampling needs a fit to all values: {self._rule.num_left_out} of the largest were left out here, and "
                "draws from the fitted power law would have them"
            )
        return self._cached_refits(n_boot, seed)

    def _cached_refits(self, n_boot: int, seed: int) -> Refits:
        """Interval and goodness of fit ask for the same refits one after the other."""
        key = (n_boot, seed)
        if key not in self._refit_cache:
            self._refit_cache.clear()
            select = partial(select_tail, rule=self._rule)
            self._refit_cache[key] = refit_resamples(self.values, self.xmin, self.alpha, select, n_boot, seed)
        return self._refit_cache[key]

    @cached_property
    def _refit_cache(self) -> dict[tuple[int, int], Refits]:
        return {}

    def __repr__(self) -> str:
        if self.status == "failed":
            return f"PowerLawFit(failed: {self.reason})"
        caution = f"; {self.reason}" if self.reason else ""
        return (
            f"PowerLawFit(alpha={self.alpha:.3f}, sigma={self.sigma:.3f}, xmin={self.xmin:.4g}, D={self.D:.4f}, "
            f"{self.n_tail} of {self.n} values in the tail{caution})"
        )


def fit_power_law(
    eigenvalues: ArrayLike,
    *,
    xmin: XminRule = "ks",
    xmax: float | int | Literal["max"] | None = None,
    two_sided: bool = False,
    clip_fingers: bool = False,
    resolution: float = MIN_SPREAD,
) -> PowerLawFit:
    """Fit a power law to the tail of a spectrum.

    Args:
        eigenvalues: A ``Spectrum``, or values >= 0 in any order. Zeros are left out: no power law reaches them.
        xmin: Where the tail starts.

            - ``"ks"`` tries every value and keeps the one with the smallest KS distance (Clauset, Shalizi and Newman 2009,
              section 3.3; the first on ties).
            - A number is taken as given, whether or not it is one of the values.
            - ``"median"`` is the middle value, as TempBalance, AlphaPruning, AlphaDecay and FARMS compute it: xmin is one of
              the tail's own k + 1 values, which makes alpha - 1 larger by (k + 1) / k than Hill's estimate with the same
              threshold. ``"median-paper"`` is Hill's, with k = n/2, as their papers have it. See ``hill`` for what
              these numbers mostly measure.
            - ``"peak"`` is the best by KS between 0.95 and 1.5 times the peak of a histogram of the logarithms.
              ``"peak-as-published"`` has log10(0.95 peak) for the lower bound, the slip in WeightWatcher, TempBalance,
              AlphaPruning and FARMS that their published numbers contain.
        xmax: None fits every value. ``"max"`` is the convention of papers before 2023 (WeightWatcher up to 0.6.4): alpha is
            the same for a given xmin, but the fitted distribution ends at the largest value when D is computed, so that
            other tails win. A float does the same after leaving out the values above it. An int leaves out that many of
            the largest values and then fits as with None.
        two_sided: Use the textbook KS distance; see ``htsr.tails.xmin_scan.KS``.
        clip_fingers: If leaving out one of the largest values, or two, up to nine, lowers alpha by more than 1, do so and
            report how many. WeightWatcher's ``fix_fingers="clip_xmax"`` is the same from two on.
        resolution: Values that all lie within this share of the largest count as equal.

    Returns:
        The fit. It is refused, with ``status="failed"`` and a reason, where the values do not carry one: fewer than 8
        distinct, all equal, fewer than 2 distinct at or above a given xmin, or a scan whose best tail has only two distinct
        values. A fit that rests on fewer than 10 values says so in ``reason``.

    Raises:
        ValueError: If a value is negative or not finite, or ``xmin`` or ``xmax`` is none of the above.

    Example:
        >>> x = np.random.default_rng(0).pareto(1.5, size=2000) + 1   # alpha = 2.5
        >>> fit_power_law(x)
        PowerLawFit(alpha=2.484, sigma=0.033, xmin=1.004, D=0.0128, 1992 of 2000 values in the tail)
    """
    if hasattr(eigenvalues, "detach"):  # a torch tensor, of any type and on any device
        eigenvalues = eigenvalues.detach().double().cpu().numpy()
    if np.iscomplexobj(eigenvalues):
        raise ValueError("expected real values, got complex ones: eigenvalues of W^T W come from eigvalsh, not eigvals")
    if not 0 <= resolution < 1:
        raise ValueError(f"expected resolution in [0, 1), got {resolution}")
    x = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())
    if not np.isfinite(x).all() or (x < 0).any():
        raise ValueError(
            f"expected finite values >= 0, got {int((~np.isfinite(x)).sum())} non-finite and "
            f"{int((x < 0).sum())} negative among {len(x)}"
        )
    check_xmin(xmin)
    positive = x[x > 0]
    x = _apply_xmax(positive, xmax)
    ks = KS(two_sided=two_sided, truncated=xmax is not None and not _is_count(xmax))
    rule = _Rule(xmin, ks, num_left_out=len(positive) - len(x))
    fit = _fit(x, rule, resolution)
    if not clip_fingers or fit.status == "failed":
        return fit
    for num_fingers in range(1, MAX_FINGERS + 1):
        clipped = _fit(x[:-num_fingers].copy(), replace(rule, num_left_out=rule.num_left_out + num_fingers), resolution)
        if clipped.status == "success" and clipped.alpha < fit.alpha - FINGER_DROP:
            return replace(clipped, num_fingers=num_fingers)
    return fit


def select_tail(x: np.ndarray, rule: _Rule) -> Tail | None:
    """Choose the tail of a sample.

    Args:
        x: Positive values, ascending.
        rule: How.

    Returns:
        The tail; None where there is none.
    """
    if len(x) < 2 or x[0] == x[-1]:
        return None
    if rule.xmin == "ks":
        return scan_best(x, ks=rule.ks)
    if rule.xmin in SCANNED:
        starts = candidates(x)
        low, high = _peak_range(x, as_published=rule.xmin == "peak-as-published")
        return scan_best(x, starts[(x[starts] >= low) & (x[starts] <= high)], rule.ks)
    if rule.xmin == "median":
        xmin = float(x[len(x) // 2])
    elif rule.xmin == "median-paper":
        xmin = float(x[len(x) - len(x) // 2 - 1])
    else:
        xmin = float(rule.xmin)
    start = int(np.searchsorted(x, xmin, side="right" if rule.xmin == "median-paper" else "left"))
    tail = x[start:]
    if not len(tail) or tail[0] == tail[-1]:
        return None
    alpha = fit_exponent(np.log(tail), float(np.log(xmin)))
    return Tail(start, alpha, distance(deviations(tail, alpha, xmin, rule.ks), rule.ks), xmin)


def _fit(x: np.ndarray, rule: _Rule, resolution: float) -> PowerLawFit:
    distinct = len(np.unique(x))
    if distinct < MIN_DISTINCT:
        return PowerLawFit.failed(f"{distinct} distinct positive values, a fit needs {MIN_DISTINCT}", len(x))
    if x[-1] - x[0] < resolution * x[-1]:
        return PowerLawFit.failed(
            f"all {len(x)} values are equal to within {resolution:.1g} of the largest ({x[0]:.6g} to {x[-1]:.6g})",
            len(x),
        )
    found = select_tail(x, rule)
    if found is None:
        return PowerLawFit.failed(_no_tail(x, rule), len(x))
    start, alpha, D, xmin = found
    tail = x[start:]
    if not math.isfinite(alpha):
        return PowerLawFit.failed(
            f"the best tail is {len(tail)} values that are equal to rounding ({tail[0]:.6g})", len(x)
        )
    if rule.xmin in SCANNED and len(np.unique(tail)) <= 2:
        return PowerLawFit.failed(
            f"xmin at the edge: the best tail is the {len(tail)} largest of {len(x)} values (D {D:.3f})", len(x)
        )
    n_tail = len(tail)
    log_xmin = math.log(xmin)
    log_likelihood = n_tail * (math.log(alpha - 1) - log_xmin) - alpha * float(np.sum(np.log(tail) - log_xmin))
    x.flags.writeable = False
    return PowerLawFit(
        alpha=alpha,
        xmin=xmin,
        xmax=float(x[-1]),
        D=D,
        sigma=(alpha - 1) / math.sqrt(n_tail),
        n_tail=n_tail,
        n=len(x),
        log_likelihood=log_likelihood,
        reason=f"rests on {n_tail} values" if n_tail < SHORT_TAIL else "",
        values=x,
        _rule=rule,
    )


def _no_tail(x: np.ndarray, rule: _Rule) -> str:
    if isinstance(rule.xmin, str):
        return f"no value can start a tail under xmin={rule.xmin!r}"
    return f"{int((x >= rule.xmin).sum())} of {len(x)} values at or above the given xmin={rule.xmin:g}"


def _peak_range(x: np.ndarray, *, as_published: bool) -> tuple[float, float]:
    counts, edges = np.histogram(np.log10(x), bins=PEAK_BINS)
    peak = 10 ** edges[np.argmax(counts)]
    low = PEAK_LOW * peak
    return float(np.log10(low) if as_published else low), float(PEAK_HIGH * peak)


def _apply_xmax(x: np.ndarray, xmax: float | int | str | None) -> np.ndarray:
    if xmax is None or xmax == "max":
        return x
    if _is_count(xmax) and 0 <= int(xmax):
        return x[: max(0, len(x) - int(xmax))]
    if isinstance(xmax, float | np.floating) and xmax > 0:
        return x[x <= xmax]
    raise ValueError(
        f"expected xmax=None, 'max', a positive float (largest value to fit) or an int >= 0 (how many of the largest values "
        f"to leave out), got {xmax!r}"
    )


def _is_count(xmax: object) -> bool:
    return isinstance(xmax, int | np.integer) and not isinstance(xmax, bool)


def check_xmin(xmin: object) -> None:
    """Refuse what is no rule for xmin.

    Args:
        xmin: What was given.

    Raises:
        ValueError: If it is neither one of ``XMIN_RULES`` nor a positive number.
    """
    number = isinstance(xmin, int | float | np.integer | np.floating) and not isinstance(xmin, bool)
    if not (0 < xmin < LARGEST if number else xmin in XMIN_RULES):  # type: ignore[operator]
        raise ValueError(f"expected xmin to be a positive number or one of {', '.join(XMIN_RULES)}, got {xmin!r}")


def check_resampling(n_boot: int, seed: int) -> None:
    """Refuse what is no number of resamples or no seed.

    Args:
        n_boot: Number of resamples.
        seed: Seed.

    Raises:
        ValueError: If they are not whole numbers, ``n_boot`` is below 20 or ``seed`` below 0.
    """
    if not (isinstance(n_boot, int | np.integer) and n_boot >= MIN_RESAMPLES):
        raise ValueError(f"expected a whole number n_boot >= {MIN_RESAMPLES}, got {n_boot!r}")
    if not (isinstance(seed, int | np.integer) and seed >= 0):
        raise ValueError(f"expected a whole number seed >= 0, got {seed!r}")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"expected level between 0 and 1, got {level}")
