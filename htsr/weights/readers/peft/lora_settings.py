"""Read the settings of a LoRA adapter as peft applies them: ``peft.tuners.lora.config.LoraConfig`` of peft 0.21.

A setting that changes what peft computes, and that htsr does not know how to follow, makes a reason for every adapted layer.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from htsr.errors import InputError
from htsr.weights.readers.guard import guarded

# Settings that this package follows, and settings that say how the adapter was trained but not what it computes.
FOLLOWED = frozenset({
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "init_lora_weights",
    "target_parameters", "layer_replication", "alora_invocation_tokens", "arrow_config", "peft_type",
})  # fmt: skip
WITHOUT_EFFECT = frozenset({
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "target_modules",
    "exclude_modules", "lora_dropout", "bias", "modules_to_save", "layers_to_transform", "layers_pattern", "megatron_core",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config", "lora_bias",
    "trainable_token_indices", "velora_config", "ensure_weight_tying",
})  # fmt: skip
# Values of init_lora_weights that leave the base alone when peft loads the adapter.
HARMLESS_STARTS = ("gaussian", "eva", "orthogonal", "mica")
CONVERT = (
    "save the adapter again with model.save_pretrained(path, path_initial_model_for_weight_conversion=initial_adapter), "
    "which makes it a plain LoRA adapter"
)
# A pattern of these characters alone takes time that is proportional to the length of the name.
SIMPLE_PATTERN = re.compile(r"[\w.^$]*")


@dataclass(frozen=True)
class Scaling:
    """Rank and factor of ``B A`` for one adapted layer."""

    rank: int
    factor: float


def refusal(config: Mapping[str, object]) -> str | None:
    """Return why the change of no layer can be computed under these settings; None if it can."""
    # Configurations of newer versions of peft carry new settings; one that is off (None, False, empty) changes nothing.
    unknown = [key for key, value in config.items() if key not in FOLLOWED | WITHOUT_EFFECT and value]
    if unknown:
        return f"the adapter sets {', '.join(map(repr, unknown[:5]))}, which htsr does not know how to apply"
    for key in ("use_rslora", "use_dora", "fan_in_fan_out"):
        if not isinstance(config.get(key), bool | None):
            return f"expected true or false for {key}, got {config[key]!r:.100}"
    start = config.get("init_lora_weights", True)
    if start is None or isinstance(start, bool):
        return None
    if not isinstance(start, str):
        return f"expected a name, true or false for init_lora_weights, got {start!r:.100}"
    if start.lower() in HARMLESS_STARTS or changed_start(config) is not None:
        return None
    return (
        f"the adapter was started with init_lora_weights={start!r:.100}, which changes the base in a way that the adapter "
        f"does not store: {CONVERT}"
    )


def changed_start(config: Mapping[str, object]) -> str | None:
    """Return how peft changes the base when it loads the adapter; None if it leaves the base alone."""
    start = config.get("init_lora_weights")
    if start == "pissa":
        return "pissa"
    return "olora" if isinstance(start, str) and start.lower() == "olora" else None


def merge_refusal(config: Mapping[str, object]) -> str | None:
    """Return why the changes cannot be added to a base under these settings; None if they can."""
    if config.get("layer_replication"):
        return "layer_replication copies layers of the base under new numbers: merge the adapter with peft and pass the model"
    for key, when in (
        ("alora_invocation_tokens", "for the tokens after the invocation"),
        ("arrow_config", "as a router decides"),
    ):
        if config.get(key):
            return f"peft applies it only {when} ({key}), so that it has no merged weight"
    return None


def target_parameters(config: Mapping[str, object]) -> list[str]:
    """Return the names of parameters that the adapter changes directly, as it does for fused experts."""
    found = config.get("target_parameters")
    return sorted({name for name in found if isinstance(name, str)}) if isinstance(found, list) else []


def scalings(config: Mapping[str, object], names: Sequence[str], path: Path) -> dict[str, Scaling | str]:
    """Return rank and factor for each adapted name, or why they are unknown."""
    ranks = _by_pattern(config, "rank_pattern", config.get("r", 8), names, path)  # 8 is the default of LoraConfig
    alphas = _by_pattern(config, "alpha_pattern", config.get("lora_alpha", 8), names, path)
    return {name: _scaling(ranks[name], alphas[name], config.get("use_rslora") is True) for name in names}


def _scaling(rank: object, alpha: object, stabilised: bool) -> Scaling | str:
    """Return the factor that peft's ``update_layer`` computes, or why it cannot."""
    for value in (rank, alpha):
        if isinstance(value, _Unknown):
            return value.reason
    if isinstance(rank, bool) or not isinstance(rank, int) or not 0 < rank < 2**31:
        return f"expected a positive integer for the rank r, got {rank!r:.60}"
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        return f"expected a number for lora_alpha, got {alpha!r:.60}"
    try:
        factor = alpha / (math.sqrt(rank) if stabilised else rank)  # rank-stabilised: arXiv:2312.03732
    except OverflowError:
        factor = math.inf
    if not math.isfinite(factor):
        return "expected a finite lora_alpha, got one that is infinite or not a number"
    return Scaling(rank, factor)


@dataclass(frozen=True)
class _Unknown:
    """Stands for a setting that cannot be told."""

    reason: str


def _by_pattern(
    config: Mapping[str, object], setting: str, default: object, names: Sequence[str], path: Path
) -> dict[str, object]:
    """Return the value of a setting for each name: that of the first pattern that matches, else the default."""
    patterns = config.get(setting)
    if not patterns:
        return dict.fromkeys(names, default)
    if not isinstance(patterns, Mapping):
        unknown = _Unknown(f"expected a mapping for {setting}, got {patterns!r:.60}")
        return dict.fromkeys(names, unknown)
    keys = list(patterns)
    try:
        if all(map(SIMPLE_PATTERN.fullmatch, keys)):
            found = first_matches(keys, names)
        else:  # a pattern such as (a+)+b can keep the matcher busy for years
            found = guarded(first_matches, keys, list(names), path=path, size=0)
    except InputError:
        unknown = _Unknown(f"the regular expressions of {setting} take too long to match")
        return dict.fromkeys(names, unknown)
    values: dict[str, object] = {}
    for name, key in zip(names, found, strict=True):
        if isinstance(key, int):
            values[name] = patterns[keys[key]]
        else:
            values[name] = default if key is None else _Unknown(f"expected regular expressions in {setting}: {key}")
    return values


def first_matches(patterns: Sequence[str], names: Sequence[str]) -> list[int | str | None]:
    """Return for each name the number of the first pattern that matches its end, as ``peft.utils.other.get_pattern_key`` does."""
    # None stands for no match. peft stops at a broken pattern, so a text that says what is wrong stands for one that comes
    # before any match.
    compiled: list[re.Pattern[str] | str] = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(rf"(.*\.)?({pattern})$"))
        except (re.error, RecursionError, OverflowError) as err:
            compiled.append(f"{pattern!r:.60} is none ({err})")
    found: list[int | str | None] = []
    for name in names:
        for number, expression in enumerate(compiled):
            if isinstance(expression, str):
                found.append(expression)
                break
            if expression.match(name):
                found.append(number)
                break
        else:
            found.append(None)
    return found
