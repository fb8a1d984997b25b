"""Where the settings of a quantisation stand, and that no scale becomes a row, whoever wrote the checkpoint."""

import json

import pytest
import torch
from safetensors.torch import save_file

from htsr.weights import open_source
from tests.weights.readers.quantised.test_packed import gptq as gptq  # a fixture

PLAIN = {"head.weight": torch.arange(48.0).reshape(6, 8)}
GPTQ = {"bits": 4, "group_size": 32, "sym": False, "desc_act": False}


def opened(path, tensors, **files):
    save_file({key: value.contiguous() for key, value in (tensors | PLAIN).items()}, path / "model.safetensors")
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    inventory = open_source(path)
    return {layer.name: layer for layer in inventory.layers}, {item.name: item.reason for item in inventory.skipped}


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
@pytest.mark.parametrize(
    "place",
    [
        lambda said: {"config": {"quantization_config": {"quant_method": "gptq", **said}}},
        lambda said: {"quantize_config": said},
        lambda said: {"quantize_config": said, "config": {"model_type": "llama"}},
        lambda said: {"config": {"text_config": {"quantization_config": {"quant_method": "gptq", **said}}}},
        lambda said: {"config": {"thinker_config": {"text_config": {"quantization_config": said}}}},
    ],
)
def test_settings_in_other_places_decide_as_those_in_config_json_do(tmp_path, gptq, place, layout):
    tensors, expected = gptq(4, layout)
    layers, _ = opened(tmp_path, tensors, **place({**GPTQ, "checkpoint_format": layout}))
    torch.testing.assert_close(layers["fc"].load(), expected)


def test_quantize_config_of_marlin_is_refused(tmp_path, gptq):
    tensors, _ = gptq(4, "gptq")
    layers, reasons = opened(tmp_path, tensors, quantize_config={**GPTQ, "is_marlin_format": True})
    assert set(layers) == {"head"}
    assert "dequantise it first" in reasons["fc.qweight"]


def test_each_part_of_a_pipeline_has_its_own_settings(tmp_path, gptq):
    expected = {}
    for layout in ("gptq", "gptq_v2"):
        (tmp_path / layout).mkdir()
        tensors, expected[layout] = gptq(4, layout)
        opened(tmp_path / layout, tensors, quantize_config={**GPTQ, "checkpoint_format": layout})
    (tmp_path / "modules.json").write_text(json.dumps([{"path": layout} for layout in expected]))
    layers = {layer.name: layer for layer in open_source(tmp_path).layers}
    for layout, weight in expected.items():
        torch.testing.assert_close(layers[f"{layout}.fc"].load(), weight)


def test_fp8_of_modelopt_with_excluded_modules(tmp_path):
    weight = torch.randn(16, 32).to(torch.float8_e4m3fn)
    tensors = {"fc.weight": weight, "fc.weight_scale": torch.tensor(0.25), "fc.input_scale": torch.tensor(2.0),
               "attn.k_scale": torch.ones(1, 1), "attn.v_scale": torch.ones(1, 1)}  # fmt: skip
    said = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["head"]}}
    layers, reasons = opened(tmp_path, tensors, hf_quant_config=said)
    assert set(layers) == {"fc", "head"}
    torch.testing.assert_close(layers["fc"].load(), weight.float() * 0.25)
    assert torch.equal(layers["head"].load(), PLAIN["head.weight"])
    assert set(reasons) == set(tensors) - {"fc.weight"}


def test_fp8_without_scales_is_refused_where_a_file_says_that_the_source_is_quantised(tmp_path):
    tensors = {"fc.weight": torch.randn(16, 32).to(torch.float8_e4m3fn)}
    layers, reasons = opened(tmp_path, tensors, hf_quant_config={"quantization": {"quant_algo": "FP8"}})
    assert set(layers) == {"head"}
    assert "without scales" in reasons["fc.weight"]


def i(*shape, dtype=torch.int32):
    return torch.ones(shape, dtype=dtype)


def f(*shape):
    return torch.rand(shape).half()


U8, I8, I16 = torch.uint8, torch.int8, torch.int16
# The tensors of one layer (32, 64) as libraries store them whose arithmetic is not repeated here.
STORED = {
    "marlin": ("gptq", {"B": i(4, 64), "s": f(2, 32), "workspace": i(16)}),
    "qqq": ("qqq", {"B": i(4, 64), "s_channel": f(1, 32), "s_group": f(2, 32), "workspace": i(16)}),
    "eetq": ("eetq", {"qweight": i(64, 32, dtype=I8), "weight_scales": f(32)}),
    "hqq": ("hqq", {"W_q": i(16, 64, dtype=U8), "scale": f(32, 1), "zero": f(32, 1), "meta": i(4)}),
    "aqlm": ("aqlm", {"codes": i(32, 8, 2, dtype=I8), "codebooks": f(2, 256, 1, 8), "scales": f(32, 1, 1, 1)}),
    "vptq": ("vptq", {"indices": i(1, 8, 64, dtype=I16), "centroids.weight": f(1, 256, 8), "res_centroids.weight": f(1, 256, 8),
                      "weight_scale": f(64), "weight_bias": f(64), "perm": i(64, dtype=I16)}),
    "quip": ("quip", {"Qidxs": i(32, 8, dtype=I16), "codebook_id": i(1), "SU": f(64), "SV": f(32), "Wscale": f(1)}),
    "higgs": ("higgs", {"weight": i(32, 16, dtype=I16), "scales": f(32, 2), "tables": f(16, 2), "tables2": f(16, 16, 4)}),
    "fp_quant": ("fp_quant", {"qweight": i(32, 32, dtype=U8), "scales": i(32, 2, dtype=U8), "forward_hadamard_matrix": f(32, 32),
                              "backward_hadamard_matrix": f(32, 32), "weight_global_scale": f(1)}),
    "bitnet": ("bitnet", {"weight": i(8, 64, dtype=U8), "weight_scale": f(1)}),
    "marlin-24": ("compressed-tensors", {"weight_packed": i(2, 64), "scale_packed": f(2, 32), "meta": i(8, 8, dtype=I16)}),
    "sparse": ("compressed-tensors", {"compressed": f(32, 32), "bitmask": i(32, 8, dtype=U8), "shape": i(2)}),
    "awq of modelopt": ("modelopt", {"weight": i(16, 64, dtype=U8), "weight_scale": f(32, 2), "pre_quant_scale": f(64)}),
    "smooth": ("ascend", {"weight": i(32, 64, dtype=I8), "smooth_scale": f(1, 64), "deq_scale": f(32, 1)}),
}  # fmt: skip


@pytest.mark.parametrize("case", STORED)
@pytest.mark.parametrize("path", ["model.layers.0.mlp.up_proj", "fc"])
def test_a_scheme_that_is_not_repeated_makes_reasons_and_no_row(tmp_path, case, path):
    method, parts = STORED[case]
    tensors = {f"{path}.{name}": value for name, value in parts.items()}
    layers, reasons = opened(tmp_path, tensors, config={"quantization_config": {"quant_method": method}})
    assert set(layers) == {"head"}
    assert set(reasons) == set(tensors)
    assert any("dequantise it first" in reason for reason in reasons.values())
