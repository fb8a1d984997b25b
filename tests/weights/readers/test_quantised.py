"""Quantised weights have the values of their formats, and the row says that they were dequantised."""

import numpy as np
import pytest
import torch

import htsr
from htsr.weights import open_source


@pytest.fixture
def weight():
    return torch.randn(200, 144, generator=torch.Generator().manual_seed(0))


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
