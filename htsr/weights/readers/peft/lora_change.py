"""The change that LoRA makes to a weight, and the weight with the change, as peft computes them.

Reference: ``get_delta_weight`` and ``merge`` in ``peft.tuners.lora.layer``; Hu et al. 2021, https://arxiv.org/abs/2106.09685,
section 4.1; DoRA, https://arxiv.org/abs/2402.09353, equation 5; PiSSA, https://arxiv.org/abs/2404.02948; OLoRA,
https://arxiv.org/abs/2406.01775.
"""

from dataclasses import dataclass, field

import torch

from htsr.weights.inventory import ReadRows


@dataclass(frozen=True)
class Delta:
    """The change that LoRA makes to one weight; calling it computes the change in float64.

    Attributes:
        read_a: Reads A: ``(r, in, *kernel)``, or ``(experts * r, in)`` with the experts as the slower index.
        read_b: Reads B: ``(out, r / groups, *ones)``, or ``(out, r * experts)`` with the experts as the faster index.
        factor: The factor of ``B A``.
        shape: Shape of the weight as stored.
        transposed: Whether the weight is stored ``(in, out)``, as embedding tables and GPT-2's matrices are.
        experts: The number of matrices that the weight stacks.
        groups: The number of groups of a convolution.
    """

    read_a: ReadRows = field(repr=False)
    read_b: ReadRows = field(repr=False)
    factor: float
    shape: tuple[int, ...]
    transposed: bool = False
    experts: int = 1
    groups: int = 1

    def __call__(self, rows: slice | None) -> torch.Tensor:
        """Return ``B A`` times the factor in the shape of the weight, or some rows of it."""
        a = self.read_a(None).to(torch.float64).flatten(1)
        b = self.read_b(None).to(torch.float64).flatten(1)
        if self.experts > 1:
            a = a.unflatten(0, (self.experts, -1))
            b = b.unflatten(1, (-1, self.experts)).permute(2, 0, 1)
        elif self.groups > 1:  # each group of outputs sees its own part of the rank, and through A every input
            a, b = a.unflatten(0, (self.groups, -1)), b.unflatten(0, (self.groups, -1))
        delta = b @ a * self.factor
        delta = (delta.mT if self.transposed else delta).reshape(self.shape)
        return delta if rows is None else delta[rows]


@dataclass(frozen=True)
class Merged:
    """Reads the weight of the base plus its change, in the type of the base, as ``merge_and_unload`` leaves it.

    Attributes:
        read: Reads the weight of the base.
        delta: The change.
        rank: The rank of the change.
        start: How peft changes the base when it loads the adapter: ``pissa``, ``olora`` or None.
        read_magnitude: Reads the norms that DoRA gives the rows of the merged weight; None for LoRA.
    """

    read: ReadRows = field(repr=False)
    delta: Delta
    rank: int
    start: str | None = None
    read_magnitude: ReadRows | None = field(default=None, repr=False)

    def __call__(self, rows: slice | None) -> torch.Tensor:
        """Return the merged weight, or some rows of it."""
        weight = self.read(None)
        before = weight if self.start is None else self._without_start(weight)
        merged = before.to(torch.float64) + self.delta(None)
        if self.read_magnitude is not None:  # DoRA, equation 5, sets the norm of each row
            out_first = merged.mT if self.delta.transposed else merged
            norms = torch.linalg.vector_norm(out_first.flatten(1), dim=1)
            scale = self.read_magnitude(None).to(torch.float64).flatten() / norms
            out_first = out_first * scale.reshape(-1, *[1] * (merged.ndim - 1))
            merged = out_first.mT if self.delta.transposed else out_first
        merged = merged.to(weight.dtype)
        return merged if rows is None else merged[rows]

    def _without_start(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the base after peft has moved its leading part into the factors, in float32 as peft does it."""
        matrix = weight.to(torch.float32)
        matrix = matrix.mT if self.delta.transposed else matrix
        if self.start == "pissa":
            u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
            roots = torch.diag(torch.sqrt(s[: self.rank] / self.delta.factor))
            b, a = u[:, : self.rank] @ roots, roots @ vh[: self.rank]
        else:
            q, r = torch.linalg.qr(matrix)
            b, a = q[:, : self.rank], r[: self.rank]
        matrix = (matrix - self.delta.factor * b @ a).to(weight.dtype)
        return matrix.mT if self.delta.transposed else matrix


@dataclass(frozen=True)
class Change:
    """Reads the merged weight minus the weight of the base, in float64, for an adapter that also changes the base."""

    merged: Merged

    def __call__(self, rows: slice | None) -> torch.Tensor:
        """Return the change, or some rows of it."""
        change = self.merged(None).to(torch.float64) - self.merged.read(None).to(torch.float64)
        return change if rows is None else change[rows]
