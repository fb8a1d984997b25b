"""Embeddings in which an adapter replaces the rows of some tokens, as ``TrainableTokensLayer.merge`` of peft 0.21 does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from htsr.weights.inventory import ReadRows, StoredTensor


def with_new_rows(target: StoredTensor, rows: StoredTensor, config: Mapping[str, object]) -> StoredTensor:
    """Return an embedding with the rows that an adapter stores in place of its own, or with the reason why it is not merged."""
    indices = _indices(target.key.removesuffix(".weight"), config)
    reason = target.reason or rows.reason
    if reason is None and (
        len(target.shape) != 2
        or rows.shape != (len(indices), target.shape[1])
        or any(not 0 <= index < target.shape[0] for index in indices)
    ):
        reason = f"{rows.key} of shape {rows.shape} does not fit trainable_token_indices and its shape {target.shape}"
    if reason is not None:
        return replace(target, reason=f"not merged: {reason}")
    identity = None if target.identity is None else ("merged", target.identity)
    note = f"merged with the rows of {len(indices)} tokens that the adapter trained"
    return replace(target, read=_NewRows(target.read, rows.read, tuple(indices)), identity=identity, note=note)


def _indices(module: str, config: Mapping[str, object]) -> Sequence[int]:
    """Return the tokens whose rows an adapter replaces in this module; empty if the settings do not say it."""
    found = config.get("trainable_token_indices")
    if isinstance(found, Mapping):
        found = next((value for name, value in found.items() if f".{module}".endswith(f".{name}")), None)
    return found if isinstance(found, list) and all(type(index) is int for index in found) else []


@dataclass(frozen=True)
class _NewRows:
    """Reads an embedding with some rows replaced."""

    read: ReadRows = field(repr=False)
    read_rows: ReadRows = field(repr=False)
    indices: tuple[int, ...]

    def __call__(self, rows: slice | None) -> torch.Tensor:
        weight = self.read(None)
        weight = weight.index_copy(0, torch.tensor(self.indices), self.read_rows(None).to(weight.dtype))
        return weight if rows is None else weight[rows]
