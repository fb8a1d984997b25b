"""The demo's page: two sentences, a table and four figures say what p did to the spectra, all from the runs."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from htsr.labels import POWER, setting_text
from htsr.plots import figure_of, plot_against_power, plot_esd_over_steps, plot_runs_over_steps, plot_scalars
from htsr.plots.style import axes_for
from htsr.report import runs_page
from htsr.training import History

# The figure of the ESDs shows this layer, the widest matrix of the middle block.
SHOWN_LAYER = "blocks.1.up"


def sweep_page(runs: Mapping[float, History], steps: int) -> str:
    """Return the HTML page of a sweep over p: ``runs`` maps ascending powers to runs of ``steps`` optimizer steps each."""
    table = summary_table(runs)
    labelled = {setting_text(POWER, power): history for power, history in runs.items()}
    about = next(iter(runs.values())).about
    figures = {
        "Median and quartiles over the matrices of the blocks. A smaller alpha means a heavier tail.": figure_of(
            plot_runs_over_steps(labelled)
        ),
        "Each dot is a matrix at the last step.": figure_of(plot_against_power(runs)),
        "Loss in nats per byte, on the training text (smoothed) and on the held-out files.": figure_of(
            plot_scalars(labelled, ("train_loss", "held_out_loss"))
        ),
        f"Spectrum of {SHOWN_LAYER} over time, for each p: density of the eigenvalues of W^T W on log-log axes. The axes leave "
        "out the lowest twentieth of each spectrum.": _esd_figure(labelled),
    }
    notes = [
        f"A byte-level {about['model']} with {about['num_parameters']:,} parameters learned the text of Python's standard "
        f"library: {steps} steps at each p, from the same initial weights and on the same batches. {about['optimizer']} scaled "
        "its updates to Muon's norm and used one learning rate for all p, which is tuned for none of them.",
        "minilm.html is the audit of a trained Transformer; htsr.History opens the runs in runs/.",
    ]
    return runs_page("How HTMuon's p reshapes weight spectra", conclusions(table), _readable(table), figures, notes)


def summary_table(runs: Mapping[float, History]) -> pd.DataFrame:
    """Return one row for each run: medians over the layers at its last capture, losses, and the seconds of analysis."""
    rows = []
    for power, history in runs.items():
        rows.append(
            {
                "power": power,
                "alpha": history.alpha().iloc[-1].median(),
                "stable_rank": history.over_steps("stable_rank").iloc[-1].median(),
                "train_loss_last_tenth": history.last_tenths(at_least=1)["train_loss"],
                "held_out_loss": history.last_scalars["held_out_loss"],
                "analysis_seconds": history.analysis_seconds,
            }
        )
    return pd.DataFrame(rows)


def conclusions(table: pd.DataFrame) -> list[str]:
    """Return one sentence about the spectra and one about the loss, from the numbers of a ``summary_table``."""
    powers = ", ".join(map(_fraction, table["power"]))
    tails = {-1: "each larger p made the tails heavier", 1: "each larger p made the tails lighter"}
    trend = tails.get(_direction(table["alpha"]), "alpha did not move in one direction")
    spectra = (
        f"For p = {powers} the median alpha was {_list(table['alpha'], 2)} and the median stable rank "
        f"{_list(table['stable_rank'], 1)}: {trend}."
    )
    best = table.loc[table["held_out_loss"].idxmin()]
    if best["power"] == 0:
        verdict = "no positive p lowered the loss"
    else:
        muon = table.loc[table["power"] == 0, "held_out_loss"].item()
        verdict = f"{muon - best['held_out_loss']:.3f} below Muon, with a single seed"
    loss = (
        f"Held-out loss was {_list(table['held_out_loss'], 3)} nats per byte, lowest at p = {_fraction(best['power'])}: "
        f"{verdict}."
    )
    return [spectra, loss]


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as text, with headings for people."""
    return pd.DataFrame(
        {
            "p": table["power"].map(_fraction),
            "median alpha": table["alpha"].map("{:.2f}".format),
            "median stable rank": table["stable_rank"].map("{:.1f}".format),
            "training loss, mean of the last tenth": table["train_loss_last_tenth"].map("{:.3f}".format),
            "held-out loss, last": table["held_out_loss"].map("{:.3f}".format),
            "seconds of analysis": table["analysis_seconds"].map("{:.1f}".format),
        }
    )


def _esd_figure(runs: Mapping[str, History]) -> Figure:
    """Return one axes for each run with the ESD of ``SHOWN_LAYER`` over its steps."""
    axes = axes_for(None, 1, len(runs), width=3.4 * len(runs), height=3.3, sharex=True, sharey=True)
    for ax, (label, history) in zip(axes[0], runs.items(), strict=True):
        plot_esd_over_steps(history, SHOWN_LAYER, ax=ax)
        ax.set_title(label, fontsize=10, loc="left")
        ax.set_xlabel("eigenvalue $\\lambda$", fontsize=9)
        ax.set_ylabel("density" if ax is axes[0, 0] else "", fontsize=9)
        if ax is not axes[0, 0]:
            ax.get_legend().remove()
    return figure_of(axes)


def _direction(values: Sequence[float] | pd.Series) -> int:
    """Return 1 if each value is above the one before, -1 if each is below, else 0."""
    steps = pd.Series(values).diff().dropna()
    return 1 if (steps > 0).all() else -1 if (steps < 0).all() else 0


def _list(values: pd.Series, digits: int) -> str:
    """Return the values as text with this many digits."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _fraction(power: float) -> str:
    """Return a power as a fraction, such as 1/8."""
    return setting_text(POWER, power).removeprefix("p = ")
