"""Layers of torch that torch itself quantised."""

import pytest
import torch
from torch import nn

from htsr.weights import open_source


@pytest.mark.parametrize(
    ("layer", "gates"),
    [
        (nn.LSTM(12, 8, num_layers=2, bidirectional=True), "ifgo"),
        (nn.GRU(12, 8), "rzn"),
        (nn.LSTMCell(12, 8), "ifgo"),
        (nn.GRUCell(12, 8), "rzn"),
        (nn.RNNCell(12, 8), ""),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_recurrent_layers_that_torch_quantised(layer, gates):
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {type(layer)}, dtype=torch.qint8)
    layers = {item.name: item for item in open_source(model).layers}
    expected = [item.name for item in open_source(nn.Sequential(layer)).layers]
    assert set(layers) == set(expected)
    for name, tensor in model[0].get_weight().items():
        for part, block in zip(gates or [""], tensor.dequantize().chunk(max(len(gates), 1)), strict=True):
            assert torch.equal(layers[f"0.{name}[{part}]" if part else f"0.{name}"].load(), block)
