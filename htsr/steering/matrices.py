"""Which parameters of a model are steered together, and which layers' signals steer them."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from htsr.optim.parameter_groups import WEIGHT_LAYERS, parameter_roles
from htsr.weights import open_source, select
from htsr.weights.select import Patterns

# What the name of a layer has beyond that of its parameter, where a layer is a part of it: ``in_proj_weight[q]``.
PART = re.compile(r"(\[[^\]]*\])+$")


# The first number in a path counts the blocks of a model: ``blocks.3`` of ``blocks.3.query``.
BLOCK = re.compile(r"(?:^|.*?\.)\d+(?=\.|$)")
Per = Literal["layer", "block"]


@dataclass(frozen=True, eq=False)
class Unit:
    """What gets one multiplier: a matrix, or all those of a block, the layers whose mean signal steers it, and who follows."""

    name: str
    parameters: tuple[Tensor, ...]
    layers: tuple[str, ...]
    followers: tuple[Tensor, ...] = ()


def block_of(name: str) -> str:
    """Return the block of a layer, which is its path up to the first number; a layer outside of blocks is its own."""
    match = BLOCK.match(name)
    return match.group() if match else name


def steered_units(
    model: nn.Module,
    held: Collection[int],
    *,
    layers: Patterns,
    skip: Patterns,
    min_eigenvalues: int,
    ends: bool,
    follow: bool,
    per: Per,
) -> tuple[list[Unit], dict[str, str]]:
    """Return the units that a schedule steers, in model order, and why each other layer is left out, by name.

    ``held`` has the ids of the parameters that can be steered: an optimizer holds them in groups with the setting.
    """
    inventory = select(open_source(model), layers, skip, min_eigenvalues=min_eigenvalues)
    left_out = {skipped.name: skipped.reason for skipped in inventory.skipped if len(skipped.shape) > 1}
    named = dict(model.named_parameters(remove_duplicate=False))
    at_ends = {} if ends else end_parameters(model)
    parts: dict[int, list[str]] = {}
    found: dict[int, tuple[str, Tensor]] = {}
    for layer in inventory.layers:
        path = PART.sub("", layer.longname)
        parameter = named.get(f"{path}.weight", named.get(path))
        if parameter is None:
            left_out[layer.name] = "its weight is computed from several parameters"
        elif layer.tied_to is not None:
            left_out[layer.name] = f"shares its weight with {layer.tied_to}"
        elif id(parameter) not in held or not parameter.requires_grad:
            left_out[layer.name] = "the optimizer does not train it, or its group does not have the setting"
        elif id(parameter) in at_ends:
            left_out[layer.name] = f"{at_ends[id(parameter)]}: pass ends=True to steer it, too"
        elif not ends and layer.layer_type == "embedding":
            left_out[layer.name] = "embedding: pass ends=True to steer it, too"
        else:
            parts.setdefault(id(parameter), []).append(layer.name)
            found.setdefault(id(parameter), (PART.sub("", layer.name), parameter))
    followers = _followers(model, list(parts)) if follow else {}
    members: dict[str, list[int]] = {}
    for key, (name, _) in found.items():
        members.setdefault(block_of(name) if per == "block" else name, []).append(key)
    units = [
        Unit(
            name,
            tuple(found[key][1] for key in keys),
            tuple(layer for key in keys for layer in parts[key]),
            tuple(p for key in keys for p in followers.get(key, ()) if id(p) in held),
        )
        for name, keys in members.items()
    ]
    return units, left_out


def end_parameters(model: nn.Module) -> dict[int, str]:
    """Return what stands at a model's two ends, as a role by the parameter's id: embeddings, input and output layer.

    Type and name tell embeddings and the output layer, as they do for HTMuon. In a model without a table of embeddings, the
    weight layer that is defined first reads the input.
    """
    named = dict(model.named_parameters())
    ends = {}
    for name, role in parameter_roles(model).items():
        if role.reason.startswith("embedding") or role.reason == "output layer":
            ends[id(named[name])] = role.reason
    modules = list(model.modules())
    if not any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in modules):
        first = next((module for module in modules if isinstance(module, WEIGHT_LAYERS)), None)
        if first is not None:
            ends[id(first.weight)] = "input layer"
    return ends


def _followers(model: nn.Module, matrices: Sequence[int]) -> dict[int, list[Tensor]]:
    """Return the vectors that follow each matrix, by its id: its bias, and the norm of its outputs that stands behind it."""
    followers: dict[int, list[Tensor]] = {key: [] for key in matrices}
    for parent in model.modules():
        own = dict(parent.named_parameters(recurse=False))
        for name, parameter in own.items():
            bias = own.get(name.replace("weight", "bias"))
            if id(parameter) in followers and bias is not None and bias.ndim == 1:
                followers[id(parameter)].append(bias)
        last: Tensor | None = None
        for child in parent.children():
            weights = [p for p in child.parameters(recurse=False) if p.ndim > 1]
            vectors = [p for p in child.parameters(recurse=False) if p.ndim == 1]
            if weights:
                last = weights[0] if id(weights[0]) in followers else None
            elif vectors and last is not None and all(p.numel() == last.shape[0] for p in vectors):
                followers[id(last)] += vectors
    return followers
