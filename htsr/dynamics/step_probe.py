"""The activations of a model on a fixed batch, before and after a step.

Shapes: t tokens (all dimensions but the last), m outputs, n inputs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from htsr.dynamics.random_state import kept_random_state

# Of each layer the probe keeps so many inputs, evenly spaced, and so many numbers of its output: enough for three digits.
MAX_TOKENS, MAX_NUMBERS = 1024, 2**20

Forward = Callable[[nn.Module], object]
# What a layer multiplies its weight by, as rows (t, n), None for a layer that does something else; and its output.
Activation = tuple[Tensor | None, Tensor]
Activations = dict[int, Activation]  # by the id of the layer


class Probe:
    """Runs a model on a fixed batch and keeps what goes into its layers and what comes out.

    The batch is what ``forward`` feeds to the model. Without it, the batch is what the model gets first while ``watch`` is on;
    if the model itself is not called then, there are no activations.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], forward: Forward | None) -> None:
        self._model, self._layers = model, layers
        self._forward = forward
        self._handle: RemovableHandle | None = None
        if forward is None:
            self._handle = model.register_forward_pre_hook(self._take, with_kwargs=True)

    def _take(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the batch of the first call."""
        assert self._handle is not None
        self._handle.remove()
        self._forward = lambda model: model(*args, **kwargs)

    @torch.no_grad()
    def run(self) -> Activations:
        """Return what goes into each layer and what comes out, leaving buffers and random numbers as they are."""
        if self._forward is None:
            return {}
        seen: Activations = {}

        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            result = next((part for part in _flat(output) if isinstance(part, Tensor)), None)
            if id(module) not in seen and result is not None and result.is_floating_point():
                seen[id(module)] = (_tokens(module, args), _some(result.detach().flatten(), MAX_NUMBERS).float())

        handles = [layer.register_forward_hook(keep) for layer in self._layers]
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        try:
            with kept_random_state(0):
                self._forward(self._model)
        finally:
            for handle in handles:
                handle.remove()
            for buffer, value in buffers:
                buffer.copy_(value)
        return seen


def alignment(update_mn: Tensor, norm: float, inputs_tn: Tensor | None) -> float:
    """Return the root mean square over tokens of ||dW x|| / (||dW||_2 ||x||); NaN for a layer whose inputs are not vectors."""
    if inputs_tn is None or inputs_tn.shape[-1] != update_mn.shape[-1] or norm == 0:
        return math.nan
    lengths = inputs_tn.norm(dim=-1)
    inputs, lengths = inputs_tn[lengths > 0], lengths[lengths > 0]
    gains = (inputs @ update_mn.to(inputs).mT).norm(dim=-1) / lengths
    return float(gains.square().mean().sqrt() / norm) if len(gains) else math.nan


def rms(values: Tensor) -> float:
    """Return the root mean square of some numbers."""
    return float(values.double().square().mean().sqrt())


def _flat(output: Any) -> list[Any]:
    """Return the parts of what a layer returned."""
    if isinstance(output, dict):
        return list(output.values())
    return list(output) if isinstance(output, list | tuple) else [output]


def _some(values: Tensor, count: int) -> Tensor:
    """Return up to so many rows of a tensor, evenly spaced."""
    if len(values) <= count:
        return values.clone()
    return values[torch.linspace(0, len(values) - 1, count, dtype=torch.float64).long().to(values.device)]


def _tokens(module: nn.Module, args: tuple[Any, ...]) -> Tensor | None:
    """Return what a layer multiplies its weight by, as rows; None for a layer that does something else."""
    x = args[0] if args else None
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return None
    if isinstance(module, nn.Conv2d):
        if module.groups > 1 or isinstance(module.padding, str) or x.ndim != 4:
            return None
        few = x[: max(1, MAX_NUMBERS // x[0].numel())].float()
        patches = F.unfold(few, module.kernel_size, module.dilation, module.padding, module.stride)
        return _some(patches.mT.flatten(0, 1), MAX_TOKENS)
    if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
        return _some(x.detach().reshape(-1, x.shape[-1]), MAX_TOKENS).float()
    return None
