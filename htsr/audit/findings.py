"""What a person should look at in a row, in plain sentences with the numbers."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from htsr.bulk.bulk_fit import MAX_KURTOSIS

# A tail of fewer values than this says little: intervals from tails of 30 values cover 71 % (benchmarks/tail_accuracy.py).
SMALL_TAIL = 30
# p-values below these are worth a sentence.
SIGNIFICANT, POOR_FIT = 0.05, 0.1


def findings(row: Mapping[str, Any]) -> list[str]:
    """Say what stands out in a row, the most important first.

    Args:
        row: A row of ``Analysis.details``; what it lacks is not spoken of.

    Returns:
        Sentences; none where nothing stands out.
    """
    r = {name: value for name, value in row.items() if value is not None and not pd.isna(value)}
    if r.get("status") == "failed":
        first = [f"Not fitted: {r['reason']}."]
    else:
        first = []
    return first + _phase(r) + _entries(r) + _traps(r) + (_tail(r) if "alpha" in r else [])


def _phase(r: dict[str, Any]) -> list[str]:
    match r.get("phase"):
        case "random-like":
            alpha = ""
            if "alpha" in r and "null_alpha" in r:
                alpha = (
                    f" Its alpha of {r['alpha']:.2f} is no finding; 90 % of noise of this shape has "
                    f"{r['null_alpha_low']:.2f} to {r['null_alpha_high']:.2f}."
                )
            return [f"Indistinguishable from noise: {r['phase_evidence']}.{alpha}"]
        case "rank-collapse":
            return [f"Rank collapse: {r['phase_evidence']}."]
    return []


def _entries(r: dict[str, Any]) -> list[str]:
    if r.get("kurtosis", 0) <= MAX_KURTOSIS:
        return []
    return [
        f"The entries are far from normal (excess kurtosis {r['kurtosis']:.3g}), as in sparse or heavy-tailed matrices: what "
        "is said of noise counts such entries as structure."
    ]


def _as_in_noise(r: dict[str, Any]) -> bool:
    return bool(r["null_alpha_low"] <= r["alpha"] <= r["null_alpha_high"])


def _traps(r: dict[str, Any]) -> list[str]:
    if "max_rand_eval" in r and "num_traps" not in r:
        return ["Traps cannot be counted: the shuffled matrix has no noise bulk."]
    if not r.get("num_traps"):
        return []
    causes = []
    if r["trap_elements"]:
        causes.append(f"element{'s' if ';' in r['trap_elements'] else ''} {r['trap_elements']}")
    if r["trap_mean_strength"] > 1:
        causes.append(
            f"a mean of {r['trap_mean']:.3g}, {r['trap_mean_strength']:.2f} times what noise of this size hides"
        )
    cause = f": {' and '.join(causes)}" if causes else "; no element and no mean alone explains it"
    number = r["num_traps"]
    return [f"{number} correlation {'trap' if number == 1 else 'traps'}, left after a shuffle of the entries{cause}."]


def _tail(r: dict[str, Any]) -> list[str]:
    said = []
    noise = ""
    if "null_alpha" in r:
        noise = f"; 90 % of noise of this shape has {r['null_alpha_low']:.2f} to {r['null_alpha_high']:.2f}"
        noise += f" (p = {r['null_p_value']:.2g} that noise looks this heavy-tailed)"
    interval = ""
    if "alpha_low" in r:
        interval = f" (95 % interval {r['alpha_low']:.2f} to {r['alpha_high']:.2f})"
    if r["warning"] == "over-trained":
        said.append(f"alpha {r['alpha']:.2f}{interval} is below 2{noise}.")
    elif r["warning"] == "under-trained" and r.get("phase") != "random-like":
        said.append(f"alpha {r['alpha']:.2f}{interval} is above 6: the tail is hardly heavy{noise}.")
    elif r.get("phase") != "random-like" and r.get("null_p_value", 0) > SIGNIFICANT and _as_in_noise(r):
        said.append(f"alpha {r['alpha']:.2f}{interval} is what noise can give{noise.replace(';', ':', 1)}.")
    if r["num_pl_spikes"] < SMALL_TAIL:
        said.append(f"The tail rests on {r['num_pl_spikes']} values of {r['num_evals']}.")
    if r.get("goodness_of_fit", 1) <= POOR_FIT:
        said.append(
            f"A power law fits the tail poorly (goodness of fit p = {r['goodness_of_fit']:.2f}; up to 0.1 speaks against it)."
        )
    if r.get("alternative"):
        name = r["alternative"].replace("_", " ")
        said.append(f"A {name} fits the tail better than a power law (p = {r['alternative_p_value']:.2g}).")
    return said
