"""Runs that differ in their seed count as one: means over seeds, differences paired by seed, and how many seeds it takes.

A table here has one row a run: its settings, and the metric as ``value``.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from htsr.errors import InputError
from htsr.training.store.capture import WEIGHTS
from htsr.training.store.tables import rows_frame

if TYPE_CHECKING:
    from htsr.training.store.history import History

logger = logging.getLogger(__name__)

SEED, RUN, VALUE, LAST_STEP = "seed", "run", "value", "last_step"
# Names that tables over seeds need for themselves.
RESERVED = {
    RUN, VALUE, LAST_STEP, "mean", "sd", "low", "high", "n", "difference", "visible", "seeds_needed", "at_edge",
}  # fmt: skip
# Intervals are those of 95 %, and a number of seeds is one that shows a difference in 80 % of studies.
LEVEL, POWER = 0.95, 0.8
# More seeds than this are not looked for.
MOST_SEEDS = 100_000


def value_of(history: "History", metric: str) -> float:
    """Return a metric of a run: the end of a recorded scalar, or the median over layers of a column at the last capture.

    The end of a scalar with at least 20 values is the mean of the last tenth.
    """
    if metric in history.last_scalars:
        return float(history.last_tenths().get(metric, history.last_scalars[metric]))
    if not len(history):
        return math.nan
    return float(history.over_steps(metric, WEIGHTS).iloc[-1].median())


def values(histories: Mapping[str, "History"], metric: str) -> pd.DataFrame:
    """Return the settings and the metric of each run."""
    without = [label for label, history in histories.items() if metric not in history.last_scalars and len(history)]
    if without and metric not in rows_frame([]):
        known = sorted({name for history in histories.values() for name in history.last_scalars})
        if metric in known:
            raise InputError(
                f"expected every run to have recorded {metric!r}, but {len(without)} of {len(histories)} did not, such as "
                f"{without[0]!r}: keep the others by runs.where(...)"
            )
        raise ValueError(
            f"expected a recorded scalar ({', '.join(known) or 'none'}) or a column of details, got {metric!r}"
        )
    rows = [
        {**history.settings, RUN: label, VALUE: value_of(history, metric), LAST_STEP: _last_step(history)}
        for label, history in histories.items()
    ]
    return pd.DataFrame(rows)


def _last_step(history: "History") -> int:
    """Return the last step that a run captured or recorded; -1 if there is none."""
    return max([*history.steps[-1:], *history.scalars["step"].tail(1)], default=-1)


def by_setting(table: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Return mean, standard deviation, 95 % interval of the mean and number of runs for each value of the settings."""
    _check_known(table, settings)
    _check_nothing_else_differs(table, settings)
    _check_one_run_a_seed(table, settings)
    _warn(table, "are left out, which makes their setting look better than it is")
    rows = []
    for key, group in table.groupby(list(settings), sort=True):
        known = group[VALUE][np.isfinite(group[VALUE])]
        low, high = interval(known.to_numpy())
        rows.append((*key, known.mean(), known.std(ddof=1), low, high, len(known)))
    return pd.DataFrame(rows, columns=[*settings, "mean", "sd", "low", "high", "n"])


def paired(table: pd.DataFrame, setting: str, baseline: object, see: float | None) -> pd.DataFrame:
    """Return the difference of each value of a setting from the baseline, paired by seed, with its 95 % interval."""
    _check_known(table, [setting, SEED])
    _check_one_run_a_seed(table, [setting])
    _check_nothing_else_differs(table, [setting])
    _warn(table, "are left out with their pairs, which makes their setting look better than it is")
    wide = table.assign(**{VALUE: _finite(table, math.nan)}).pivot(index=SEED, columns=setting, values=VALUE)
    if baseline not in wide:
        raise ValueError(f"expected baseline= to be one of {', '.join(map(str, wide))}, got {baseline!r}")
    rows = []
    for value in wide:
        if value == baseline:
            continue
        differences = (wide[value] - wide[baseline]).dropna().to_numpy()
        low, high = interval(differences)
        mean, sd = (float(differences.mean()) if len(differences) else math.nan), deviation(differences)
        n, needed = len(differences), seeds_needed(sd, abs(mean) if see is None else see)
        rows.append((value, mean, low, high, n, sd, smallest_difference(sd, n), needed))
    columns = [setting, "difference", "low", "high", "n", "sd", "visible", "seeds_needed"]
    return pd.DataFrame(rows, columns=columns).astype({"n": "int64", "seeds_needed": "Int64"})


def best(table: pd.DataFrame, setting: str, tuned: str, *, lowest: bool) -> pd.DataFrame:
    """Return the value of a tuned setting with the best mean, for each value of another one; a best at the edge is told.

    A value that has a run without a finite metric loses.
    """
    _check_known(table, [setting, tuned])
    _check_nothing_else_differs(table, [setting, tuned])
    _check_one_run_a_seed(table, [setting, tuned])
    _warn(table, f"make their {tuned} lose")
    table = table.assign(_number=_numbers(table, tuned))
    rows = []
    for value, group in table.groupby(setting, sort=True):
        left = group.groupby("_number").filter(lambda runs: np.isfinite(runs[VALUE]).all())
        if left.empty:
            rows.append((value, None, math.nan, math.nan, 0, False))
            continue
        means = _means_without_luck(left, f"{tuned} at {setting} {value}")
        chosen = means.idxmin() if lowest else means.idxmax()
        runs = left[left["_number"] == chosen]
        at_edge = chosen in (group["_number"].min(), group["_number"].max())
        mean, sd = runs[VALUE].mean(), runs[VALUE].std(ddof=1)
        rows.append((value, runs[tuned].iloc[0], mean, sd, len(runs), bool(at_edge)))
    found = pd.DataFrame(rows, columns=[setting, tuned, "mean", "sd", "n", "at_edge"])
    if found["at_edge"].any():
        edges = ", ".join(f"{row[setting]}: {row[tuned]}" for _, row in found[found["at_edge"]].iterrows())
        logger.warning(
            "the best %s lies at the edge of what was tried, so a better one may lie beyond (%s)", tuned, edges
        )
    return found


def _means_without_luck(table: pd.DataFrame, what: str) -> pd.Series:
    """Return the mean of each value of the tuned setting, less what its seeds are better or worse than others.

    These are the least squares of a mean for each value plus an effect of each seed, so that a value is not the best because it
    was tried with a lucky seed alone. Where seeds connect nothing, they are the means as they are.
    """
    values = pd.get_dummies(table["_number"], dtype="float64")
    if SEED in table:
        seeds = pd.get_dummies(table[SEED], dtype="float64").iloc[:, 1:]
        design = np.hstack([values, seeds])
        found, _, rank, _ = np.linalg.lstsq(design, table[VALUE].to_numpy(), rcond=None)
        if rank == design.shape[1]:
            return pd.Series(found[: values.shape[1]], values.columns)
        logger.warning("%s was tried with other seeds at each value, so chance may decide which is best", what)
    return table.groupby("_number")[VALUE].mean()


def interval(sample: np.ndarray) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean; NaN below two values."""
    from scipy import stats

    n = len(sample)
    if n < 2:
        return math.nan, math.nan
    margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * deviation(sample) / math.sqrt(n)
    mean = float(sample.mean())
    return mean - margin, mean + margin


def deviation(sample: np.ndarray) -> float:
    """Return the standard deviation of a sample; NaN below two values."""
    return float(sample.std(ddof=1)) if len(sample) > 1 else math.nan


def seeds_needed(sd: float, difference: float) -> int | None:
    """Return how many paired seeds show a difference in 80 % of studies (two-sided t test at 5 %); None where none suffice."""
    if not (sd >= 0 and difference > 0):
        return None
    low, high = 1, 2
    while _power(high, sd, difference) < POWER:
        if high > MOST_SEEDS:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, sd, difference) >= POWER else (middle, high)
    return high


def smallest_difference(sd: float, n: int) -> float:
    """Return the true difference that so many paired seeds show in 80 % of studies; NaN below two seeds."""
    from scipy.optimize import brentq

    if n < 2 or not sd > 0:
        return 0.0 if n > 1 and sd == 0 else math.nan
    # Two seeds need about 12 standard deviations, more seeds fewer.
    return float(brentq(lambda difference: _power(n, sd, difference) - POWER, 1e-9 * sd, 100 * sd))


def _power(n: int, sd: float, difference: float) -> float:
    """Return how often a paired t test of n seeds finds a true difference."""
    from scipy import stats

    if sd == 0:
        return 1.0
    bound = stats.t.ppf((1 + LEVEL) / 2, n - 1)
    return float(stats.nct.sf(bound, n - 1, difference / sd * math.sqrt(n)))


def _finite(table: pd.DataFrame, other: float) -> pd.Series:
    """Return the metric of each run, and another number where it is not finite."""
    return table[VALUE].where(np.isfinite(table[VALUE]), other)


def _numbers(table: pd.DataFrame, tuned: str) -> pd.Series:
    """Return a tuned setting as numbers, which tell where its edges are."""
    numbers = pd.to_numeric(table[tuned], errors="coerce")
    if numbers.isna().any():
        raise ValueError(
            f"expected {tuned!r} to be a number in every run, got {table.loc[numbers.isna(), tuned].iloc[0]!r}: give "
            f"the one that you tuned to the Monitor as about={{{tuned!r}: ...}}"
        )
    return numbers


def _warn(table: pd.DataFrame, consequence: str) -> None:
    """Tell of runs whose metric is not finite, and of runs that end at another step than the rest."""
    lost = table.loc[~np.isfinite(table[VALUE]), RUN]
    if len(lost):
        logger.warning("%d of %d runs have no finite value and %s: %s", len(lost), len(table), consequence, _some(lost))
    if LAST_STEP in table and table[LAST_STEP].nunique() > 1:
        short = table.loc[table[LAST_STEP] < table[LAST_STEP].max(), RUN]
        logger.warning(
            "the runs end at different steps, from %d to %d; compared is where each ended. Shorter ones: %s",
            table[LAST_STEP].min(), table[LAST_STEP].max(), _some(short),
        )  # fmt: skip


def _some(names: pd.Series) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")


def _check_known(table: pd.DataFrame, settings: Sequence[str]) -> None:
    """Refuse settings that are none, that a run does not tell, or whose name the tables need for themselves."""
    if not settings:
        raise ValueError("expected the name of a setting, got none")
    for name in settings:
        if not isinstance(name, str):
            raise TypeError(f"expected the name of a setting, got {type(name).__name__} {name!r}")
        if name in RESERVED:
            raise ValueError(
                f"expected a setting that is not called {name!r}, as a column here is: rename it in about="
            )
        missing = list(table[RUN]) if name not in table else list(table[RUN][table[name].isna()])
        if missing:
            raise ValueError(
                f"expected every run to tell {name!r}, but {missing[0]!r} does not: give it to the Monitor as "
                f"about={{{name!r}: ...}}"
            )
    if len(set(settings)) < len(settings):
        raise ValueError(f"expected different settings, got {' and '.join(settings)}")


def _check_one_run_a_seed(table: pd.DataFrame, settings: Sequence[str]) -> None:
    """Refuse runs that say of themselves that they are repetitions of each other."""
    if SEED not in table or SEED in settings:
        return
    counts = table.groupby([*settings, SEED]).size()
    if (counts > 1).any():
        *values, seed = counts.index[counts.argmax()]
        known = ", ".join(f"{name} = {value}" for name, value in zip(settings, values, strict=True))
        raise InputError(
            f"expected one run for each {', '.join(settings)} and seed, found {counts.max()} with {known} and seed = {seed}: "
            "keep the runs that you mean by runs.where(...), with the learning rate that was tuned for each for instance; runs "
            "that chance tells apart need seeds of their own in about="
        )


def _check_nothing_else_differs(table: pd.DataFrame, settings: Sequence[str]) -> None:
    """Refuse to average over runs that differ in more than their seed."""
    others = [name for name in table if name not in {*settings, SEED, RUN, VALUE, LAST_STEP}]
    for name in others:
        counts = table.groupby(list(settings))[name].nunique(dropna=False)
        if (counts > 1).any():
            raise InputError(
                f"expected runs with the same {' and '.join(settings)} to differ in their seed alone, but they differ in {name}, "
                f"too: name it as well, or keep the runs that you mean with runs.where({name}=...)"
            )
