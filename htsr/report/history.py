"""The report of one training run."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from htsr._version import __version__
from htsr.errors import InputError
from htsr.plots import plot_esd_over_steps, plot_layers_over_steps, plot_runs_over_steps, plot_scalars
from htsr.report.pages import TEMPLATES, svg
from htsr.training.live import interval_texts

if TYPE_CHECKING:
    from htsr.training import History

# Layers whose ESD is drawn over time, those whose alpha moved most; and lists of this length at most.
SHOWN_LAYERS, SHOWN_EVENTS = 4, 60


def history_page(history: "History") -> str:
    """The report of a run, also of one that still grows.

    Args:
        history: The run.

    Returns:
        One HTML document with everything inside.

    Raises:
        InputError: If nothing was captured yet.
    """
    details = history.details
    details = details[(details["quantity"] == "weights") & (details["tied_to"] == "")]
    if not len(details):
        raise InputError(f"{history.run_dir}: nothing captured yet, or no layer to report")
    steps = history.steps
    last = details[details["step"] == steps[-1]].set_index("name")
    events = history.events[lambda table: table["kind"] != "closed"]
    numbers = {
        "captures": len(steps),
        "last step": steps[-1],
        "matrices": len(last),
        "median alpha, last": f"{last['alpha'].median():.2f}",
        "median stable rank, last": f"{last['stable_rank'].median():.1f}",
        "seconds of analysis": f"{history.analysis_seconds:.1f}",
    }
    return TEMPLATES.get_template(
        "history.html.j2"
    ).render(
        version=__version__,
        title=f"Weight spectra of {history.run_dir.absolute().name} over training",
        source=f"{history.about.get('model')}, {history.about.get('optimizer') or 'no optimizer'}; {history.run_dir}",
        numbers=numbers,
        figures={caption: svg(figure) for caption, figure in _figures(history, details).items()},
        table=Markup(_first_and_last(details, steps).to_html(index=False, border=0, na_rep="")),  # pandas escapes
        findings={name: text for name, text in last["findings"].items() if text},
        phases=_phase_changes(details)[:SHOWN_EVENTS],
        events=events.tail(SHOWN_EVENTS).to_dict("records"),
        damaged=history.damaged,
    )


def _figures(history: "History", details: pd.DataFrame) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    has_alpha = bool(details["alpha"].notna().any())
    if has_alpha:
        figures["Alpha of each layer. Smaller is a heavier tail."] = plot_layers_over_steps(history, "alpha")
        figures["Median over layers, with quartiles."] = plot_runs_over_steps({"median": history})
    names = tuple(name for name in history.scalars if name != "step")[:4]
    if names:
        figures["Recorded beside the spectra; smoothed."] = plot_scalars({history.run_dir.name: history}, names)
    if details["distance"].notna().any():
        figures["Distance that one step moves each layer, over its norm."] = plot_layers_over_steps(
            history, "relative_distance"
        )
    for name in _moved_most(details) if has_alpha else []:
        figures[f"Spectrum of {name} over time: density of the eigenvalues of W^T W on log-log axes."] = (
            plot_esd_over_steps(history, name)
        )
    return figures


def _moved_most(details: pd.DataFrame) -> list[str]:
    spread = details.groupby("name", sort=False)["alpha"].agg(
        lambda alpha: np.ptp(alpha.dropna()) if alpha.notna().any() else np.nan
    )
    return list(spread.dropna().sort_values(ascending=False, kind="stable").index[:SHOWN_LAYERS])


def _first_and_last(details: pd.DataFrame, steps: list[int]) -> pd.DataFrame:
    first, last = (details[details["step"] == step].set_index("name") for step in (steps[0], steps[-1]))
    table = pd.DataFrame({"layer": last.index, "N": last["N"].to_numpy(), "M": last["M"].to_numpy()})
    for column, digits in (("alpha", 2), ("stable_rank", 1), ("log_spectral_norm", 2)):
        for when, rows in (("first", first), ("last", last)):
            values = rows[column].reindex(last.index)
            table[f"{column}, {when}"] = ["" if pd.isna(value) else f"{value:.{digits}f}" for value in values]
        if column == "alpha" and last["alpha_low"].notna().any():
            table["95 % interval, last"] = interval_texts(last)
    for when, rows in (("first", first), ("last", last)):
        table[f"phase, {when}"] = rows["phase"].reindex(last.index).fillna("").to_numpy()
    return table.assign(note=last["warning"].where(last["status"] != "failed", last["reason"]).to_numpy())


def _phase_changes(details: pd.DataFrame) -> list[str]:
    sentences = []
    for name, rows in details[details["phase"] != ""].groupby("name", sort=False):
        before = rows["phase"].shift()
        for step, old, new in zip(rows["step"], before, rows["phase"], strict=True):
            if pd.notna(old) and old != new:
                sentences.append((step, f"step {step}: {name} went from {old} to {new}"))
    return [sentence for _, sentence in sorted(sentences, key=lambda found: found[0])]
