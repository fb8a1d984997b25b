"""What a person should look at in a layer: findings, each with its kind, its severity and the numbers behind it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from htsr.audit.columns import BY_NAME
from htsr.audit.row import Row
from htsr.bulk.bulk_fit import MAX_KURTOSIS
from htsr.p_values import GOODNESS_P, NULL_P, VUONG_P

# A fit to a tail of fewer values says little: sigma is a fifth of alpha - 1 and more.
SMALL_TAIL = 30
# p-values up to these are worth a sentence: of noise looking this heavy-tailed, and of the goodness of fit.
SIGNIFICANT, POOR_FIT = 0.05, 0.1

Severity = Literal["problem", "caution", "note"]


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        severity: ``problem``: the weight itself is suspect. ``caution``: its alpha should not be read like that of other
            layers. ``note``: good to know.
        by: The column that ranks findings of this kind.
        largest_first: Whether the largest value of that column is the worst.
    """

    severity: Severity
    by: str
    largest_first: bool = True


# Every kind, the worst first. This order is the order of findings everywhere.
KINDS: Mapping[str, Kind] = {
    "unusable": Kind("problem", "N"),
    "not-compared": Kind("problem", "N"),
    "noise": Kind("problem", "bulk_p_value"),
    "rank-collapse": Kind("problem", "weak_rank_loss"),
    "trap": Kind("caution", "num_traps"),
    "under-trained": Kind("caution", "alpha"),
    "over-trained": Kind("caution", "alpha", largest_first=False),
    "alpha-of-noise": Kind("caution", "gaussian_p_value"),
    "no-power-law": Kind("caution", "D"),
    "heavy-entries": Kind("caution", "kurtosis"),
    "short-tail": Kind("note", "num_pl_spikes", largest_first=False),
    "not-fitted": Kind("note", "N"),
    "fixed-basis": Kind("note", "N"),
}
SEVERITIES: tuple[Severity, ...] = ("problem", "caution", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that stands out in a layer.

    Attributes:
        name: Name of the layer.
        kind: One of ``KINDS``.
        severity: ``problem``, ``caution`` or ``note``.
        text: A sentence for people, with the numbers.
        evidence: The numbers, by column.
    """

    name: str
    kind: str
    severity: Severity
    text: str
    evidence: Mapping[str, Any]

    def __str__(self) -> str:
        return self.text

    @property
    def evidence_text(self) -> str:
        """The evidence in words: ``alpha 7.21, sigma 1.02``."""
        return ", ".join(f"{name} {BY_NAME[name].text(value)}" for name, value in self.evidence.items())


def ranked(findings: Iterable[Finding], kinds: Mapping[str, Kind] = KINDS) -> list[Finding]:
    """Return findings of several layers with the worst first: by kind, then by the number that ranks the kind."""
    order = list(kinds)

    def rank(finding: Finding) -> tuple[int, float]:
        kind = kinds[finding.kind]
        value = float(finding.evidence.get(kind.by, 0))
        return order.index(finding.kind), -value if kind.largest_first else value

    return sorted(findings, key=rank)


def worst_severity(findings: Sequence[Finding]) -> str:
    """Return the severity of the worst finding, an empty text if there is none."""
    return min((finding.severity for finding in findings), key=SEVERITIES.index, default="")


def with_findings(row: Row) -> Row:
    """Return a row with what its findings say and the severity of the worst."""
    found = findings_of_row(row)
    return row | {"findings": " ".join(map(str, found)), "severity": worst_severity(found)}


def findings_of_row(row: Mapping[str, Any]) -> list[Finding]:
    """Return what stands out in a row of an analysis, the worst first."""
    r = {name: value for name, value in row.items() if value is not None and not pd.isna(value)}
    if r.get("phase") == "fixed-basis":  # what its numbers would mean in a trained weight does not apply
        text = f"Fixed basis, not a trained weight: {r['phase_evidence']}. Its numbers say nothing about training."
        return [_finding(r, "fixed-basis", text, "N", "M")]
    found = [*_failure(r), *_phase(r), *_entries(r), *_traps(r)]
    if "alpha" in r:
        found += [*_alpha(r), *_tail(r)]
    return ranked(found)


def _finding(r: Mapping[str, Any], kind: str, text: str, *columns: str) -> Finding:
    """Return a finding with those of its columns that have a value."""
    return Finding(r["name"], kind, KINDS[kind].severity, text, {name: r[name] for name in columns if name in r})


def _failure(r: dict[str, Any]) -> list[Finding]:
    """Return why there is no fit; without a spectrum, the weight itself could not be used."""
    if r.get("status") != "failed":
        return []
    kind = "not-fitted" if "spectral_norm" in r else "unusable"
    return [_finding(r, kind, f"Not fitted: {r['reason']}.", "N", "M")]


def _phase(r: dict[str, Any]) -> list[Finding]:
    """Return what the phase means, for phases that should worry a person."""
    match r.get("phase"):
        case "random-like":
            if r.get("explained_by"):
                text = f"{r['phase_evidence'].capitalize()}: random numbers with these are as structured."
            else:
                text = f"Indistinguishable from noise: {r['phase_evidence']}."
                if "alpha" in r and "null_alpha" in r:
                    text += f" An alpha of {r['alpha']:.2f} is not evidence of structure: {_noise_band(r)}."
            return [
                _finding(r, "noise", text, "bulk_p_value", "num_spikes", "alpha", "null_alpha_low", "null_alpha_high")
            ]
        case "rank-collapse":
            return [
                _finding(r, "rank-collapse", f"Rank collapse: {r['phase_evidence']}.", "weak_rank_loss", "num_evals")
            ]
    return []


def _noise_band(r: dict[str, Any]) -> str:
    """Return the alphas that noise of this shape has."""
    return (
        f"90 % of noise matrices of this shape have an alpha of {r['null_alpha_low']:.2f} to {r['null_alpha_high']:.2f}"
    )


def _entries(r: dict[str, Any]) -> list[Finding]:
    """Return a warning if the entries are so far from normal that the comparison with noise suffers."""
    if r.get("kurtosis", 0) <= MAX_KURTOSIS:
        return []
    text = (
        f"The entries are far from normal (excess kurtosis {r['kurtosis']:.3g}), as in sparse or heavy-tailed matrices: the "
        "alpha, the bulk and the spikes of Gaussian noise say little about it."
    )
    return [_finding(r, "heavy-entries", text, "kurtosis")]


def _traps(r: dict[str, Any]) -> list[Finding]:
    """Return the correlation traps with their causes."""
    if "max_rand_eval" in r and "num_traps" not in r:
        text = "Traps could not be counted: the shuffled matrix has no noise bulk."
        return [_finding(r, "trap", text, "max_rand_eval")]
    if not r.get("num_traps"):
        return []
    causes = []
    if r["trap_elements"]:
        causes.append(f"element{'s' if ';' in r['trap_elements'] else ''} {r['trap_elements']}")
    if r.get("trap_mean_strength", 0) > 1:  # it is missing where the shuffled matrix has no noise bulk
        causes.append(
            f"a mean of {r['trap_mean']:.3g}, {r['trap_mean_strength']:.2f} times what noise of this size can hide"
        )
    cause = f": {' and '.join(causes)}" if causes else "; no element and no mean alone explains it"
    number = r["num_traps"]
    text = (
        f"{number} correlation {'trap survives' if number == 1 else 'traps survive'} a shuffle of the entries{cause}."
    )
    return [_finding(r, "trap", text, "num_traps", "trap_mean_strength")]


def is_as_heavy_in_noise(r: Mapping[str, Any]) -> bool:
    """Return whether noise of this shape is as heavy-tailed: alpha is no smaller, and neither D nor the stable rank differs."""
    return bool(_gaussian_p(r) > SIGNIFICANT and r["alpha"] >= r["null_alpha_low"])


def _gaussian_p(r: Mapping[str, Any]) -> float:
    """Return how rarely Gaussian noise is as heavy-tailed; rows of earlier versions call it null_p_value."""
    p = r.get("gaussian_p_value", math.nan)
    return float(r.get("null_p_value", 0.0) if math.isnan(p) else p)


def _alpha(r: dict[str, Any]) -> list[Finding]:
    """Return what to think of alpha; of noise, its phase has said it."""
    if r.get("phase") == "random-like":
        return []
    columns = ("alpha", "alpha_low", "alpha_high", "sigma", "null_alpha_low", "null_alpha_high", "gaussian_p_value")
    noise = ""
    if "null_alpha" in r:
        noise = f"{_noise_band(r)} ({NULL_P.equals(_gaussian_p(r))} that noise looks this heavy-tailed)"
    beside = f"; {noise}" if noise else ""
    interval = f" (95 % interval {r['alpha_low']:.2f} to {r['alpha_high']:.2f})" if "alpha_low" in r else ""
    if is_as_heavy_in_noise(r):
        kind = "alpha-of-noise"
        text = f"Noise is as heavy-tailed as this layer, whose alpha is {r['alpha']:.2f}{interval}: {noise}."
    elif r["warning"] == "over-trained":
        kind, text = "over-trained", f"alpha {r['alpha']:.2f}{interval} is below 2{beside}."
    elif r["warning"] == "under-trained":
        kind, text = "under-trained", f"alpha {r['alpha']:.2f}{interval} is above 6: the tail is barely heavy{beside}."
    else:
        return []
    return [_finding(r, kind, text, *columns)]


def _tail(r: dict[str, Any]) -> list[Finding]:
    """Return what to think of the fit, and of the number of values it rests on."""
    found = []
    if r["num_pl_spikes"] < SMALL_TAIL:
        text = f"The fit of the tail rests on {r['num_pl_spikes']} of {r['num_evals']} eigenvalues."
        columns = ("num_pl_spikes", "num_evals", "sigma", "alpha_low", "alpha_high")
        found.append(_finding(r, "short-tail", text, *columns))
    if r.get("goodness_of_fit", 1) <= POOR_FIT:
        text = (
            f"A power law fits the tail poorly (goodness of fit {GOODNESS_P.equals(r['goodness_of_fit'])}; a p of "
            "0.1 or less speaks against a power law)."
        )
        found.append(_finding(r, "no-power-law", text, "D", "goodness_of_fit"))
    if r.get("alternative"):
        name = r["alternative"].replace("_", " ")
        p = VUONG_P.equals(r["alternative_p_value"])
        text = f"{'An' if name[0] in 'aeiou' else 'A'} {name} fits the tail better than a power law ({p})."
        found.append(_finding(r, "no-power-law", text, "D", "alternative_p_value"))
    return found
