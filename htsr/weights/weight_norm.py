"""Compute the effective weights of layers with weight_norm from the two tensors that a checkpoint stores.

Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868, equation 2: w = g v / ||v||, with one g for each index along the
dimension that weight_norm was given.
"""

import re
from dataclasses import dataclass, field, replace

import torch

from htsr.weights.inventory import Listing, ReadRows, StoredTensor

# Names of the direction v in torch.nn.utils.parametrizations.weight_norm and in the older torch.nn.utils.weight_norm.
DIRECTION = re.compile(r"(?P<path>(?:.*\.)?)(?:parametrizations\.(?P<new>\w+)\.original1|(?P<old>\w+)_v)")


def multiply_norms(listing: Listing) -> Listing:
    """Return the listing with the effective weight in place of each direction of weight_norm, and its norm skipped."""
    by_key = {stored.key: stored for stored in listing.tensors if stored.role is None and stored.reason is None}
    tensors: dict[str, StoredTensor] = {stored.key: stored for stored in listing.tensors}
    if len(tensors) < len(listing.tensors):  # duplicate names: it is unclear which norm belongs to which direction
        return listing
    for key, direction in by_key.items():
        found = DIRECTION.fullmatch(key)
        if found is None:
            continue
        norm = by_key.get(f"{key.removesuffix('1')}0" if found["new"] else f"{key.removesuffix('_v')}_g")
        weight = f"{found['path']}{found['new'] or found['old']}"
        if norm is None or weight in tensors or not _fit(norm.shape, direction.shape):
            continue
        tensors[norm.key] = replace(norm, reason=f"part of {weight}, which is computed from it", num_params=0)
        tensors[key] = replace(
            direction,
            key=weight,
            read=_Normed(direction.read, norm.read),
            identity=None,
            note="effective weight of weight_norm",
            num_params=direction.params + norm.params,
        )
    return replace(listing, tensors=list(tensors.values()))


def _fit(norm: tuple[int, ...], direction: tuple[int, ...]) -> bool:
    """Return whether a norm has the shape of its direction, with 1 in place of at least one side."""
    return (
        1 in norm
        and len(norm) == len(direction)
        and all(side in (1, full) for side, full in zip(norm, direction, strict=True))
    )


@dataclass(frozen=True)
class _Normed:
    """Reads the effective weight, ``g v / ||v||``."""

    read_direction: ReadRows = field(repr=False)
    read_norm: ReadRows = field(repr=False)

    def __call__(self, rows: slice | None) -> torch.Tensor:
        direction, norm = self.read_direction(None), self.read_norm(None)
        dims = [dim for dim, side in enumerate(norm.shape) if side == 1]
        weight = direction * (norm / torch.linalg.vector_norm(direction, dim=dims, keepdim=True))
        return weight if rows is None else weight[rows]
