"""Weights with one element each, times scales of any shape and name."""

from typing import ClassVar

import pytest
import torch

from htsr.weights import open_source

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]


def spread(scale, shape, blocks):
    """Repeat each scale over its block, written with loops over the dimensions."""
    for dim, block in enumerate(blocks):
        scale = scale.repeat_interleave(block, dim).narrow(dim, 0, shape[dim])
    return scale


@pytest.mark.parametrize(
    ("weight", "scale"),
    [
        ("fc.weight", "fc.weight_scale"),
        ("fc.weight", "fc.weight_scale_inv"),
        ("fc.weight", "fc.scale"),
        ("fc.weight", "fc.scale_weight"),
        ("fc.weight._data", "fc.weight._scale"),
        ("fc._weight_qdata", "fc._weight_scale"),
        ("fc.qweight", "fc.scale"),
        ("experts.w13_weight", "experts.w13_weight_scale"),
        ("weight", "weight_scale"),
    ],
)
@pytest.mark.parametrize("dtype", [*FP8, torch.int8])
@pytest.mark.parametrize(
    ("shape", "blocks"),
    [
        ((), (200, 144)),
        ((1,), (200, 144)),
        ((200, 1), (1, 144)),
        ((200,), (1, 144)),
        ((2, 2), (128, 128)),
        ((200, 9), (1, 16)),
    ],
)
def test_scales_are_multiplied_out(random, weight, scale, dtype, shape, blocks):
    stored = (torch.randn(200, 144, generator=random) * 9).to(dtype)
    values = torch.rand(shape, generator=random) + 0.5
    full = values.reshape(*shape, *(1,) * (2 - len(shape)))
    shared = weight.removesuffix("._data").removesuffix("_qdata").rstrip("qweight")
    tensors = {weight: stored, scale: values, f"{shared}input_scale": torch.rand(3, 4)}
    inventory = open_source(tensors)
    (layer,) = inventory.layers
    assert torch.equal(layer.load(), stored.float() * spread(full, stored.shape, blocks))
    name = str(dtype).removeprefix("torch.")
    assert (layer.dtype, layer.note) == (name, f"dequantised from {name}, multiplied by its scales")
    assert all("quantised weight" in skipped.reason for skipped in inventory.skipped)


def test_names_of_layers():
    int8 = torch.ones(8, 8, dtype=torch.int8)
    names = {
        "a.weight": "a.scale",
        "b.qweight": "b.scale",
        "c.weight._data": "c.weight._scale",
        "d.w1": "d.w1_scale_inv",
    }
    tensors = {key: int8 for key in names} | {scale: torch.ones(8, 1) for scale in names.values()}
    layers = open_source({f"_orig_mod.{key}": value for key, value in tensors.items()}).layers
    assert [layer.name for layer in layers] == ["a", "b", "c", "d.w1"]
    assert [layer.longname for layer in layers] == [f"_orig_mod.{layer.name}" for layer in layers]


@pytest.mark.parametrize("blocks", [[64, 32], [128, 128], [48, 80]])
def test_block_size_of_the_configuration(checkpoint, random, blocks):
    stored = torch.randn(200, 144, generator=random).to(FP8[0])
    scale = torch.rand(*(-(-side // block) for side, block in zip(stored.shape, blocks, strict=True)), generator=random)
    tensors = {"fc.weight": stored, "fc.weight_scale_inv": scale}
    (layer,) = checkpoint(tensors, {"quant_method": "fp8", "weight_block_size": blocks}).layers
    assert torch.equal(layer.load(), stored.float() * spread(scale, stored.shape, blocks))


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (3, 200, 1), (3, 200), (3, 2, 2), (3, 1, 144)])
@pytest.mark.parametrize(
    "name", ["experts.gate_up_proj{}_scale_inv", "experts.gate_up_proj{}.scale", "experts.w1_weight{}_scale"]
)
def test_stacked_experts(random, shape, name):
    stored = torch.randn(3, 200, 144, generator=random).to(FP8[0])
    scale = torch.rand(shape, generator=random)
    key = name.split("{")[0]
    layers = open_source({key: stored, name.format(""): scale}).layers
    full = scale.reshape(*shape, *(1,) * (3 - len(shape)))
    blocks = (
        [1, 128, 128]
        if shape == (3, 2, 2)
        else [-(-side // count) for side, count in zip(stored.shape, full.shape, strict=True)]
    )
    expected = stored.float() * spread(full, stored.shape, blocks)
    assert len(layers) == 3
    for layer, matrix in zip(layers, expected, strict=True):
        assert torch.equal(layer.load(), matrix)


def test_experts_read_only_their_own_slice(random):
    class Watched(torch.Tensor):
        read: ClassVar = []

        def __getitem__(self, rows):
            self.read.append(rows)
            return super().__getitem__(rows)

    stored = torch.randn(4, 32, 64, generator=random).to(FP8[0]).as_subclass(Watched)
    scale = torch.rand(4, 32, 2, generator=random).as_subclass(Watched)
    layers = open_source({"experts.w1": stored, "experts.w1_scale": scale}).layers
    Watched.read.clear()
    layers[2].load()
    assert [rows for rows in Watched.read if isinstance(rows, slice)][:2] == [slice(2, 3), slice(2, 3)]


@pytest.mark.parametrize("exponents", [torch.uint8, torch.float8_e8m0fnu])
@pytest.mark.parametrize("fp8", FP8)
@pytest.mark.parametrize("shape", [(256, 128), (96, 416), (3, 64, 96)])
def test_mxfp8(checkpoint, random, exponents, fp8, shape):
    stored = torch.randn(shape, generator=random).to(fp8)
    bytes_ = torch.randint(100, 150, (*shape[:-1], shape[-1] // 32), generator=random).to(torch.uint8)
    layers = checkpoint({"moe.w1.weight": stored, "moe.w1.weight_scale": bytes_.view(exponents)}).layers
    scale = torch.pow(2.0, bytes_.float() - 127).repeat_interleave(32, -1)
    expected = (stored.float() * scale).reshape(-1, *shape[-2:])
    assert len(layers) == len(expected)
    for layer, matrix in zip(layers, expected, strict=True):
        assert torch.equal(layer.load(), matrix)


def test_deepseek_blocks_of_exponents(checkpoint, random):
    stored = torch.randn(256, 200, generator=random).to(FP8[0])
    bytes_ = torch.randint(100, 150, (2, 2), generator=random).to(torch.uint8)
    tensors = {"layers.0.attn.wq_a.weight": stored, "layers.0.attn.wq_a.scale": bytes_.view(torch.float8_e8m0fnu)}
    (layer,) = checkpoint(
        tensors, {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}
    ).layers
    assert torch.equal(
        layer.load(), stored.float() * spread(torch.pow(2.0, bytes_.float() - 127), (256, 200), (128, 128))
    )


@pytest.mark.parametrize(("kind", "bits"), [("float", 8), ("int", 8), ("int", 4)])
@pytest.mark.parametrize(
    ("strategy", "counts"), [("tensor", (1,)), ("channel", (96, 1)), ("group", (96, 4)), ("block", (3, 4))]
)
@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors(checkpoint, random, kind, bits, strategy, counts, symmetric):
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="compressed-tensors is not installed")
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    if not symmetric and (kind == "float" or strategy == "block"):
        pytest.skip("compressed-tensors has no such weights")
    structure = {"block": {"block_structure": [32, 32]}, "group": {"group_size": 32}}.get(strategy, {})
    args = QuantizationArgs(num_bits=bits, type=kind, strategy=strategy, symmetric=symmetric, **structure)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    state = {
        "weight": torch.randn(96, 128, generator=random),
        "weight_scale": torch.rand(counts, generator=random) + 0.05,
    }
    state["weight_zero_point"] = torch.randint(-3, 3, counts, generator=random).to(torch.int8) * (not symmetric)
    compressor = compressors.NaiveQuantizationCompressor
    stored = compressor.compress(state, scheme)
    settings = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": args.model_dump(mode="json")}},
    }
    (layer,) = checkpoint({f"fc.{key}": value for key, value in stored.items()}, settings).layers
    torch.testing.assert_close(layer.load(), compressor.decompress(stored, scheme)["weight"].float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("scale", "zero"),
    [((7, 3), None), ((144,), None), ((1, 200, 1), None), ((0,), None), ((200, 1), (199, 1)), ((200, 1), (200, 2))],
)
def test_scales_that_do_not_fit(reason, scale, zero):
    tensors = {"fc.weight": torch.ones(200, 144, dtype=torch.int8), "fc.weight_scale": torch.ones(scale)}
    if zero is not None:
        tensors["fc.weight_zero_point"] = torch.ones(zero, dtype=torch.int8)
    assert "do not fit" in reason(tensors)


def test_scales_that_are_no_scales(random):
    matrix = torch.randn(16, 8, generator=random)
    tensors = {"ls1.scale": torch.ones(16), "attn.weight": matrix, "attn.scale": matrix, "attn.weight_scale": matrix}
    tensors |= {"attn.q_scale": matrix, "relative_position_index": torch.zeros(8, 8, dtype=torch.int32)}
    inventory = open_source(tensors)
    assert [layer.name for layer in inventory.layers] == ["attn", "attn.scale", "attn.weight_scale", "attn.q_scale"]


def test_fp8_without_scales(checkpoint, random):
    stored = torch.randn(16, 8, generator=random).to(FP8[0])
    assert len(checkpoint({"fc.weight": stored}).layers) == 1
    inventory = checkpoint({"fc.weight": stored, "ln.weight": torch.ones(8)}, {"quant_method": "fp8"})
    assert not inventory.layers
    assert "without scales" in inventory.skipped[0].reason


@pytest.mark.parametrize(
    "key", ["fc.weight_scale_inv", "fc.weight_scale", "attn.k_scale", "experts.w1_scale_inv", "fc.qzeros"]
)
def test_scales_whose_weight_is_elsewhere(checkpoint, key):
    tensors = {key: torch.ones(4, 4), "a.weight": torch.ones(4, 4).to(FP8[0]), "a.weight_scale": torch.ones(1)}
    assert [layer.name for layer in checkpoint(tensors).layers] == ["a"]
    assert not checkpoint({key: torch.ones(4, 4)}, {"quant_method": "fp8"}).layers


def test_a_part_that_cannot_be_read(random):
    meta = torch.ones(16, 1, device="meta")
    inventory = open_source({"fc.weight": torch.ones(16, 8, dtype=torch.int8), "fc.weight_scale": meta})
    assert not inventory.layers
    assert inventory.skipped[0].reason.startswith("fc.weight_scale beside it cannot be read: on the meta device")


@pytest.mark.parametrize("key", ["fc.weight", "block.dw_weight", "weight"])
def test_a_quantised_file_has_the_names_of_the_float_one(key):
    integers = torch.randint(-127, 128, (20, 12), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    stored = {f"{key}.qweight": integers, f"{key}.scale": torch.rand(20, 1) + 0.1}
    (layer,), (plain,) = open_source(stored).layers, open_source({key: torch.ones(20, 12)}).layers
    assert layer.name == plain.name
    assert torch.equal(layer.load(), integers * stored[f"{key}.scale"])


def test_a_quantised_vector_is_a_vector():
    stored = {"norm.weight.qweight": torch.ones(20, dtype=torch.int8), "norm.weight.scale": torch.ones(1)}
    reasons = {item.name: item.reason for item in open_source(stored).skipped}
    assert "1-D" in reasons["norm.weight"]
