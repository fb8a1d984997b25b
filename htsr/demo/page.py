"""The demo's page: what p did to the spectra, in two sentences, a table and four pictures, all from the runs."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import pandas as pd
from matplotlib.figure import Figure

from htsr.plots import plot_against_power, plot_esd_over_steps, plot_runs_over_steps, plot_scalars
from htsr.plots.style import new_figure
from htsr.report import runs_page
from htsr.training import History

# Where the ESDs are drawn: the widest matrix of the middle block.
SHOWN_LAYER = "blocks.1.up"


def sweep_page(runs: Mapping[float, History], steps: int) -> str:
    """The page of a sweep over p.

    Args:
        runs: Power and history of each run, powers ascending.
        steps: Optimizer steps of each run.

    Returns:
        One HTML document.
    """
    table = summary_table(runs)
    labelled = {f"p = {_fraction(power)}": history for power, history in runs.items()}
    about = next(iter(runs.values())).about
    figures = {
        "Median over the matrices of the blocks, with quartiles. Smaller alpha is a heavier tail.": plot_runs_over_steps(
            labelled
        ),
        "Each dot is a matrix at the last step.": plot_against_power(runs),
        "Loss in nats per byte: training (smoothed) and held-out files.": plot_scalars(
            labelled, ("train_loss", "held_out_loss")
        ),
        f"Spectrum of {SHOWN_LAYER} over time, for each p. Density of the eigenvalues of W^T W on log-log axes; the "
        "lowest twentieth of each lies outside.": _esds(labelled),
    }
    notes = [
        f"Model: {about['model']} with {about['num_parameters']:,} parameters, byte level; text: the standard library of "
        f"the Python that ran this. {steps} steps at each p from the same initial weights on the same batches, optimizer "
        f"{about['optimizer']}, update norm matched to Muon's, one learning rate for all p and tuned for none of them.",
        "The audit of a trained Transformer is in minilm.html; the runs themselves, for htsr.History, in runs/.",
    ]
    return runs_page("How HTMuon's p reshapes weight spectra", findings(table), _readable(table), figures, notes)


def summary_table(runs: Mapping[float, History]) -> pd.DataFrame:
    """One row a run, at its last capture.

    Args:
        runs: Power and history of each run.

    Returns:
        Columns ``power``, ``alpha`` and ``stable_rank`` (medians over layers), ``train_loss`` (mean of the last tenth),
        ``held_out_loss``, ``seconds``.
    """
    rows = []
    for power, history in runs.items():
        train_loss = history.scalars["train_loss"].dropna()
        rows.append(
            {
                "power": power,
                "alpha": history.alpha().iloc[-1].median(),
                "stable_rank": history.over_steps("stable_rank").iloc[-1].median(),
                "train_loss": train_loss.tail(max(1, len(train_loss) // 10)).mean(),
                "held_out_loss": history.scalars["held_out_loss"].dropna().iloc[-1],
                "monitor_seconds": history.analysis_seconds,
            }
        )
    return pd.DataFrame(rows)


def findings(table: pd.DataFrame) -> list[str]:
    """Two sentences made from the numbers, whichever way they point.

    Args:
        table: What ``summary_table`` returns, powers ascending.

    Returns:
        What happened to the spectra, and what happened to the loss.
    """
    powers = ", ".join(map(_fraction, table["power"]))
    tails = {-1: "the tails became heavier at every step of p", 1: "the tails became lighter at every step of p"}
    trend = tails.get(_direction(table["alpha"]), "alpha did not move in one direction")
    spectra = (
        f"For p = {powers} the median alpha was {_list(table['alpha'], 2)} and the median stable rank "
        f"{_list(table['stable_rank'], 1)}: {trend}."
    )
    best = table.loc[table["held_out_loss"].idxmin()]
    if best["power"] == 0:
        verdict = "no positive p paid in loss here"
    else:
        muon = table.loc[table["power"] == 0, "held_out_loss"].item()
        verdict = f"{muon - best['held_out_loss']:.3f} below Muon, from one seed"
    loss = (
        f"Held-out loss was {_list(table['held_out_loss'], 3)} nats per byte, lowest at p = {_fraction(best['power'])}: "
        f"{verdict}."
    )
    return [spectra, loss]


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "p": table["power"].map(_fraction),
            "median alpha": table["alpha"].map("{:.2f}".format),
            "median stable rank": table["stable_rank"].map("{:.1f}".format),
            "training loss": table["train_loss"].map("{:.3f}".format),
            "held-out loss": table["held_out_loss"].map("{:.3f}".format),
            "seconds spent by the Monitor": table["monitor_seconds"].map("{:.1f}".format),
        }
    )


def _esds(runs: Mapping[str, History]) -> Figure:
    figure, axes = new_figure(1, len(runs), width=3.4 * len(runs), height=3.3, sharex=True, sharey=True)
    for ax, (label, history) in zip(axes[0], runs.items(), strict=True):
        plot_esd_over_steps(history, SHOWN_LAYER, ax=ax)
        ax.set_title(label, fontsize=10, loc="left")
        ax.set_xlabel("eigenvalue $\\lambda$", fontsize=9)
        ax.set_ylabel("density" if ax is axes[0, 0] else "", fontsize=9)
        if ax is not axes[0, 0]:
            ax.get_legend().remove()
    return figure


def _direction(values: Sequence[float] | pd.Series) -> int:
    """1 where each value is above the one before, -1 where each is below, else 0."""
    steps = pd.Series(values).diff().dropna()
    return 1 if (steps > 0).all() else -1 if (steps < 0).all() else 0


def _list(values: pd.Series, digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _fraction(power: float) -> str:
    return str(Fraction(power).limit_denominator(64))
