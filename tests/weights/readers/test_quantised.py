"""Quantised weights have the values of their formats, and the row says that they were dequantised."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import htsr
from htsr.weights import open_source


@pytest.fixture
def weight():
    return torch.randn(200, 144, generator=torch.Generator().manual_seed(0))


def fp8(weight, scale):
    return (weight / scale).to(torch.float8_e4m3fn)


@pytest.mark.parametrize("suffix", ["_scale", "_scale_inv"])
@pytest.mark.parametrize("shape", [(), (1,), (200, 1), (200,), (2, 2)])
def test_scales_are_multiplied_out(tmp_path, weight, suffix, shape):
    scale = torch.rand(shape) + 0.5
    full = scale.reshape(-1, 1) if scale.ndim < 2 else scale
    if shape == (2, 2):  # blocks of 128 x 128; the last ones are cut off
        full = full.repeat_interleave(128, 0)[:200].repeat_interleave(128, 1)[:, :144]
    stored = fp8(weight, full)
    save_file({"fc.weight": stored, f"fc.weight{suffix}": scale}, tmp_path / "m.safetensors")
    inventory = open_source(tmp_path / "m.safetensors")
    (layer,) = inventory.layers
    torch.testing.assert_close(layer.load(), stored.float() * full)
    assert (layer.dtype, layer.note) == ("float8_e4m3fn", "float8_e4m3fn, multiplied by its scales")
    assert [x.reason for x in inventory.skipped] == ["scales of a quantised weight"]


def test_int8_of_bitsandbytes(weight):
    scale = weight.abs().amax(1)
    stored = (weight / scale[:, None] * 127).round().to(torch.int8)
    (layer,) = open_source({"fc.weight": stored, "fc.SCB": scale}).layers
    torch.testing.assert_close(layer.load(), weight, atol=0.02, rtol=0)


def test_scales_that_do_not_fit(weight):
    inventory = open_source({"fc.weight": fp8(weight, 1), "fc.weight_scale": torch.ones(7, 3)})
    assert not inventory.layers
    assert "do not fit" in inventory.skipped[0].reason


@pytest.mark.parametrize(
    "tensors",
    [
        {
            "qweight": torch.zeros(4, 8, dtype=torch.int32),
            "scales": torch.randn(4, 8),
            "qzeros": torch.zeros(4, 1).int(),
        },
        {"weight_packed": torch.zeros(4, 8, dtype=torch.int32), "weight_scale": torch.randn(4, 8)},
        {"weight": torch.zeros(64, 1, dtype=torch.uint8), "weight.absmax": torch.randn(4)},
        {"blocks": torch.zeros(4, 8, 2, 16, dtype=torch.uint8), "scales": torch.zeros(4, 8, 2, dtype=torch.uint8)},
    ],
)
def test_packed_weights_say_what_to_do(tensors):
    inventory = open_source({f"fc.{key}": value for key, value in tensors.items()})
    assert not inventory.layers
    assert "dequantise it first" in inventory.skipped[0].reason


def test_torch_quantized_tensors(weight):
    stored = torch.quantize_per_tensor(weight, 0.05, 0, torch.qint8)
    (layer,) = open_source({"fc.weight": stored}).layers
    assert torch.equal(layer.load(), stored.dequantize())
    assert (layer.dtype, layer.note) == ("qint8", "dequantised from qint8")


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_gguf_types(tmp_path, weight, kind):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    quantised = gguf.GGMLQuantizationType[kind]
    values = weight[:, :128].contiguous().numpy()
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    blocks = values.astype(np.float16) if kind == "F16" else gguf.quantize(values, quantised)
    writer.add_tensor("blk.0.ffn_up.weight", blocks, raw_dtype=quantised)
    experts = np.stack([blocks, blocks[::-1]])
    writer.add_tensor("blk.0.ffn_up_exps.weight", experts, raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    plain, *stacked = open_source(tmp_path / "m.gguf").layers
    expected = torch.from_numpy(gguf.dequantize(blocks, quantised) if kind != "F16" else values.astype(np.float16))
    torch.testing.assert_close(plain.load().float(), expected.float(), rtol=0, atol=0)
    assert [x.name for x in stacked] == ["blk.0.ffn_up_exps[0]", "blk.0.ffn_up_exps[1]"]
    torch.testing.assert_close(stacked[1].load().float(), expected.float().flip(0), rtol=0, atol=0)
    assert plain.dtype == {"F16": "float16", "BF16": "bfloat16"}.get(kind, kind)
    reason = htsr.analyze(tmp_path / "m.gguf").details["reason"][0]
    assert ("dequantised" in reason) == kind.startswith("Q")
