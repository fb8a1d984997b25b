"""The statistics that a layer of a given shape has if it holds nothing but noise."""

import io
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import platformdirs
import scipy

from htsr.bulk.bulk_fit import MAX_KURTOSIS, MIN_BULK_EIGENVALUES, fit_marchenko_pastur
from htsr.bulk.null_laws import bulk_share_above, draws_by_law
from htsr.bulk.wishart import wishart_eigenvalues
from htsr.files import read_regular, seal, unseal, written_aside
from htsr.spectra import metrics
from htsr.tails import fit_power_law
from htsr.tails.xmin_rules import XMIN_RULES, XminName

# Raise this whenever a draw would come out differently: files of older versions on disk are then ignored.
VERSION = 1
# Single matrices with a larger M are described by laws (``htsr.bulk.null_laws``) instead of draws, at so many levels.
DRAWN_UP_TO, LEVELS_OF_LAWS = 1024, 1000
# A draw costs about M^2 for each slice, so this bounds the time for a new shape: 1 to 2 s up to M = 1024, 15 s for another rule
# for the tail at M = 4096 on one core.
DRAWS, MIN_DRAWS, DRAWS_TIMES_M_SQUARED = 1000, 50, 1e8
# A share is counted if at least this many draws are as small, and extrapolated if fewer are.
MIN_COUNT = 10
# p-values below this are not told apart.
SMALLEST_P = 1e-6

STATISTICS = ("alpha", "D", "stable_rank", "entropy", "bulk_distance")
# Where each can lie; rounding may move an entropy slightly above 1.
RANGES = {
    "alpha": (1.0, np.inf),
    "D": (0.0, 1.0),
    "stable_rank": (1.0, np.inf),
    "entropy": (0.0, 1.0 + 1e-9),
    "bulk_distance": (0.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class NoiseNull:
    """Statistics of many draws of Gaussian noise, one array each; none depends on the scale of the weights.

    For large matrices the arrays hold quantiles at even levels in place of draws.

    Attributes:
        N: The larger side.
        M: The smaller side.
        matrices: Number of pooled slices.
        alpha: Exponent of the power law fitted to noise, ascending.
        D: KS distance of that fit, ascending.
        stable_rank: Stable rank of noise, ascending.
        entropy: Entropy of noise, ascending.
        bulk_distance: KS distance between noise and the Marchenko-Pastur law fitted to it, ascending.
    """

    N: int
    M: int
    matrices: int
    alpha: np.ndarray
    D: np.ndarray
    stable_rank: np.ndarray
    entropy: np.ndarray
    bulk_distance: np.ndarray

    def band(self, statistic: str, level: float = 0.9) -> tuple[float, float, float]:
        """Compute the median of a statistic and a band around it.

        Args:
            statistic: One of ``alpha``, ``D``, ``stable_rank``, ``entropy``, ``bulk_distance``.
            level: Share of the noise inside the band; equal shares lie below and above.

        Returns:
            Median, lower end and upper end.

        Raises:
            ValueError: If there is no such statistic.
        """
        if statistic not in STATISTICS:
            raise ValueError(f"expected one of {', '.join(STATISTICS)}, got {statistic!r}")
        return _band(self, statistic, level)

    def p_value(self, *, alpha: float, D: float, stable_rank: float, kurtosis: float = 0.0) -> float:
        """Compute how rarely noise looks this heavy-tailed.

        The test is one-sided: it does not rule out a spectrum that is flatter than noise.

        Args:
            alpha: Fitted exponent; it is large for noise.
            D: KS distance of that fit; it is large for noise, which a power law does not fit.
            stable_rank: Stable rank; it is large for noise.
            kurtosis: Excess kurtosis of the entries, which moves the largest eigenvalue of noise.

        Returns:
            Three times the smallest share of noise that has an alpha, a D or a stable rank at most as large (Bonferroni), at
            most 1. Under noise it is below q in at most a share q of the draws. If fewer than ten draws are that small, a
            lognormal law fitted to the draws gives the share. It is never below 1e-6.
        """
        seen = {
            "alpha": alpha,
            "D": D,
            "stable_rank": stable_rank * (1 + min(kurtosis, MAX_KURTOSIS) / np.sqrt(self.N * self.M)),
        }
        shares = [_share_below(self, name, value) for name, value in seen.items()]
        return float(min(1.0, len(shares) * min(shares)))

    def bulk_p_value(self, D: float) -> float:
        """Compute how rarely the bulk of noise is this far from the Marchenko-Pastur law.

        Args:
            D: KS distance of the bulk, ``MarchenkoPasturFit.D``.

        Returns:
            The p-value, never below 1e-6. It comes from a gamma law with the mean and the variance of the draws and a skewness
            of 0.75; noise follows that law down to levels of 0.1 % (``tests/bulk/test_nulls.py``).
        """
        mean, deviation = _moments(self, "bulk_distance", False)
        return max(bulk_share_above((D - mean) / deviation), SMALLEST_P)


@lru_cache(maxsize=1024)
def noise_null(N: int, M: int, matrices: int = 1, xmin: XminName = "ks") -> NoiseNull | None:
    """Draw the null of a shape, or take it from memory, from the user's cache folder, or from the laws of large matrices.

    Args:
        N: The larger side.
        M: The smaller side.
        matrices: Number of pooled slices, ``prod(kernel)`` for a convolution.
        xmin: Rule for the tail, as in ``fit_power_law``.

    Returns:
        The null, or None for fewer than 8 eigenvalues or sides below 2.

    Raises:
        TypeError: If a size is not a whole number.
        ValueError: If N is below M, a size is below 1, or ``xmin`` is unknown.

    Notes:
        The shape alone seeds the draws, so every machine and every run compares with the same noise. The folder is
        ``$HTSR_CACHE_DIR``, or else the platform's folder for caches; if it cannot be written, each process draws the null
        anew. A file there counts only if its checksum fits and its values can be such draws.

        Single matrices with M above 1024 need no draws if ``xmin`` is "ks", the default: laws that were fitted to draws give the
        quantiles of each statistic in milliseconds. Their medians and 90 % bands agree with draws as well as 50 draws, all that
        time allows at M = 4096, agree with each other (``docs/noise.md``).
    """
    if not (isinstance(N, int) and isinstance(M, int) and isinstance(matrices, int)):
        raise TypeError(f"expected whole numbers, got N={N!r}, M={M!r}, matrices={matrices!r}")
    if not N >= M >= 1 or matrices < 1:
        raise ValueError(f"expected the larger side first and sizes >= 1, got N={N}, M={M}, matrices={matrices}")
    if xmin not in XMIN_RULES:
        raise ValueError(f"expected xmin to be one of {', '.join(XMIN_RULES)}, got {xmin!r}")
    if M < 2 or M * matrices < MIN_BULK_EIGENVALUES:
        return None
    if M > DRAWN_UP_TO and matrices == 1 and xmin == "ks":
        return _null(N, M, matrices, draws_by_law(N, M, LEVELS_OF_LAWS))
    path = cache_folder() / f"noise-v{VERSION}" / f"{N}x{M}x{matrices}-{xmin}.npy"
    draws = _read(path, _count(M, matrices))
    if draws is None:
        draws = np.sort(_draw(N, M, matrices, xmin), axis=1)
        _write(path, draws)
    return _null(N, M, matrices, draws)


def _null(N: int, M: int, matrices: int, draws: np.ndarray) -> NoiseNull:
    """Return a null that nobody can change, since every caller gets the same one."""
    draws.flags.writeable = False
    return NoiseNull(N, M, matrices, *draws)


def cache_folder() -> Path:
    """Return the folder that keeps nulls between runs."""
    return Path(os.environ.get("HTSR_CACHE_DIR") or platformdirs.user_cache_dir("htsr", appauthor=False))


def _share_below(null: NoiseNull, statistic: str, value: float) -> float:
    """Return the share of noise at or below a value."""
    draws = getattr(null, statistic)
    count = int(np.searchsorted(draws, value, side="right"))
    if count >= MIN_COUNT:
        return (1 + count) / (1 + len(draws))
    mean, deviation = _moments(null, statistic, True)
    return max(SMALLEST_P, float(scipy.special.ndtr((np.log(value) - mean) / deviation)))


# Layers of one shape ask for the same band and moments again and again, hence the caches.
@lru_cache(maxsize=4096)
def _band(null: NoiseNull, statistic: str, level: float) -> tuple[float, float, float]:
    """Return median, lower end and upper end of a statistic of noise."""
    low, median, high = np.nanquantile(getattr(null, statistic), [(1 - level) / 2, 0.5, (1 + level) / 2])
    return float(median), float(low), float(high)


@lru_cache(maxsize=4096)
def _moments(null: NoiseNull, statistic: str, of_logs: bool) -> tuple[float, float]:
    """Return mean and standard deviation of the draws, or of their logarithms."""
    draws = np.log(getattr(null, statistic)) if of_logs else getattr(null, statistic)
    return float(np.nanmean(draws)), float(np.nanstd(draws, ddof=1))


def _count(M: int, matrices: int) -> int:
    """Return how many draws a shape gets."""
    return int(np.clip(DRAWS_TIMES_M_SQUARED / (M**2 * matrices), MIN_DRAWS, DRAWS))


def _draw(N: int, M: int, matrices: int, xmin: XminName) -> np.ndarray:
    """Return the statistics of fresh noise, shape ``(5, draws)``."""
    rng = np.random.default_rng([VERSION, N, M, matrices])
    rows = []
    for _ in range(_count(M, matrices)):
        evals = np.sort(np.concatenate([wishart_eigenvalues(N, M, rng) for _ in range(matrices)]))
        fit = fit_power_law(evals[evals > 0], xmin=xmin)
        bulk = fit_marchenko_pastur(evals, N, M)
        bulk_distance = np.nan if bulk is None else bulk.D
        rows.append((fit.alpha, fit.D, metrics.stable_rank(evals), metrics.entropy(evals), bulk_distance))
    return np.array(rows).T


def _read(path: Path, count: int) -> np.ndarray | None:
    """Return the draws in a file, or None if it is missing, damaged, or holds anything but so many draws for this very shape."""
    try:
        content = unseal(read_regular(path), path.name)
        draws = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError):
        return None
    return draws if _are_draws(draws, count) else None


def _are_draws(draws: np.ndarray, count: int) -> bool:
    """Return whether an array can be what ``noise_null`` drew: sorted statistics that vary and lie where theirs lie."""
    if draws.dtype != np.float64 or draws.shape != (len(STATISTICS), count):
        return False
    for name, values in zip(STATISTICS, draws, strict=True):
        known = values[~np.isnan(values)]
        if name != "bulk_distance" and len(known) < count:  # noise of tiny shapes may have no bulk
            return False
        low, high = RANGES[name]
        if len(known) and not (low <= known[0] and known[-1] <= high and np.isfinite(known).all()):
            return False
        if len(known) > 1 and not (known[0] < known[-1] and (np.diff(known) >= 0).all()):
            return False
    return True


def _write(path: Path, draws: np.ndarray) -> None:
    """Write the draws in full or not at all; a folder that cannot be written is no reason to fail."""
    content = io.BytesIO()
    np.save(content, draws)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as file:
            file.write(seal(content.getvalue(), path.name))
