"""How sure a phase is: how often it would be the same if the weight were drawn again."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy

from htsr.audit.noise_like import EXPLAINED_LEVEL, STRUCTURE_LEVEL, NoiseTest
from htsr.audit.phases import BETWEEN, BULK_LEVEL, STRUCTURED, WELL_SEPARATED, Phase, is_heavy, known_value
from htsr.bulk.tracy_widom import DEVIATION, edge_score
from htsr.p_values import BULK_P, NULL_P, PValue
from htsr.tails.resampling import Refits

# A phase with a smaller probability shares its name with its neighbour, if the two together have at least this one.
SURE = 0.75
# Deviation of ``spike_strength`` times the fourth root of N M, of one signal in noise (measured at strengths of 1.5 to 4).
STRENGTH_DEVIATION = 1.0
# A new draw differs from this one by the errors of both.
OF_BOTH = math.sqrt(2)
# Phases that do not depend on chance.
CERTAIN = ("rank-collapse", "fixed-basis")


class SurePhase(NamedTuple):
    """A phase with its probability.

    Attributes:
        phase: The phase; "bulk-decay or heavy-tailed" if the two cannot be told apart.
        probability: Share of new draws that would have it; NaN if it is undecided.
    """

    phase: Phase
    probability: float


def sure_phase(named: Phase, row: Mapping[str, Any], refits: Refits | None, tested: NoiseTest | None) -> SurePhase:
    """Return the phase of a row as far as it is sure, with its probability.

    ``named`` is the phase of the row itself, ``refits`` the fits of its resamples, ``tested`` its test against noise.
    """
    if named.name in CERTAIN:
        return SurePhase(named, 1.0)
    if named.name == "undecided" or refits is None:
        return SurePhase(named, math.nan)
    chances = phase_chances(row, refits, tested)
    probability = chances[named.name]
    both = chances["bulk-decay"] + chances["heavy-tailed"]
    if named.name in ("bulk-decay", "heavy-tailed") and probability < SURE <= both:
        return SurePhase(Phase(BETWEEN, named.evidence), both)
    return SurePhase(named, probability)


def phase_chances(row: Mapping[str, Any], refits: Refits, tested: NoiseTest | None) -> dict[str, float]:
    """Return how probable each phase is in a new draw of a weight that has a bulk, a fit or both.

    A p-value counts by its normal score, whose error is that of a standard normal number (Goodman 1992); a spike by its distance
    from the bound, in deviations; a power law by the share of resamples within the bounds.
    """
    noise, heavy = _share_above(row.get("bulk_p_value"), BULK_LEVEL, BULK_P), _share_heavy(row, refits)
    random, strong = _share_without_spikes(row)
    chances = {
        "random-like": noise * random,
        "bleeding-out": noise * (1 - random) * (1 - strong),
        "bulk+spikes": noise * (1 - random) * strong,
        "bulk-decay": (1 - noise) * (1 - heavy),
        "heavy-tailed": (1 - noise) * heavy,
    }
    if tested is None:
        return chances
    explained, independent = (
        _share_above(tested.p_value, level, NULL_P) for level in (EXPLAINED_LEVEL, STRUCTURE_LEVEL)
    )
    seen = chances["random-like"]
    after = {name: chances[name] * (1 - explained) for name in STRUCTURED}
    after["random-like"] = seen * independent + sum(chances[name] for name in STRUCTURED) * explained
    after["bulk-decay"] += seen * (1 - independent)
    return after


def _share_above(p_value: float | None, level: float, kind: PValue) -> float:
    """Return how often a new draw has a p-value of at least ``level``; never if there is none or it is the least one."""
    if p_value is None or not p_value > kind.floor:
        return 0.0
    return _below(scipy.special.ndtri(p_value) - scipy.special.ndtri(level))


def _below(deviations: float) -> float:
    """Return how often a new draw stays below a bound that lies so many deviations above this one."""
    return float(scipy.special.ndtr(deviations / OF_BOTH))


def _share_without_spikes(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return how often a new draw has no spike, and how often the strongest of its spikes stands apart."""
    strength, N, M = known_value(row, "spike_strength"), row["N"], row["M"]
    if strength is None:
        if known_value(row, "bulk_max") is None:
            return 1.0, 0.0
        variance = row["bulk_max"] / (math.sqrt(N) + math.sqrt(M)) ** 2
        threshold, largest = (
            edge_score(row[name] / variance, N, M)[0] for name in ("spike_threshold", "spectral_norm")
        )
        return _below((threshold - largest) / DEVIATION), 0.0
    deviation = STRENGTH_DEVIATION / (N * M) ** 0.25
    return _below((1 - strength) / deviation), _below((strength - WELL_SEPARATED) / deviation)


def _share_heavy(row: Mapping[str, Any], refits: Refits) -> float:
    """Return how often a new draw has the power law of a heavy tail.

    The D of the row errs as much as that of one resample, and resamples follow a power law even where the spectrum does not, so
    new draws are taken to scatter about the middle between the two.
    """
    alpha, D, span, typical = row["alpha"], row["D"], row["xmax"] / row["xmin"], np.median(refits.D)
    D_drawn = (D + typical) / 2 + OF_BOTH * (refits.D - typical)
    alpha_drawn = 1 + (alpha - 1) * ((refits.alpha - 1) / (alpha - 1)) ** OF_BOTH
    span_drawn = span * (row["xmin"] / refits.xmin) ** OF_BOTH
    return float(np.mean(is_heavy(alpha_drawn, D_drawn, span_drawn)))
