"""The page of a training run, and of several: spectra and numbers at every step that a slider can show."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from htsr.audit.about import versions
from htsr.audit.columns import HISTORY_COLUMNS, Column
from htsr.audit.explanations import EXPLANATIONS
from htsr.audit.findings import findings_of_row, ranked
from htsr.audit.verdict import Sentence, verdict_of_audit
from htsr.errors import InputError
from htsr.labels import LR, POWER, settings_text
from htsr.plots.runs.curves import curves, groups_of
from htsr.report.page.analysis import layers, number_in_words, verdict
from htsr.report.page.pictures import numbers, spread
from htsr.report.page.table import MAX_TEXT, table_of
from htsr.text import visible
from htsr.training.store.capture import WEIGHTS
from htsr.training.store.runs import Runs

if TYPE_CHECKING:
    from htsr.plots.runs.curves import Curve
    from htsr.spectra.spectrum import Spectrum
    from htsr.training import History

# The metrics of a layer that the page shows over steps, where a run has them.
METRICS = (
    "alpha", "stable_rank", "log_spectral_norm", "entropy", "num_spikes", "relative_distance", "step_vs_promise",
)  # fmt: skip
SHOWN = (
    "alpha", "alpha_low", "alpha_high", "null_alpha", "num_pl_spikes", "phase", "stable_rank", "log_spectral_norm",
    "relative_distance", "step_vs_promise", "verdict", "N", "M",
)  # fmt: skip
# A page holds at most this many spectra; of a longer run it shows some of the steps.
MAX_SPECTRA = 12_000
BINS, MAX_POINTS, CARDS = 36, 300, 8


def runs_data(
    runs: Mapping[str, "History"],
    title: str = "",
    sentences: Sequence[str] = (),
    notes: Sequence[str] = (),
    links: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what the page of one run or of several shows, as JSON knows it.

    ``sentences`` are the verdict, by default one made from the runs; ``notes`` say how the runs were made, and
    ``links`` name other pages.
    """
    runs = runs if isinstance(runs, Runs) else Runs(runs)
    captured = {label: history for label, history in runs.items() if len(history)}
    if not captured:
        where = ", ".join(str(history.run_dir) for history in runs.values())
        raise InputError(f"{where}: nothing captured yet, or no layer to report")
    rows = {label: _own_rows(history) for label, history in captured.items()}
    names = list(dict.fromkeys(name for table in rows.values() for name in table["name"]))
    if not names:
        raise InputError(f"{', '.join(str(history.run_dir) for history in captured.values())}: no layer to report")
    at_most = max(2, MAX_SPECTRA // (len(names) * len(captured)))
    legend = runs.legend
    steps = {label: [h.steps[i] for i in spread(len(h.steps), at_most)] for label, h in captured.items()}
    ends = _ends(captured, steps, names)
    left_out = sum(len(history) - len(steps[label]) for label, history in captured.items())
    shown = {
        "title": visible(title or _title(runs), MAX_TEXT),
        "links": list(links.items()),
        "metric": "alpha",
        "layers": [visible(name, MAX_TEXT) for name in names],
        "ends": ends,
        "metrics": [_metric(name) for name in METRICS if any(table[name].notna().any() for table in rows.values())],
        "curves": [*_curves(runs), *_settings_over_steps(captured, legend)],
        "runs": [
            _run(visible(legend[label], MAX_TEXT), history, rows[label], steps[label], names, ends)
            for label, history in captured.items()
        ],
        "events": [event for label in captured for event in _events(runs, label)],
        "skipped": [],
        "directions": [],
        "foot": _foot(runs, notes, left_out),
    }
    if len(runs) > 1:
        return shown | _several(runs, captured, sentences)
    ((label, history),) = captured.items()
    return shown | _one(history, rows[label], sentences)


def _one(history: "History", rows: pd.DataFrame, sentences: Sequence[str]) -> dict[str, Any]:
    """Return what the page of one run shows besides: its layers at the last capture, those that moved most as cards."""
    last = rows[rows["step"] == history.steps[-1]].reset_index(drop=True)
    of_weights = history.quantities[0] == WEIGHTS  # what is said of an alpha is said of trained weights
    findings = ranked(found for row in last.to_dict("records") for found in findings_of_row(row)) if of_weights else []
    spread = rows.groupby("name", sort=False)["alpha"].agg(lambda alpha: alpha.max() - alpha.min())
    moved = list(spread.dropna().sort_values(ascending=False, kind="stable").index)
    about = history.about
    number = {name: row for row, name in enumerate(last["name"])}
    said = [Sentence(text) for text in sentences] or (
        verdict_of_audit(last, findings)
        if of_weights
        else [Sentence(f"These are the spectra of the {history.quantities[0]}; the run has none of the weights.")]
    )
    columns = {column.name: column for column in HISTORY_COLUMNS if column.name != "longname"}
    return {
        "kind": "history",
        "lead": f"The verdict and the table are about step {history.steps[-1]}, the last that was captured. "
        + _moved(rows),
        "facts": [
            visible(about.get("model"), MAX_TEXT),
            visible(about.get("optimizer") or "no optimizer", MAX_TEXT),
            *([visible(settings_text(history.settings), MAX_TEXT)] if history.settings else []),
            number_in_words(len(history), "capture", "captures"),
            number_in_words(len(last), "matrix", "matrices"),
        ],
        "verdict": verdict(said),
        "pictures": [None] * len(last),
        **layers(last, findings),
        "cards": [number[name] for name in moved if name in number][:CARDS],
        **table_of(last, columns, SHOWN),
    }


def _moved(rows: pd.DataFrame) -> str:
    """Return where the median alpha began and where it is now; empty without an alpha."""
    medians = rows.groupby("step")["alpha"].median().dropna()
    if not len(medians):
        return ""
    return f"The median alpha went from {medians.iloc[0]:.2f} at step {medians.index[0]} to {medians.iloc[-1]:.2f}."


def _several(runs: Runs, captured: Mapping[str, "History"], sentences: Sequence[str]) -> dict[str, Any]:
    """Return what the page of several runs shows besides: one row a run, with its settings and last numbers."""
    table = runs.summary().rename(columns={"run": "name"})
    table["name"] = list(runs.legend.values())
    table.columns = [visible(name, 80) for name in table]
    table = table.loc[:, ~table.columns.duplicated()]  # two names that look the same are one column
    columns = {name: _summary_column(name, table[name]) for name in table}
    table = table.astype({name: column.dtype for name, column in columns.items()})
    drawn = list(captured)
    return {
        "kind": "runs",
        "lead": "",
        "facts": [
            number_in_words(len(runs), "run", "runs"),
            number_in_words(sum(map(len, runs.values())), "capture", "captures"),
        ],
        "verdict": verdict(Sentence(text) for text in (sentences or run_sentences(runs))),
        "pictures": [None] * len(table),
        "places": {
            "block": [-1] * len(table),
            "label": [""] * len(table),
            "role": [""] * len(table),
            "order": list(range(len(table))),
        },
        "notes": [""] * len(table),
        "tied": [False] * len(table),
        "findings": [],
        "cards": [drawn.index(group[0]) for group in groups_of(captured, runs.legend)][:CARDS],
        "explanations": dict(EXPLANATIONS),
        "meaning": "",
        **table_of(table, columns, [name for name in columns if name not in ("name", "model", "optimizer")]),
    }


def run_sentences(runs: Mapping[str, "History"]) -> list[str]:
    """Return a sentence on the median alpha at the end of each curve, and one on each of the first two scalars."""
    sentences = []
    for name, words in (("alpha", "median alpha"), *((scalar, scalar) for scalar in _scalars(runs)[:2])):
        try:
            found = curves(runs, name)
        except ValueError:
            continue
        at_end = [f"{curve.table['middle'].iloc[-1]:.4g} ({visible(curve.label, 60)})" for curve in found]
        shown = at_end if len(at_end) <= 6 else [*at_end[:5], f"and {len(at_end) - 5} more"]
        smoothed = "" if name == "alpha" else ", smoothed,"
        sentences.append(f"At the last step the {words}{smoothed} was {', '.join(shown)}.")
    return sentences


def _title(runs: Mapping[str, "History"]) -> str:
    """Return the title of a page of runs."""
    if len(runs) > 1:
        return f"Weight spectra of {len(runs)} training runs"
    return f"Weight spectra of {next(iter(runs.values())).run_dir.absolute().name} over training"


def _own_rows(history: "History") -> pd.DataFrame:
    """Return the rows of a run's first quantity, weights where it has them, without tied layers."""
    details = history.details
    return details[(details["quantity"] == history.quantities[0]) & (details["tied_to"] == "")]


def _ends(
    runs: Mapping[str, "History"], steps: Mapping[str, list[int]], names: Sequence[str]
) -> list[list[float] | None]:
    """Return log10 of the range that the histograms of each layer share, over all runs and steps; None without a spectrum."""
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    for label, history in runs.items():
        for step in steps[label]:
            for name, spectrum in history.spectra_at(step, history.quantities[0]).items():
                evals = spectrum.eigenvalues[spectrum.eigenvalues > 0]
                if name in low and len(evals):
                    low[name] = min(low[name], float(np.quantile(evals, 0.05)))
                    high[name] = max(high[name], float(evals[-1]))
    margin = 1e-4  # of the rounding to four digits
    return [
        [round(float(np.log10(low[name])) - margin, 4), round(float(np.log10(high[name])) + margin, 4)]
        if low[name] <= high[name]
        else None
        for name in names
    ]


def _run(
    label: str,
    history: "History",
    rows: pd.DataFrame,
    steps: list[int],
    names: Sequence[str],
    ends: Sequence[list[float] | None],
) -> dict[str, Any]:
    """Return the numbers and the histograms of one run: ``values[metric][step][layer]`` and ``esds[step][layer]``.

    A histogram is the number of all its values, then the count in each bin.
    """
    values = {}
    for metric in (*METRICS, "xmin"):
        table = rows.pivot(index="step", columns="name", values=metric).reindex(index=steps, columns=list(names))
        values[metric] = [numbers(row) for row in table.astype("float64").to_numpy()]
    esds = []
    for step in steps:
        spectra = history.spectra_at(step, history.quantities[0])
        esds.append([_counts(spectra.get(name), of) for name, of in zip(names, ends, strict=True)])
    scalars = history.scalars
    return {
        "label": label,
        "steps": steps,
        "values": {
            metric: table
            for metric, table in values.items()
            if any(value is not None for row in table for value in row)
        },
        "esds": esds,
        "scalars": {
            visible(name, MAX_TEXT): _thinned(scalars["step"], scalars[name]) for name in scalars if name != "step"
        },
    }


def _events(runs: Runs, label: str) -> list[list[Any]]:
    """Return step and text of what happened in a run, such as a skipped capture; -1 for a damaged file, which has no step."""
    history = runs[label]
    table = history.events[lambda table: table["kind"] != "closed"]
    found = [(int(e["step"]), f"{e['kind']}: {e['message']}") for e in table.to_dict("records")[-200:]]
    found += [(-1, f"damaged: {name}: {reason}") for name, reason in history.damaged.items()]
    run = f"{runs.legend[label]}, " if len(runs) > 1 else ""
    return [[step, visible(run + text, MAX_TEXT)] for step, text in found]


def _counts(spectrum: "Spectrum | None", ends: list[float] | None) -> list[int] | None:
    """Return the number of positive eigenvalues, then those in each bin; None without any."""
    if spectrum is None or ends is None:
        return None
    evals = spectrum.eigenvalues[spectrum.eigenvalues > 0]
    counts, _ = np.histogram(np.log10(evals), bins=BINS, range=(ends[0], ends[1]))
    return [len(evals), *counts.tolist()]


def _thinned(steps: pd.Series, values: pd.Series) -> list[list[float | None]]:
    """Return steps and values without what is missing, at most ``MAX_POINTS`` of them: means of neighbours."""
    table = pd.DataFrame({"step": steps, "value": values.astype("float64")}).dropna()
    size = -(-len(table) // MAX_POINTS) or 1
    means = table.groupby(np.arange(len(table)) // size).agg({"step": "last", "value": "mean"})
    return [means["step"].astype(int).tolist(), numbers(means["value"])]


def _scalars(runs: Mapping[str, "History"]) -> list[str]:
    """Return the names of the recorded scalars of all runs."""
    return list(dict.fromkeys(name for history in runs.values() for name in history.scalars if name != "step"))


def _curves(runs: Mapping[str, "History"]) -> list[dict[str, Any]]:
    """Return the curves of the metrics, medians over layers, and of the recorded scalars; seeds of one setting in one."""
    found = []
    for name in (*METRICS[:2], *_scalars(runs)[:6]):
        try:
            lines = curves(runs, name)
        except ValueError:
            continue
        grouped = any(line.num_runs > 1 for line in lines)
        of = "median over layers" if name in METRICS else "smoothed"
        band = "mean and range of the seeds" if grouped else "with quartiles" if name in METRICS else ""
        found.append(
            {
                "name": visible(name, 80),
                "note": ", ".join(filter(None, (of, band))),
                "lines": [_line(line) for line in lines],
            }
        )
    return found


def _line(curve: "Curve") -> dict[str, Any]:
    """Return one curve for a page."""
    table = curve.table
    table = table.iloc[spread(len(table), MAX_POINTS)]
    return {
        "label": visible(curve.label, 80) + (f", {curve.num_runs} runs" if curve.num_runs > 1 else ""),
        "x": [int(step) for step in table.index],
        **{name: numbers(table[name]) for name in ("middle", "low", "high")},
    }


def _settings_over_steps(runs: Mapping[str, "History"], legend: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the learning rate and the power at each capture; runs that agree share a line."""
    found = []
    for setting in (LR, POWER):
        who: dict[tuple[tuple[int, ...], tuple[float, ...]], list[str]] = {}
        for label, history in runs.items():
            values = _of_matrices(history.groups, setting)
            if len(values):
                key = tuple(map(int, values.index)), tuple(map(float, values))
                who.setdefault(key, []).append(visible(legend[label], 80))
        lines = [
            {"label": ", ".join(names), "x": list(x), "middle": numbers(y), "low": [], "high": []}
            for (x, y), names in who.items()
        ]
        if lines:
            found.append({"name": "p" if setting == POWER else setting, "note": "", "lines": lines})
    return found


def _of_matrices(groups: pd.DataFrame, setting: str) -> pd.Series:
    """Return a setting at each step, of the first group with a power, or of the first group; empty if there is none."""
    if setting not in groups:
        return pd.Series(dtype="float64")
    with_power = groups[groups[POWER].notna()] if POWER in groups else groups.iloc[:0]
    own = with_power if len(with_power) else groups
    own = own[own["group"] == own["group"].min()]
    return pd.to_numeric(own.set_index("step")[setting], errors="coerce").dropna()


def _metric(name: str) -> dict[str, str]:
    """Return what a page knows of a metric over steps."""
    column = next(column for column in HISTORY_COLUMNS if column.name == name)
    return {"name": name, "meaning": column.meaning}


def _summary_column(name: str, values: pd.Series) -> Column:
    """Return the column of a table of runs: a setting, a recorded scalar, or a count."""
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    whole = numeric and pd.api.types.is_integer_dtype(values)
    meanings = {
        "name": "the run, by the settings that tell it from the others",
        "alpha_median": "median alpha over the layers at the last capture",
        "stable_rank_median": "median stable rank over the layers at the last capture",
        "captures": "number of captures",
        "last_step": "last captured step",
    }
    ending = "_last_tenth"
    meaning = (
        f"mean of the last tenth of {name.removesuffix(ending)}"
        if name.endswith(ending)
        else "setting or last recorded value"
    )
    return Column(
        name,
        "Int64" if whole else "float64" if numeric else "str",
        meanings.get(name, meaning),
        "" if whole else ".4g" if numeric else "",
    )


def _foot(runs: Mapping[str, "History"], notes: Sequence[str], left_out: int) -> list[list[str]]:
    """Return what the page says of its own origin."""
    lines = [["how", note] for note in notes]
    for label, history in runs.items():
        settings = settings_text(history.settings)
        lines.append([label, ", ".join(filter(None, (str(history.run_dir), settings)))])
    if left_out:
        lines.append(
            [
                "steps",
                f"{left_out} captures are not in this page, which shows some of each run; htsr.History has all of them",
            ]
        )
    lines.append(["made", ", ".join(f"{name} {version}" for name, version in versions().items())])
    return [[visible(label, 200), visible(text, MAX_TEXT)] for label, text in lines]
