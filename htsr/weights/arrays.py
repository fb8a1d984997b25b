"""Convert arrays of any kind to tensors."""

import numpy as np
import torch


def quantised_class(weight: torch.Tensor | np.ndarray) -> str:
    """Return the name of the class of tensors that stores a weight quantised, as those of torchao do; empty if none does."""
    if not isinstance(weight, torch.Tensor):
        return ""
    kind = type(weight)
    return "" if kind.dequantize is torch.Tensor.dequantize else kind.__name__


def some_rows(weight: torch.Tensor | np.ndarray, rows: slice | None) -> torch.Tensor:
    """Return a weight as ``as_tensor`` does, or some of its rows."""
    if rows is None:
        return as_tensor(weight)
    # not every class of quantised tensors can be cut
    return as_tensor(weight)[rows] if quantised_class(weight) else as_tensor(weight[rows])


def as_tensor(weight: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Return a weight as a detached, dequantised tensor that shares the weight's memory where it can."""
    if isinstance(weight, torch.Tensor):
        # full_tensor() gathers the shards of a DTensor (FSDP2); every rank must call it.
        tensor: torch.Tensor = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        return tensor.detach().dequantize() if tensor.is_quantized or quantised_class(tensor) else tensor.detach()
    array = np.asarray(weight)
    if array.dtype.kind not in "fV":  # integers, booleans, complex: the caller decides what to do
        return torch.from_numpy(np.array(array, order="C"))
    native = array.dtype.newbyteorder("=")
    if native not in (np.float16, np.float32, np.float64):  # longdouble, or JAX's bfloat16
        native = np.dtype(np.float64)
    return torch.from_numpy(np.require(array, dtype=native, requirements=["C", "W"]))
