"""MXFP4 and NVFP4 as gpt-oss, DeepSeek, ModelOpt and compressed-tensors store them."""

import pytest
import torch

VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def decode(packed):
    """Return the values of packed codes, the low half of each byte first."""
    codes = torch.stack([packed % 16, packed // 16], -1).flatten(-2)
    return torch.tensor(VALUES)[codes.long()]


def codes(random, *shape):
    return torch.randint(0, 256, shape, generator=random).to(torch.uint8)


def exponents(random, *shape):
    return torch.randint(110, 140, shape, generator=random).to(torch.uint8)


def assert_layers(layers, expected):
    expected = expected.reshape(-1, *expected.shape[-2:])
    assert len(layers) == len(expected)
    for layer, matrix in zip(layers, expected, strict=True):
        assert layer.shape == tuple(matrix.shape)
        torch.testing.assert_close(layer.load(), matrix.float(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gate_up_proj", "down_proj"])
@pytest.mark.parametrize("shape", [(4, 64, 3), (2, 32, 1)])
def test_gpt_oss(checkpoint, random, name, shape):
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4", reason="transformers is not installed")
    blocks, scales = codes(random, *shape, 16), exponents(random, *shape)
    path = f"model.layers.0.mlp.experts.{name}"
    tensors = {f"{path}_blocks": blocks, f"{path}_scales": scales, f"{path}_bias": torch.ones(shape[:2])}
    inventory = checkpoint(tensors, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    # transformers transposes to (experts, in, out) at the end
    expected = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)
    layers = [layer for layer in inventory.layers if "bias" not in layer.name]
    assert_layers(layers, expected)
    assert layers[1].name == f"{path}[1]"
    assert (layers[0].dtype, layers[0].note) == ("uint8", "dequantised from MXFP4")


@pytest.mark.parametrize("key", ["fc.weight", "fc.weight_packed", "experts.w1_weight"])
@pytest.mark.parametrize("shape", [(48, 96), (3, 16, 32)])
def test_mxfp4(checkpoint, random, key, shape):
    packed, scales = codes(random, *shape[:-1], shape[-1] // 2), exponents(random, *shape[:-1], shape[-1] // 32)
    inventory = checkpoint({key: packed, f"{key.removesuffix('_packed')}_scale": scales})
    expected = decode(packed) * torch.pow(2.0, scales.float() - 127).repeat_interleave(32, -1)
    assert_layers(inventory.layers, expected)


@pytest.mark.parametrize("scale_type", [torch.float8_e8m0fnu, torch.float32])
def test_deepseek_experts(checkpoint, random, scale_type):
    packed, scales = codes(random, 64, 64), exponents(random, 64, 4)
    scale = scales.view(torch.float8_e8m0fnu).to(scale_type)
    tensors = {"layers.1.ffn.experts.0.w1.weight": packed.view(torch.int8), "layers.1.ffn.experts.0.w1.scale": scale}
    inventory = checkpoint(tensors, {"quant_method": "fp8", "weight_block_size": [128, 128]}, expert_dtype="fp4")
    assert_layers(inventory.layers, decode(packed) * torch.pow(2.0, scales.float() - 127).repeat_interleave(32, -1))


@pytest.mark.parametrize("overall", [(), (1,), (3,), (3, 1, 1)])
def test_nvfp4_of_modelopt(checkpoint, random, overall):
    stack = (3,) if 3 in overall else ()
    packed = codes(random, *stack, 32, 40)
    scales = torch.rand(*stack, 32, 5, generator=random).to(torch.float8_e4m3fn)
    scale_2 = torch.rand(overall, generator=random) / 100
    tensors = {"moe.fc.weight": packed, "moe.fc.weight_scale": scales, "moe.fc.weight_scale_2": scale_2}
    tensors |= {"moe.fc.input_scale": torch.ones(2, 2), "moe.fc.bias": torch.ones(32)}
    inventory = checkpoint(tensors)
    by_stack = scale_2.reshape(-1, 1, 1) if stack else scale_2
    assert_layers(inventory.layers, decode(packed) * (scales.float() * by_stack).repeat_interleave(16, -1))
    assert inventory.layers[0].note == "dequantised from NVFP4"


@pytest.mark.parametrize(("kind", "size"), [("NVFP4Packed", 16), ("MXFP4Packed", 32)])
@pytest.mark.parametrize("shape", [(48, 96), (32, 160)])
def test_compressed_tensors(checkpoint, random, kind, size, shape):
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="compressed-tensors is not installed")
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(
        num_bits=4, type="float", strategy="tensor_group" if size == 16 else "group", group_size=size
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    state = {"weight": torch.randn(shape, generator=random)}
    state["weight_scale"] = torch.rand(shape[0], shape[1] // size, generator=random) + 0.1
    if size == 16:
        state["weight_global_scale"] = torch.tensor([7.0])
    compressor = getattr(compressors, f"{kind}Compressor")
    stored = compressor.compress(state, scheme)
    inventory = checkpoint(
        {f"fc.{key}": value for key, value in stored.items()}, {"quant_method": "compressed-tensors"}
    )
    (layer,) = inventory.layers
    # compressed-tensors rounds to bfloat16 after each step
    torch.testing.assert_close(
        layer.load(), compressor.decompress(stored, scheme)["weight"].float(), rtol=2**-7, atol=0
    )
    scale = torch.pow(2.0, stored["weight_scale"].float() - 127) if size == 32 else stored["weight_scale"].float() / 7
    assert_layers([layer], decode(stored["weight_packed"]) * scale.repeat_interleave(size, -1))


@pytest.mark.parametrize(
    "parts",
    [
        {"weight_scale": torch.ones(32, 4).to(torch.float8_e4m3fn), "weight_scale_2": torch.ones(1)},
        {"weight_scale": torch.ones(32, 5).to(torch.float8_e4m3fn), "weight_scale_2": torch.ones(7)},
        {"weight_scale": torch.ones(32, 5).to(torch.float8_e4m3fn)},
        {"weight_scale": torch.ones(32, 5), "weight_scale_2": torch.ones(1)},
        {
            "weight_scale": torch.ones(32, 5).to(torch.float8_e4m3fn),
            "weight_scale_2": torch.ones(1),
            "pre_quant_scale": torch.ones(80),
        },
        {"weight_scale": torch.ones(32, 5, dtype=torch.uint8)},
        {"weight_scale": torch.ones(0, 5, dtype=torch.uint8)},
    ],
)
def test_what_is_not_understood(reason, random, parts):
    said = reason({f"fc.{key}": value for key, value in parts.items()} | {"fc.weight": codes(random, 32, 40)})
    assert all(key in said for key in parts)
    assert "dequantise it first" in said
