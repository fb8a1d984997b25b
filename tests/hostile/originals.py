"""Valid checkpoints of every format, written by the libraries that define the formats."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.weights.readers import test_formats as formats

CONFIG = {
    "model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 16]}, "architectures": ["LlamaForCausalLM"],
}  # fmt: skip


def transformer() -> dict[str, torch.Tensor]:
    return {
        "model.embed_tokens.weight": torch.randn(50, 32),
        "model.layers.0.self_attn.qkv_proj.weight": torch.randn(64, 32),
        "model.layers.0.self_attn.o_proj.weight": torch.randn(32, 32),
        "model.layers.0.mlp.experts.gate_up_proj": torch.randn(4, 32, 48),
        "model.layers.0.mlp.experts.gate_up_proj_bias": torch.randn(4, 48),
        "lm_head.weight": torch.randn(50, 32),
    }


def hub_directory(_: object, path: Path) -> Path:
    formats.safetensors_shards_and_index(_Weights(transformer()), path)
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def fp8_directory(_: object, path: Path) -> Path:
    weight = torch.randn(64, 32).to(torch.float8_e4m3fn)
    save_file({"a.weight": weight, "a.weight_scale_inv": torch.rand(4, 2) + 0.5}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def lora_directory(_: object, path: Path) -> Path:
    prefix = "base_model.model.model.layers.0.self_attn.o_proj"
    save_file(
        {f"{prefix}.lora_A.weight": torch.randn(4, 32), f"{prefix}.lora_B.weight": torch.randn(32, 4)},
        path / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha_pattern": {"o_proj|q_proj": 16}, "rank_pattern": {},
                "target_modules": ["o_proj"], "use_rslora": False, "fan_in_fan_out": False}  # fmt: skip
    (path / "adapter_config.json").write_text(json.dumps(settings))
    return path


class _Weights:
    """What the writers of formats take for a model."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._tensors


Writer = Callable[[object, Path], Path]
WRITERS: list[Writer] = [
    hub_directory, fp8_directory, lora_directory, formats.safetensors_file, formats.torch_file,
    formats.torch_file_of_the_old_format, formats.training_state, formats.bin_shards, formats.npz, formats.npz_compressed,
    formats.distributed, formats.gguf_file, formats.onnx_file, formats.onnx_external, formats.keras_file, formats.keras_h5,
]  # fmt: skip
