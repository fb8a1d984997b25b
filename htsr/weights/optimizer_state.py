"""List an optimizer's state, ``exp_avg`` for instance, under the names of the weights that it belongs to.

The state dict of a torch optimizer numbers its parameters in the order of its groups and rarely names them. A number gets the
name of a weight only if order and shapes leave no choice; otherwise the row is named after its place in the groups.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from htsr.errors import InputError
from htsr.weights.inventory import Listing, OptimizerParameter, StoredTensor
from htsr.weights.names import DATA_PARALLEL, without_wrappers
from htsr.weights.roles import STATISTICS

OPTIMIZER_STATE = "optimizer state, not a weight; state='exp_avg' or another of its names analyses it"
UNDECIDED = "the checkpoint does not say which weight this belongs to"

Shape = tuple[int, ...]


def list_state(listing: Listing, kind: str) -> Listing:
    """Return the optimizer state of this kind in place of each weight of a listing.

    States whose weight is not known come last, under their place in the optimizer. ``InputError`` says which kinds there are.
    """
    if not listing.optimized:
        raise InputError(
            f"{listing.source}: expected the state of an optimizer for state={kind!r}, found none; htsr reads it from a "
            "checkpoint such as {'model': model.state_dict(), 'optimizer': optimizer.state_dict()}, and from an "
            "optimizer.pt beside a model"
        )
    kinds = sorted({kept for parameter in listing.optimized for kept in parameter.states})
    if kind not in kinds:
        raise InputError(f"{listing.source}: its optimizer keeps no {kind!r}, only {', '.join(kinds) or 'numbers'}")
    owned = _by_weight(listing)
    numbers = {number for number, _ in owned.values()}
    unnamed = [parameter for number, parameter in enumerate(listing.optimized) if number not in numbers]
    tensors = [_in_place_of(weight, kind, owned.get(_identity(weight)), unnamed) for weight in listing.tensors]
    tensors += [
        replace(
            parameter.states[kind],
            key=parameter.name or parameter.place,
            longkey="",
            note="" if parameter.name else UNDECIDED,
        )
        for parameter in unnamed
        if kind in parameter.states
    ]
    return replace(listing, tensors=tensors, state=kind)


def _in_place_of(
    weight: StoredTensor,
    kind: str,
    owned: tuple[int, OptimizerParameter] | None,
    unnamed: Sequence[OptimizerParameter],
) -> StoredTensor:
    """Return the state of a weight under its name, or the weight with the reason why no state stands in its place."""
    if owned is None:
        maybe = any(parameter.states and _shape(parameter) == weight.shape for parameter in unnamed)
        why = f"the checkpoint does not say which {kind} is its own" if maybe else "no optimizer keeps a state of it"
        return replace(weight, reason=weight.reason or why, num_params=0)
    states = owned[1].states
    if kind not in states:
        kept = f"only {', '.join(sorted(states))}" if states else "nothing: it has not stepped it"
        return replace(weight, reason=f"the optimizer keeps no {kind} of it, {kept}", num_params=0)
    state = states[kind]
    role = weight.role if state.shape == weight.shape else None
    # two names of one weight share its state, too
    return replace(
        state, key=weight.key, longkey=weight.longkey, label=weight.label, role=role, identity=weight.identity
    )


def _by_weight(listing: Listing) -> dict[Hashable, tuple[int, OptimizerParameter]]:
    """Return the parameters whose weight is known, with their numbers, by the identity of the weight."""
    named = {stored.key: stored for stored in listing.tensors}
    named |= {stored.longkey: stored for stored in listing.tensors if stored.longkey}
    found: dict[Hashable, tuple[int, OptimizerParameter]] = {}
    numbered = []
    for number, parameter in enumerate(listing.optimized):
        clean = without_wrappers(parameter.name)
        spellings = (parameter.name, clean, clean.removeprefix(DATA_PARALLEL))
        weight = next((named[spelling] for spelling in spellings if spelling in named), None)
        if weight is not None:
            found.setdefault(_identity(weight), (number, parameter))
        elif not parameter.name:
            numbered.append((number, parameter))
    weights = {_identity(stored): stored.shape for stored in listing.tensors if _may_be_parameter(stored)}
    free = {identity: shape for identity, shape in weights.items() if identity not in found}
    matched = _in_sequence(numbered, free) if listing.in_order else None
    return found | (matched if matched is not None else _by_shape(numbered, free, listing.in_order))


Numbered = Sequence[tuple[int, OptimizerParameter]]


def _in_sequence(
    numbered: Numbered, weights: Mapping[Hashable, Shape]
) -> dict[Hashable, tuple[int, OptimizerParameter]] | None:
    """Return the parameters of a single group by weight if their shapes agree one to one, in order; None otherwise."""
    one_group = len({parameter.group for _, parameter in numbered}) == 1
    if not one_group or len(numbered) != len(weights):
        return None
    pairs = list(zip(weights.items(), numbered, strict=True))
    if all(_shape(parameter) in (None, shape) for (_, shape), (_, parameter) in pairs):
        return {identity: found for (identity, _), found in pairs}
    return None


def _by_shape(
    numbered: Numbered, weights: Mapping[Hashable, Shape], in_order: bool
) -> dict[Hashable, tuple[int, OptimizerParameter]]:
    """Return the parameters by weight for each shape of which one group has as many as the model, in the model's order."""
    # Groups keep the order of the model, but nobody knows how the parameters of one shape were dealt out to several groups.
    having: dict[Shape | None, list[tuple[int, OptimizerParameter]]] = defaultdict(list)
    for number, parameter in numbered:
        having[_shape(parameter)].append((number, parameter))
    found: dict[Hashable, tuple[int, OptimizerParameter]] = {}
    for shape, those in having.items():
        same = [identity for identity, side in weights.items() if side == shape]
        groups = {parameter.group for _, parameter in those}
        in_one_group = in_order and len(groups) == 1 and None not in groups
        if len(same) == len(those) and (len(those) == 1 or in_one_group):
            found |= dict(zip(same, those, strict=True))
    return found


def _shape(parameter: OptimizerParameter) -> Shape | None:
    """Return the shape of a parameter, that of its states of most dimensions; None if it has none or they differ."""
    shapes = {state.shape for state in parameter.states.values()}
    most = max(map(len, shapes), default=0)
    longest = [shape for shape in shapes if len(shape) == most]
    return longest[0] if len(longest) == 1 else None


def _may_be_parameter(stored: StoredTensor) -> bool:
    """Return whether a tensor of a state dict may be a parameter, not a buffer."""
    floating = stored.dtype.startswith(("float", "bfloat", "complex"))
    return bool(floating and not stored.quantised and not STATISTICS.search(stored.key))


def _identity(weight: StoredTensor) -> Hashable:
    """Return a value that is equal for the names of one weight, and only for them."""
    return (weight.key,) if weight.identity is None else weight.identity
