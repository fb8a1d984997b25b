"""Tensors from arrays of any kind."""

import numpy as np
import torch


def as_tensor(weight: torch.Tensor | np.ndarray) -> torch.Tensor:
    """A weight as a detached tensor.

    Args:
        weight: A tensor, or an array of any byte order, layout and floating-point type.

    Returns:
        The tensor; it shares memory where it can. The shards of a DTensor (FSDP2) are gathered, which every rank must do, and
        torch's quantized tensors are dequantised.
    """
    if isinstance(weight, torch.Tensor):
        tensor: torch.Tensor = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        return tensor.dequantize() if tensor.is_quantized else tensor.detach()
    array = np.asarray(weight)
    if array.dtype.kind not in "fV":  # integers, booleans, complex: for the caller to judge
        return torch.from_numpy(np.array(array, order="C"))
    native = array.dtype.newbyteorder("=")
    if native not in (np.float16, np.float32, np.float64):  # longdouble, or jax's bfloat16
        native = np.dtype(np.float64)
    return torch.from_numpy(np.require(array, dtype=native, requirements=["C", "W"]))
