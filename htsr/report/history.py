"""The report of one training run."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from htsr._version import __version__
from htsr.audit.findings import findings_of_row, ranked
from htsr.audit.layout import grouped_findings
from htsr.audit.table import interval_texts, rounded
from htsr.errors import InputError
from htsr.labels import settings_text
from htsr.plots import figure_of, plot_esd_over_steps, plot_layers_over_steps, plot_runs_over_steps, plot_scalars
from htsr.report.pages import TEMPLATES, html_table, svg

if TYPE_CHECKING:
    from htsr.training import History

# How many layers have their ESD drawn over time, those whose alpha moved most; and how long lists may be.
SHOWN_LAYERS, SHOWN_EVENTS = 4, 60


def history_page(history: "History") -> str:
    """Return the report of a run, which may still grow, as one HTML document with everything inside."""
    details = history.details
    details = details[(details["quantity"] == "weights") & (details["tied_to"] == "")]
    if "weights" not in history.quantities:
        raise InputError(
            f"{history.run_dir}: expected a run with captures of weights, which a page shows, and the Monitor captured "
            f"{' and '.join(history.quantities)}: add 'weights' to Monitor(capture=...), or save the run as .json"
        )
    if not len(details):
        raise InputError(f"{history.run_dir}: nothing captured yet, or no layer to report")
    steps = history.steps
    last = details[details["step"] == steps[-1]].set_index("name")
    own = last[(last["tied_to"] == "") & (last["quantity"] == "weights")].reset_index()
    findings = ranked(found for row in own.to_dict("records") for found in findings_of_row(row))
    events = history.events[lambda table: table["kind"] != "closed"]
    numbers = {
        "captures": len(steps),
        "last step": steps[-1],
        "matrices": len(last),
        "median alpha, last": f"{last['alpha'].median():.2f}",
        "median stable rank, last": f"{last['stable_rank'].median():.1f}",
        "seconds of analysis": f"{history.analysis_seconds:.1f}",
    }
    made_with = f"{history.about.get('model')}, {history.about.get('optimizer') or 'no optimizer'}"
    return TEMPLATES.get_template("history.html.j2").render(
        version=__version__,
        title=f"Weight spectra of {history.run_dir.absolute().name} over training",
        source="; ".join(filter(None, [made_with, settings_text(history.settings), str(history.run_dir)])),
        numbers=numbers,
        figures={caption: svg(figure) for caption, figure in _figures(history, details).items()},
        table=html_table(_first_and_last(details, steps)),
        findings=list(grouped_findings(findings)),
        phases=_phase_changes(details)[:SHOWN_EVENTS],
        events=events.tail(SHOWN_EVENTS).to_dict("records"),
        damaged=history.damaged,
    )


def _figures(history: "History", details: pd.DataFrame) -> dict[str, Figure]:
    """Return the figures of the page by caption."""
    drawn: dict[str, Axes | np.ndarray] = {}
    has_alpha = bool(details["alpha"].notna().any())
    if has_alpha:
        drawn["Alpha of each layer. Smaller is a heavier tail."] = plot_layers_over_steps(history, "alpha")
        drawn["Median over layers, with quartiles."] = plot_runs_over_steps({"median": history})
    names = tuple(name for name in history.scalars if name != "step")[:4]
    if names:
        drawn["Recorded beside the spectra; smoothed."] = plot_scalars({history.run_dir.name: history}, names)
    if details["distance"].notna().any():
        drawn["Distance that one step moves each layer, relative to the norm of its weight."] = plot_layers_over_steps(
            history, "relative_distance"
        )
    for name in _moved_most(details) if has_alpha else []:
        drawn[f"Spectrum of {name} over time: density of the eigenvalues of W^T W on log-log axes."] = (
            plot_esd_over_steps(history, name)
        )
    return {caption: figure_of(axes) for caption, axes in drawn.items()}


def _moved_most(details: pd.DataFrame) -> list[str]:
    """Return the names of the layers whose alpha moved most, the first one most."""
    spread = details.groupby("name", sort=False)["alpha"].agg(
        lambda alpha: np.ptp(alpha.dropna()) if alpha.notna().any() else np.nan
    )
    return list(spread.dropna().sort_values(ascending=False, kind="stable").index[:SHOWN_LAYERS])


def _first_and_last(details: pd.DataFrame, steps: list[int]) -> pd.DataFrame:
    """Return the table of the page: each layer at the first and at the last capture."""
    first, last = (details[details["step"] == step].set_index("name") for step in (steps[0], steps[-1]))
    table = pd.DataFrame({"layer": last.index, "N": last["N"].to_numpy(), "M": last["M"].to_numpy()})
    columns = ("alpha", "stable_rank", "log_spectral_norm")
    texts = {when: rounded(rows.reindex(last.index), columns) for when, rows in (("first", first), ("last", last))}
    for column in columns:
        for when in texts:
            table[f"{column}, {when}"] = texts[when][column]
        if column == "alpha" and last["alpha_low"].notna().any():
            table["95 % interval, last"] = interval_texts(last)
    for when, rows in (("first", first), ("last", last)):
        table[f"phase, {when}"] = rows["phase"].reindex(last.index).fillna("").to_numpy()
    return table.assign(note=last["warning"].where(last["status"] != "failed", last["reason"]).to_numpy())


def _phase_changes(details: pd.DataFrame) -> list[str]:
    """Return a sentence for each change of phase, in the order of the steps."""
    sentences = []
    for name, rows in details[details["phase"] != ""].groupby("name", sort=False):
        before = rows["phase"].shift()
        for step, old, new in zip(rows["step"], before, rows["phase"], strict=True):
            if pd.notna(old) and old != new:
                sentences.append((step, f"step {step}: {name} went from {old} to {new}"))
    return [sentence for _, sentence in sorted(sentences, key=lambda found: found[0])]
