"""WeightWatcher's distances between two versions of a layer."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from htsr.comparison.distances import similarity
from htsr.weights import Layer
from htsr.weights.source import Source


def weight_distance(W1: torch.Tensor, W2: torch.Tensor, method: str) -> float:
    """Return the distance of two weights of one shape: the method ``raw``, ``euclidean`` or ``cka`` of WeightWatcher.

    The distance of ``cka`` is the root of the uncentred CKA, which is 1 for equal weights.
    """
    W1, W2 = W1.cpu().to(torch.float64), W2.cpu().to(torch.float64)
    if method == "raw" or (method == "euclidean" and W1.ndim == 2):
        return float((W1 - W2).norm())
    pairs = list(zip(*(W.reshape(*W.shape[:2], -1).unbind(-1) for W in (W1, W2)), strict=True))
    if method == "euclidean":
        return float(np.mean([float((a - b).norm()) for a, b in pairs]))
    wide = (
        W1.ndim > 2 and W1.shape[0] < W1.shape[1]
    )  # WeightWatcher transposes the slices of a convolution, but not a matrix
    return float(np.mean([math.sqrt(_uncentred(a.mT, b.mT) if wide else _uncentred(a, b)) for a, b in pairs]))


def _uncentred(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the uncentred CKA of two matrices, 0 where it is undefined."""
    value = similarity(a, b, rank=1).cka_uncentred
    return 0.0 if math.isnan(value) else value


def bias_distance(model_1: Source, model_2: Source, layer: Layer) -> dict[str, object]:
    """Return the cells ``delta_b`` and ``b_shape`` of a layer, or no cell if it has no bias in one of the models."""
    biases = [_bias(model, layer) for model in (model_1, model_2)]
    if any(isinstance(bias, str) for bias in biases):
        return {"delta_b": math.nan}
    b1, b2 = biases
    if b1 is None or b2 is None or b1.shape != b2.shape:
        return {}
    return {"b_shape": b1.numel(), "delta_b": float((b1.double() - b2.double()).norm())}


def _bias(model: Source, layer: Layer) -> Any:
    """Return the bias of a layer, None if it has none, or a string if the source does not give access to biases."""
    if isinstance(model, nn.Module):
        module = dict(model.named_modules()).get(layer.longname)
        bias = getattr(module, "bias", None) if layer.layer_type == "dense" else None  # as in WeightWatcher
    elif isinstance(model, Mapping):
        bias = model.get(f"{layer.longname}.bias")
    else:
        return "a file"
    return torch.as_tensor(bias).detach().cpu() if isinstance(bias, torch.Tensor | np.ndarray) else None
