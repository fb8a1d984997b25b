"""What the evidence of a row amounts to: the 5+1 phases of Martin and Mahoney (JMLR 22:165, 2021), with the evidence."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

PHASES = ("random-like", "bleeding-out", "bulk+spikes", "bulk-decay", "heavy-tailed", "rank-collapse", "undecided")

# The papers name the phases and draw them; these bounds are ours, set and checked on generated ensembles
# (benchmarks/noise_calibration.py has the confusion matrix).
#
# Too few eigenvalues, or too small a slice, to tell anything but a collapse.
MIN_EIGENVALUES, MIN_SIDE = 32, 16
# Lost eigenvalues, as a share and a number: one may well vanish by chance in a square matrix of noise.
COLLAPSED, MIN_COLLAPSED = 0.01, 2
# A bulk this unlikely for noise is not one.
BULK_LEVEL = 0.005
# Singular value of the strongest planted signal over the weakest that shows (BBP): from here on a spike stands apart.
WELL_SEPARATED = 2.0
# A tail is heavy if a power law fits this well over this factor. Covariances that decay lognormally or exponentially stay
# outside of one or the other, Pareto ones with an exponent up to 3 and planted ones up to 4 inside both.
HEAVY_D, HEAVY_SPAN, HEAVY_ALPHA = 0.075, 4.0, 6.0


class Phase(NamedTuple):
    """A phase and what speaks for it.

    Attributes:
        name: One of ``PHASES``.
        evidence: One line with the numbers that decided.
    """

    name: str
    evidence: str


def phase(row: Mapping[str, Any]) -> Phase:
    """Name the phase of a layer.

    Args:
        row: A row of ``Analysis.details``. Read are ``num_evals M weak_rank_loss num_spikes bulk_p_value spike_strength alpha D
            xmin xmax``, and nothing else.

    Returns:
        The phase, in this order: *rank-collapse*, 1 % of the eigenvalues lost and at least two; *undecided*, fewer than 32
        eigenvalues, a side below 16, or neither a bulk nor a fit; with a bulk that passes for noise (p at least 0.005)
        *random-like* without spikes, *bulk+spikes* if the strongest signal is at least twice the weakest that shows,
        *bleeding-out* if not; else *heavy-tailed* if a power law with alpha at most 6 fits to D at most 0.075 over a
        factor of at least 4, and *bulk-decay* if not.
    """
    total, lost = row["num_evals"], _value(row, "weak_rank_loss")
    if lost is not None and lost >= max(MIN_COLLAPSED, COLLAPSED * total):
        return Phase("rank-collapse", f"{lost} of {total} eigenvalues are zero or as good as zero")
    if total < MIN_EIGENVALUES:
        return Phase("undecided", f"{total} eigenvalues, {MIN_EIGENVALUES} are needed")
    if row["M"] < MIN_SIDE:
        return Phase("undecided", f"the smaller side of a slice is {row['M']}, noise is known from {MIN_SIDE} on")
    p, spikes = _value(row, "bulk_p_value"), _value(row, "num_spikes")
    if p is not None and p >= BULK_LEVEL:
        noise = f"bulk fits noise (p = {p:.2g})"
        if spikes == 0:
            return Phase("random-like", f"{noise}, no eigenvalue above its edge")
        strength = row["spike_strength"]
        name = "bulk+spikes" if strength >= WELL_SEPARATED else "bleeding-out"
        return Phase(
            name, f"{noise}, {spikes} above its edge, the strongest {strength:.2f} times the weakest that shows"
        )
    bulk = "no noise bulk" if p is None else f"bulk is not noise (p = {p:.1g})"
    alpha, D = _value(row, "alpha"), _value(row, "D")
    if alpha is None or D is None:
        return Phase("undecided", f"{bulk}, and no power-law fit")
    span = row["xmax"] / row["xmin"]
    heavy = D <= HEAVY_D and span >= HEAVY_SPAN and alpha <= HEAVY_ALPHA
    fit = f"alpha {alpha:.2f} fits to D = {D:.3f} over a factor of {span:.3g}"
    return Phase("heavy-tailed" if heavy else "bulk-decay", f"{bulk}; {fit}")


def _value(row: Mapping[str, Any], name: str) -> Any:
    """A number of the row; None where it is missing."""
    value = row.get(name)
    return None if value is None or pd.isna(value) else value
