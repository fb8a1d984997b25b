"""The stable rank of what each weight matrix multiplies.

Shapes: T tokens or positions, K inputs of a matrix.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from htsr.optim.lanczos import largest_eigenvalue

# A function from the arguments of a module's call to the inputs A_TK of its weight, or to the tokens of an embedding.
Inputs = Callable[[tuple[Any, ...]], Tensor | None]


class IncomingActivations:
    """Sums over calls of ``A^T A``, whose largest eigenvalue and trace give the stable rank of A.

    An embedding multiplies one-hot vectors, whose ``A^T A`` is diagonal, with the counts of the tokens.
    """

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}  # by the id of the parameter: (K, K), or (K,) for an embedding

    def add(self, parameter: Tensor, A_TK: Tensor) -> None:
        """Add the inputs of one call, or the tokens of an embedding."""
        if A_TK.is_floating_point():
            A_TK = A_TK.detach().to(torch.promote_types(A_TK.dtype, torch.float32))
            new = A_TK.mT @ A_TK
        else:
            new = torch.bincount(A_TK.flatten(), minlength=len(parameter)).float()
        old = self._sums.get(id(parameter))
        self._sums[id(parameter)] = new if old is None else old + new

    def stable_rank(self, parameter: Tensor) -> float:
        """Return ``||A||_F^2 / ||A||_2^2``; NaN if nothing is known of the inputs of the parameter, or they are zero."""
        total = self._sums.get(id(parameter))
        if total is None:
            return float("nan")
        if total.ndim == 1:
            return float(total.sum() / total.max())
        # Lanczos approaches the eigenvalue from below, to a hundredth at worst
        return float(total.trace() / largest_eigenvalue(total[None]))


@contextmanager
def incoming_activations(model: nn.Module) -> Iterator[IncomingActivations]:
    """Collect the inputs of every weight matrix of a known layer, in each forward pass of the model.

    A weight that several modules share is left out, since it has several inputs.
    """
    found = IncomingActivations()
    owners: dict[int, list[tuple[nn.Module, nn.Parameter]]] = defaultdict(list)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)].append((module, parameter))
    handles = []
    for own in owners.values():
        owner, weight = own[0]
        inputs = _inputs_of(owner, weight) if len(own) == 1 else None
        if inputs is not None:
            handles.append(owner.register_forward_pre_hook(_hook(found, weight, inputs), with_kwargs=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _hook(found: IncomingActivations, parameter: Tensor, inputs: Inputs) -> Callable[..., None]:
    """Return a hook that adds the inputs of a call."""

    def add(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        A_TK = inputs((*args, *kwargs.values()))
        if A_TK is not None:
            found.add(parameter, A_TK)

    return add


def _inputs_of(module: nn.Module, parameter: Tensor) -> Inputs | None:
    """Return the function that finds the inputs of a parameter in the arguments of its module's call; None if none is known."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Embedding) and parameter is weight:
        return lambda args: args[0]
    if isinstance(module, nn.MultiheadAttention) and parameter is module.in_proj_weight:
        return _of_self_attention
    is_linear = isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))
    if is_linear and parameter is weight:
        return lambda args: args[0].flatten(0, -2)
    if isinstance(module, nn.Conv1d | nn.Conv2d) and parameter is weight:
        if module.groups == 1 and not isinstance(module.padding, str) and module.padding_mode == "zeros":
            return lambda args: _patches(module, args[0])
    return None


def _of_self_attention(args: tuple[Any, ...]) -> Tensor | None:
    """Return the common input of query, key and value; None for cross-attention."""
    query, key, value = args[:3]
    return query.flatten(0, -2) if query is key and key is value else None


def _patches(convolution: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """Return what the kernel of a convolution multiplies, one row for each position."""
    sizes = {name: getattr(convolution, name) for name in ("kernel_size", "dilation", "padding", "stride")}
    if isinstance(convolution, nn.Conv1d):  # as an image of height 1
        x = x.unsqueeze(-2)
        sizes = {name: (0 if name == "padding" else 1, *size) for name, size in sizes.items()}
    return unfold(x if x.ndim == 4 else x.unsqueeze(0), **sizes).mT.flatten(0, 1)
