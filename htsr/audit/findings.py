"""What a person should look at in a row, in plain sentences with the numbers."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from htsr.bulk.bulk_fit import MAX_KURTOSIS

# A fit to a tail of fewer values says little: 95 % intervals from tails of 30 values cover 71 % (benchmarks/tail_accuracy.py).
SMALL_TAIL = 30
# p-values up to these are worth a sentence: of noise looking this heavy-tailed, and of the goodness of fit.
SIGNIFICANT, POOR_FIT = 0.05, 0.1


def findings_of_row(row: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that stands out in a row of an analysis, the most important first."""
    r = {name: value for name, value in row.items() if value is not None and not pd.isna(value)}
    if r.get("phase") == "fixed-basis":  # what its numbers would mean in a trained weight does not apply
        return [f"Fixed basis, not a trained weight: {r['phase_evidence']}. Its numbers say nothing about training."]
    failure = [f"Not fitted: {r['reason']}."] if r.get("status") == "failed" else []
    return failure + _phase(r) + _entries(r) + _traps(r) + (_tail(r) if "alpha" in r else [])


def _phase(r: dict[str, Any]) -> list[str]:
    """Return what the phase means, for phases that should worry a person."""
    match r.get("phase"):
        case "random-like":
            alpha = ""
            if "alpha" in r and "null_alpha" in r:
                alpha = f" An alpha of {r['alpha']:.2f} is not evidence of structure: {_noise_band(r)}."
            return [f"Indistinguishable from noise: {r['phase_evidence']}.{alpha}"]
        case "rank-collapse":
            return [f"Rank collapse: {r['phase_evidence']}."]
    return []


def _noise_band(r: dict[str, Any]) -> str:
    """Return the alphas that noise of this shape has."""
    return (
        f"90 % of noise matrices of this shape have an alpha of {r['null_alpha_low']:.2f} to {r['null_alpha_high']:.2f}"
    )


def _entries(r: dict[str, Any]) -> list[str]:
    """Return a warning if the entries are so far from normal that the comparison with noise suffers."""
    if r.get("kurtosis", 0) <= MAX_KURTOSIS:
        return []
    return [
        f"The entries are far from normal (excess kurtosis {r['kurtosis']:.3g}), as in sparse or heavy-tailed matrices: the "
        "comparison with noise counts such entries as structure."
    ]


def _as_in_noise(r: dict[str, Any]) -> bool:
    """Return whether alpha lies in the band that holds 90 % of noise."""
    return bool(r["null_alpha_low"] <= r["alpha"] <= r["null_alpha_high"])


def _traps(r: dict[str, Any]) -> list[str]:
    """Return the correlation traps with their causes."""
    if "max_rand_eval" in r and "num_traps" not in r:
        return ["Traps could not be counted: the shuffled matrix has no noise bulk."]
    if not r.get("num_traps"):
        return []
    causes = []
    if r["trap_elements"]:
        causes.append(f"element{'s' if ';' in r['trap_elements'] else ''} {r['trap_elements']}")
    if r["trap_mean_strength"] > 1:
        causes.append(
            f"a mean of {r['trap_mean']:.3g}, {r['trap_mean_strength']:.2f} times what noise of this size can hide"
        )
    cause = f": {' and '.join(causes)}" if causes else "; no element and no mean alone explains it"
    number = r["num_traps"]
    return [
        f"{number} correlation {'trap survives' if number == 1 else 'traps survive'} a shuffle of the entries{cause}."
    ]


def _tail(r: dict[str, Any]) -> list[str]:
    """Return what to think of alpha, of the number of values it rests on, and of the fit."""
    said = []
    noise = ""
    if "null_alpha" in r:
        noise = f"{_noise_band(r)} (p = {r['null_p_value']:.2g} that noise looks this heavy-tailed)"
    beside = f"; {noise}" if noise else ""
    interval = ""
    if "alpha_low" in r:
        interval = f" (95 % interval {r['alpha_low']:.2f} to {r['alpha_high']:.2f})"
    if r["warning"] == "over-trained":
        said.append(f"alpha {r['alpha']:.2f}{interval} is below 2{beside}.")
    elif r["warning"] == "under-trained" and r.get("phase") != "random-like":
        said.append(f"alpha {r['alpha']:.2f}{interval} is above 6: the tail is barely heavy{beside}.")
    elif r.get("phase") != "random-like" and r.get("null_p_value", 0) > SIGNIFICANT and _as_in_noise(r):
        said.append(f"Noise alone can give this alpha, {r['alpha']:.2f}{interval}: {noise}.")
    if r["num_pl_spikes"] < SMALL_TAIL:
        said.append(f"The fit of the tail rests on {r['num_pl_spikes']} of {r['num_evals']} eigenvalues.")
    if r.get("goodness_of_fit", 1) <= POOR_FIT:
        said.append(
            f"A power law fits the tail poorly (goodness of fit p = {r['goodness_of_fit']:.2f}; a p of 0.1 or less speaks "
            "against a power law)."
        )
    if r.get("alternative"):
        name = r["alternative"].replace("_", " ")
        article = "An" if name[0] in "aeiou" else "A"
        said.append(f"{article} {name} fits the tail better than a power law (p = {r['alternative_p_value']:.2g}).")
    return said
