"""Weights of bitsandbytes, against its own functions."""

import json

import pytest
import torch
import torch._dynamo.config

from htsr.weights import open_source

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
functional = bnb.functional


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_compiled():
    """Its functions for the CPU would otherwise call a C++ compiler for half a minute."""
    with torch._dynamo.config.patch(disable=True):
        yield


def packed(weight, *, nested, **settings):
    """Quantise a weight to 4 bits; return its tensors and what bitsandbytes makes of them."""
    stored, state = functional.quantize_4bit(weight, compress_statistics=nested, **settings)
    tensors = {f"fc.weight.{key}": value for key, value in state.as_dict(packed=True).items()} | {"fc.weight": stored}
    return tensors, functional.dequantize_4bit(stored, state)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(("shape", "blocksize"), [((96, 64), 64), ((40, 300), 128), ((7, 33), 64), ((300, 130), 256)])
def test_4_bits(checkpoint, random, quant_type, nested, shape, blocksize):
    tensors, expected = packed(
        torch.randn(shape, generator=random), nested=nested, quant_type=quant_type, blocksize=blocksize
    )
    inventory = checkpoint(tensors, {"quant_method": "bitsandbytes", "load_in_4bit": True})
    (layer,) = inventory.layers
    assert (layer.name, layer.shape, layer.note) == ("fc", shape, f"dequantised from {quant_type} of bitsandbytes")
    torch.testing.assert_close(layer.load(), expected, rtol=1e-6, atol=1e-7)
    assert {skipped.reason for skipped in inventory.skipped} == {"part of the quantised weight fc.weight"}


@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16, torch.float16, torch.float32])
def test_4_bits_in_other_types(checkpoint, random, storage):
    tensors, expected = packed(
        torch.randn(64, 128, generator=random), nested=True, quant_type="nf4", quant_storage=storage
    )
    (layer,) = checkpoint(tensors).layers
    torch.testing.assert_close(layer.load(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("weight_format", [True, False])
def test_8_bits(checkpoint, random, weight_format):
    stored, row_max, _ = functional.int8_vectorwise_quant(torch.randn(96, 64, generator=random).half())
    tensors = {"fc.weight": stored, "fc.SCB": row_max} | (
        {"fc.weight_format": torch.tensor(0).byte()} if weight_format else {}
    )
    (layer,) = checkpoint(tensors).layers
    torch.testing.assert_close(layer.load(), functional.int8_vectorwise_dequant(stored, row_max), rtol=1e-6, atol=0)


def test_8_bits_in_another_order(checkpoint):
    tensors = {
        "fc.weight": torch.ones(8, 8).to(torch.int8),
        "fc.SCB": torch.ones(8),
        "fc.weight_format": torch.tensor(1).byte(),
    }
    with pytest.raises(ValueError, match="layout 1"):
        checkpoint(tensors).layers[0].load()


@pytest.mark.parametrize(
    "state",
    [
        b"\xff\xfe",
        b"[]",
        b"[" * 5000,
        b'{"shape": [96, 64]}',
        b'{"blocksize": 64}',
        b'{"shape": [96, 65], "blocksize": 64}',
        b'{"shape": [96, -64], "blocksize": 64}',
        b'{"shape": [96, true], "blocksize": 64}',
        b'{"shape": [96, 64], "blocksize": 0}',
        b'{"shape": [96, 64], "blocksize": 32}',
        b'{"shape": "96", "blocksize": 64}',
        b'{"shape": [96, 64], "blocksize": 64, "nested_offset": NaN}',
        json.dumps({"shape": [10**400, 64], "blocksize": 64}).encode(),
    ],
)
def test_states_that_say_nothing(reason, random, state):
    tensors, _ = packed(torch.randn(96, 64, generator=random), nested=False, quant_type="nf4", blocksize=64)
    tensors["fc.weight.quant_state.bitsandbytes__nf4"] = torch.frombuffer(bytearray(state), dtype=torch.uint8)
    assert "4 bits of bitsandbytes" in reason(tensors)


@pytest.mark.parametrize("damaged", ["absmax", "nested_absmax", "quant_map", "nested_quant_map"])
def test_parts_that_do_not_fit(reason, random, damaged):
    tensors, _ = packed(torch.randn(96, 64, generator=random), nested=True, quant_type="nf4", blocksize=64)
    tensors[f"fc.weight.{damaged}"] = tensors[f"fc.weight.{damaged}"][:-1]
    assert "do not fit" in reason(tensors)


@pytest.mark.parametrize("make", ["Linear4bit", "LinearNF4", "LinearFP4", "Linear8bitLt", "Embedding4bit"])
def test_a_module_in_memory(make, random):
    kwargs = {} if make == "Embedding4bit" else {"bias": False}
    kwargs |= {"has_fp16_weights": False} if make == "Linear8bitLt" else {}
    module = getattr(bnb.nn, make)(128, 96, **kwargs)
    original = module.weight.detach().clone()
    model = torch.nn.Sequential(module, torch.nn.Linear(96, 4))
    before = open_source(model).layers[0]
    assert torch.equal(before.load(), original)
    model.to("cpu")  # quantises
    model(torch.zeros(2, dtype=torch.int64) if make == "Embedding4bit" else torch.randn(3, 128, generator=random))
    live = open_source(model).layers[0]
    assert live.shape == before.shape == tuple(original.shape)
    assert live.layer_type == before.layer_type == ("embedding" if make == "Embedding4bit" else "dense")
    if make == "Linear8bitLt":
        expected = functional.int8_vectorwise_dequant(module.weight.data, module.state.SCB)
    else:
        expected = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
    assert torch.equal(live.load(), expected)
    if make != "Embedding4bit":  # which bitsandbytes cannot save
        stored = open_source(model.state_dict()).layers[0]
        assert live.note == stored.note
        torch.testing.assert_close(live.load().float(), stored.load().float(), rtol=1e-6, atol=1e-7)
