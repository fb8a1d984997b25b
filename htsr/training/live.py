"""A table in the terminal that follows a growing run, as ``htsr watch`` shows it."""

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from htsr.audit.table import interval_texts, rounded
from htsr.labels import settings_text
from htsr.text import escaped, visible
from htsr.training.store.capture import WEIGHTS
from htsr.training.store.history import History

SHOWN = ("alpha", "stable_rank", "log_spectral_norm", "relative_distance")
# The escape sequence that clears a terminal and moves its cursor to the top.
CLEAR = "\x1b[2J\x1b[H"


def watch(
    history: History,
    *,
    interval: float,
    once: bool,
    say: Callable[[str], object],
    clear: bool,
    rows: int | None = None,
    page: Path | None = None,
) -> None:
    """Show a run's last capture with ``say``, again whenever there is a new one or an event, until the run is closed.

    ``interval`` is the number of seconds between looks, ``clear`` clears a terminal before each, ``once`` returns after the
    first, ``rows`` limits the number of layers, and ``page`` is written anew each time.
    """
    shown: tuple[int, int] | None = None
    while True:
        state = (len(history), len(history.events))
        if state != shown:
            shown = state
            say((CLEAR if clear else "") + screen(history, rows))
            if page is not None and len(history):
                history.save(page)
        if once or is_closed(history):
            return
        time.sleep(interval)


def is_closed(history: History) -> bool:
    """Return whether the run was closed and not resumed since."""
    ends = [kind for kind in history.events["kind"] if kind in ("closed", "resumed")]
    return bool(ends) and ends[-1] == "closed"


def screen(history: History, rows: int | None = None) -> str:
    """Return the last capture as text: medians, one line a layer with its change since the first capture, the last events."""
    steps = history.steps
    if not steps:
        return f"{visible(history.run_dir)}: nothing captured yet"
    details = history.details
    quantity = history.quantities[0]
    details = details[(details["quantity"] == quantity) & (details["tied_to"] == "")]
    first, last = (details[details["step"] == step].set_index("name") for step in (steps[0], steps[-1]))
    settings = f" ({visible(settings_text(history.settings))})" if history.settings else ""
    of = "" if quantity == WEIGHTS else f"{quantity}: "
    lines = [
        f"{visible(history.about.get('model'))} in {visible(history.run_dir)}{settings}: step {steps[-1]}, {len(steps)} "
        f"captures, {of}median alpha {last['alpha'].median():.2f}, median stable rank {last['stable_rank'].median():.1f}"
    ]
    if scalars := history.last_scalars:
        means = history.last_tenths()
        texts = {name: f" (mean of the last tenth {value:.4g})" for name, value in means.items()}
        lines.append(", ".join(f"{visible(name)} {value:.4g}{texts.get(name, '')}" for name, value in scalars.items()))
    table = pd.DataFrame({"name": [visible(name) for name in last.index]}, last.index)
    cells = rounded(last, SHOWN)
    for name in SHOWN:
        table[name] = cells[name]
        if name == "alpha" and last["alpha_low"].notna().any():
            table["95 %"] = interval_texts(last)
        if name == "alpha":
            moved = last[name] - first[name].reindex(last.index)
            table["since first"] = ["" if pd.isna(value) else f"{value:+.2f}" for value in moved]
    table["phase"] = last["phase"]
    table["note"] = [escaped(text) for text in last["warning"].where(last["status"] != "failed", last["reason"])]
    if len(table):
        lines.append(table.to_string(index=False, max_rows=rows))
    for event in history.events.tail(5).itertuples(index=False):
        lines.append(f"step {event.step}, {escaped(event.kind)}: {escaped(event.message)}")
    for name, reason in history.damaged.items():
        lines.append(f"{visible(name)} is damaged and left out: {escaped(reason)}")
    return "\n".join(lines)
