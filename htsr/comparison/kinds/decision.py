"""Which kind of change the signatures of all matrices make, and the numbers that decided."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from htsr.audit.table import shortened
from htsr.comparison.figures import factors_text, percent
from htsr.comparison.kinds.low_rank import SMALLEST_SIDE, Projection
from htsr.comparison.kinds.signature import Signature

KINDS = (
    "identical", "rounded", "quantised", "merged-lora", "direction-removed", "pruned", "few-layers", "fine-tuned",
    "trained-on", "interpolated", "unrelated", "undecided",
)  # fmt: skip

# A kind holds for a model if it holds for so much of what changed: by values, and for low ranks by matrices.
MOST = 0.9
# Two networks are not called unrelated if so much of one is the other one's in another order.
SOME = 0.2
# Two networks are unrelated if the values of so much of one correlate by chance only. The rest may share what their task and
# their data impose: rows of tokens that never occur all point into one direction. Training leaves hardly any such matrix.
STRANGE = 0.7
# A change is one of few layers if no more than this share of the matrices changed.
FEW = 0.5
# Directions that two matrices lost are the same if their mean squared cosine is at least this.
SAME_DIRECTION = 0.95
# Changes up to the first, relative to the weights, are fine-tuning, and from the second on training; between them the kind is
# open.
FINE_TUNED, TRAINED_ON = 0.2, 0.3
# A mixture of two parents takes a share of each that differs from none by more than this, and from layer to layer by less.
LEAST_SHARE = 0.005


class Kind(NamedTuple):
    """The kind of a change.

    Attributes:
        name: One of ``KINDS``.
        evidence: The numbers that decided, in a sentence.
    """

    name: str
    evidence: str


class Change:
    """The signatures of all matrices of a model, sorted by how much they say.

    Attributes:
        which: What they are beside all that the models have, such as ``that both have``; empty if they are all.
        all: All of them.
        equal: Those of matrices that are equal in A and B.
        rounded: Those of matrices that differ by rounding to a type.
        core: The others.
    """

    def __init__(self, signatures: Sequence[Signature], which: str = "") -> None:
        self.which = which
        self.all = list(signatures)
        by_kind = {kind: [s for s in self.all if s.difference.kind == kind] for kind in ("equal", "rounded")}
        self.equal, self.rounded = by_kind["equal"], by_kind["rounded"]
        self.core = [s for s in self.all if s.difference.kind not in by_kind]

    def share(self, some: Sequence[Signature]) -> float:
        """Return the share of the core's values that some of its matrices hold."""
        return sum(s.values for s in some) / sum(s.values for s in self.core)

    def rest(self, but: Sequence[Signature] = ()) -> str:
        """Return what became of the matrices outside the core, and of those of the core beside ``but``, for a sentence."""
        parts = [f"{len(self.rounded)} {_verb(self.rounded, 'differ')} by rounding"] * bool(self.rounded)
        parts += [f"{len(self.equal)} {_verb(self.equal, 'are')} equal"] * bool(self.equal)
        others = len(self.core) - len(but) if but else 0
        parts += [f"{others} changed otherwise"] * bool(others)
        return "".join(f"; {part}" for part in parts)

    def count(self, some: Sequence[Signature]) -> str:
        """Return how many matrices of all these are."""
        return f"{len(some)} of {len(self.all)} matrices"

    @property
    def relative(self) -> float:
        """Norm of the change of the core over that of its weights in A."""
        square = sum(s.square for s in self.core)
        return math.sqrt(sum(s.energy for s in self.core) / square) if square else math.inf


def kind_of_change(signatures: Sequence[Signature], which: str = "") -> Kind:
    """Return the kind of change that the signatures of the matrices make, tied and failed ones left out.

    ``which`` says which matrices these are, if the models have others: ``that both have``.
    """
    if not signatures:
        return Kind("undecided", "No matrix could be compared.")
    change = Change(signatures, which)
    return next(kind for rule in RULES if (kind := rule(change)) is not None)


def _identical(c: Change) -> Kind | None:
    if len(c.equal) < len(c.all):
        return None
    return Kind("identical", f"{_all(c)} equal in A and B, value by value (vectors, such as biases, are not compared).")


def _all(c: Change) -> str:
    which = f" {c.which}" * bool(c.which)
    return f"The only matrix{which} is" if len(c.all) == 1 else f"All {len(c.all)} matrices{which} are"


def _verb(some: Sequence[Signature], plural: str) -> str:
    """Return the verb of a sentence whose subject is a number of matrices."""
    return {"are": "is", "have": "has"}.get(plural, f"{plural}s") if len(some) == 1 else plural


def _interpolated(c: Change) -> Kind | None:
    mixed = [s for s in c.all if s.mixture and not math.isnan(s.mixture.t)]
    if not mixed or not all(s.mixture and s.mixture.fits for s in c.all):
        return None
    t = np.array([s.mixture.t for s in mixed if s.mixture])
    outside = t.min() < -LEAST_SHARE or t.max() > 1 + LEAST_SHARE
    if outside or t.max() <= LEAST_SHARE or t.min() >= 1 - LEAST_SHARE:  # beyond a parent, or one of them
        return None
    where = f"{_number(t)}{' in every matrix' if np.ptp(t) <= LEAST_SHARE else ' by matrix'}"
    left = max(s.mixture.residual for s in mixed if s.mixture)
    return Kind(
        "interpolated",
        f"B = (1 - t) A + t C with t = {where}, in {c.count(mixed)}, and at most {left:.2g} of the change is left over"
        f"{_equal_parents(c, mixed)}.",
    )


def _equal_parents(c: Change, mixed: Sequence[Signature]) -> str:
    same = [s for s in c.all if s not in mixed]
    return f"; {len(same)} {_verb(same, 'are')} equal in both parents" if same else ""


def _rounded(c: Change) -> Kind | None:
    if c.core or not c.rounded:
        return None
    types = " and ".join(sorted({s.difference.rounding for s in c.rounded}))
    largest = max(s.difference.largest for s in c.rounded)
    return Kind(
        "rounded",
        f"{c.count(c.rounded)} {_verb(c.rounded, 'differ')} by no more than rounding to {types}, at most {largest:.2g}"
        f"{f'; {len(c.equal)} ' + _verb(c.equal, 'are') + ' equal' if c.equal else ''}.",
    )


def _pruned(c: Change) -> Kind | None:
    pruned = [s for s in c.core if s.mask]
    if len(pruned) < len(c.core):
        return None
    masks = [s.mask for s in pruned if s.mask]
    shares = np.array([mask.share for mask in masks])
    where = " or ".join(sorted({mask.pattern for mask in masks}))
    which = "A is B with" if all(mask.in_a for mask in masks) else "B is A with"
    return Kind(
        "pruned",
        f"In {c.count(pruned)}, {which} {_number(100 * shares)} % of the values set to zero ({where}) and the others kept"
        f"{c.rest()}.",
    )


def _quantised(c: Change) -> Kind | None:
    stored = [s for s in c.core if s.difference.kind == "quantised"]
    found = stored + [s for s in c.core if s.grid]
    if c.share(found) < MOST:
        return None
    changes = np.array([s.difference.relative_change for s in found])
    grids = [s.grid for s in found if s.grid]
    repeated = (
        f"{_number(100 * np.array([grid.repeated for grid in grids]))} % of the values repeat within 64 neighbours"
    )
    how = " and ".join(["the stored types have few levels"] * bool(stored) + [repeated] * bool(grids))
    order = max([grid.reversed for grid in grids] + [s.difference.reversed for s in stored])
    return Kind(
        "quantised",
        f"{c.count(found)} changed by {_number(100 * changes)} % as rounding to a grid does: {how}, and "
        f"{f'no more than {percent(order)} %' if order else 'none'} of the neighbours change their order{c.rest(found)}.",
    )


def _rescaled(c: Change) -> Kind | None:
    scaled = [s for s in c.core if s.scaling]
    if c.share(scaled) < MOST:
        return None
    scalings = [s.scaling for s in scaled if s.scaling]
    low, high = min(scaling.low for scaling in scalings), max(scaling.high for scaling in scalings)
    by = " or ".join(dict.fromkeys(scaling.by for scaling in scalings))
    return Kind("undecided", f"In {c.count(scaled)}, B is A times {by}: {factors_text(low, high)}{c.rest(scaled)}.")


def _truncated(c: Change) -> Kind | None:
    truncated = [s for s in c.core if s.truncation]
    if c.share(truncated) < MOST:
        return None
    ranks, of = (np.array([getattr(s.truncation, name) for s in truncated]) for name in ("rank", "of"))
    which = "A is B with" if all(s.truncation and s.truncation.in_a for s in truncated) else "B is A with"
    return Kind(
        "undecided",
        f"In {c.count(truncated)}, {which} its small singular values removed: of rank {_number(of)}, {_number(ranks)} "
        f"{'is' if len(truncated) == 1 else 'are'} left{c.rest(truncated)}.",
    )


def _direction_removed(c: Change) -> Kind | None:
    low = _low_rank(c)
    projected = [s for s in low if s.low_rank and s.low_rank.projections]
    if not projected or len(projected) < MOST * len(low):
        return None
    if len(projected) == 1:
        return _direction_of_one(c, projected[0])
    every = [(s, p) for s in projected if s.low_rank for p in s.low_rank.projections]
    groups = [[(s, p) for s, p in every if _same_direction(p, first)] for _, first in every]
    members = max(groups, key=lambda group: len({s.name for s, _ in group}))
    together = list({s.name: s for s, _ in members}.values())
    k = members[0][1].directions.shape[1]
    shares = np.array([p.share for _, p in members])
    if len(together) < MOST * len(projected):
        return Kind(
            "undecided",
            f"{c.count(projected)} each lost directions of their own, and at most {len(together)} the same{c.rest(projected)}.",
        )
    sides = " and ".join(sorted({"outputs" if p.side == "out" else "inputs" for _, p in members}))
    return Kind(
        "direction-removed",
        f"{c.count(together)} lost {'the same direction' if k == 1 else f'the same {k} directions'} of their {sides}, by "
        f"{_number(100 * shares)} %, and nothing else changed in them{c.rest(together)}.",
    )


def _direction_of_one(c: Change, s: Signature) -> Kind:
    """Return the kind of a change in which one matrix only lost directions, which may be by chance."""
    assert s.low_rank
    lost, few = s.low_rank.lost, len(c.core) <= FEW * len(c.all)
    return Kind(
        "few-layers" if few else "undecided", f"Of {len(c.all)} matrices, only {s.name} lost {lost}{c.rest([s])}."
    )


def _same_direction(a: Projection, b: Projection) -> bool:
    U, V = a.directions, b.directions
    return U.shape == V.shape and float(((U.T @ V) ** 2).sum()) >= SAME_DIRECTION * U.shape[1]


def _low_rank(c: Change) -> list[Signature]:
    """Return the matrices whose change has low rank, if these are most of those that could show it."""
    telling = [s for s in c.core if s.smallest_side >= SMALLEST_SIDE]
    low = [s for s in telling if s.low_rank]
    return low if len(low) >= MOST * len(telling) else []


def _merged_lora(c: Change) -> Kind | None:
    low = _low_rank(c)
    if not low:
        return None
    ranks = {s.name: s.low_rank.rank for s in low if s.low_rank}
    could = [s.low_rank.of for s in low if s.low_rank]
    least, most = min(ranks.values()), max(ranks.values())
    by_layer = shortened([f"{name} {rank}" for name, rank in ranks.items()])
    rank = f"rank {most}" if least == most else f"ranks from {least} to {most} ({by_layer})"
    return Kind(
        "merged-lora",
        f"{c.count(low)} changed by exactly {rank}, up to rounding, where {_number(np.array(could))} is possible{c.rest(low)}.",
    )


def _reordered(c: Change) -> Kind | None:
    moved = [s for s in c.core if s.is_reordered]
    if c.share(moved) < SOME:
        return None
    exactly = [s for s in moved if s.lines and s.lines.reordered]
    if len(exactly) == len(moved):
        which = "rows or columns of A in another order, value by value"
        return Kind(
            "undecided", f"{c.count(moved)} {_verb(moved, 'have')} the {which} ({_lines(exactly)}){c.rest(moved)}."
        )
    return Kind(
        "undecided",
        f"{c.count(moved)} {_verb(moved, 'have')} other values and the same singular values or leading directions, as when units "
        f"are put into another order{c.rest(moved)}.",
    )


def _unrelated(c: Change) -> Kind | None:
    strangers = [s for s in c.core if s.by_chance]
    if c.share(strangers) < STRANGE or len(c.core) <= FEW * len(c.all):
        return None
    most = max(abs(s.difference.correlation) for s in strangers)
    return Kind(
        "unrelated",
        f"The values of {c.count(strangers)} correlate no more than by chance (at most {most:.2g}){c.rest(strangers)}.",
    )


def _few_layers(c: Change) -> Kind | None:
    if len(c.core) > FEW * len(c.all):
        return None
    names = shortened([f"{s.name}, {s.lines}" if s.is_partial else s.name for s in c.core])
    return Kind("few-layers", f"Only {c.count(c.core)} changed, by {percent(c.relative)} % ({names}){c.rest()}.")


def _lines(some: Sequence[Signature]) -> str:
    """Return how many rows or columns of these matrices changed."""
    numbers = {str(s.lines) for s in some}
    if len(numbers) == 1:
        return f"{numbers.pop()}{' each' if len(some) > 1 else ''}"
    return shortened([f"{s.name} {s.lines}" for s in some])


def _partial(c: Change) -> Kind | None:
    partial = [s for s in c.core if s.is_partial]
    if c.share(partial) < MOST:
        return None
    return Kind(
        "undecided", f"In {c.count(partial)}, only few rows or columns changed ({_lines(partial)}){c.rest(partial)}."
    )


def _trained(c: Change) -> Kind:
    noise = [s for s in c.core if s.is_noise]
    size = f"{c.count(c.core)} changed, by {percent(c.relative)} % together"
    least = min(s.difference.correlation for s in c.core)
    overlap = float(np.nanmedian([s.overlap for s in c.core]))
    beside = f"correlation at least {math.floor(100 * least) / 100:g}, overlap of the leading directions {overlap:.2f}"
    if c.share(noise) >= MOST:
        return Kind("undecided", f"{size}, and {_of_noise(noise)} the spectrum of noise{c.rest()}.")
    if strangers := [s for s in c.core if s.by_chance]:
        beside = f"the values of {len(strangers)} correlate by chance only, {beside}"
    if c.share(strangers) > 1 - MOST:
        return Kind("undecided", f"{size} ({beside}){c.rest()}.")
    if c.relative <= FINE_TUNED:
        return Kind("fine-tuned", f"{size} (fine-tuned: up to {100 * FINE_TUNED:g} %; {beside}){c.rest()}.")
    if c.relative >= TRAINED_ON:
        return Kind("trained-on", f"{size} (trained-on: from {100 * TRAINED_ON:g} %; {beside}){c.rest()}.")
    return Kind("undecided", f"{size}: much for fine-tuning and little for training on ({beside}){c.rest()}.")


def _of_noise(noise: Sequence[Signature]) -> str:
    return f"the change{'' if len(noise) == 1 else 's'} of {len(noise)} {_verb(noise, 'have')}"


def _number(values: np.ndarray) -> str:
    """Return the values for people: the least and the largest, or one number if these look alike."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


# The first rule that returns a kind decides; the most special one comes first.
RULES: tuple[Callable[[Change], Kind | None], ...] = (
    _identical, _interpolated, _rounded, _pruned, _quantised, _rescaled, _truncated, _direction_removed, _merged_lora, _reordered,
    _unrelated,
    _few_layers, _partial, _trained,
)  # fmt: skip
