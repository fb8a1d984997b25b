"""Weights of ONNX graphs, wherever a graph keeps them; the truth comes from onnx.reference and from numpy."""

import numpy as np
import pytest

import htsr
from htsr.weights import open_source

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

FLOAT = TensorProto.FLOAT


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def save(path, nodes, stored, inputs, opset=21, **more):
    """Write a graph whose output is ``y`` and return its file."""
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
        tensors,
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10, **more), path / "m.onnx")
    return path / "m.onnx"


def node(operation, inputs, output="y", **settings):
    return helper.make_node(operation, inputs, [output], **settings)


def singular(matrix):
    return np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)


def matrix_of(path, rows):
    """Return the matrix by which a graph multiplies its input ``x``, as onnx.reference runs it on an identity."""
    return ReferenceEvaluator(onnx.load(path)).run(None, {"x": np.eye(rows, dtype="f4")})[0]


def only_layer(path):
    (layer,) = open_source(path).layers
    return layer


def constant(weight, **value):
    return [node("Constant", [], "w", **(value or {"value": numpy_helper.from_array(weight)}))]


def chain(weight):
    shaped = weight.T.reshape(1, weight.shape[1], weight.shape[0])
    return [
        node("Squeeze", ["s", "axes"], "s2"), node("Transpose", ["s2"], "t"), node("Identity", ["t"], "i"),
        node("Cast", ["i"], "w", to=FLOAT),
    ], {"s": shaped.astype("f2"), "axes": np.array([0])}  # fmt: skip


def halves(weight):
    cut = weight.shape[0] // 2
    nodes = [
        node("Slice", ["a", "zero", "cut"], "a2"), node("Concat", ["a2", "b"], "w", axis=0),
    ]  # fmt: skip
    return nodes, {"a": weight, "b": weight[cut:], "zero": np.array([0]), "cut": np.array([cut])}


def sparse(weight):
    places = np.flatnonzero(weight)
    values = numpy_helper.from_array(weight.ravel()[places], "w")
    tensor = helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype("i8"), "i"), list(weight.shape))
    return [node("Constant", [], "w", sparse_value=tensor)], {}


PLACES = {
    "an initializer": lambda w: ([], {"w": w}),
    "a Constant node": lambda w: (constant(w), {}),
    "a list of numbers": lambda w: (
        [*constant(w.ravel(), value_floats=w.ravel().tolist())[:1], node("Reshape", ["w", "shape"], "w2")],
        {"shape": np.array([-1, w.shape[1]])},
    ),
    "a chain": chain,
    "two halves": halves,
}


@pytest.mark.parametrize("shape", [(24, 17), (9, 31)])
@pytest.mark.parametrize("place", PLACES)
def test_weight_wherever_it_is(place, shape, tmp_path):
    nodes, stored = PLACES[place](random(*shape))
    last = nodes[-1].output[0] if nodes else "w"
    path = save(tmp_path, [*nodes, node("MatMul", ["x", last])], stored, {"x": [None, shape[0]]})
    layer = only_layer(path)
    np.testing.assert_allclose(singular(layer.load()), singular(matrix_of(path, shape[0])), rtol=1e-6)
    assert layer.shape == shape[::-1]
    assert layer.layer_type == "dense"


def test_sparse_weight(tmp_path):
    weight = random(20, 30) * (random(20, 30, seed=1) > 0.5)
    nodes, _ = sparse(weight)
    path = save(tmp_path, [*nodes, node("MatMul", ["x", "w"])], {}, {"x": [None, 20]})
    np.testing.assert_array_equal(only_layer(path).load(), weight.T)


def test_weights_of_both_branches(tmp_path):
    def branch(seed):
        weight = numpy_helper.from_array(random(12, 10 + seed, seed=seed), "w")
        return helper.make_graph(
            [node("MatMul", ["x", "w"], "z")], "b", [], [helper.make_tensor_value_info("z", FLOAT, None)], [weight]
        )

    nodes = [node("If", ["c"], then_branch=branch(1), else_branch=branch(2))]
    path = save(tmp_path, nodes, {"c": np.array(True)}, {"x": [None, 12]})
    layers = open_source(path).layers
    assert len({layer.name for layer in layers}) == 2
    for layer, seed in zip(layers, (2, 1), strict=True):
        np.testing.assert_array_equal(layer.load(), random(12, 10 + seed, seed=seed).T)


def function(name, calls, inputs=("x", "w")):
    return helper.make_function(
        "own", name, list(inputs), ["y"], calls, [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    )


def test_weights_of_a_local_function_and_of_its_calls(tmp_path):
    inner = numpy_helper.from_array(random(10, 8, seed=3))
    body = function(
        "Block", [node("Constant", [], "v", value=inner), node("MatMul", ["x", "w"], "h"), node("MatMul", ["h", "v"])]
    )
    call = helper.make_node("Block", ["x", "a"], ["y"], domain="own")
    path = save(tmp_path, [call], {"a": random(12, 10)}, {"x": [None, 12]}, functions=[body])
    named = {layer.name: layer for layer in open_source(path).layers}
    np.testing.assert_array_equal(named["a"].load(), random(12, 10).T)
    np.testing.assert_array_equal(named["v"].load(), random(10, 8, seed=3).T)


def test_functions_that_unroll_without_end_are_refused(tmp_path):
    doubled = [
        function(f"F{n}", [helper.make_node(f"F{n + 1}", ["x"], [o], domain="own") for o in ("y", "z")], ("x",))
        for n in range(30)
    ]
    path = save(tmp_path, [helper.make_node("F0", ["x"], ["y"], domain="own")], {}, {"x": [1]}, functions=doubled)
    with pytest.raises(htsr.InputError, match="refused"):
        open_source(path)


def integers(dtype, shape, seed=1):
    if "FLOAT8" in dtype:
        return helper.make_tensor("q", getattr(TensorProto, dtype), shape, random(*shape, seed=seed).ravel())
    low, high = {"INT8": (-128, 128), "UINT8": (0, 256), "INT4": (-8, 8), "UINT4": (0, 16)}[dtype]
    values = np.random.default_rng(seed).integers(low, high, size=shape)
    return helper.make_tensor("q", getattr(TensorProto, dtype), shape, values.ravel())


@pytest.mark.parametrize("dtype", ["INT8", "UINT8", "INT4", "UINT4", "FLOAT8E4M3FN"])
@pytest.mark.parametrize("scales", ["tensor", "axis 0", "axis 1", "blocks"])
def test_dequantised_weight(dtype, scales, tmp_path):
    rows, columns = 24, 16
    shape, settings = {
        "tensor": ((), {}), "axis 0": ((rows,), {"axis": 0}), "axis 1": ((columns,), {"axis": 1}),
        "blocks": ((rows // 8, columns), {"axis": 0, "block_size": 8}),
    }[scales]  # fmt: skip
    stored = {"scale": np.abs(random(*shape)) + np.float32(0.1)}
    path = save(tmp_path, [node("DequantizeLinear", ["q", "scale", *(["zero"] if "INT" in dtype else [])], "w", **settings),
                           node("MatMul", ["x", "w"])], stored, {"x": [None, rows]})  # fmt: skip
    model = onnx.load(path)
    model.graph.initializer.append(integers(dtype, (rows, columns)))
    if "INT" in dtype:
        zero = integers("UINT4" if dtype[0] == "U" else "INT4", shape, seed=2)
        model.graph.initializer.append(
            helper.make_tensor(
                "zero", getattr(TensorProto, dtype), shape, numpy_helper.to_array(zero).astype("i4").ravel()
            )
        )
    onnx.save(model, path)
    layer = only_layer(path)
    np.testing.assert_array_equal(layer.load().numpy(), matrix_of(path, rows).T)
    assert "dequantised" in layer.note


@pytest.mark.parametrize("columns", [1, 20], ids=["one scale", "a scale for each column"])
def test_integer_product_takes_its_scale_from_the_graph(columns, tmp_path):
    weight = np.random.default_rng(0).integers(-128, 128, size=(30, 20)).astype("i1")
    stored = {"w": weight, "ws": np.abs(random(columns)) + np.float32(0.1), "wz": np.array(3, "i1")}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        node("MatMulInteger", ["xq", "w", "xz", "wz"], "p"), node("Cast", ["p"], "f", to=FLOAT),
        node("Mul", ["xs", "ws"], "s"), node("Mul", ["f", "s"]),
    ]  # fmt: skip
    path = save(tmp_path, nodes, stored, {"x": [None, 30]})
    np.testing.assert_allclose(only_layer(path).load(), ((weight.astype("f4") - 3) * stored["ws"]).T, rtol=1e-6)


def test_integer_product_without_a_known_scale_is_skipped(tmp_path):
    path = save(tmp_path, [node("MatMulInteger", ["x", "w"])], {"w": np.ones((30, 20), "i1")}, {"x": [None, 30]})
    inventory = open_source(path)
    assert not inventory.layers
    assert "scale" in inventory.skipped[0].reason


def test_quantised_convolution(tmp_path):
    weight = np.random.default_rng(0).integers(-128, 128, size=(8, 6, 3, 3)).astype("i1")
    stored = {"s": np.array(0.1, "f4"), "z": np.array(0, "u1"), "w": weight, "ws": np.abs(random(8)), "wz": np.zeros(8, "i1"),
              "b": np.arange(8, dtype="i4")}  # fmt: skip
    path = save(
        tmp_path, [node("QLinearConv", ["x", "s", "z", "w", "ws", "wz", "s", "z", "b"])], stored, {"x": [1, 6, 9, 9]}
    )
    layer = only_layer(path)
    assert layer.layer_type == "conv2d"
    np.testing.assert_array_equal(layer.load(), weight * stored["ws"].reshape(8, 1, 1, 1))


@pytest.mark.parametrize("per_gate", [False, True])
def test_dynamically_quantised_lstm(per_gate, tmp_path):
    draw, inputs, hidden = np.random.default_rng(0), 14, 6
    w, r = (draw.integers(0, 256, size=(2, side, 4 * hidden)).astype("u1") for side in (inputs, hidden))
    shape = (2, 4 * hidden) if per_gate else (2,)
    scales = {
        "ws": np.abs(random(*shape)),
        "rs": np.abs(random(*shape, seed=1)),
        "wz": np.full(shape, 7, "u1"),
        "rz": np.full(shape, 9, "u1"),
    }
    inputs_of_node = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    lstm = helper.make_node("DynamicQuantizeLSTM", inputs_of_node, ["y"], domain="com.microsoft", hidden_size=hidden)
    path = save(tmp_path, [lstm], {"w": w, "r": r, "b": random(2, 8 * hidden), **scales}, {"x": [None, None, inputs]})
    inventory = open_source(path)
    assert {layer.layer_type for layer in inventory.layers} == {"lstm"}
    assert len(inventory.layers) == 2 * 2 * 4
    whole = (w.astype("f4") - 7) * scales["ws"].reshape(2, 1, -1)
    layer = next(layer for layer in inventory.layers if layer.name.startswith("w[1]") and layer.name.endswith("[o]"))
    np.testing.assert_array_equal(layer.load(), whole[1, :, hidden : 2 * hidden].T)  # ONNX stacks i, o, f, c


@pytest.mark.parametrize(("bits", "block", "zeros"), [(4, 16, True), (4, 32, False), (8, 16, True), (2, 16, False)])
def test_weight_packed_in_bits(bits, block, zeros, tmp_path):
    rows, columns = 12, 40
    blocks, count = -(-columns // block), 8 // bits
    draw = np.random.default_rng(0)
    values = draw.integers(0, 2**bits, size=(rows, blocks * block))
    points = draw.integers(0, 2**bits, size=(rows, -(-blocks // count) * count))
    scales = np.abs(random(rows, blocks))

    def packed(numbers):
        lines = [
            [sum(int(v) << (bits * i) for i, v in enumerate(line[j : j + count])) for j in range(0, len(line), count)]
            for line in numbers
        ]
        return np.array(lines, dtype="u1")

    stored = {"w": packed(values).reshape(rows, blocks, -1), "s": scales.ravel()}
    if zeros:
        stored["z"] = packed(points)
    product = helper.make_node(
        "MatMulNBits", ["x", *stored], ["y"], domain="com.microsoft", K=columns, N=rows, bits=bits, block_size=block
    )
    path = save(tmp_path, [product], stored, {"x": [None, columns]})
    truth = np.empty((rows, columns), "f4")
    for i in range(rows):
        for j in range(columns):
            zero = points[i, j // block] if zeros else 2 ** (bits - 1)
            truth[i, j] = np.float32(values[i, j] - zero) * scales[i, j // block]
    np.testing.assert_array_equal(only_layer(path).load(), truth)


@pytest.mark.parametrize("vector", [(1, 40), (40, 1), (1, 40, 1), (40,)])
@pytest.mark.parametrize("operation", ["Add", "Mul", "Sub", "Where", "PRelu", "Concat"])
def test_vectors_and_what_is_added_are_no_rows(vector, operation, tmp_path):
    inputs = ["c", "x", "v"] if operation == "Where" else ["x", "v"]
    settings = {"axis": 0} if operation == "Concat" else {}
    path = save(tmp_path, [node(operation, inputs, **settings)], {"v": random(*vector)}, {"x": [40, 40], "c": [40, 40]})
    inventory = open_source(path)
    assert not inventory.layers
    assert operation in inventory.skipped[0].reason


@pytest.mark.parametrize(("place", "turned"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gemm(place, turned, tmp_path):
    weight = random(20, 12)
    settings = {("transA", "transB")[place]: turned}
    inputs = ["w", "x"] if place == 0 else ["x", "w"]
    path = save(
        tmp_path, [node("Gemm", [*inputs, "c"], **settings)], {"w": weight, "c": random(20, 20)}, {"x": [None, None]}
    )
    layer = only_layer(path)
    stored_out_in = (place == 1) == bool(turned)
    np.testing.assert_array_equal(layer.load(), weight if stored_out_in else weight.T)


@pytest.mark.parametrize(("equation", "shape", "axes", "wanted"), [
    ("bsd,dhk->bshk", (12, 3, 5), (1, 2, 0), (15, 12)), ("abc,cd->abd", (12, 7), (1, 0), (7, 12)),
    ("bhk,hkd->bd", (3, 5, 12), (2, 0, 1), (12, 15)), ("eti,eio->eto", (2, 6, 9), (0, 2, 1), (2, 9, 6)),
])  # fmt: skip
def test_einsum(equation, shape, axes, wanted, tmp_path):
    weight = random(*shape)
    path = save(tmp_path, [node("Einsum", ["x", "w"], equation=equation)], {"w": weight}, {"x": [None] * 3})
    loaded = [layer.load() for layer in open_source(path).layers]
    np.testing.assert_array_equal(np.squeeze(np.stack(loaded)), weight.transpose(axes).reshape(wanted))


@pytest.mark.parametrize("operation", ["Conv", "ConvTranspose"])
def test_a_depthwise_convolution_is_one_row(operation, tmp_path):
    path = save(
        tmp_path,
        [node(operation, ["x", "w", "b"], group=48)],
        {"w": random(48, 1, 3, 3), "b": random(48)},
        {"x": [1, 48, 9, 9]},
    )
    assert only_layer(path).shape == (48, 9)


def test_a_count_of_groups_is_bounded(tmp_path):
    path = save(tmp_path, [node("Conv", ["x", "w"], group=30000)], {"w": random(30000, 2, 1)}, {"x": [1, 60000, 9]})
    (skipped,) = open_source(path).skipped
    assert "30,000 groups" in skipped.reason


def external(tmp_path, location, offset, length, shape=(6, 40, 30)):
    tensor = TensorProto(name="w", dims=shape, data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    moe = helper.make_node("MoE", ["x", "r", "w"], ["y"], domain="com.microsoft")
    graph = helper.make_graph([moe], "g", [], [], [tensor])
    (tmp_path / "model").mkdir()
    onnx.save(helper.make_model(graph), tmp_path / "model" / "m.onnx")
    return tmp_path / "model" / "m.onnx"


def test_external_data_is_read_a_matrix_at_a_time(tmp_path, monkeypatch):
    from htsr.weights.readers.onnx import constants as onnx_constants

    weight = random(6, 40, 30)
    path = external(tmp_path, "w.data", 16, weight.nbytes)
    (path.parent / "w.data").write_bytes(bytes(16) + weight.tobytes())
    counts, read = [], onnx_constants._external_bytes
    monkeypatch.setattr(onnx_constants, "_external_bytes", lambda *given: counts.append(given[-1]) or read(*given))
    for number, layer in enumerate(open_source(path).layers):
        np.testing.assert_array_equal(layer.load(), weight[number])
    assert counts == [weight[0].nbytes] * 6


@pytest.mark.parametrize(
    ("location", "offset", "length"),
    [("../secret", 0, 28800), ("link", 0, 28800), ("w.data", 4, 28800), ("w.data", -4, 28800), ("w.data", 0, 400),
     ("w.data", "x", 28800),
     ("folder", 0, 28800), ("", 0, 28800), ("absent", 0, 28800), ("absolute", 0, 28800)],
)  # fmt: skip
def test_external_data_from_elsewhere_is_refused(location, offset, length, tmp_path):
    (tmp_path / "secret").write_bytes(random(6, 40, 30).tobytes())
    path = external(tmp_path, str(tmp_path / "secret") if location == "absolute" else location, offset, length)
    (path.parent / "link").symlink_to(tmp_path / "secret")
    (path.parent / "folder").mkdir()
    (path.parent / "w.data").write_bytes(random(6, 40, 30).tobytes())
    with pytest.raises(htsr.InputError, match="external data"):
        open_source(path).layers[0].load()


def test_external_data_beside_a_model_behind_links(tmp_path):
    weight = random(6, 40, 30)
    path = external(tmp_path, "w.data", 0, weight.nbytes)
    (path.parent / "blob").write_bytes(weight.tobytes())
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "m.onnx").symlink_to(path)
    (tmp_path / "snapshot" / "w.data").symlink_to(path.parent / "blob")
    np.testing.assert_array_equal(open_source(tmp_path / "snapshot" / "m.onnx").layers[0].load(), weight[0])


@pytest.mark.parametrize(
    ("operations", "wanted"),
    [
        (["/encoder/fc/MatMul"], ["encoder.fc"]),
        (["/encoder/MatMul", "/encoder/MatMul_1"], ["encoder", "encoder.MatMul_1"]),
        (["m/act/Relu;m/fc/BiasAdd;m/fc/MatMul;m/fc/BiasAdd/ReadVariableOp"], ["m.fc"]),
        (["m/transform/first;m/transform", "m/transform/second;m/transform"], ["m.transform", "m.transform.second"]),
    ],
)
def test_a_weight_without_a_name_is_named_after_its_operation(operations, wanted, tmp_path):
    nodes = [
        node("MatMul", ["x", f"onnx::MatMul_{number}"], f"y{number}", name=name)
        for number, name in enumerate(operations)
    ]
    nodes.append(node("Sum", [f"y{number}" for number in range(len(nodes))]))
    stored = {f"onnx::MatMul_{number}": random(20, 12) for number in range(len(operations))}
    assert [layer.name for layer in open_source(save(tmp_path, nodes, stored, {"x": [None, 20]})).layers] == wanted


@pytest.mark.parametrize("opset", [10, 13, 17, 21])
def test_dequantised_weight_of_every_opset(opset, tmp_path):
    weight = np.random.default_rng(0).integers(-128, 128, size=(20, 12)).astype("i1")
    nodes = [node("DequantizeLinear", ["w", "s", "z"], "d"), node("MatMul", ["x", "d"])]
    stored = {"w": weight, "s": np.float32(0.5), "z": np.int8(3)}
    stored = {name: np.asarray(array) for name, array in stored.items()}
    path = save(tmp_path, nodes, stored, {"x": [None, 20]}, opset=opset)
    np.testing.assert_array_equal(only_layer(path).load(), ((weight.astype("f4") - 3) * 0.5).T)


def test_a_bias_that_is_reshaped_is_not_called_a_part_of_its_shape(tmp_path):
    nodes = [node("Reshape", ["b", "shape"], "r"), node("Add", ["x", "r"])]
    path = save(tmp_path, nodes, {"b": random(2), "shape": np.array([1, 2, 1, 1])}, {"x": [1, 2, 3, 3]})
    reasons = {item.name: item.reason for item in open_source(path).skipped}
    assert "Add" in reasons["b"]
    assert reasons["shape"].endswith("part of b")
