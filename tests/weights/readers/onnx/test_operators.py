"""Each operation with a weight gives the matrix that onnxruntime multiplies by, also after onnxruntime quantised the model."""

import numpy as np
import pytest
import torch
from torch import nn

from htsr.weights import open_source

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

MICROSOFT = "com.microsoft"


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def integers(*shape, kind="i1", seed=0):
    return np.random.default_rng(seed).integers(-100 if kind == "i1" else 0, 100, size=shape).astype(kind)


def save(path, nodes, stored, inputs, **value_types):
    """Write a model whose output is ``y``."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    infos = [
        helper.make_tensor_value_info(name, value_types.get(name, TensorProto.FLOAT), shape)
        for name, shape in inputs.items()
    ]
    output = helper.make_tensor_value_info("y", value_types.get("y", TensorProto.FLOAT), None)
    graph = helper.make_graph(nodes, "g", infos, [output], tensors)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path / "m.onnx")
    return path / "m.onnx"


def run(path, **inputs):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def node(operation, inputs, domain=MICROSOFT, **settings):
    return helper.make_node(operation, inputs, ["y"], domain=domain, **settings)


def loaded(path):
    return {layer.name: layer.load().numpy() for layer in open_source(path).layers}


IN, OUT = 24, 15
# An operation, its stored inputs and its settings; it multiplies x, one row after another, by the weight.
PRODUCTS = {
    "MatMul": (["x", "w"], {"w": random(IN, OUT)}, {}),
    "MatMul of a stack of one": (["x", "w"], {"w": random(1, IN, OUT)}, {}),
    "Gemm": (["x", "w", "c"], {"w": random(OUT, IN), "c": np.zeros((1, OUT), "f4")}, {"transB": 1}),
    "Einsum": (["x", "w"], {"w": random(OUT, IN)}, {"equation": "bi,oi->bo"}),
    "FusedMatMul": (["x", "w"], {"w": random(IN, OUT)}, {}),
    "FusedMatMul turned": (["x", "w"], {"w": random(OUT, IN)}, {"transB": 1}),
    "FusedGemm": (["x", "w"], {"w": random(OUT, IN)}, {"transB": 1, "activation": "LeakyRelu", "activation_alpha": 1.0}),
    "MatMulIntegerToFloat": (
        ["xq", "w", "xs", "ws", "xz", "wz"],
        {"w": integers(IN, OUT), "ws": np.abs(random(OUT)) + 0.1, "wz": integers(OUT), "xs": np.float32(1),
         "xz": np.uint8(0)},
        {},
    ),
    "MatMulNBits of 4": (
        ["x", "w", "s"], {"w": integers(OUT, 2, 8, kind="u1"), "s": np.abs(random(OUT * 2))},
        {"K": IN, "N": OUT, "bits": 4, "block_size": 16},
    ),
    "MatMulNBits of 8": (
        ["x", "w", "s"], {"w": integers(OUT, 2, 16, kind="u1"), "s": np.abs(random(OUT * 2))},
        {"K": IN, "N": OUT, "bits": 8, "block_size": 16},
    ),
    "DynamicQuantizeMatMul": (
        ["x", "w", "ws", "wz"], {"w": integers(IN, OUT), "ws": np.float32(0.3), "wz": np.int8(4)}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PRODUCTS)
def test_the_row_is_what_onnxruntime_multiplies_by(case, tmp_path):
    inputs, stored, settings = PRODUCTS[case]
    operation = case.split()[0]
    domain = MICROSOFT if operation not in ("MatMul", "Gemm", "Einsum") else ""
    path = save(
        tmp_path,
        [node(operation, inputs, domain, **settings)],
        stored,
        {name: [IN, IN] for name in inputs if name not in stored},
        xq=TensorProto.UINT8,
    )
    x = {name: np.eye(IN, dtype="u1" if name == "xq" else "f4") for name in inputs if name not in stored}
    ((_, weight),) = loaded(path).items()
    np.testing.assert_allclose(run(path, **x).reshape(IN, OUT), weight.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("zero", [0, 3])
def test_qlinear_product(zero, tmp_path):
    stored = {"xs": np.float32(1), "xz": np.uint8(0), "w": integers(IN, OUT, kind="u1"), "ws": np.float32(0.5),
              "wz": np.uint8(zero), "ys": np.float32(0.5), "yz": np.uint8(zero)}  # fmt: skip
    path = save(
        tmp_path,
        [node("QLinearMatMul", ["x", *stored], "")],
        stored,
        {"x": [IN, IN]},
        x=TensorProto.UINT8,
        y=TensorProto.UINT8,
    )
    ((_, weight),) = loaded(path).items()
    outputs = (run(path, x=np.eye(IN, dtype="u1")).astype("f4") - zero) * 0.5
    np.testing.assert_array_equal(outputs, weight.T)


@pytest.mark.parametrize("operation", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_of_a_convolution(operation, groups, tmp_path):
    inner, outer = 8, 12
    first, second = (outer, inner) if operation == "Conv" else (inner, outer)
    kernel = random(first, second // groups, 1, 1)
    path = save(tmp_path, [node(operation, ["x", "w"], "", group=groups)], {"w": kernel}, {"x": [inner, inner, 1, 1]})
    outputs = run(path, x=np.eye(inner, dtype="f4").reshape(inner, inner, 1, 1)).reshape(inner, outer)
    matrices = [weight.reshape(outer // groups, inner // groups) for weight in loaded(path).values()]
    assert len(matrices) == groups
    truth = np.zeros((outer, inner), "f4")
    for group, matrix in enumerate(matrices):
        rows, columns = outer // groups, inner // groups
        truth[group * rows : (group + 1) * rows, group * columns : (group + 1) * columns] = matrix
    np.testing.assert_allclose(outputs, truth.T, rtol=1e-5)


def attention(operation, hidden, heads):
    """Return the inputs of an attention and the tensors that it stores."""
    if operation == "Attention":
        return ["x", "w", "b"], {"w": random(hidden, 3 * hidden), "b": np.zeros(3 * hidden, "f4")}
    stored = {"w": integers(hidden, 3 * hidden), "b": np.zeros(3 * hidden, "f4"), "xs": np.float32(1),
              "ws": np.float32(0.25), "m": np.ones(hidden, "i4"), "xz": np.uint8(0), "wz": np.int8(2)}  # fmt: skip
    return ["x", "w", "b", "xs", "ws", "", "xz", "wz"], {name: stored[name] for name in stored if name != "m"}


@pytest.mark.parametrize("operation", ["Attention", "QAttention"])
def test_attention_has_a_row_for_q_k_and_v(operation, tmp_path):
    hidden, heads = 16, 4
    inputs, stored = attention(operation, hidden, heads)
    kind = TensorProto.FLOAT if operation == "Attention" else TensorProto.UINT8
    path = save(tmp_path, [node(operation, inputs, num_heads=heads)], stored, {"x": [hidden, 1, hidden]}, x=kind)
    rows = loaded(path)
    assert [name[-3:] for name in rows] == ["[q]", "[k]", "[v]"]
    # with a single token, the output of an attention is its value
    x = np.eye(hidden, dtype="f4" if kind == TensorProto.FLOAT else "u1").reshape(hidden, 1, hidden)
    np.testing.assert_allclose(run(path, x=x)[:, 0], list(rows.values())[2].T, rtol=1e-5, atol=1e-5)


def test_attention_of_unequal_sizes_is_one_row(tmp_path):
    inputs, stored = ["x", "w", "b"], {"w": random(16, 40), "b": np.zeros(40, "f4")}
    nodes = [node("Attention", inputs, num_heads=4, qkv_hidden_sizes=[16, 16, 8])]
    ((_, weight),) = loaded(save(tmp_path, nodes, stored, {"x": [1, 1, 16]})).items()
    np.testing.assert_array_equal(weight, stored["w"].T)


def test_tables_of_embeddings(tmp_path):
    stored = {"words": random(30, 8), "places": random(12, 8), "kinds": random(2, 8), "g": np.ones(8, "f4"),
              "b": np.zeros(8, "f4")}  # fmt: skip
    path = save(
        tmp_path,
        [helper.make_node("EmbedLayerNormalization", ["x", "s", *stored], ["y", "m"], domain=MICROSOFT)],
        stored,
        {"x": [1, 4], "s": [1, 4]},
        x=TensorProto.INT32,
        s=TensorProto.INT32,
    )
    inventory = open_source(path)
    assert {layer.name: layer.layer_type for layer in inventory.layers} == dict.fromkeys(
        ("words", "places", "kinds"), "embedding"
    )
    for layer in inventory.layers:
        np.testing.assert_array_equal(layer.load(), stored[layer.name])


@pytest.mark.parametrize("operation", ["MatMulBnb4", "MatMulFpQ4", "QMoE", "GatherBlockQuantized"])
def test_weights_that_are_not_read_say_so(operation, tmp_path):
    path = save(
        tmp_path, [node(operation, ["x", "w", "s"])], {"w": integers(30, 20, kind="u1"), "s": random(30, 2)}, {"x": [1]}
    )
    inventory = open_source(path)
    assert not inventory.layers
    assert {item.name: operation in item.reason for item in inventory.skipped} == {"w": True, "s": True}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [False, True])
def test_recurrent_layers_have_the_matrices_of_the_module(make, both, tmp_path):
    module = make(6, 5, num_layers=2, bidirectional=both).eval()
    torch.onnx.export(module, (torch.zeros(4, 1, 6),), tmp_path / "m.onnx", dynamo=False)
    truth = {layer.load().detach().numpy().tobytes() for layer in open_source(module).layers}
    assert {weight.tobytes() for weight in loaded(tmp_path / "m.onnx").values()} == truth


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with a table of embeddings, products, a convolution and an LSTM, and one of its inputs."""
    path, hidden = tmp_path_factory.mktemp("float"), 16
    stored = {"table": random(40, IN), "first": random(IN, IN), "second": random(IN, IN), "c": np.zeros(IN, "f4"),
              "kernel": random(IN, IN, 3), "W": random(1, 4 * hidden, IN), "R": random(1, 4 * hidden, hidden)}  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["a"]), helper.make_node("MatMul", ["a", "first"], ["b"]),
        helper.make_node("Gemm", ["b", "second", "c"], ["d"], transB=1), helper.make_node("Unsqueeze", ["d", "last"], ["e"]),
        helper.make_node("Conv", ["e", "kernel"], ["f"], pads=[1, 1]), helper.make_node("Squeeze", ["f", "last"], ["g"]),
        helper.make_node("Unsqueeze", ["g", "one"], ["h"]), helper.make_node("LSTM", ["h", "W", "R"], ["y"], hidden_size=hidden),
    ]  # fmt: skip
    stored |= {"last": np.array([2]), "one": np.array([1])}
    return save(path, nodes, stored, {"x": [7]}, x=TensorProto.INT64), {"x": np.arange(7)}


class Reader:
    """Hands one input to onnxruntime's calibration."""

    def __init__(self, inputs):
        self.left = [inputs]

    def get_next(self):
        return self.left.pop() if self.left else None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["dynamic", "QDQ", "QOperator"])
def test_a_model_that_onnxruntime_quantised_has_the_rows_of_the_float_one(form, per_channel, model, tmp_path):
    pytest.importorskip("onnxruntime.quantization")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    path, inputs = model
    settings = {"per_channel": per_channel, "weight_type": QuantType.QInt8}
    if form == "dynamic":
        quantize_dynamic(path, tmp_path / "q.onnx", **settings)
    else:
        quantize_static(path, tmp_path / "q.onnx", Reader(inputs), quant_format=QuantFormat[form], **settings)
    truth, rows = loaded(path), {layer.name: layer for layer in open_source(tmp_path / "q.onnx").layers}
    assert set(rows) == set(truth)
    assert sum("dequantised" in layer.note for layer in rows.values()) >= 4
    for name, layer in rows.items():
        step = np.abs(truth[name]).max() / 127  # the largest that any of the schemes has
        assert np.abs(layer.load().numpy() - truth[name]).max() <= step, name
