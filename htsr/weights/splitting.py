"""Turn stored tensors into the weights that are analysed, and give a reason for every other tensor."""

import itertools
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from htsr.weights.attention import Heads, fused_parts, head_parts
from htsr.weights.configs import nearest_config
from htsr.weights.convolutions import Conv, kernel_parts
from htsr.weights.inventory import Inventory, Layer, Listing, LoadPart, Skipped, StoredTensor
from htsr.weights.optimizer_state import OPTIMIZER_STATE
from htsr.weights.parts import Part
from htsr.weights.recurrent import gate_parts
from htsr.weights.roles import LayerRole, no_matrix_map, role_by_name

# Types whose elements are one weight each. An element of float8_e8m0fnu is a scale, one of float4_e2m1fn_x2 two weights.
FLOATING = re.compile(r"float(16|32|64|96|128)|bfloat16|float8_e[345]m[234](fn|fnuz|b11fnuz)?")
# Names under which a checkpoint of a whole training state stores the optimizer's state.
OPTIMIZER = re.compile(r"^(optim|optimizer|optimizers|optimizer_states?|opt_state)\.")
# Values of transformers' ``model_type`` whose layers (Conv1D) store weights as (in, out), and the names of those weights.
IN_OUT_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
IN_OUT = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)\.weight$")
# A tensor with more matrices than this is not a stack of weights; it may be a table of relative positions, for instance.
MAX_PARTS = 16384


@dataclass(frozen=True)
class Splitting:
    """How tensors are cut into the weights that are analysed.

    Attributes:
        conv: How convolutions are decomposed; see ``Conv``.
        per_head: Whether attention weights are cut into their heads, if the number of heads is known.
        whole_kernels: Whether pooled 2-D kernels stay whole, as in WeightWatcher, which knows no groups and takes the slices of
            a kernel with a single channel on one side for matrices, too.
    """

    conv: Conv
    per_head: bool
    whole_kernels: bool = False


def split_into_layers(listing: Listing, splitting: Splitting) -> Inventory:
    """Cut each tensor of a listing into layers, or skip it with a reason, in the order of the listing."""
    shapes = {stored.key: stored.shape for stored in listing.tensors}
    heads_of: dict[int, Heads] = {}  # by the identity of the section of a configuration
    layers: dict[str, Layer] = {}
    skipped: list[Skipped] = []
    counted: set[Hashable] = set()
    owner_of: dict[Hashable, str] = {}  # identity of a tensor -> name of its first layer
    for number, stored in enumerate(listing.tensors):
        shared = stored.identity is not None and stored.identity in counted
        counted.add(stored.identity)
        section = nearest_config(stored.key, listing.config if stored.config is None else stored.config)
        if id(section) not in heads_of:
            heads_of[id(section)] = Heads.of(section)
        heads = heads_of[id(section)]
        found = _parts(stored, shapes, splitting, heads)
        if not isinstance(found, str) and not listing.state and OPTIMIZER.match(stored.key):
            found = OPTIMIZER_STATE
        if isinstance(found, str):
            skipped.append(Skipped(stored.key, stored.shape, found, 0 if shared else stored.params))
            continue
        role, parts, note = found
        longname = (stored.longkey or stored.key).removesuffix(".weight")
        name = _without_weight(stored.key, shapes)
        if f"{name}{parts[0].label}" in layers:  # only a wrapper distinguishes the two names, or nothing
            name = longname if f"{longname}{parts[0].label}" not in layers else f"{longname}#{number}"
        owner = owner_of.setdefault(number if stored.identity is None else stored.identity, name)
        for part, params in zip(parts, _shares(0 if shared else stored.params, parts), strict=True):
            first = layers.get(f"{owner}{part.label}")  # None if the owner was cut in another way
            layers[f"{name}{part.label}"] = Layer(
                name=f"{name}{part.label}",
                longname=f"{longname}{part.label}",
                layer_type=role.layer_type,
                shape=part.shape,
                load=LoadPart(stored.read, part),
                tied_to=None if owner == name or first is None or first.shape != part.shape else first.name,
                dtype=stored.dtype,
                note="; ".join(filter(None, (stored.note, note))),
                num_params=params,
            )
    return Inventory(listing.source, list(layers.values()), skipped, listing.state, listing.metadata)


def _shares(params: int, parts: Sequence[Part]) -> list[int]:
    """Return how many of the parameters of a tensor each part stands for: its elements, or its share of them."""
    ends = [0, *itertools.accumulate(math.prod(part.shape) for part in parts)]
    ends = [params * end // max(ends[-1], 1) for end in ends]
    return [end - start for start, end in itertools.pairwise(ends)]


def _without_weight(key: str, keys: Mapping[str, object]) -> str:
    """Return the name of a tensor without ``.weight`` unless another tensor has that name."""
    stripped = key.removesuffix(".weight")
    return key if stripped in keys else stripped


def _parts(
    stored: StoredTensor, shapes: Mapping[str, tuple[int, ...]], splitting: Splitting, heads: Heads
) -> tuple[LayerRole, list[Part], str] | str:
    """Return the role of a tensor, its parts and a caveat for the user, or the reason why it is not analysed."""
    reason = stored.reason or _no_weight(stored, shapes)
    if reason is not None:
        return reason
    role = stored.role or role_by_name(stored.key, stored.shape, shapes)
    in_out = heads.model_type in IN_OUT_MODELS
    if stored.role is None and in_out and len(stored.shape) == 2 and IN_OUT.search(stored.key):
        role = LayerRole("dense", axes=(1, 0))
    if isinstance(role, str):
        return role
    weight = Part(stored.shape, stored.label)
    if role.axes is not None:
        weight = weight.permute(role.axes)
    if role.heads is not None and role.heads.num != heads.num:
        # the module around the tensor knows better than the configuration of the whole model
        heads = replace(
            role.heads,
            model_type=heads.model_type,
            multi_query=heads.multi_query,
            sizes={**heads.sizes, **role.heads.sizes},
        )

    if role.layer_type.startswith("conv"):
        if splitting.whole_kernels and splitting.conv == "pool" and len(weight.shape) == 4:
            return role, [weight], ""
        transposed = role.layer_type.startswith("conv_transpose")
        kernels: list[Part] = []
        for kernel in gate_parts(weight, role.gates):  # a ConvLSTM stacks the kernels of its gates as outputs
            kernels += kernel_parts(kernel, groups=role.groups, transposed=transposed, conv=splitting.conv)
        return role, kernels, ""
    if role.layer_type == "bilinear":  # (out, in1, in2): one slice for each output, pooled like the slices of a kernel
        return role, kernel_parts(weight.permute((1, 2, 0)), conv=splitting.conv), ""
    if role.layer_type == "stack":
        if math.prod(weight.shape[:-2]) > MAX_PARTS:
            return f"a stack of {math.prod(weight.shape[:-2])} matrices: more than the limit of {MAX_PARTS}"
        return role, _stacked(weight), ""
    if role.gates or (role.layer_type == "rnn" and len(weight.shape) == 3):
        directions = _stacked(weight) if len(weight.shape) > 2 else [weight]  # ONNX stacks the two directions
        if len(directions) == 1:
            directions = [replace(directions[0], label=weight.label)]
        return role, [part for direction in directions for part in gate_parts(direction, role.gates)], ""
    while len(weight.shape) > 2 and 1 in weight.shape:  # a matrix with more dimensions, of size 1
        weight = weight.select(weight.shape.index(1), 0)
    if len(weight.shape) > 2:
        weight = _table_of_grid(weight)
    if role.layer_type != "dense":
        return role, [weight], ""
    parts, note = fused_parts(stored.key, weight, heads)
    if splitting.per_head:
        parts = [head for part in parts for head in head_parts(stored.key, part, heads)]
    return role, parts, note


def _no_weight(stored: StoredTensor, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return why a tensor is not a weight, whatever its role; None if it may be one."""
    if not stored.quantised and not FLOATING.fullmatch(stored.dtype):
        return f"dtype {stored.dtype}: not a floating-point weight"
    if stored.shape == (0,):
        return "empty: a placeholder, as ZeRO-3 of DeepSpeed leaves it; its zero_to_fp32.py writes the weights"
    if len(stored.shape) < 2:
        return f"{len(stored.shape)}-D: not a matrix"
    if min(stored.shape) < 1:
        return "empty: it has no elements"
    return no_matrix_map(stored.key, stored.shape, shapes)


def _table_of_grid(weight: Part) -> Part:
    """Return a table of positions in a grid with one row, or one column, for each position."""
    # a grid is mostly square: (height, width, channels) or (channels, height, width)
    *_, height, width = weight.shape
    if height == width and len(set(weight.shape)) > 1:
        return weight.reshape(math.prod(weight.shape[:-2]), height * width)
    return weight.reshape(math.prod(weight.shape[:-1]), width)


def _stacked(weight: Part) -> list[Part]:
    """Return the matrices of the last two dimensions, labelled by their indices along the others."""
    parts = []
    for place in itertools.product(*map(range, weight.shape[:-2])):
        part = weight
        for index in place[:-1]:
            part = part.select(0, index)
        parts.append(part.select(0, place[-1], f"[{','.join(map(str, place))}]"))
    return parts
