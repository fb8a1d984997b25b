"""The 5+1 phases of Martin and Mahoney (JMLR 22:165, 2021): which one a row is in, and the numbers that decided.

``fixed-basis`` is ours: the weight was written down, not trained.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from htsr.p_values import BULK_P

PHASES = (
    "random-like", "bleeding-out", "bulk+spikes", "bulk-decay", "heavy-tailed", "bulk-decay or heavy-tailed", "rank-collapse",
    "fixed-basis", "undecided",
)  # fmt: skip
# The label of a spectrum whose resamples say now the one and now the other.
BETWEEN = "bulk-decay or heavy-tailed"

# Those of a spectrum that differs from noise.
STRUCTURED = ("bleeding-out", "bulk+spikes", "bulk-decay", "heavy-tailed")

# What each phase says of a spectrum.
MEANINGS: Mapping[str, str] = {
    "random-like": "The spectrum is that of noise: a Marchenko-Pastur bulk without an eigenvalue above its edge.",
    "bleeding-out": "A bulk of noise from which a few weak eigenvalues begin to come out, as early in training.",
    "bulk+spikes": "A bulk of noise with eigenvalues that stand well apart: a small model that has learned a few directions.",
    "bulk-decay": "The bulk is not noise any more and its upper end decays, but no power law fits over a wide range.",
    "heavy-tailed": "A power law fits the upper part of the spectrum over a factor of at least 4, as in well-trained models.",
    "bulk-decay or heavy-tailed": "The bulk is not noise; whether a power law fits differs from resample to resample.",
    "rank-collapse": "At least 1 % of the eigenvalues are zero or as good as zero.",
    "fixed-basis": "The matrix is a basis that somebody wrote down, such as that of a Fourier transform, and was not trained.",
    "undecided": "The matrix is too small, or has no fit, for a phase to be named.",
}

# Explanations that suffice, and what each leaves as noise.
SUFFICIENT: Mapping[str, str] = {
    "row and column scales": "row and column scales",
    "entries": "the law of its entries",
    "zero pattern": "the zeros in it",
    "scales and entries": "row and column scales and the law of its entries",
}
BEYOND: Mapping[str, str] = {
    "profile": "structure beyond scales",
    "entries": "structure beyond scales and entries",
}
EXPLANATIONS = ("", *SUFFICIENT, *BEYOND.values())

# The papers name the phases and show them in plots; these bounds are ours. We set and checked them on generated ensembles
# (benchmarks/noise_calibration.py has the confusion matrix).
#
# With fewer eigenvalues, or a smaller slice, only a rank collapse can be recognised.
MIN_PHASE_EIGENVALUES, MIN_SIDE = 32, 16
# Lost eigenvalues, as a share and a number: one may vanish by chance in a square matrix of noise.
COLLAPSED, MIN_COLLAPSED = 0.01, 2
# A bulk with a smaller p-value than this is not noise.
BULK_LEVEL = 0.005
# Singular value of the strongest planted signal over the weakest that shows (BBP): from here on a spike stands apart.
WELL_SEPARATED = 2.0
# A tail is heavy if a power law fits it with at most this D, over at least this factor, with at most this alpha. Covariances
# that decay lognormally or exponentially miss the first or the second bound; Pareto ones with an exponent up to 3, and planted
# ones up to 4, meet both.
HEAVY_D, HEAVY_SPAN, HEAVY_ALPHA = 0.075, 4.0, 6.0


class Phase(NamedTuple):
    """A phase and the evidence for it.

    Attributes:
        name: One of ``PHASES``.
        evidence: One line with the numbers that decided.
    """

    name: str
    evidence: str


def phase(row: Mapping[str, Any], basis: str | None = None) -> Phase:
    """Return the phase of a row: the first of these that applies.

    0. *fixed-basis*: a formula made the weight; ``basis`` says which. The other phases are those of trained weights.
    1. *rank-collapse*: at least 1 % of the eigenvalues are lost, and at least two.
    2. *undecided*: fewer than 32 eigenvalues, or a side below 16.
    3. The bulk passes for noise (p at least 0.005): *random-like* without spikes; *bulk+spikes* if the strongest signal is at
       least twice the weakest that shows; *bleeding-out* otherwise.
    4. *undecided*: there is no power-law fit.
    5. *heavy-tailed*: a power law with alpha at most 6 fits to D at most 0.075 over a factor of at least 4.
    6. *bulk-decay*: none of the above.
    """
    if basis is not None:
        return Phase("fixed-basis", basis)
    total, lost = row["num_evals"], known_value(row, "weak_rank_loss")
    if lost is not None and lost >= max(MIN_COLLAPSED, COLLAPSED * total):
        return Phase("rank-collapse", f"{lost} of {total} eigenvalues are zero or as good as zero")
    if total < MIN_PHASE_EIGENVALUES:
        return Phase("undecided", f"{total} eigenvalues; a phase needs {MIN_PHASE_EIGENVALUES}")
    if row["M"] < MIN_SIDE:
        return Phase("undecided", f"the smaller side of a slice is {row['M']}; a phase needs {MIN_SIDE}")
    p, spikes = known_value(row, "bulk_p_value"), known_value(row, "num_spikes")
    if p is not None and p >= BULK_LEVEL:
        noise = f"bulk fits noise ({BULK_P.equals(p)})"
        if spikes == 0:
            return Phase("random-like", f"{noise}, no eigenvalue above its edge")
        strength = row["spike_strength"]
        name = "bulk+spikes" if strength >= WELL_SEPARATED else "bleeding-out"
        return Phase(
            name, f"{noise}, {spikes} above its edge, the strongest {strength:.2f} times the weakest that shows"
        )
    bulk = "no noise bulk" if p is None else f"bulk is not noise ({BULK_P.equals(p)})"
    alpha, D = known_value(row, "alpha"), known_value(row, "D")
    if alpha is None or D is None:
        return Phase("undecided", f"{bulk}, and no power-law fit")
    span = row["xmax"] / row["xmin"]
    heavy = is_heavy(alpha, D, span)
    fit = f"alpha {alpha:.2f} fits to D = {D:.3f} over a factor of {span:.3g}"
    return Phase("heavy-tailed" if heavy else "bulk-decay", f"{bulk}; {fit}")


def is_heavy(alpha: Any, D: Any, span: Any) -> Any:
    """Return whether the power law of a tail is one of a heavy tail: a truth value, or an array of them for arrays."""
    return (D <= HEAVY_D) & (span >= HEAVY_SPAN) & (alpha <= HEAVY_ALPHA)


def known_value(row: Mapping[str, Any], name: str) -> Any:
    """Return a number of the row, or None if it is missing."""
    value = row.get(name)
    return None if value is None or pd.isna(value) else value
