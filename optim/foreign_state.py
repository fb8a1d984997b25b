"""State that another optimizer saved: torch.optim.Muon's momentum is taken, everything else is refused by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from htsr.errors import InputError

# Settings by which the groups of well-known optimizers differ.
SIGNS = {
    "torch.optim.Muon": {"ns_coefficients", "ns_steps"},
    "torch.optim.Adam or AdamW": {"betas", "amsgrad"},
    "torch.optim.SGD": {"dampening", "nesterov"},
    "torch.optim.RMSprop": {"alpha", "centered"},
    "torch.optim.Adagrad": {"lr_decay", "initial_accumulator_value"},
}
MUON = "torch.optim.Muon"


def saved_by(state_dict: Mapping[str, Any]) -> str | None:
    """Return the name of the optimizer that saved a state, as far as its groups tell; None if it was HTMuon."""
    groups = state_dict.get("param_groups")
    if not isinstance(groups, Sequence) or not groups or not all(isinstance(group, Mapping) for group in groups):
        raise InputError(f"expected the state_dict of an optimizer, got a {type(state_dict).__name__} without groups")
    if all("algorithm" in group for group in groups):
        return None
    for name, settings in SIGNS.items():
        if all(settings <= group.keys() for group in groups):
            return name
    return "an unknown optimizer"


def muon_momenta(state_dict: Mapping[str, Any], matrices: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the momentum of each matrix from a state of torch.optim.Muon; None for one that has not been stepped.

    Muon averages gradients as HTMuon does, ``buffer.lerp_(gradient, 1 - momentum)``, so its buffers mean the same.
    """
    keys = [key for group in state_dict["param_groups"] for key in group["params"]]
    if len(keys) != len(matrices):
        raise InputError(
            f"expected {MUON}'s state of the {len(matrices)} matrices that HTMuon updates, in the same order, got one of "
            f"{len(keys)} parameters: load it into the optimizer that saved it, or start HTMuon without it"
        )
    momenta = []
    for number, (key, p) in enumerate(zip(keys, matrices, strict=True)):
        momentum = state_dict["state"].get(key, {}).get("momentum_buffer")
        if isinstance(momentum, Tensor) and momentum.shape != p.shape:
            raise InputError(
                f"expected a momentum of shape {tuple(p.shape)} for matrix {number}, got one of {tuple(momentum.shape)} in "
                f"the state of {MUON}: the order or the model is another"
            )
        momenta.append(momentum if isinstance(momentum, Tensor) else None)
    return momenta


def refuse_foreign_state(name: str) -> InputError:
    """Return the InputError for the state of another optimizer."""
    return InputError(
        f"expected the state_dict of HTMuon, got that of {name}, whose state means something else: load it into that optimizer, "
        f"or start HTMuon without it (of other optimizers, HTMuon takes {MUON}'s momentum)"
    )


def as_momentum(momentum: Tensor, p: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return a copy of a momentum as HTMuon keeps that of a parameter."""
    return momentum.detach().to(device=p.device, dtype=dtype or p.dtype, copy=True)
