"""Train one network for several seeds at once: the losses are computed together, and every seed keeps its own parameters.

A small network leaves most of a card idle. ``torch.vmap`` over the seeds fills it, and one CUDA graph replays the forward and
the backward pass. A processor has its hands full with one seed and takes them in turn, which needs half the time of vmap there.
Optimizers see ordinary parameters and no sum over seeds, so each seed trains as it would alone.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Loss = Callable[..., Tensor]
WARM_UP = 3


class _LossOf(nn.Module):
    """A network whose forward pass returns its loss, as functional_call asks."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch: Tensor) -> Tensor:
        """Return the loss of the batch."""
        return self.loss(self.model, *batch)


class SeedsTogether:
    """Networks of one shape, one a seed, and their losses.

    Args:
        models: The networks; they keep no buffers that training changes.
        loss: ``loss(model, *batch)`` returns the mean loss of a batch.
    """

    def __init__(self, models: Sequence[nn.Module], loss: Loss) -> None:
        self.models, self._loss = list(models), loss
        self._shape = _LossOf(copy.deepcopy(self.models[0]), loss)
        self._graph: torch.cuda.CUDAGraph | None = None

    def losses(self, *batch: Tensor) -> Tensor:
        """Return the loss of each seed; the first dimension of a batch counts seeds."""
        if batch[0].is_cuda:
            return self.losses_by_vmap(*batch)
        return torch.stack([self._loss(model, *one) for model, *one in zip(self.models, *batch, strict=True)])

    def losses_by_vmap(self, *batch: Tensor) -> Tensor:
        """Return the same, computed in one, on any device."""
        own = [dict(model.named_parameters()) for model in self.models]
        stacked = {f"model.{name}": torch.stack([parameters[name] for parameters in own]) for name in own[0]}
        with sdpa_kernel(SDPBackend.MATH):  # vmap knows no rule for the others
            return torch.vmap(lambda parameters, *one: functional_call(self._shape, parameters, one))(stacked, *batch)

    @torch.no_grad()
    def losses_of_shared(self, *batch: Tensor) -> Tensor:
        """Return the loss of each seed on one and the same batch."""
        return self.losses(*(part.expand(len(self.models), *part.shape) for part in batch))

    def backward(self, *batch: Tensor) -> Tensor:
        """Put the gradients of the batch into the parameters and return the losses."""
        if batch[0].is_cuda:
            return self._replay(batch)
        for model in self.models:
            model.zero_grad()
        losses = self.losses(*batch)
        losses.sum().backward()
        return losses.detach()

    def _replay(self, batch: Sequence[Tensor]) -> Tensor:
        """Do the same with a CUDA graph, which the first call captures; gradients stay in its memory."""
        if self._graph is None:
            self._inputs = [part.clone() for part in batch]
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self.losses(*self._inputs).sum().backward()
                    self._forget_gradients()
            torch.cuda.current_stream().wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._losses = self.losses(*self._inputs)
                self._losses.sum().backward()
        for kept, part in zip(self._inputs, batch, strict=True):
            kept.copy_(part)
        self._graph.replay()
        return self._losses.detach()

    def _forget_gradients(self) -> None:
        for model in self.models:
            model.zero_grad()
