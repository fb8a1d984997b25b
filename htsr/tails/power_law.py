"""The continuous power law p(x) ~ x^-alpha for x >= xmin, fitted to the tail of a spectrum."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from htsr.errors import InputError
from htsr.tails.alternatives import TailComparison, compare_tail
from htsr.tails.resampling import (
    RELIABLE_TAIL,
    Interval,
    Refits,
    bootstrap_interval,
    check_level,
    check_resampling,
    percentile_interval,
    range_of_exponents,
    refit_resamples,
    share_as_far,
)
from htsr.tails.xmin_rules import SCANNED, TailRule, XminRule, check_xmin, select_tail, why_no_tail
from htsr.tails.xmin_scan import KS, candidates, scan_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.plots.style import ManyAxes

# A fit needs this many distinct values. WeightWatcher 0.7.7 takes layers from 8 eigenvalues on.
MIN_DISTINCT = 8
# Values within this share of the largest count as equal. An orthogonal matrix stored in float32 has eigenvalues 1 +- 1e-7, and
# a fit to that rounding would succeed with alpha = 2e7.
MIN_SPREAD = 1e-5
# A fit with fewer values in its tail says so in its reason. At 10 the standard error is a third of alpha - 1.
SHORT_TAIL = 10
# WeightWatcher's clip_xmax leaves out at most this many of the largest values ("fingers") and only if that lowers alpha by
# more than 1.
MAX_FINGERS, FINGER_DROP = 9, 1.0


@dataclass(frozen=True)
class PowerLawFit:
    """A power law fitted to the tail of a spectrum, or the reason why there is no fit.

    Attributes:
        alpha: Exponent of the density, ``p(x) ~ x^-alpha``. NaN if the fit failed.
        xmin: Where the tail starts.
        xmax: The largest value that was fitted.
        D: Kolmogorov-Smirnov distance between tail and fit; see ``htsr.tails.xmin_scan``.
        sigma: ``(alpha - 1) / sqrt(n_tail)``, the standard error of alpha for a given xmin. It ignores that xmin was chosen
            from the same values; ``confidence_interval`` takes that into account.
        n_tail: Number of values >= xmin; of values > xmin with ``xmin="median-paper"``.
        n: Number of positive values that the fit chose from.
        log_likelihood: Natural log-likelihood of the tail.
        status: ``success`` or ``failed``.
        reason: Why the fit failed, with the numbers; after a success empty, or a caution.
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
    _rule: TailRule = field(default=TailRule("ks", KS()), repr=False, compare=False)

    @classmethod
    def failed(cls, reason: str, n: int = 0) -> "PowerLawFit":
        """Make the fit that stands for a refusal.

        Args:
            reason: Why there is no fit.
            n: Number of positive values.

        Returns:
            A fit with status ``failed`` whose numbers are NaN.
        """
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
            The logarithms of a Pareto tail over its start are exponential with rate ``a = alpha - 1``. If xmin is one of the
            values, its own term is 0 and the sum of the other ``n_tail - 1`` has a Gamma distribution, so that
            ``E[n_tail / sum] = a n_tail / (n_tail - 2)``. An xmin that is not one of the values leaves ``n_tail`` terms and
            ``a n_tail / (n_tail - 1)``. The correction multiplies the estimate by the inverse. It does not remove the bias
            that the choice of xmin adds: on exact Pareto samples of 100 values about half of the bias remains.
        """
        terms = self.n_tail - (self.values[len(self.values) - self.n_tail] == self.xmin) if self.n_tail else 0
        return 1 + (self.alpha - 1) * (terms - 1) / self.n_tail if terms > 1 else float("nan")

    def confidence_interval(self, level: float = 0.95, n_boot: int = 500, seed: int = 0) -> Interval:
        """Compute an interval for alpha that takes the choice of xmin into account.

        This is a bootstrap interval on log(alpha - 1). The resamples are semiparametric, and each chooses its own xmin. Where
        shorter tails have another alpha, so that xmin may lie too low, the interval is wider on their side; see
        ``htsr.tails.resampling``. ``interval_caution`` says when not to rely on it.

        Args:
            level: Nominal coverage.
            n_boot: Number of resamples.
            seed: Seed; the same seed gives the same interval.

        Returns:
            ``(low, high)``; NaN for a failed fit.

        Raises:
            TypeError: If ``n_boot`` or ``seed`` is not a whole number.
            ValueError: If ``level`` is not between 0 and 1, ``n_boot`` is below 20 or ``seed`` is negative; or if ``xmax`` or
                ``clip_fingers`` left the largest values out of the fit.

        Example:
            >>> x = np.random.default_rng(0).pareto(1.5, size=200) + 1
            >>> low, high = fit_power_law(x).confidence_interval()
            >>> print(f"{low:.2f} to {high:.2f}")
            2.22 to 3.33
        """
        check_level(level)
        refits = self.refits(n_boot, seed)
        if refits is None:
            return Interval(float("nan"), float("nan"))
        low, high = range_of_exponents(self.tail, self.alpha, shorter=self._rule.xmin in SCANNED)
        return bootstrap_interval(self.n_tail, low, high, self.alpha, refits, level)

    @property
    def interval_caution(self) -> str:
        """Why an interval may hold the true exponent less often than it says: the tail is too short; else empty."""
        if self._rule.xmin not in SCANNED or self.status == "failed" or self.n_tail >= RELIABLE_TAIL:
            return ""
        return f"interval unreliable below {RELIABLE_TAIL} values"

    def xmin_interval(self, level: float = 0.95, n_boot: int = 500, seed: int = 0) -> Interval:
        """Compute a percentile interval of the xmin that resamples choose.

        Args:
            level: Share of the resamples inside the interval.
            n_boot: Number of resamples.
            seed: Seed.

        Returns:
            ``(low, high)``; NaN for a failed fit.

        Raises:
            TypeError: As ``confidence_interval``.
            ValueError: As ``confidence_interval``.
        """
        check_level(level)
        refits = self.refits(n_boot, seed)
        return Interval(float("nan"), float("nan")) if refits is None else percentile_interval(refits.xmin, level)

    def goodness_of_fit(self, n_boot: int = 200, seed: int = 0) -> float:
        """Compute Clauset's p-value: how often data that *do* follow a power law above xmin fit it no better.

        Args:
            n_boot: Number of resamples, and again of resamples of these; they give the p-value to about
                ``0.5 / sqrt(n_boot)``.
            seed: Seed.

        Returns:
            Share of data from the law whose D is at least as large, by a fast double bootstrap; see ``htsr.tails.resampling``.
            A small value (Clauset: up to 0.1) rules the power law out. A large one does not prove it, least of all with few
            values. NaN for a failed fit.

        Raises:
            TypeError: As ``confidence_interval``.
            ValueError: As ``confidence_interval``.
        """
        refits = self.refits(n_boot, seed)
        return float("nan") if refits is None else share_as_far(self.D, refits)

    def compare(self, alternative: str) -> TailComparison:
        """Compare the power law with another distribution on the same tail.

        Args:
            alternative: ``lognormal``, ``exponential``, ``stretched_exponential`` or ``truncated_power_law``. The E-TPL of the
                literature is a truncated power law that starts at the peak of the spectrum: fit with ``xmin="peak"`` and
                compare with ``truncated_power_law``.

        Returns:
            Log-likelihood ratio, p-value and the distribution that they favour.

        Raises:
            ValueError: If the alternative is unknown, or the fit failed.
        """
        if self.status == "failed":
            raise ValueError(f"there is no fit to compare: {self.reason}")
        return compare_tail(self.tail, self.xmin, self.alpha, alternative)

    def scan(self, points: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fit every candidate for xmin, for a plot of D against xmin.

        Args:
            points: Fit only this many candidates, spread evenly over their ranks, and the one that was chosen.

        Returns:
            Three arrays of one length: xmin (ascending), alpha and D.

        Raises:
            ValueError: If the fit failed.
        """
        if self.status == "failed":
            raise ValueError(f"there is no scan to show: {self.reason}")
        starts = candidates(self.values)
        if points is not None and points < len(starts):
            spread = np.linspace(0, len(starts) - 1, points).astype(int)
            chosen = np.searchsorted(self.values, self.xmin)
            starts = np.union1d(starts[spread], starts[starts == chosen])
        starts, alphas, distances = scan_all(self.values, starts, ks=self._rule.ks)
        return self.values[starts], alphas, distances

    def plot(
        self,
        kind: Literal["ccdf", "qq", "xmin", "hill", "esd"] = "ccdf",
        *,
        title: str = "",
        ax: "ManyAxes | None" = None,
    ) -> "Figure":
        """Draw the fit.

        Args:
            kind: ``"ccdf"``: the share of the tail at or above each value, with the law and the band of its bootstrap.
                ``"qq"``: the values of the tail against the quantiles of the law. ``"xmin"``: D and alpha of every candidate
                for xmin. ``"hill"``: Hill's alpha for every number of values in the tail. ``"esd"``: the density of all values,
                with the tail.
            title: What stands above the picture.
            ax: Where to draw: matplotlib axes, two of them for ``"xmin"``. A figure of its own by default.

        Returns:
            The matplotlib Figure.

        Raises:
            ValueError: If ``kind`` is none of these, or the fit failed.
        """
        from htsr import plots

        if self.status == "failed":
            raise ValueError(f"there is no fit to draw: {self.reason}")
        if kind == "hill":
            return plots.figure_of(plots.plot_hill(self.values, self, title=title, ax=ax))
        if kind == "esd":
            return plots.figure_of(plots.plot_esd(self.values, self, title=title, ax=ax))
        if kind == "xmin":
            return plots.figure_of(plots.plot_xmin_scan(self, title=title, ax=ax))
        if kind not in ("ccdf", "qq"):
            raise ValueError(f"expected kind='ccdf', 'qq', 'xmin', 'hill' or 'esd', got {kind!r}")
        draw = plots.plot_ccdf if kind == "ccdf" else plots.plot_qq
        return plots.figure_of(draw(self, title=title, ax=ax))

    def refits(self, n_boot: int = 500, seed: int = 0) -> Refits | None:
        """Fit the resamples that intervals and p-values rest on; see ``htsr.tails.resampling``.

        Args:
            n_boot: Number of resamples.
            seed: Seed.

        Returns:
            alpha, xmin, D and the number of values in the tail of each resample that has a tail; None for a failed fit.

        Raises:
            TypeError: As ``confidence_interval``.
            ValueError: As ``confidence_interval``.
        """
        check_resampling(n_boot, seed)
        if self.status == "failed":
            return None
        if self._rule.num_left_out:
            raise ValueError(
                f"resampling needs a fit to all values: this fit leaves out the {self._rule.num_left_out} largest, and draws "
                "from its power law would contain such values again"
            )
        return self._cached_refits(n_boot, seed)

    def _cached_refits(self, n_boot: int, seed: int) -> Refits:
        """Return the refits of the last call again if the arguments are the same: an interval and a p-value often share them."""
        key = (n_boot, seed)
        if key not in self._refit_cache:
            self._refit_cache.clear()
            select = partial(select_tail, rule=self._rule)
            self._refit_cache[key] = refit_resamples(
                self.values, self.xmin, self.alpha, select, shorter=self._rule.xmin in SCANNED, n_boot=n_boot, seed=seed
            )
        return self._refit_cache[key]

    @cached_property
    def _refit_cache(self) -> dict[tuple[int, int], Refits]:
        """Return the refits of the last call, by its arguments."""
        return {}

    def _repr_html_(self) -> str:
        from htsr.report.notebook import fit_html

        return fit_html(self)

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
        eigenvalues: A ``Spectrum``, or values >= 0 in any order. Zeros are left out, because no power law reaches them.
        xmin: Where the tail starts.

            - ``"ks"`` tries every value and keeps the one with the smallest KS distance, the first one if several tie
              (Clauset, Shalizi and Newman 2009, section 3.3).
            - A number is used as it is, whether or not it is one of the values.
            - ``"median"`` starts at the middle value, as TempBalance, AlphaPruning, AlphaDecay and FARMS compute it. Their
              xmin is one of the tail's own k + 1 values, so alpha - 1 is larger by (k + 1) / k than Hill's estimate with the
              same threshold. ``"median-paper"`` is Hill's estimate with k = n/2, as their papers define it. See ``hill`` for
              what these numbers mostly measure.
            - ``"peak"`` keeps the best KS distance between 0.95 and 1.5 times the peak of a histogram of the logarithms.
              ``"peak-as-published"`` repeats the slip of WeightWatcher, TempBalance, AlphaPruning and FARMS, which take
              log10(0.95 peak) for the lower bound; their published numbers contain it.
        xmax: None fits every value. ``"max"`` is the convention of papers before 2023 (WeightWatcher up to 0.6.4): alpha is
            the same for a given xmin, but for D the fitted distribution ends at the largest value, so that another tail may
            win. A float leaves out the values above it and then does the same. An int leaves out that many of the largest
            values and then fits as with None.
        two_sided: Use the textbook KS distance; see ``htsr.tails.xmin_scan.KS``.
        clip_fingers: Leave out the fewest of the largest values (one to nine) that lower alpha by more than 1, if any do, and
            report how many. WeightWatcher's ``fix_fingers="clip_xmax"`` does the same but starts at two.
        resolution: If all values lie within this share of the largest, they count as equal.

    Returns:
        The fit. Values that carry no tail give a refusal, with ``status="failed"`` and a reason: fewer than 8 distinct values,
        all values equal, fewer than 2 distinct values at or above a given xmin, or a scan whose best tail has only two
        distinct values. A fit that rests on fewer than 10 values says so in ``reason``.

    Raises:
        TypeError: If ``xmin`` or ``xmax`` is neither a number nor a string.
        ValueError: If ``xmin``, ``xmax`` or ``resolution`` is out of range or unknown.
        InputError: If a value is negative, complex or not finite.

    Example:
        >>> x = np.random.default_rng(0).pareto(1.5, size=2000) + 1   # alpha = 2.5
        >>> fit_power_law(x)
        PowerLawFit(alpha=2.484, sigma=0.033, xmin=1.004, D=0.0128, 1992 of 2000 values in the tail)
    """
    if hasattr(eigenvalues, "detach"):  # a torch tensor of any type, on any device
        eigenvalues = eigenvalues.detach().double().cpu().numpy()
    if np.iscomplexobj(eigenvalues):
        raise InputError("expected real values, got complex ones: eigenvalues of W^T W come from eigvalsh, not eigvals")
    if not 0 <= resolution < 1:
        raise ValueError(f"expected resolution in [0, 1), got {resolution}")
    x = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())
    if not np.isfinite(x).all() or (x < 0).any():
        raise InputError(
            f"expected finite values >= 0, got {int((~np.isfinite(x)).sum())} non-finite and "
            f"{int((x < 0).sum())} negative among {len(x)}"
        )
    check_xmin(xmin)
    positive = x[x > 0]
    x = _apply_xmax(positive, xmax)
    ks = KS(two_sided=two_sided, truncated=xmax is not None and not _is_count(xmax))
    rule = TailRule(xmin, ks, num_left_out=len(positive) - len(x))
    fit = _fit(x, rule, resolution)
    if not clip_fingers or fit.status == "failed":
        return fit
    for num_fingers in range(1, MAX_FINGERS + 1):
        clipped = _fit(x[:-num_fingers].copy(), replace(rule, num_left_out=rule.num_left_out + num_fingers), resolution)
        if clipped.status == "success" and clipped.alpha < fit.alpha - FINGER_DROP:
            return replace(clipped, num_fingers=num_fingers)
    return fit


def _fit(x: np.ndarray, rule: TailRule, resolution: float) -> PowerLawFit:
    """Return the fit of positive, ascending values, or a refusal."""
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
        return PowerLawFit.failed(why_no_tail(x, rule), len(x))
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


def _apply_xmax(x: np.ndarray, xmax: float | int | str | None) -> np.ndarray:
    """Return the ascending values that ``xmax`` leaves for the fit."""
    if xmax is None or xmax == "max":
        return x
    if _is_count(xmax) and 0 <= int(xmax):
        return x[: max(0, len(x) - int(xmax))]
    if isinstance(xmax, float | np.floating) and xmax > 0:
        return x[x <= xmax]
    wanted = (
        "expected xmax=None, 'max', a positive float (the largest value to fit) or an int >= 0 (how many of the largest values "
        f"to leave out), got {xmax!r}"
    )
    raise ValueError(wanted) if _is_count(xmax) or isinstance(xmax, str | float | np.floating) else TypeError(wanted)


def _is_count(xmax: object) -> bool:
    """Return whether ``xmax`` counts values rather than bounds them."""
    return isinstance(xmax, int | np.integer) and not isinstance(xmax, bool)
