"""ONNX weights that lost their names, that the graph cuts into parts or normalises, and constants beside them."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from htsr.weights.source import open_source


def _random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _model(path, nodes, **tensors):
    """Save a graph of these nodes, in which x is the input and y the output, and open it."""
    stored = [numpy_helper.from_array(array, name.replace("__", ".")) for name, array in tensors.items()]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return open_source(path)


def _node(kind, inputs, outputs, **settings):
    return helper.make_node(kind, inputs.split(), outputs.split(), **settings)


def _weights(inventory):
    return {layer.name: layer.load() for layer in inventory.layers}


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        ("attn.in_proj_bias", ["attn.in_proj_weight[q]", "attn.in_proj_weight[k]", "attn.in_proj_weight[v]"]),
        ("block.qkv.bias", ["block.qkv[q]", "block.qkv[k]", "block.qkv[v]"]),
        ("rnn.bias_ih_l1_reverse", ["rnn.weight_ih_l1_reverse"]),
        ("onnx::Add_12", ["onnx::MatMul_7"]),
    ],
)
def test_a_weight_without_a_name_takes_it_from_the_bias(tmp_path, bias, expected):
    weight = _random(10, 30)
    nodes = [_node("MatMul", "x onnx::MatMul_7", "made"), _node("Add", f"{bias} made", "y")]
    found = _model(tmp_path / "m.onnx", nodes, **{"onnx::MatMul_7": weight, bias: _random(30)})
    assert [layer.name for layer in found.layers] == expected
    torch.testing.assert_close(torch.cat(list(_weights(found).values())), torch.tensor(weight.T))


def test_a_name_from_a_bias_does_not_take_that_of_another_weight(tmp_path):
    nodes = [
        _node("MatMul", "x val_1", "made"),
        _node("Add", "made fc.bias", "moved"),
        _node("MatMul", "moved fc.weight", "y"),
    ]
    found = _model(tmp_path / "m.onnx", nodes, val_1=_random(4, 6), fc__bias=_random(6), fc__weight=_random(6, 5))
    assert [layer.name for layer in found.layers] == ["val_1", "fc"]


@pytest.mark.parametrize("sizes", [(4, 8), (3, 3, 3, 3), (2, 9, 1)])
def test_a_weight_that_the_graph_splits_is_one_weight(tmp_path, sizes):
    names = [f"part{number}" for number in range(len(sizes))]
    nodes = [_node("Split", "w sizes", " ".join(names), axis=1)]
    nodes += [_node("MatMul", f"x {name}", f"y{number or ''}") for number, name in enumerate(names)]
    weight = _random(5, sum(sizes))
    (layer,) = _model(tmp_path / "m.onnx", nodes, w=weight, sizes=np.array(sizes)).layers
    assert layer.num_params == weight.size
    torch.testing.assert_close(layer.load(), torch.tensor(weight))


def test_one_matrix_of_a_stack_stands_for_the_stack(tmp_path):
    nodes = [_node("Gather", "w place", "one", axis=0), _node("MatMul", "x one", "y")]
    weight = _random(3, 8, 5)
    found = _model(tmp_path / "m.onnx", nodes, w=weight, place=np.array(2))
    assert [(layer.name, layer.layer_type) for layer in found.layers] == [(f"w[{i}]", "stack") for i in range(3)]
    torch.testing.assert_close(_weights(found)["w[2]"], torch.tensor(weight[2]))


def test_a_table_of_positions_that_is_cut_to_length_is_read_whole(tmp_path):
    nodes = [_node("Slice", "pos_embed start end", "cut"), _node("Gather", "cut x", "y")]
    table = _random(12, 6)
    (layer,) = _model(tmp_path / "m.onnx", nodes, pos_embed=table, start=np.array([0]), end=np.array([7])).layers
    assert (layer.layer_type, layer.shape) == ("embedding", (12, 6))


def test_an_initial_state_is_no_weight(tmp_path):
    state = _node("Constant", "", "/Constant_output_0", value=numpy_helper.from_array(np.zeros((2, 6), np.float32)))
    found = _model(
        tmp_path / "m.onnx",
        [state, _node("Gemm", "/Constant_output_0 weight_hh", "y", transB=1)],
        weight_hh=_random(24, 6),
    )
    assert [layer.name.partition("[")[0] for layer in found.layers] == ["weight_hh"] * 4
    assert [item.reason for item in found.skipped] == ["input 0 of Gemm: what its weight is multiplied by"]


def test_weight_norm_of_the_graph_gives_the_effective_weight(tmp_path):
    nodes = [
        _node("ReduceL2", "conv.weight_v axes", "norm", keepdims=1),
        _node("Div", "conv.weight_v norm", "unit"),
        _node("Mul", "unit conv.weight_g", "weight"),
        _node("Conv", "x weight", "y"),
    ]
    direction, norm = _random(6, 4, 3), _random(6, 1, 1)
    found = _model(
        tmp_path / "m.onnx", nodes, conv__weight_v=direction, conv__weight_g=norm, axes=np.array([1, 2])
    )  # fmt: skip
    expected = norm * direction / np.linalg.norm(direction, axis=(1, 2), keepdims=True)
    torch.testing.assert_close(_weights(found)["conv"], torch.tensor(expected))


def test_a_standardised_kernel_is_read_as_the_convolution_sees_it(tmp_path):
    nodes = [
        _node("ReduceMean", "w axes", "mean"),
        _node("Sub", "w mean", "centred"),
        _node("Conv", "x centred", "y"),
    ]
    kernel = _random(5, 4, 3, 3)
    (layer,) = _model(tmp_path / "m.onnx", nodes, w=kernel, axes=np.array([1, 2, 3])).layers
    torch.testing.assert_close(layer.load(), torch.tensor(kernel - kernel.mean((1, 2, 3), keepdims=True)))


def test_the_reason_of_a_weight_that_is_lost_says_so(tmp_path):
    nodes = [_node("Shape", "x", "size"), _node("Reshape", "w size", "turned"), _node("MatMul", "x turned", "y")]
    found = _model(tmp_path / "m.onnx", nodes, w=_random(5, 6))
    assert not found.layers
    assert "does not follow where it goes" in found.skipped[0].reason


@pytest.mark.parametrize(("shape", "axis"), [((), 0), ((6,), 0), ((4,), 1)])
def test_a_weight_that_is_quantised_on_the_way_is_read_as_the_graph_sees_it(tmp_path, shape, axis):
    nodes = [
        _node("QuantizeLinear", "w scale zero", "whole", axis=axis),
        _node("DequantizeLinear", "whole scale zero", "back", axis=axis),
        _node("Conv", "x back", "y"),
    ]
    scale, kernel = np.full(shape, 0.1, np.float32), _random(6, 4, 3, 3)
    (layer,) = _model(tmp_path / "m.onnx", nodes, w=kernel, scale=scale, zero=np.zeros(shape, np.int8)).layers
    torch.testing.assert_close(layer.load(), torch.tensor(np.rint(kernel / np.float32(0.1)) * np.float32(0.1)))


def test_the_scale_after_an_integer_product_is_no_parameter(tmp_path):
    nodes = [
        _node("DynamicQuantizeLinear", "x", "q sx zx"),
        _node("MatMulInteger", "q w zx", "product"),
        _node("Cast", "product", "real", to=1),
        _node("Mul", "sx sw", "scale"),
        _node("Mul", "real scale", "y"),
    ]
    weight = np.arange(-10, 10, dtype=np.int8).reshape(4, 5)
    found = _model(tmp_path / "m.onnx", nodes, w=weight, sw=np.array(0.5, np.float32))
    assert [layer.num_params for layer in found.layers] == [20]
    assert [(item.name, item.num_params) for item in found.skipped] == [("sw", 0)]
