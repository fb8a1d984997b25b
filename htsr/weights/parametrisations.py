"""Compute the effective weights of layers with weight_norm, spectral_norm or pruning from the tensors that a checkpoint stores.

- weight_norm, Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868, equation 2: w = g v / ||v||, with one g for each index
  along the dimension that weight_norm was given.
- spectral_norm, Miyato et al. 2018, https://arxiv.org/abs/1802.05957, equation 8: w / sigma with sigma = u^T w v, where u and v
  are the stored estimates of the leading singular vectors, as in evaluation mode.
- pruning (torch.nn.utils.prune): the weight times its mask.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from htsr.weights.inventory import Listing, ReadRows, StoredTensor

# Names of torch.nn.utils.parametrizations, and of the older hooks in torch.nn.utils, for the tensor that has the weight's shape.
STORED = re.compile(r"(?P<path>(?:.*\.)?)(?:parametrizations\.(?P<new>\w+)\.original1?|(?P<old>\w+)_(v|orig))")


def effective_weights(listing: Listing) -> Listing:
    """Return the listing with each effective weight in place of the tensor of its shape, and the tensors beside it skipped."""
    by_key = {stored.key: stored for stored in listing.tensors if stored.role is None and stored.reason is None}
    tensors: dict[str, StoredTensor] = {stored.key: stored for stored in listing.tensors}
    if len(tensors) < len(listing.tensors):  # duplicate names: it is unclear which tensors belong together
        return listing
    siblings: dict[str, set[str]] = {}
    for key in by_key:
        path, found, end = key.partition("parametrizations.")
        if found:
            siblings.setdefault(f"{path}{found}{end.split('.')[0]}", set()).add(key)
    for key, main in by_key.items():
        named = STORED.fullmatch(key)
        if named is None:
            continue
        weight = f"{named['path']}{named['new'] or named['old']}"
        prefix = f"{named['path']}parametrizations.{named['new']}" if named["new"] else weight
        computed = _computed(main, prefix, by_key, siblings.get(prefix, set()))
        if computed is None or weight in tensors:
            continue
        read, beside, how = computed
        params = main.params + sum(part.params for part in beside)  # no file says that a mask is a buffer
        for part in beside:
            tensors[part.key] = replace(part, reason=f"part of {weight}, which is computed from it", num_params=0)
        tensors[key] = replace(
            main, key=weight, read=read, identity=None, note=f"effective weight of {how}", num_params=params
        )
    return replace(listing, tensors=list(tensors.values()))


def _computed(
    main: StoredTensor, prefix: str, by_key: Mapping[str, StoredTensor], siblings: set[str]
) -> tuple[ReadRows, list[StoredTensor], str] | None:
    """Return how to read the effective weight, the tensors beside it and what computes it; None if they do not fit."""
    end = main.key.removeprefix(prefix)
    new = end.startswith(".")

    def beside(*names: str) -> list[StoredTensor]:
        return [by_key[prefix + name] for name in names if prefix + name in by_key]

    if end in (".original1", "_v"):
        norm = beside(".original0" if new else "_g")
        if norm and _fits(norm[0].shape, main.shape):
            return _Normed(main.read, norm[0].read), norm, "weight_norm"
        return None
    if end == "_orig":
        mask = beside("_mask")
        if mask and mask[0].shape == main.shape and not beside("_u"):
            return _Masked(main.read, mask[0].read), mask, "pruning"
    vectors = beside(".0._u", ".0._v") if new else beside("_u", "_v")
    if len(vectors) == 2 and len(main.shape) > 1 and (not new or len(siblings) == 3):
        u, v = (vector.shape for vector in vectors)
        dims = [
            dim for dim in (0, 1) if u == main.shape[dim : dim + 1] and v == (math.prod(main.shape) // max(u[0], 1),)
        ]
        if dims:
            return _Spectral(main.read, vectors[0].read, vectors[1].read, tuple(dims)), vectors, "spectral_norm"
    return None


def _fits(norm: tuple[int, ...], direction: tuple[int, ...]) -> bool:
    """Return whether a norm is one number, or has the shape of its direction with 1 in place of at least one side."""
    return norm == () or (
        1 in norm
        and len(norm) == len(direction)
        and all(side in (1, full) for side, full in zip(norm, direction, strict=True))
    )


@dataclass(frozen=True)
class _Normed:
    """Reads the effective weight of weight_norm, ``g v / ||v||``."""

    read_direction: ReadRows = field(repr=False)
    read_norm: ReadRows = field(repr=False)

    def __call__(self, rows: slice | None) -> torch.Tensor:
        direction, norm = self.read_direction(None), self.read_norm(None)
        dims = [dim for dim in range(direction.ndim) if norm.ndim == 0 or norm.shape[dim] == 1]
        weight = direction * (norm / torch.linalg.vector_norm(direction, dim=dims, keepdim=True))
        return weight if rows is None else weight[rows]


@dataclass(frozen=True)
class _Masked:
    """Reads a pruned weight."""

    read: ReadRows = field(repr=False)
    read_mask: ReadRows = field(repr=False)

    def __call__(self, rows: slice | None) -> torch.Tensor:
        weight = self.read(rows)
        return weight * self.read_mask(rows).to(weight.dtype)


@dataclass(frozen=True)
class _Spectral:
    """Reads the effective weight of spectral_norm, ``w / (u^T w v)``; ``dims`` are the dimensions that u may belong to."""

    read: ReadRows = field(repr=False)
    read_u: ReadRows = field(repr=False)
    read_v: ReadRows = field(repr=False)
    dims: tuple[int, ...]

    def __call__(self, rows: slice | None) -> torch.Tensor:
        weight, u, v = self.read(None), self.read_u(None), self.read_v(None)
        # u belongs to the outputs: dimension 0, or 1 of a transposed convolution. If both have its size, the right one is that
        # for which u is the direction of w v, as the power iteration leaves it.
        images = [torch.mv(weight.movedim(dim, 0).flatten(1), v) for dim in self.dims]
        sigmas = [torch.dot(u, image) for image in images]
        aligned = [
            float(sigma.abs() / torch.linalg.vector_norm(image)) > 0.9
            for sigma, image in zip(sigmas, images, strict=True)
        ]
        weight = weight / sigmas[aligned.index(True) if any(aligned) else 0]
        return weight if rows is None else weight[rows]
