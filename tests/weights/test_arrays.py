"""Tensors of other libraries that store their values quantised, as those of torchao and optimum-quanto do."""

import pytest
import torch

from htsr.weights import open_source


class Scaled(torch.Tensor):
    """A tensor of int8 and scales that knows no operation but ``detach`` and its own dequantisation."""

    @staticmethod
    def __new__(cls, integers, scales):
        return torch.Tensor._make_wrapper_subclass(cls, integers.shape, dtype=torch.bfloat16)

    def __init__(self, integers, scales):
        self.integers, self.scales = integers, scales

    def dequantize(self):
        return self.integers * self.scales

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].integers, args[0].scales)
        raise NotImplementedError(func)


@pytest.mark.parametrize("shape", [(24, 16), (3, 12, 8)])
@pytest.mark.parametrize("wrap", [dict, lambda tensors: {"model": tensors, "epoch": 3}, "module"])
def test_tensors_that_dequantise_themselves(shape, wrap):
    integers = torch.randint(-127, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    scaled = Scaled(integers, torch.rand(*shape[:-1], 1))
    if wrap == "module":
        source = torch.nn.Module()
        source.experts = torch.nn.Parameter(scaled, requires_grad=False)
    else:
        source = wrap({"experts": scaled})
    layers = open_source(source).layers
    expected = scaled.dequantize().reshape(-1, *shape[-2:])
    assert len(layers) == len(expected)
    for layer, matrix in zip(layers, expected, strict=True):
        assert torch.equal(layer.load(), matrix)
        assert (layer.dtype, layer.note) == ("Scaled", "dequantised from Scaled")
    assert sum(layer.num_params for layer in layers) == integers.numel()
