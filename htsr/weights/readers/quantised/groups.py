"""Group each low-precision tensor with the tensors beside it that say what its values are."""

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from htsr.weights.inventory import ReadRows, StoredTensor

# Types in which schemes store weights. float8_e8m0fnu, an exponent, is a type of scales only.
FP8 = re.compile(r"float8_e[45]m[23]\w*")
LOW_PRECISION = re.compile(rf"{FP8.pattern}|float4_\w+|u?int(8|16|32)")
# The last part of the name of a quantised weight. The dot or underscore before it ends the part that all its tensors share.
WEIGHT = re.compile(
    r"(?P<shared>(?:.*?[._])?)"
    r"(?P<part>weight(?:(?:\._data)+|_qdata|_packed)?|qweight|packed|blocks|qdata|W_q|codes|indices|Qidxs|B)"
)
# Of these, names that no float weight has. HQQ stores the bytes of W_q in a float type if it is told to (view_as_float).
PACKED = {"qweight", "packed", "weight_packed", "weight_qdata", "qdata", "W_q"}
# What the names of tensors beside a quantised weight contain.
BESIDE = re.compile(
    r"^weight_|scale|zero|scb$|absmax|quant|g_idx|^biases$|shift|^perm$|codebook|centroid|amax|smooth|lut$"
    r"|^s(_channel|_group)?$|^workspace$|^tables2?$|hadamard",
    re.IGNORECASE,
)
# Tables of vectors that a layer of VPTQ keeps as embeddings.
CODEBOOK = re.compile(r"\w*centroids\.weight")
# Tensors about activations and caches, of which a weight is independent.
ACTIVATIONS = re.compile(
    r"(weight_)?(input|output|act|activation|[qkv]|kv|kv_cache|prob|softmax)_(scale(_inv|_ub|_2)?|zero_point|global_scale|amax)"
    r"|scale_input|scale_output"
)
# The tensor of bitsandbytes that holds the shape of a 4-bit weight; it names the weight even when that is stored in a float type.
QUANT_STATE = re.compile(r"weight_quant_state_bitsandbytes_(nf4|fp4)")


# Sections of a configuration are searched to this depth.
MAX_NESTING = 3


@dataclass(frozen=True)
class Group:
    """A quantised weight as a scheme sees it.

    Attributes:
        main: The tensor that stores the low-precision values.
        part: The last part of its name: ``weight``, ``qweight``, ``blocks``.
        shared: The part of its name that the tensors beside it share.
        parts: The tensors beside it by the rest of their names, joined by underscores: ``weight_scale``, ``qzeros``.
        beside: The names of all tensors that belong to it, those about activations included.
        settings: ``quantization_config`` of the source, with the entries for this layer in place of the general ones.
    """

    main: StoredTensor
    part: str
    shared: str
    parts: Mapping[str, StoredTensor]
    beside: frozenset[str]
    settings: Mapping[str, object]

    def has(self, part: str | Collection[str], needed: Collection[str], optional: Collection[str] = ()) -> bool:
        """Return whether the group has a weight of this name, all the needed tensors, and none but the optional ones besides."""
        names = {part} if isinstance(part, str) else part
        return self.part in names and set(needed) <= set(self.parts) <= {*needed, *optional}

    def dequantised(self, shape: Sequence[int], read: ReadRows, how: str) -> StoredTensor:
        """Return the weight as it is after dequantisation, under the name that its layer gives it."""
        module = self.shared.rstrip("._")
        key = module
        if self.part == "weight":
            key = self.main.key
        elif not module.endswith("weight") and (not module or "." in self.shared[len(module) :]):
            key = f"{module}.weight".lstrip(".")
        end = self.main.key.removeprefix(module)
        longkey = self.main.longkey and self.main.longkey.removesuffix(end) + key.removeprefix(module)
        note = f"dequantised from {how}"
        return replace(
            self.main, key=key, longkey=longkey, shape=tuple(shape), read=read, quantised=True, identity=None, note=note
        )


def group_siblings(tensors: Sequence[StoredTensor], config: Mapping[str, object]) -> list[Group]:
    """Return a group for each low-precision tensor, without tensors that are part of another group."""
    by_key = {stored.key: stored for stored in tensors}
    keys = sorted(by_key)
    known: dict[int, Mapping[str, object]] = {}  # settings by the identity of the configuration
    groups = []
    for stored in tensors:
        if stored.role is not None or stored.quantised:
            continue
        found = WEIGHT.fullmatch(stored.key)
        if LOW_PRECISION.fullmatch(stored.dtype) or (found and found["part"] in {"weight", *PACKED}):
            said = config if stored.config is None else stored.config
            if id(said) not in known:
                known[id(said)] = quantisation_settings(said) or quantisation_settings(config)
            group = _group(stored, found, by_key, keys, known[id(said)])
            disguised = (group.part in PACKED and group.parts) or any(map(QUANT_STATE.fullmatch, group.parts))
            if LOW_PRECISION.fullmatch(stored.dtype) or disguised:
                groups.append(group)
    inside = {key for group in groups for key in group.beside}
    return [group for group in groups if group.main.key not in inside]


def _group(
    stored: StoredTensor,
    found: re.Match[str] | None,
    by_key: Mapping[str, StoredTensor],
    keys: Sequence[str],
    settings: Mapping[str, object],
) -> Group:
    """Return a tensor with those beside it."""
    shared, part = (found["shared"], found["part"]) if found else (stored.key, "weight")
    parts, beside = {}, set()
    for key in _with_prefix(keys, shared):
        rest = key.removeprefix(shared)
        if found is None:  # experts.w1_scale is to experts.w1 what fc.weight_scale is to fc.weight
            rest = part + rest if rest.startswith((".", "_")) else ""
        name = re.sub(r"[._]+", "_", rest).removeprefix("_").replace("weight_weight_", "weight_")
        in_other_module = "." in rest and not rest.startswith(f"{part.split('.')[0]}.") and not CODEBOOK.fullmatch(rest)
        if key == stored.key or in_other_module or not BESIDE.search(name):
            continue
        beside.add(key)
        if not ACTIVATIONS.fullmatch(name):
            parts[name] = by_key[key]
    part = re.sub(r"[._]+", "_", part)
    path = shared.rstrip("._")
    own = next((settings[name] for name in (path, f"model.{path}") if isinstance(settings.get(name), Mapping)), {})
    assert isinstance(own, Mapping)
    return Group(stored, part, shared, parts, frozenset(beside), {**settings, **own})


def _with_prefix(keys: Sequence[str], prefix: str) -> Iterator[str]:
    """Yield the sorted keys that begin with a prefix."""
    for position in range(bisect_left(keys, prefix), len(keys)):
        if not keys[position].startswith(prefix):
            return
        yield keys[position]


def quantisation_settings(config: Mapping[str, object], depth: int = 0) -> Mapping[str, object]:
    """Return what a configuration, or a section of it, says about quantisation; empty if it says nothing."""
    for name in ("quantization_config", "quantization", "compression_config"):
        settings = config.get(name)
        if isinstance(settings, Mapping):
            # DeepSeek-V4 says beside it that its experts are packed as fp4
            return {"expert_dtype": config.get("expert_dtype"), **settings}
    sections = [value for value in config.values() if isinstance(value, Mapping)] if depth < MAX_NESTING else []
    return next(filter(None, (quantisation_settings(section, depth + 1) for section in sections)), {})
