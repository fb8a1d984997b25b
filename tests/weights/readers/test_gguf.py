"""Weights of GGUF files as llama.cpp multiplies by them."""

import numpy as np
import pytest
import torch

from htsr.weights import open_source

gguf = pytest.importorskip("gguf", reason="gguf is not installed")


@pytest.fixture
def write(tmp_path):
    """Write arrays into a file, as these types, and list it."""

    def written(arrays, types=None):
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
        for name, array in arrays.items():
            kind = (types or {}).get(name)
            array = array if kind is None or array.dtype == np.uint8 else gguf.quantize(array, kind)
            writer.add_tensor(name, array, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return open_source(tmp_path / "m.gguf")

    return written


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("shape", "scale"), [((8, 64), [3.0]), ((3, 8, 64), [2.0, 3.0, 5.0]), ((3, 8, 64), [7.0])])
@pytest.mark.parametrize("kind", [None, "Q8_0", "F16"])
@pytest.mark.parametrize("module", ["blk.0.ffn_up", "blk.1.attn_q"])
def test_a_weight_is_multiplied_by_the_scale_beside_it(write, random, shape, scale, kind, module):
    weight = random.normal(size=shape).astype("f4")
    kind = kind and gguf.GGMLQuantizationType[kind]
    arrays = {f"{module}.weight": weight, f"{module}.scale": np.array(scale, "f4")}
    arrays[f"{module}.input_scale"] = np.ones(1, "f4")
    inventory = write(arrays, {f"{module}.weight": kind})
    stored = weight if kind is None else gguf.dequantize(gguf.quantize(weight, kind), kind)
    expected = torch.tensor(stored) * torch.tensor(scale).reshape(-1, *[1] * (len(shape) - 1))
    for layer, matrix in zip(inventory.layers, expected.reshape(-1, *shape[-2:]), strict=True):
        assert torch.equal(layer.load(), matrix)
        assert layer.note.endswith("multiplied by its scale")
    assert {item.reason for item in inventory.skipped} == {f"part of the quantised weight {module}.weight"}
    assert sum(layer.num_params for layer in inventory.layers) == weight.size


def test_a_vector_of_factors_for_the_inputs_is_no_scale_of_the_weight(write, random):
    weight = random.normal(size=(8, 64)).astype("f4")
    inventory = write({"blk.0.ffn_gate_inp.weight": weight, "blk.0.ffn_gate_inp.scale": np.ones(64, "f4")})
    assert torch.equal(inventory.layers[0].load(), torch.tensor(weight))
    assert [(item.reason, item.num_params) for item in inventory.skipped] == [("1-D: not a matrix", 64)]


@pytest.mark.parametrize("kind", ["Q8_1", "Q8_K"])
def test_a_type_that_gguf_cannot_dequantise_has_a_reason(write, kind):
    kind = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    inventory = write({"a.weight": np.zeros((4, 256 // block * size), np.uint8)}, {"a.weight": kind})
    assert not inventory.layers
    assert f"cannot dequantise {kind.name}" in inventory.skipped[0].reason
