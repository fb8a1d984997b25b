"""Turn the factors that a LoRA adapter stores into the changes of weights, each under the name of the weight that it changes.

Reference: ``peft.tuners.lora.layer`` and ``BaseTuner._inject_parameters`` of peft 0.21.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from htsr.weights.inventory import StoredTensor, never_read
from htsr.weights.readers.peft.lora_change import Delta
from htsr.weights.readers.peft.lora_settings import Scaling, refusal, scalings, target_parameters
from htsr.weights.roles import LayerRole

WRAPPED = ".base_layer"  # peft puts it between the names of a layer and of what it wraps
ATTENTION_OUT = f"{WRAPPED}.out_proj"  # only torch's MultiheadAttention has an adapted layer there
# Factors of one weight: A, B and, with DoRA, the magnitude.
Factors = Mapping[str, StoredTensor]
# A module with more adapted parameters than this would take too many trials to assign them.
MAX_PARAMETERS = 6


@dataclass(frozen=True)
class WeightChange:
    """The change of one weight: what the listing says about it, and how to merge it.

    Attributes:
        stored: The tensor ``[delta]``, with a reason if the change cannot be computed.
        delta: The change; None if there is a reason.
        rank: Its rank, for each matrix.
        kind: ``matrix``, ``embedding``, ``kernel`` or ``experts``.
        magnitude: The norms that DoRA stores.
        no_merge: Why it cannot be merged.
    """

    stored: StoredTensor
    delta: Delta | None = None
    rank: int = 0
    kind: str = "matrix"
    magnitude: StoredTensor | None = None
    no_merge: str | None = None


def weight_changes(
    path: Path,
    factors: Mapping[str, Factors],
    config: Mapping[str, object],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[WeightChange]:
    """Return the changes of all adapted weights; ``shapes`` are those of the base, if there is one."""
    names = {place: place.replace(WRAPPED, "") for place in factors}
    parameters = target_parameters(config)
    candidates = {place: _parameters_of(name, parameters) for place, name in names.items()}
    # peft gives the two projections of MultiheadAttention the settings of the module
    modules = {place: outer if (outer := place.removesuffix(ATTENTION_OUT)) in factors else place for place in factors}
    keys = {place: candidates[place] or [names[modules[place]]] for place in factors}
    found = scalings(config, sorted({key for some in keys.values() for key in some}), path)
    refused = refusal(config)
    changes: list[WeightChange] = []
    for place, parts in factors.items():
        key, possible = f"{names[place]}.weight", keys[place]
        if f"{place}{ATTENTION_OUT}" in factors:
            key = f"{names[place]}.in_proj_weight"
        elif candidates[place]:
            siblings = {other: factors[other] for other in factors if names[other] == names[place]}
            possible = list(_parameter(place, siblings, possible, found, shapes))
            key = possible[0] if len(possible) == 1 else place
        scaling: Scaling | str = refused or found[possible[0]]
        unsure = f"peft does not store which of {', '.join(possible)} it changes" if len(possible) > 1 else None
        if unsure and any(found[other] != found[possible[0]] for other in possible):
            scaling = refused or f"{unsure}, and their ranks or scalings differ"
        change = _change(key, parts, scaling, config, parameter=bool(candidates[place]))
        if unsure and change.delta is not None:
            note = f"{change.stored.note}; {unsure}"
            change = replace(change, no_merge=unsure, stored=replace(change.stored, note=note))
        if modules[place] != place:  # measured: forward and merge of peft 0.21 add the change of out_proj twice
            change = replace(change, no_merge="peft 0.21 adds the change of out_proj twice, other versions may not")
        changes.append(change)
    return changes


def _parameters_of(name: str, parameters: Sequence[str]) -> list[str]:
    """Return the parameters of a module that target_parameters names, as peft's ``_inject_parameters`` matches them."""
    found = ((f"{name}.{target.rpartition('.')[2]}", target) for target in parameters)
    return list(dict.fromkeys(key for key, target in found if f".{key}".endswith(f".{target}")))


def _parameter(
    place: str,
    siblings: Mapping[str, Factors],
    candidates: Sequence[str],
    found: Mapping[str, Scaling | str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Sequence[str]:
    """Return which parameter of a module the factors at a place change, or all candidates if nothing tells."""
    # peft nests one wrapper for each parameter and does not store their names, but the shapes of the base may tell.
    if len(candidates) == 1 or len(candidates) > MAX_PARAMETERS or len(siblings) > len(candidates):
        return candidates
    number = list(siblings).index(place)
    fitting = {
        order[number]
        for order in itertools.permutations(candidates, len(siblings))
        if all(_fits(parts, found[key], shapes.get(key)) for parts, key in zip(siblings.values(), order, strict=True))
    }
    return list(fitting) if len(fitting) == 1 else candidates


def _fits(parts: Factors, scaling: Scaling | str, shape: tuple[int, ...] | None) -> bool:
    """Return whether A and B can be the factors of a change of a parameter of this shape."""
    if isinstance(scaling, str) or shape is None or not {"A", "B"} <= set(parts):
        return False
    a, b = parts["A"].shape, parts["B"].shape
    if len(a) != 2 or len(b) != 2:
        return False
    experts, sides = a[0] // scaling.rank, (b[0], a[1])
    return shape in ((experts, *sides), (experts, *sides[::-1])) or (experts == 1 and shape == sides)


def _change(
    key: str, parts: Factors, scaling: Scaling | str, config: Mapping[str, object], *, parameter: bool
) -> WeightChange:
    """Return the change of one weight, with a reason if its factors do not fit together or cannot be read."""
    reason = scaling if isinstance(scaling, str) else _misfit(parts, scaling.rank, parameter=parameter)
    num_params = sum(part.params for part in parts.values())
    if isinstance(scaling, str) or reason is not None:
        first = next(iter(parts.values()))
        stored = StoredTensor(
            key, first.shape, first.dtype, never_read, label="[delta]", reason=reason, num_params=num_params
        )
        return WeightChange(stored)
    a, b, rank = parts["A"], parts["B"], scaling.rank
    experts = a.shape[0] // rank
    shape = (b.shape[0], *a.shape[1:])
    kind, role, transposed = "matrix", None, False
    if "lora_embedding_" in a.key:
        kind, role, transposed = "embedding", LayerRole("embedding"), True
    elif len(shape) > 2:
        kind, role = "kernel", LayerRole(f"conv{len(shape) - 2}d")
    elif experts > 1:
        kind, role, shape = "experts", LayerRole("stack"), (experts, *shape)
    else:
        transposed = config.get("fan_in_fan_out") is True and not parameter
    shape = shape[::-1] if transposed else shape
    groups = rank // b.shape[1] if kind == "kernel" else 1
    delta = Delta(a.read, b.read, scaling.factor, shape, transposed, experts, groups)
    note = f"LoRA of rank {rank}, scaled by {scaling.factor:g}"
    no_merge = None
    if groups > 1:
        note += f"; each of the {groups} groups sees every input through lora_A"
        no_merge = "the change connects inputs and outputs that the groups of the convolution keep apart"
    dora, magnitude = config.get("use_dora") is True, parts.get("magnitude")
    if dora != (magnitude is not None):
        no_merge = "use_dora is set, but no magnitudes are stored" if dora else "magnitudes are stored without use_dora"
    elif magnitude is not None:
        note += "; DoRA also rescales the rows of the merged weight"
        if magnitude.reason is not None:
            no_merge = f"its magnitudes {magnitude.key} cannot be read: {magnitude.reason}"
    stored = StoredTensor(key, shape, a.dtype, delta, role=role, label="[delta]", note=note, num_params=num_params)
    return WeightChange(stored, delta, rank, kind, magnitude, no_merge)


def _misfit(parts: Factors, rank: int, *, parameter: bool) -> str | None:
    """Return why two factors are not those of a change of this rank, or cannot be read; None if they are and can."""
    if not {"A", "B"} <= set(parts):
        return f"expected lora_A and lora_B, got only {', '.join(sorted(parts))}"
    for name in ("A", "B"):
        if parts[name].reason is not None:
            return f"its factor {parts[name].key} cannot be read: {parts[name].reason}"
    a, b = parts["A"].shape, parts["B"].shape
    if len(a) < 2 or len(a) != len(b) or 0 in a or 0 in b or any(side != 1 for side in b[2:]):
        return f"expected lora_A (r, in) and lora_B (out, r), or kernels of these, got {a} and {b}"
    if parameter and len(a) == 2:
        fits = a[0] % rank == 0 and b[1] == a[0]
    elif len(a) == 2:
        fits = a[0] == b[1] == rank
    else:  # the lora_B of a convolution with groups has its rank divided among them
        fits = a[0] == rank and rank % b[1] == 0 and b[0] % (rank // b[1]) == 0
    if not fits:
        return (
            f"expected factors of rank {rank}, as the configuration of the adapter says, got lora_A {a} and lora_B {b}"
        )
    return None
