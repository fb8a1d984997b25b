"""Integers packed into 32-bit words: GPTQ, AWQ, compressed-tensors and MLX."""

import pytest
import torch


def pack(codes, bits):
    """Pack each row of codes into 32-bit words, from the lowest bit on, by way of the row as one large integer."""
    words = -(-codes.shape[-1] * bits // 32)
    rows = []
    for row in codes.reshape(-1, codes.shape[-1]).tolist():
        stream = sum(code << position * bits for position, code in enumerate(row))
        rows.append([(stream >> 32 * word) % 2**32 for word in range(words)])
    unsigned = torch.tensor(rows, dtype=torch.int64).reshape(*codes.shape[:-1], words)
    return torch.where(unsigned < 2**31, unsigned, unsigned - 2**32).to(torch.int32)


def integers(random, bits, *shape):
    return torch.randint(0, 2**bits, shape, generator=random)


# GPTQ. gptqmodel packs the inputs of each output, and the zero points of each group, as ``pack`` does; the layout ``gptq``
# subtracts 1 from the zero points before.


@pytest.fixture
def gptq(random):
    """Return the tensors of a GPTQ weight and its values."""

    def make(bits, layout, *, index="in order", groups=3, symmetric=False, inputs=96, out=64):
        codes = integers(random, bits, inputs, out)
        zeros = (
            torch.full((groups, out), 2 ** (bits - 1))
            if symmetric
            else torch.randint(1, 2**bits, (groups, out), generator=random)
        )
        scales = torch.rand(groups, out, generator=random).half()
        group = torch.arange(inputs) // (inputs // groups)
        if index == "act order":
            group = group[torch.randperm(inputs, generator=random)]
        tensors = {
            "qweight": pack(codes.T, bits).T,
            "qzeros": pack(zeros - int(layout == "gptq"), bits),
            "scales": scales,
        }
        tensors |= {} if index is None else {"g_idx": group.to(torch.int32)}
        expected = scales.float()[group] * (codes - zeros[group])
        return {f"fc.{key}": value for key, value in tensors.items()}, expected.T

    return make


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("index", ["in order", "act order", None])
def test_gptq(checkpoint, gptq, bits, layout, index):
    tensors, expected = gptq(bits, layout, index=index)
    settings = {"quant_method": "gptq", "bits": bits, "group_size": 32, "checkpoint_format": layout}
    inventory = checkpoint(tensors | {"fc.bias": torch.ones(64)}, settings)
    (layer,) = inventory.layers
    assert (layer.name, layer.longname, layer.dtype, layer.shape) == ("fc", "fc", "int32", (64, 96))
    assert layer.note == f"dequantised from GPTQ, {bits} bits"
    torch.testing.assert_close(layer.load(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
def test_gptq_without_a_layout(checkpoint, gptq, layout):
    tensors, expected = gptq(4, layout, symmetric=True)
    torch.testing.assert_close(checkpoint(tensors).layers[0].load(), expected, rtol=0, atol=0)
    (layer,) = checkpoint(gptq(4, layout)[0]).layers
    with pytest.raises(ValueError, match="ambiguous"):
        layer.load()
    tensors, expected = gptq(4, "gptq")
    (layer,) = checkpoint(tensors, {"quant_method": "gptq", "bits": 4}).layers  # before there was a checkpoint_format
    torch.testing.assert_close(layer.load(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("index", [-1, 3])
def test_gptq_with_groups_out_of_range(checkpoint, gptq, index):
    tensors, _ = gptq(4, "gptq")
    tensors["fc.g_idx"][5] = index
    (layer,) = checkpoint(tensors, {"quant_method": "gptq"}).layers
    with pytest.raises(ValueError, match="group indices"):
        layer.load()


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"bits": 7}, {}),
        ({"bits": [4]}, {}),
        ({"checkpoint_format": "marlin"}, {}),
        ({"checkpoint_format": ["gptq"]}, {}),
        ({}, {"g_idx": torch.zeros(95, dtype=torch.int32)}),
        ({}, {"scales": torch.ones(3, 63)}),
        ({}, {"scales": torch.ones(0, 64)}),
        ({}, {"qzeros": torch.zeros(3, 7, dtype=torch.int32)}),
        ({}, {"qzeros": torch.zeros(3, 8)}),
        ({}, {"perm": torch.zeros(96, dtype=torch.int32)}),
    ],
)
def test_gptq_that_is_not_understood(reason, gptq, settings, changed):
    tensors, _ = gptq(4, "gptq")
    tensors |= {f"fc.{key}": value for key, value in changed.items()}
    assert "dequantise it first" in reason(tensors, {"quant_method": "gptq", "group_size": -32, **settings})


def awq(random, groups=3, inputs=96, out=64):
    """Return the tensors of an AWQ weight and its values: its words hold the outputs 0, 2, 4, 6, 1, 3, 5, 7 of each eight."""
    codes, zeros = integers(random, 4, inputs, out), integers(random, 4, groups, out)
    scales = torch.rand(groups, out, generator=random).half()
    order = torch.tensor([8 * start + place for start in range(out // 8) for place in (0, 2, 4, 6, 1, 3, 5, 7)])
    group = torch.arange(inputs) // (inputs // groups)
    tensors = {"fc.qweight": pack(codes[:, order], 4), "fc.qzeros": pack(zeros[:, order], 4), "fc.scales": scales}
    return tensors, (scales.float()[group] * (codes - zeros[group])).T


@pytest.mark.parametrize("settings", [None, {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": 32}])
@pytest.mark.parametrize("shape", [{}, {"inputs": 64, "groups": 1}, {"inputs": 32, "groups": 2, "out": 256}])
def test_awq(checkpoint, random, settings, shape):
    tensors, expected = awq(random, **shape)
    (layer,) = checkpoint(tensors, settings).layers
    assert (layer.name, layer.note) == ("fc", "dequantised from AWQ, 4 bits")
    torch.testing.assert_close(layer.load(), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("settings", "scales"), [({"version": "gemv"}, 3), ({"version": [1]}, 3), ({}, 5), ({}, 0)])
def test_awq_that_is_not_understood(reason, random, settings, scales):
    tensors, _ = awq(random)
    tensors["fc.scales"] = torch.ones(scales, 64)
    assert "dequantise it first" in reason(tensors, {"quant_method": "awq", **settings})


# compressed-tensors


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize(("strategy", "groups"), [("group", 4), ("channel", 1)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shape", [(96, 128), (36, 80)])
def test_compressed_tensors(checkpoint, random, bits, strategy, groups, symmetric, shape):
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="compressed-tensors is not installed")
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    size = {"group_size": shape[1] // groups} if strategy == "group" else {}
    args = QuantizationArgs(num_bits=bits, type="int", strategy=strategy, symmetric=symmetric, **size)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    scale = torch.rand(shape[0], groups, generator=random) + 0.2
    state = {"weight": torch.randn(shape, generator=random), "weight_scale": scale}
    if not symmetric:
        half = 2 ** (bits - 1)
        state["weight_zero_point"] = torch.randint(-half, half, scale.shape, generator=random).to(torch.int8)
    compressor = compressors.PackedQuantizationCompressor
    stored = compressor.compress(state, scheme)
    for settings in (None, {"config_groups": {"group_0": {"weights": args.model_dump(mode="json")}}}):
        (layer,) = checkpoint({f"fc.{key}": value for key, value in stored.items()}, settings).layers
        assert (layer.name, layer.shape) == ("fc", shape)
        torch.testing.assert_close(layer.load(), compressor.decompress(stored, scheme)["weight"], rtol=0, atol=0)


def packed(random, bits, shape, groups, *, asymmetric=False, index=None):
    """Return the tensors of a weight that compressed-tensors packed, and its values."""
    codes = integers(random, bits, *shape)
    scales = torch.rand(*shape[:-1], groups, generator=random)
    tensors = {"weight_packed": pack(codes, bits), "weight_scale": scales, "weight_shape": torch.tensor(shape)}
    group = torch.arange(shape[-1]) // (shape[-1] // groups) if index is None else index
    zeros = integers(random, bits, *shape[:-1], groups) if asymmetric else torch.full(scales.shape, 2 ** (bits - 1))
    if asymmetric:
        tensors["weight_zero_point"] = pack(zeros.transpose(-1, -2), bits).transpose(-1, -2)
    tensors |= {} if index is None else {"weight_g_idx": index.to(torch.int32)}
    return tensors, (codes - zeros[..., group]) * scales[..., group]


@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_compressed_tensors_in_act_order(checkpoint, random, bits, asymmetric):
    index = torch.arange(64)[torch.randperm(64, generator=random)] // 16
    tensors, expected = packed(random, bits, (48, 64), 4, asymmetric=asymmetric, index=index)
    (layer,) = checkpoint({f"fc.{key}": value for key, value in tensors.items()}).layers
    torch.testing.assert_close(layer.load(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("asymmetric", [True, False])
def test_compressed_tensors_in_a_stack(checkpoint, random, asymmetric):
    tensors, expected = packed(random, 4, (3, 40, 64), 2, asymmetric=asymmetric)
    layers = checkpoint({f"experts.w1_{key}": value for key, value in tensors.items()}).layers
    assert [layer.name for layer in layers] == ["experts.w1[0]", "experts.w1[1]", "experts.w1[2]"]
    for layer, matrix in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer.load(), matrix, rtol=0, atol=0)


@pytest.mark.parametrize(
    "changed",
    [
        {"weight_shape": torch.tensor([48, 65])},
        {"weight_shape": torch.tensor([-48, 64])},
        {"weight_shape": torch.tensor([48, 2**40])},
        {"weight_shape": torch.tensor([48])},
        {"weight_shape": torch.tensor([48.0, 64.0])},
        {"weight_scale": torch.ones(48, 3)},
        {"weight_scale": torch.ones(0, 4)},
        {"weight_zero_point": torch.zeros(6, 3, dtype=torch.int32)},
        {"weight_zero_point": torch.zeros(48, 4)},
        {"weight_g_idx": torch.zeros(63, dtype=torch.int32)},
        {"weight_g_idx": torch.zeros(64)},
        {"weight_bitmask": torch.zeros(48, 8, dtype=torch.uint8)},
    ],
)
def test_compressed_tensors_that_do_not_fit(reason, random, changed):
    tensors, _ = packed(random, 4, (48, 64), 4)
    assert "dequantise it first" in reason({f"fc.{key}": value for key, value in (tensors | changed).items()})


# MLX


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("shape", [(48, 256), (3, 16, 128)])
def test_mlx(checkpoint, random, bits, size, shape):
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    parts = mx.quantize(mx.array(torch.randn(shape, generator=random).numpy()), group_size=size, bits=bits)
    expected = torch.tensor(mx.dequantize(*parts, group_size=size, bits=bits).tolist())
    words, scales, biases = (torch.tensor(part.tolist(), dtype=torch.float64) for part in parts)
    tensors = {
        "mlp.weight": words.to(torch.int64).to(torch.uint32),
        "mlp.scales": scales.float(),
        "mlp.biases": biases.float(),
    }
    settings = {"group_size": size, "bits": bits}
    for quantization in (settings, {"group_size": 64, "bits": 1, "mlp": settings}):
        layers = checkpoint(tensors, quantization=quantization).layers
        for layer, matrix in zip(layers, expected.reshape(-1, *expected.shape[-2:]), strict=True):
            assert layer.note == f"dequantised from MLX, {bits} bits"
            torch.testing.assert_close(layer.load(), matrix, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(48, 64), (3, 16, 96)])
@pytest.mark.parametrize(("mode", "bits", "size"), [("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)])
@pytest.mark.parametrize("said", [True, False])
def test_mlx_floats(checkpoint, random, mode, bits, size, shape, said):
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    sizes = {"group_size": size, "bits": bits, "mode": mode}
    words, scales = mx.quantize(mx.array(torch.randn(shape, generator=random).numpy()), **sizes)
    expected = torch.tensor(mx.dequantize(words, scales, **sizes).astype(mx.float32).tolist())
    tensors = {
        "mlp.weight": torch.tensor(words.tolist(), dtype=torch.int64).to(torch.uint32),
        "mlp.scales": torch.tensor(scales.tolist(), dtype=torch.uint8),
    }
    layers = checkpoint(tensors, **({"quantization": sizes} if said else {})).layers
    for layer, matrix in zip(layers, expected.reshape(-1, *expected.shape[-2:]), strict=True):
        assert layer.note == f"dequantised from MLX, {mode}"
        assert torch.equal(layer.load(), matrix)


@pytest.mark.parametrize(("mode", "groups"), [("affine", 2), ("nvfp4", 2), (None, 3), ([1], 2)])
def test_mlx_floats_that_are_not_understood(reason, mode, groups):
    tensors = {"fc.weight": torch.zeros(48, 8).to(torch.uint32), "fc.scales": torch.ones(48, groups).to(torch.uint8)}
    assert "do not fit the mode" in reason(tensors, {"mode": mode})


@pytest.mark.parametrize(
    ("weight", "beside"),
    [
        ("q.W_q", {"q.scale": (64, 2), "q.zero": (64, 2)}),  # HQQ with view_as_float
        ("q.qweight", {"q.scales": (4, 32), "q.qzeros": (4, 32)}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bytes_in_a_float_type_are_no_weight(reason, weight, beside, dtype):
    scales = {name: torch.ones(shape) for name, shape in beside.items()}
    assert "dequantise it first" in reason({weight: torch.ones(16, 32).to(dtype), **scales})


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_weights_of_quanto(reason, bits):
    beside = {"fc.weight._scale": torch.ones(24, 2), "fc.weight._shift": torch.ones(24, 2)}
    packed = torch.ones(24 * bits // 8, 32).to(torch.uint8)
    assert "weight_shift" in reason({"fc.weight._data._data": packed, **beside})


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        (None, 4),
        ({"bits": 7, "group_size": 64}, 4),
        ({"bits": 4, "group_size": -64}, 4),
        ({"bits": 4, "group_size": 64}, 3),
    ],
)
def test_mlx_that_is_not_understood(reason, settings, scales):
    beside = {"fc.scales": torch.ones(48, scales), "fc.biases": torch.ones(48, scales)}
    assert "dequantise it first" in reason({"fc.weight": torch.zeros(48, 32).to(torch.uint32), **beside}, settings)


@pytest.mark.parametrize("method", ["eetq", "hqq", "aqlm"])
def test_methods_with_an_order_of_their_own(reason, method):
    tensors = {"fc.weight": torch.ones(8, 8).to(torch.int8), "fc.weight_scale": torch.ones(8)}
    assert f"by {method}" in reason(tensors, {"quant_method": method})


def test_codebooks_are_no_rows(reason):
    tensors = {
        "fc.codes": torch.zeros(8, 8, 2).to(torch.int8),
        "fc.codebooks": torch.ones(2, 256, 8),
        "fc.scales": torch.ones(8, 1),
    }
    said = reason(tensors, {"quant_method": "aqlm"})
    assert all(name in said for name in ("aqlm", "codebooks", "scales"))
