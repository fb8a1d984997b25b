"""The verdict on a model in three sentences: what is wrong, what alpha says, and how far to trust it."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import pandas as pd

from htsr.audit.findings import SMALL_TAIL, Finding
from htsr.text import visible

# The kinds of findings that each sentence speaks of.
WRONG = ("noise", "rank-collapse", "unusable")
ALPHA = ("under-trained", "over-trained", "alpha-of-noise")
TRUST = ("short-tail", "no-power-law", "heavy-entries", "trap")
# A sentence names this many layers; the findings name all of them.
MAX_NAMES = 3


class Sentence(NamedTuple):
    """A sentence of a verdict.

    Attributes:
        text: The sentence.
        kinds: The kinds of findings that it speaks of.
    """

    text: str
    kinds: tuple[str, ...] = ()


def verdict_of_audit(details: pd.DataFrame, findings: Sequence[Finding]) -> list[Sentence]:
    """Return at most three sentences on an analysis: the table of its layers, and its findings in their order."""
    own = details[details["tied_to"] == ""]
    fitted = own[own["status"] == "success"]
    of_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        of_kind.setdefault(finding.kind, []).append(finding)
    sentences = (
        Sentence(_what_is_wrong(own, fitted, of_kind), WRONG),
        Sentence(_what_alpha_says(fitted, of_kind), ALPHA),
        Sentence(_how_far(of_kind), TRUST),
    )
    return [sentence for sentence in sentences if sentence.text]


def _what_is_wrong(own: pd.DataFrame, fitted: pd.DataFrame, of_kind: Mapping[str, list[Finding]]) -> str:
    """Return which matrices hold noise, have lost rank or cannot be used."""
    noise, collapsed, unusable = (of_kind.get(kind, []) for kind in WRONG)
    if not len(own):
        return "There is no weight matrix."
    matrices = _count(len(fitted), "fitted matrix", "fitted matrices")
    if not all("alpha" in finding.evidence for finding in noise):
        matrices = _count(len(own), "matrix", "matrices")
    parts = [] if len(fitted) else ["No matrix has a power-law fit"]
    if noise:
        be = "is noise, as if it had" if len(noise) == 1 else "are noise, as if they had"
        parts.append(f"{len(noise)} of {matrices} {be} never been trained: {named(noise)}")
    if collapsed:
        parts.append(
            f"{len(collapsed)} of {len(own)} {'has' if len(collapsed) == 1 else 'have'} lost rank: {named(collapsed)}"
        )
    if unusable:
        parts.append(f"{len(unusable)} could not be used: {named(unusable)}")
    if parts:
        return f"{'; '.join(parts)}."
    judged = int((own["phase"] != "").sum())
    if not judged:
        return ""
    whole = f"of {matrices}" if judged == len(own) else f"of the {judged} matrices that could be judged"
    return f"None {whole} is noise, and none has lost rank."


def _what_alpha_says(fitted: pd.DataFrame, of_kind: Mapping[str, list[Finding]]) -> str:
    """Return how many alphas lie outside 2 to 6, and how many noise could give, too."""
    judged = fitted[~fitted["phase"].isin(("random-like", "fixed-basis"))]
    if not len(judged):
        return ""
    above, below, as_noise = (of_kind.get(kind, []) for kind in ALPHA)
    parts = []
    if above:
        parts.append(f"{_have(above)} alpha above 6, so hardly a heavy tail: {named(above)}")
    if below:
        parts.append(f"{_have(below)} alpha below 2, heavier than most well-trained layers: {named(below)}")
    if as_noise:
        parts.append(f"{_have(as_noise)} an alpha that says nothing, since noise is as heavy-tailed: {named(as_noise)}")
    if parts:
        return f"{'; '.join(parts)}."
    low, high = judged["alpha"].min(), judged["alpha"].max()
    return f"Every {'other ' if len(judged) < len(fitted) else ''}alpha lies between 2 and 6: {low:.2f} to {high:.2f}."


def _how_far(of_kind: Mapping[str, list[Finding]]) -> str:
    """Return what limits the trust in the fits."""
    short, poor, entries, traps = (of_kind.get(kind, []) for kind in TRUST)
    parts = []
    if short:
        rests = "tail rests" if len(short) == 1 else "tails rest"
        its = "its" if len(short) == 1 else "their"
        parts.append(f"{len(short)} {rests} on fewer than {SMALL_TAIL} values, so read {its} alpha as {_range(short)}")
    if poor:
        parts.append(f"{_count(len({f.name for f in poor}), 'tail is', 'tails are')} no power law: {named(poor)}")
    if entries:
        parts.append(
            f"the entries of {_count(len(entries), 'matrix', 'matrices')} are far from normal: {named(entries)}"
        )
    if traps:
        parts.append(f"{_have(traps)} correlation traps: {named(traps)}")
    return f"{'; '.join(parts)}." if parts else ""


def _range(short: Sequence[Finding]) -> str:
    """Return how far the alphas of short tails can be trusted: half of the 95 % intervals, or two standard errors."""
    first = short[0].evidence
    if len(short) == 1 and "alpha_low" in first:
        return f"{first['alpha_low']:.1f} to {first['alpha_high']:.1f}"
    halves = [
        (of["alpha_high"] - of["alpha_low"]) / 2 if "alpha_low" in of else 2 * of["sigma"]
        for of in (finding.evidence for finding in short)
    ]
    return f"± {median(halves):.1f}" + (" or so" if len(short) > 1 else "")


def named(findings: Sequence[Finding]) -> str:
    """Return the names of the first layers, and how many more there are."""
    return first_names(finding.name for finding in findings)


def first_names(layers: Iterable[str]) -> str:
    """Return the names of the first of some layers, and how many more there are."""
    names = list(dict.fromkeys(map(visible, layers)))
    if len(names) <= MAX_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:MAX_NAMES])} and {len(names) - MAX_NAMES} more"


def _have(findings: Sequence[Finding]) -> str:
    """Return ``1 has`` or ``3 have``."""
    return f"{len(findings)} {'has' if len(findings) == 1 else 'have'}"


def _count(number: int, one: str, more: str) -> str:
    """Return a number of things in words."""
    return f"{number} {one if number == 1 else more}"
