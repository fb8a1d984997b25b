"""Dequantise the weights of a listing: one file a scheme, tried in turn on a tensor and the tensors beside it."""

from htsr.weights.readers.quantised.dispatch import multiply_scales

__all__ = ["multiply_scales"]
