"""What a step was, in words: a verdict on each matrix, with the numbers that say so, and findings for people."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median

import torch

from htsr.audit.findings import Finding, Kind
from htsr.dynamics.norms import rms_factor
from htsr.dynamics.rules import Rule
from htsr.dynamics.step_measures import Measured
from htsr.optim.learning_rates import FACTORS

# Updates of ranks that average their gradients agree to the last bit, or to rounding where sums are ordered differently.
MAX_RANK_DIFFERENCE = 1e-3
# Weights that decay this fast have forgotten where they started after so many steps. Usual settings take 500 steps (Muon with
# 0.02 and 0.1) and more.
FEWEST_DECAY_STEPS = 100
# A step that falls by so much more of a power of the gradients' scale than its rule says is divided by their norm.
INVERSE = 0.5
# A step is lost to rounding if the noise of the weights' rounding explains half of what it is off by.
NOISY = 1 / 2
# Another rule is named where all steps agree with it this well.
AGREES = (0.8, 1.03)
# A matrix whose smaller side is far below that of the matrices in Muon's groups, such as a router, is not missed there.
NARROW = 0.25

KINDS: Mapping[str, Kind] = {
    "not finite": Kind("problem", "step_per_lr"),
    "tied counted twice": Kind("problem", "step_per_lr"),
    "stale": Kind("problem", "n_in"),
    "no optimizer": Kind("problem", "n_in"),
    "ranks not averaged": Kind("problem", "rank_difference"),
    "lr 0": Kind("problem", "n_in"),
    "no gradient": Kind("note", "n_in"),
    "frozen": Kind("note", "n_in"),
    "below epsilon": Kind("problem", "step_vs_promise", largest_first=False),
    "lost to rounding": Kind("problem", "step_vs_promise", largest_first=False),
    "wrong rule": Kind("problem", "step_vs_promise"),
    "clipped": Kind("problem", "step_vs_promise", largest_first=False),
    "larger than promised": Kind("problem", "step_vs_promise"),
    "weight decay too large": Kind("caution", "weight_decay_share"),
    "wrong group": Kind("caution", "n_in"),
}
# The columns that a finding shows as its evidence.
EVIDENCE = (
    "step_per_lr", "promised_step_per_lr", "step_vs_promise", "homogeneity", "weight_decay_share", "rank_difference", "lr",
    "n_out", "n_in",
)  # fmt: skip

Verdict = tuple[str, str]


def verdicts(measures: Sequence[Measured]) -> list[Verdict]:
    """Return the verdict on each matrix after a step, and the numbers that say so in a sentence."""
    measures = _with_other_rules(measures)
    polar = [min(one.n_out, one.n_in) for one in measures if one.held.group and one.held.rule.is_spectral]
    usual = median(polar) if polar else math.inf
    return [next(_faults(one, usual), _of_sound(one)) for one in measures]


def finding_of(row: Mapping[str, object], count: int, steps: int) -> Finding:
    """Return the finding that a row with a fault stands for; ``count`` of the ``steps`` had the same verdict."""
    verdict = str(row["verdict"])
    when = "In each step" if count == steps else f"In {count} of {steps} steps"
    evidence = {name: row[name] for name in EVIDENCE if row[name] == row[name]}
    text = f"{when} {verdict}: {row['verdict_evidence']}."
    return Finding(str(row["name"]), verdict, KINDS[verdict].severity, text, evidence)


def _of_sound(one: Measured) -> Verdict:
    """Return the verdict on a step in which no fault was found."""
    if math.isnan(one.ratio):
        return (
            "no promise",
            f"step_per_lr is {one.step_per_lr:.3g}, and {one.held.rule.name} promises nothing for this step",
        )
    return "as promised", f"{one.ratio:.2f} times what {one.held.rule.name} promises"


def _faults(one: Measured, usual_side: float) -> Iterator[Verdict]:
    """Yield the faults of a step, the worst first."""
    held, rule = one.held, one.held.rule
    if not math.isfinite(one.update_frobenius):
        yield "not finite", "the update has values that are not finite"
    if held.holders > 1:
        yield "tied counted twice", f"optimizers hold it {held.holders} times, and each of these steps it"
    if held.parameter.requires_grad and not held.holders and held.stands_for:
        yield "stale", "the optimizers hold another tensor of this shape, which is no parameter of the model"
    if held.parameter.requires_grad and not held.holders:
        yield "no optimizer", "no optimizer holds it"
    if one.rank_difference > MAX_RANK_DIFFERENCE:
        yield "ranks not averaged", f"the updates of the ranks differ by {one.rank_difference:.2g} of their norm"
    if not held.parameter.requires_grad:
        yield "frozen", "it does not require a gradient"
    if one.lr == 0:
        yield "lr 0", f"the learning rate of its group in {held.label} is 0"
    if not one.gradient_norm and one.update_frobenius <= 2 * _eps(one) * one.frobenius:  # decay rounds
        reason = "it has no gradient" if one.gradient_norm is None else "its gradient is zero"
        yield (
            "no gradient",
            f"{reason}, and {'only weight decay moved it' if one.decay_frobenius else 'it did not move'}",
        )
    yield from _wrong_sizes(one, rule)
    if rule.decay and 1 / rule.decay <= FEWEST_DECAY_STEPS:
        share = one.decay_frobenius / (one.decay_frobenius + one.update_frobenius)
        yield (
            "weight decay too large",
            f"decay takes {100 * rule.decay:.3g} % of the weights in a step, so that {1 / rule.decay:.0f} steps take all of them "
            f"away; it is {100 * share:.0f} % of the change",
        )
    if held.is_hidden and rule.kind == "adam" and min(one.n_out, one.n_in) >= NARROW * usual_side:
        yield "wrong group", f"{rule.name} moves this hidden matrix, while others of its kind are in a group of Muon"


def _wrong_sizes(one: Measured, rule: Rule) -> Iterator[Verdict]:
    """Yield what is wrong with the size of a step."""
    low, high = rule.bounds
    made = f"the step is {one.ratio:.2g} times what {rule.name} promises"
    noise = _rounding(one)
    expected = one.update_norm / one.ratio if one.ratio > 0 else one.lr * one.promised / rms_factor(one.n_out, one.n_in)
    if one.ratio < low and (one.floored or one.degree > (rule.degree or 0.0) + 0.1):
        grows = f", and grows as the power {one.degree:.2f} of the gradients' scale" if one.degree > 0.1 else ""
        yield "below epsilon", f"{made}{grows}; gradients are as small as epsilon ({rule.eps:g})"
    if not low <= one.ratio <= high and not math.isnan(one.ratio) and noise > NOISY * abs(one.ratio - 1) * expected:
        yield "lost to rounding", f"{made}; {_dtype(one)} weights round steps of this size away, or up"
    if one.update_frobenius == 0 and one.gradient_norm:
        yield "frozen", "its gradient is not zero, and the step did not move it"
    if one.other_rule:
        yield "wrong rule", f"{made}, and agrees with the rule {one.other_rule!r}"
    if one.degree < (rule.degree or 0.0) - INVERSE and rule.degree is not None:
        yield (
            "clipped",
            f"the step changes as the power {one.degree:.2f} of the gradients' scale, not {rule.degree:g}: something divides it "
            "by their norm",
        )
    if one.ratio < low:
        yield "clipped", f"{made}, and the gradients are large enough: something makes it smaller afterwards"
    if one.ratio > high:
        yield "larger than promised", made


def _rounding(one: Measured) -> float:
    """Return the spectral norm of the noise that rounding the weights to their type adds to a step.

    Rounding to unit roundoff u changes a weight w by up to u |w|, with a root mean square near u |w| / sqrt(3).
    """
    u = _eps(one) / 2
    return u / math.sqrt(3) * one.frobenius * (1 / math.sqrt(one.n_out) + 1 / math.sqrt(one.n_in))


def _eps(one: Measured) -> float:
    """Return the distance between 1 and the next number of the weights' type."""
    return torch.finfo(one.held.parameter.dtype).eps


def _dtype(one: Measured) -> str:
    return str(one.held.parameter.dtype).removeprefix("torch.")


def _with_other_rules(measures: Sequence[Measured]) -> list[Measured]:
    """Return measures with the rule that the steps of an optimizer follow instead of the one that it was told to follow.

    A matrix can agree with another rule by chance, so all matrices of the optimizer must, and of two shapes at least.
    """
    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in measures:
        if one.held.rule.kind == "polar" and one.update_frobenius > 0 and not one.floored:
            groups.setdefault((one.held.label, one.held.rule.name), []).append(one)
    others = {id(one): other for group in groups.values() for other in [_followed(group)] for one in group}
    return [replace(one, other_rule=others.get(id(one), "")) for one in measures]


def _followed(group: Sequence[Measured]) -> str:
    """Return the name of another rule that all steps agree with; empty if all keep their promise, or there is no such rule."""
    low, high = group[0].held.rule.bounds
    if all(low <= one.ratio <= high for one in group) or len({(one.n_out, one.n_in) for one in group}) < 2:
        return ""
    return next((name for name, factor in FACTORS.items() if all(_agrees(one, factor) for one in group)), "")


def _agrees(one: Measured, factor: Callable[[int, int], float]) -> bool:
    """Return whether a step agrees with Muon's for this factor of the learning rate."""
    promised = one.held.rule.gain * factor(one.n_out, one.n_in) * rms_factor(one.n_out, one.n_in)
    return AGREES[0] <= one.step_per_lr / promised <= AGREES[1]
