"""From stored tensors to the weights that are analysed: names, parts, ties, and a reason for everything else."""

import itertools
import math
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

from htsr.weights.attention import Heads, fused_parts, head_parts
from htsr.weights.convolutions import Conv, kernel_parts
from htsr.weights.inventory import Inventory, Layer, Listing, LoadPart, Skipped, StoredTensor
from htsr.weights.parts import Part
from htsr.weights.recurrent import gate_parts
from htsr.weights.roles import LayerRole, role_by_name

# Parts of weights that weight_norm, spectral_norm and pruning compute in the module.
PARTS = re.compile(r"(^|\.)(parametrizations\..*|weight_(g|v|u|orig)|\w*mask)$")
# Types that hold one weight each; float8_e8m0fnu holds scales, float4_e2m1fn_x2 two weights.
FLOATING = re.compile(r"float(16|32|64|96|128)|bfloat16|float8_e[345]m[234](fn|fnuz|b11fnuz)?")
# What an optimizer keeps beside each weight, in checkpoints of whole training states.
OPTIMIZER = re.compile(r"^(optim|optimizer|optimizers|optimizer_states?|opt_state)\.")
# Architectures of transformers with weights stored (in, out), in its Conv1D, and the names of these weights.
IN_OUT_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
IN_OUT = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)\.weight$")
# A tensor with more matrices than this is no stack of weights (a table of relative positions, for instance).
MAX_PARTS = 16384


@dataclass(frozen=True)
class Splitting:
    """How tensors are cut into the weights that are analysed.

    Attributes:
        conv: How convolutions are decomposed; see ``kernel_parts``.
        per_head: Whether attention weights are cut into their heads, where their number is known.
    """

    conv: Conv = "pool"
    per_head: bool = False


def split_into_layers(listing: Listing, splitting: Splitting | None = None) -> Inventory:
    """Make of each tensor the weights that can be analysed, or a reason why it is none.

    Args:
        listing: The tensors.
        splitting: How to cut them. By default convolutions are pooled and heads stay together.

    Returns:
        The layers, and the rest with reasons, in the order of the listing. A tensor that is cut into parts has no row of its
        own.
    """
    splitting = splitting or Splitting()
    shapes = {stored.key: stored.shape for stored in listing.tensors}
    heads = Heads.of(listing.config)
    in_out = listing.config.get("model_type") in IN_OUT_MODELS
    layers: dict[str, Layer] = {}
    skipped: list[Skipped] = []
    owner_of: dict[Hashable, str] = {}  # identity of a tensor -> name of the first layer that has it
    for number, stored in enumerate(listing.tensors):
        found = _parts(stored, shapes, splitting, heads, in_out)
        if isinstance(found, str):
            skipped.append(Skipped(stored.key, stored.shape, found))
            continue
        role, parts, note = found
        longname = (stored.longkey or stored.key).removesuffix(".weight")
        name = _without_weight(stored.key, shapes)
        if f"{name}{parts[0].label}" in layers:  # told apart by the wrapper alone, or by nothing
            name = longname if f"{longname}{parts[0].label}" not in layers else f"{longname}#{number}"
        owner = owner_of.setdefault(number if stored.identity is None else stored.identity, name)
        for part in parts:
            first = layers.get(f"{owner}{part.label}")  # none, where the owner is cut in another way
            layers[f"{name}{part.label}"] = Layer(
                name=f"{name}{part.label}",
                longname=f"{longname}{part.label}",
                layer_type=role.layer_type,
                shape=part.shape,
                load=LoadPart(stored.read, part),
                tied_to=None if owner == name or first is None or first.shape != part.shape else first.name,
                dtype=stored.dtype,
                note="; ".join(filter(None, (stored.note, note))),
            )
    return Inventory(listing.source, list(layers.values()), skipped)


def _without_weight(key: str, keys: Mapping[str, object]) -> str:
    """The module path of a tensor: its name without ``.weight``, where that is still unique."""
    stripped = key.removesuffix(".weight")
    return key if stripped in keys else stripped


def _parts(
    stored: StoredTensor, shapes: Mapping[str, tuple[int, ...]], splitting: Splitting, heads: Heads, in_out: bool
) -> tuple[LayerRole, list[Part], str] | str:
    """What a tensor is and how it is cut, with what to be wary of; or why it is not analysed."""
    reason = stored.reason or _no_weight(stored)
    if reason is not None:
        return reason
    role = stored.role or role_by_name(stored.key, stored.shape, shapes)
    if stored.role is None and in_out and len(stored.shape) == 2 and IN_OUT.search(stored.key):
        role = LayerRole("dense", axes=(1, 0))
    if isinstance(role, str):
        return role
    weight = Part(stored.shape, stored.label)
    if role.axes is not None:
        weight = weight.permute(role.axes)
    if (
        role.heads is not None and role.heads.num != heads.num
    ):  # the module around it knows better than the configuration
        heads = replace(role.heads, interleaved=heads.interleaved)

    if role.layer_type.startswith("conv"):
        transposed = role.layer_type.startswith("conv_transpose")
        return role, kernel_parts(weight, groups=role.groups, transposed=transposed, conv=splitting.conv), ""
    if role.layer_type == "bilinear":  # (out, in1, in2): one slice an output, pooled as those of a kernel are
        return role, kernel_parts(weight.permute((1, 2, 0)), conv=splitting.conv), ""
    if role.layer_type == "stack":
        if math.prod(weight.shape[:-2]) > MAX_PARTS:
            return f"a stack of {math.prod(weight.shape[:-2])} matrices, more than {MAX_PARTS}: not analysed"
        return role, _stacked(weight), ""
    if role.gates or (role.layer_type == "rnn" and len(weight.shape) == 3):
        directions = _stacked(weight) if len(weight.shape) > 2 else [weight]  # ONNX stacks them
        if len(directions) == 1:
            directions = [replace(directions[0], label=weight.label)]
        return role, [part for direction in directions for part in gate_parts(direction, role.gates)], ""
    while len(weight.shape) > 2:  # a table with leading sides of 1
        weight = weight.select(0, 0)
    if role.layer_type != "dense":
        return role, [weight], ""
    parts, note = fused_parts(stored.key, weight, heads)
    if splitting.per_head:
        parts = [head for part in parts for head in head_parts(stored.key, part, heads)]
    return role, parts, note


def _no_weight(stored: StoredTensor) -> str | None:
    """Why a tensor is no weight, whatever its role."""
    if not stored.quantised and not FLOATING.fullmatch(stored.dtype):
        return f"dtype {stored.dtype}: not a floating-point weight"
    if len(stored.shape) < 2:
        return f"{len(stored.shape)}-D: not a matrix"
    if min(stored.shape) < 1:
        return "empty"
    if OPTIMIZER.match(stored.key):
        return "state of the optimizer, not a weight"
    if stored.key == "bias" or stored.key.endswith(".bias"):
        return "a bias or mask, not a weight"
    if PARTS.search(stored.key):
        return "part of a weight that the module computes: pass the module"
    return None


def _stacked(weight: Part) -> list[Part]:
    """The matrices of the last two dimensions, named by their places along the others."""
    parts = []
    for place in itertools.product(*map(range, weight.shape[:-2])):
        part = weight
        for index in place[:-1]:
            part = part.select(0, index)
        parts.append(part.select(0, place[-1], f"[{','.join(map(str, place))}]"))
    return parts
