"""The curves of several runs: one for each run, or one with a band for the runs that share a setting, such as several seeds."""

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from htsr.labels import SEED, labels, setting_text
from htsr.plots.style import category_styles, sequence_colours

if TYPE_CHECKING:
    from htsr.training import History

# What asks for a curve for each run.
RUN = "run"
# A scalar is smoothed by the mean of this share of its values.
SMOOTHED = 1 / 40


class Curve(NamedTuple):
    """One line of a picture.

    Attributes:
        label: The run, or the setting and its value.
        value: The setting's value, or the label.
        num_runs: Number of runs.
        table: ``middle``, ``low`` and ``high``, indexed by step. For one run and a metric of layers they are the median and the
            quartiles over layers; for several runs the mean and the range of their middles; a scalar of one run has no band.
    """

    label: str
    value: Any
    num_runs: int
    table: pd.DataFrame


def curves(runs: Mapping[str, "History"], name: str, by: str | None = None) -> list[Curve]:
    """Return the curves of a metric or a scalar.

    Args:
        runs: Label and history of each run.
        name: A numeric column of ``History.details``, or a column of ``History.scalars``.
        by: Draw one curve for all runs with the same value of this setting, for instance ``"power"``, or one for each run with
            ``"run"``. By default, runs of ``Runs`` that differ in their seed alone share a curve, unless somebody named them.

    Returns:
        The curves, in the order of the runs, or of the setting's values if these are numbers. A run without the scalar has
        none.

    Raises:
        ValueError: If no run has the metric or scalar, or a run does not tell the setting.
    """
    single = {label: _of_one_run(history, name) for label, history in runs.items()}
    single = {label: table for label, table in single.items() if len(table)}
    if not single:
        raise ValueError(f"no run has a value of {name!r}")
    if by is None or by == RUN:
        with_value = {label: runs[label] for label in single}
        groups = [[label] for label in single] if by == RUN else groups_of(with_value, _legend(runs))
        if all(len(group) == 1 for group in groups):
            names = _legend(runs)
            return [Curve(names.get(label, label), label, 1, table) for label, table in single.items()]
        return _of_groups(groups, runs, single)
    values = {label: setting(runs[label], by) for label in single}
    missing = [label for label, value in values.items() if value is None]
    if missing:
        raise ValueError(f"expected by= to be a setting of every run, but {missing[0]!r} does not tell {by!r}")
    distinct = list(dict.fromkeys(values.values()))
    if are_numbers(distinct):
        distinct.sort()
    found = []
    for value in distinct:
        tables = [single[label] for label in single if values[label] == value]
        found.append(
            Curve(setting_text(by, value), value, len(tables), tables[0] if len(tables) == 1 else together(tables))
        )
    return found


def groups_of(runs: Mapping[str, "History"], legend: Mapping[str, str]) -> list[list[str]]:
    """Return the labels of the runs that share a curve by default, in the order of the curves.

    Runs that differ in their seed alone share one, unless somebody named them: then ``legend`` has the labels themselves. Groups
    stand in the order of the numbers if one setting with numbers tells them apart.
    """
    if all(legend.get(label, label) == label for label in runs):
        return [[label] for label in runs]
    groups = seeds_together(runs)
    numbers = _telling(groups, runs)
    if numbers is None or all(len(group) == 1 for group in groups):
        return groups
    return sorted(groups, key=lambda group: numbers[group[0]])


def _legend(runs: Mapping[str, "History"]) -> Mapping[str, str]:
    """Return a name for each run; ``Runs`` names a run by its settings, a dictionary does not."""
    legend: Mapping[str, str] = getattr(runs, "legend", {})
    return legend


def _telling(groups: list[list[str]], runs: Mapping[str, "History"]) -> dict[str, Any] | None:
    """Return the value of the one setting that tells groups apart, by the first run of each; None unless it is a number."""
    settings = {group[0]: _without_seed(runs[group[0]]) for group in groups}
    every = list(dict.fromkeys(name for one in settings.values() for name in one))
    differing = [name for name in every if len({repr(one.get(name)) for one in settings.values()}) > 1]
    values = {first: one.get(differing[0]) for first, one in settings.items()} if len(differing) == 1 else {}
    return values if values and are_numbers(list(values.values())) else None


def _without_seed(history: "History") -> dict[str, Any]:
    """Return the settings of a run but for its seed."""
    return {name: value for name, value in history.settings.items() if name != SEED}


def seeds_together(runs: Mapping[str, "History"]) -> list[list[str]]:
    """Return the labels of runs in groups that share all settings but the seed; runs of one seed stay apart."""
    settings = {label: history.settings for label, history in runs.items()}
    groups: dict[str, list[str]] = {}
    for label in runs:
        rest = sorted((name, repr(value)) for name, value in _without_seed(runs[label]).items())
        groups.setdefault(repr(rest), []).append(label)
    found = []
    for group in groups.values():
        seeds = {settings[label].get(SEED) for label in group}
        differ = None not in seeds and len(seeds) == len(group)
        found += [group] if differ else [[label] for label in group]
    return found


def _of_groups(
    groups: list[list[str]], runs: Mapping[str, "History"], single: Mapping[str, pd.DataFrame]
) -> list[Curve]:
    """Return a curve for each group of runs, in their order."""
    labelled = labels({group[0]: _without_seed(runs[group[0]]) for group in groups})
    values = _telling(groups, runs) or labelled
    found = []
    for group in groups:
        first, tables = group[0], [single[label] for label in group]
        label = labelled[first] if len(groups) > 1 else "all runs"
        found.append(Curve(label, values[first], len(group), tables[0] if len(group) == 1 else together(tables)))
    return found


def setting(history: "History", name: str) -> Any:
    """Return a setting of a run: what ``run.json`` says, or the optimizer's first group that has it at the first capture."""
    about: Mapping[str, Any] = history.about
    for place in (about, *(part for part in about.values() if isinstance(part, Mapping))):
        if name in place and not isinstance(place[name], Mapping | list):
            return place[name]
    groups = history.groups
    known = list(groups[name].dropna()) if name in groups else []
    return known[0] if known else None


def are_numbers(values: list[Any]) -> bool:
    """Return whether all values are numbers, which have an order and so a scale of colours."""
    return all(isinstance(value, Real) and not isinstance(value, bool) for value in values)


def styles_of(found: list[Curve]) -> list[dict[str, Any]]:
    """Return the style of each curve: a scale of colours for numbers, different ones for categories."""
    if len(found) > 1 and are_numbers([curve.value for curve in found]):
        return [{"color": colour} for colour in sequence_colours(len(found))]
    return [{"color": style["color"], "linestyle": style["linestyle"]} for style in category_styles(len(found))]


def _of_one_run(history: "History", name: str) -> pd.DataFrame:
    """Return the curve of one run, empty if it has no such scalar or no value."""
    scalars = history.scalars
    if name in scalars and name != "step":
        values = scalars.set_index("step")[name].dropna().astype("float64")
        middle = values.rolling(max(1, int(len(values) * SMOOTHED)), min_periods=1).mean()
        return pd.DataFrame({"middle": middle, "low": np.nan, "high": np.nan})
    if name not in history.columns or history.columns[name].dtype == "str" or not len(history.steps):
        return pd.DataFrame()
    table = history.over_steps(name).astype("float64")
    quantiles = {label: table.quantile(q, axis=1) for label, q in (("middle", 0.5), ("low", 0.25), ("high", 0.75))}
    return pd.DataFrame(quantiles).dropna(subset="middle")


def together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Return mean and range of the middles of several runs, at every step between the first and last of each."""
    middles = pd.concat([table["middle"] for table in tables], axis=1).sort_index()
    middles = middles.interpolate(method="index", limit_area="inside")
    return pd.DataFrame({"middle": middles.mean(axis=1), "low": middles.min(axis=1), "high": middles.max(axis=1)})
