"""State that another optimizer saved: what Muon and AdamW keep is taken where it fits, everything else is refused by name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from htsr.errors import InputError

# Settings by which the groups of well-known optimizers differ; the first that fits gives the name.
SIGNS = {
    "torch.optim.Muon": {"ns_coefficients", "ns_steps"},
    "MuonWithAuxAdam": {"use_muon"},
    "an optimizer of dion": {"algorithm", "mu"},
    "torch.optim.Adam or AdamW": {"betas", "amsgrad"},
    "torch.optim.NAdam": {"betas", "momentum_decay"},
    "torch.optim.RAdam": {"betas", "decoupled_weight_decay"},
    "torch.optim.Adamax": {"betas", "eps", "foreach"},
    "torch.optim.SGD": {"dampening", "nesterov"},
    "torch.optim.RMSprop": {"alpha", "centered"},
    "torch.optim.Adagrad": {"lr_decay", "initial_accumulator_value"},
    "torch.optim.Adadelta": {"rho"},
    "torch.optim.Adafactor": {"beta2_decay"},
    "torch.optim.ASGD": {"lambd", "t0"},
    "torch.optim.Rprop": {"etas", "step_sizes"},
    "torch.optim.LBFGS": {"history_size", "line_search_fn"},
}
MUON, AUX_ADAM, ADAMW = "torch.optim.Muon", "MuonWithAuxAdam", "torch.optim.Adam or AdamW"
# K. Jordan's class averages as below with these settings; others that flag groups with use_muon sum gradients up.
AUX_ADAM_SETTINGS = ({"lr", "momentum", "weight_decay"}, {"lr", "betas", "eps", "weight_decay"})


class _Own(NamedTuple):
    """A parameter of HTMuon, with its group and its name."""

    group: Mapping[str, Any]
    p: Tensor
    name: str | None


def saved_by(state_dict: Mapping[str, Any]) -> str | None:
    """Return the name of the optimizer that saved a state, as far as its groups tell; None if it was HTMuon."""
    groups = state_dict.get("param_groups") if isinstance(state_dict, Mapping) else None
    if not isinstance(groups, Sequence) or not groups or not all(isinstance(group, Mapping) for group in groups):
        raise InputError(
            f"expected the state_dict of one optimizer, got a {type(state_dict).__name__} without groups (load the states of "
            "two optimizers one after the other)"
        )
    if all("algorithm" in group and ("power" in group or group["algorithm"] == "adamw") for group in groups):
        return None
    for name, settings in SIGNS.items():
        if all(settings <= group.keys() for group in groups):
            return name
    return "an unknown optimizer"


def taken_states(
    name: str, state_dict: Mapping[str, Any], groups: Sequence[dict[str, Any]]
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Return the state that HTMuon's parameters take from that of another optimizer; raise InputError if it does not fit.

    All of these average as HTMuon does: ``buffer.lerp_(gradient, 1 - momentum)``, and AdamW's moments likewise.
    """
    states = state_dict.get("state", {})
    taken = []
    for algorithm, keys_and_names in _parts(name, state_dict["param_groups"]).items():
        own = [
            _Own(group, p, names[i] if (names := group.get("param_names")) else None)
            for group in groups
            if group["algorithm"] == algorithm
            for i, p in enumerate(group["params"])
        ]
        kept = [(states.get(key, {}), theirs) for key, theirs in keys_and_names]
        for mine, state in _pairs(name, algorithm, own, kept):
            if state:
                taken.append((mine.p, (_matrix_state if algorithm == "htmuon" else _adamw_state)(mine, state)))
    return taken


def _parts(name: str, groups: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[Any, str | None]]]:
    """Return the keys and names of the parameters whose state HTMuon's algorithms can take."""
    if name == AUX_ADAM and not all(
        any(settings | {"use_muon"} <= group.keys() <= settings | {"use_muon", "params", "param_names", "initial_lr"}
            for settings in AUX_ADAM_SETTINGS) for group in groups
    ):  # fmt: skip
        name = "an unknown optimizer"
    if name not in {MUON, AUX_ADAM, ADAMW}:
        raise InputError(
            f"expected the state_dict of HTMuon, got that of {name}, whose state means something else: load it into that "
            f"optimizer, or start HTMuon without it (of others, HTMuon takes what {MUON}, {AUX_ADAM} and AdamW saved)"
        )
    parts: dict[str, list[tuple[Any, str | None]]] = {}
    for group in groups:
        is_muon = group["use_muon"] if name == AUX_ADAM else name == MUON
        names = group.get("param_names") or [None] * len(group["params"])
        parts.setdefault("htmuon" if is_muon else "adamw", []).extend(zip(group["params"], names, strict=True))
    return parts


def _pairs(
    name: str, algorithm: str, own: list[_Own], kept: list[tuple[dict[str, Any], str | None]]
) -> Iterator[tuple[_Own, dict[str, Any]]]:
    """Yield each parameter of HTMuon with its state, found by name if all names are the same, else by order."""
    if len(kept) != len(own):
        raise InputError(
            f"expected the state_dict of HTMuon, got that of {name} with {len(kept)} parameters for the {len(own)} in HTMuon's "
            f"{algorithm} groups: load it into the optimizer that saved it, or start HTMuon without it"
        )
    by_name = {theirs: state for state, theirs in kept}
    if None not in by_name and by_name.keys() == {mine.name for mine in own} and len(by_name) == len(own):
        kept = [(by_name[mine.name], mine.name) for mine in own]
    states = [state for state, _ in kept]
    if name == AUX_ADAM and algorithm == "htmuon" and not all(map(_fits, own, states)):
        own = sorted(own, key=lambda mine: mine.p.shape, reverse=True)  # as that class does
    for number, (mine, state) in enumerate(zip(own, states, strict=True)):
        if not _fits(mine, state):
            raise InputError(
                f"expected state of shape {tuple(mine.p.shape)} for parameter {number} of HTMuon's {algorithm} groups, got "
                f"another in the state of {name}: the order or the model is another"
            )
        yield mine, state


def _fits(mine: _Own, state: Mapping[str, Any]) -> bool:
    return all(
        value.shape == mine.p.shape for name, value in state.items() if isinstance(value, Tensor) and name != "step"
    )


def _matrix_state(mine: _Own, state: Mapping[str, Any]) -> dict[str, Tensor]:
    dtype = mine.group["momentum_dtype"] or mine.p.dtype
    return {"momentum_buffer": _copy(state["momentum_buffer"], mine.p, dtype)}


def _adamw_state(mine: _Own, state: Mapping[str, Any]) -> dict[str, Tensor]:
    moments = {name: _copy(state[name], mine.p, mine.p.dtype) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.tensor(float(state["step"])), **moments}


def _copy(value: Tensor, p: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to(device=p.device, dtype=dtype, copy=True)
