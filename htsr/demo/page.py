"""The demo's page: two sentences, and the interactive page of the runs, say what p did to the spectra."""

from collections.abc import Mapping, Sequence

import pandas as pd

from htsr.demo.sweep import LEARNING_RATES
from htsr.labels import POWER, setting_text
from htsr.report import runs_page
from htsr.training import History


def sweep_page(runs: Mapping[float, History], steps: int) -> str:
    """Return the HTML page of a sweep over p: ``runs`` maps ascending powers to runs of ``steps`` optimizer steps each."""
    labelled = {setting_text(POWER, power): history for power, history in runs.items()}
    about = next(iter(runs.values())).about
    rates = ", ".join(f"{LEARNING_RATES[power]:g} at {setting_text(POWER, power)}" for power in runs)
    notes = [
        f"A byte-level {about['model']} with {about['num_parameters']:,} parameters learned the text of Python's standard "
        f"library: {steps} steps at each p, from the same initial weights and on the same batches. {about['optimizer']} scaled "
        f"its updates to Muon's norm; the learning rate was tuned for each p on other seeds, at 300 steps: {rates}.",
        "One seed a power says little about the loss. docs/evidence.md compares powers over ten seeds, with intervals, and shows "
        "that longer trainings leave less of these differences.",
        "htsr.History opens the runs in runs/.",
    ]
    title = "How HTMuon's p reshapes weight spectra"
    links = {"The audit of a trained Transformer": "minilm.html"}
    return runs_page(labelled, title, conclusions(summary_table(runs)), notes, links)


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
        verdict = "no other p lowered it"
    else:
        muon = table.loc[table["power"] == 0, "held_out_loss"].item()
        verdict = f"{muon - best['held_out_loss']:.3f} below Muon, with a single seed"
    loss = (
        f"Held-out loss was {_list(table['held_out_loss'], 3)} nats per byte, lowest at p = {_fraction(best['power'])}: "
        f"{verdict}."
    )
    return [spectra, loss]


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
