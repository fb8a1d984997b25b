"""Which parameters of a model are steered together, and which layers' signals steer them."""

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from htsr.optim.parameter_groups import parameter_roles
from htsr.weights import open_source, select
from htsr.weights.select import Patterns

# What the name of a layer has beyond that of its parameter, where a layer is a part of it: ``in_proj_weight[q]``.
PART = re.compile(r"(\[[^\]]*\])+$")

# The first number in a path counts the blocks of a model: ``blocks.3`` of ``blocks.3.query``.
BLOCK = re.compile(r"(?:^|.*?\.)\d+(?=\.|$)")
Per = Literal["layer", "block"]
# Modules that read a model's input, by their names outside of blocks.
INPUT_NAMES = {
    "stem", "conv_stem", "conv_in", "patch_embed", "patch_embedding", "patch_embeddings", "to_patch_embedding", "input",
    "input_layer", "input_proj", "input_projection",
}  # fmt: skip
CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


@dataclass(frozen=True, eq=False)
class Unit:
    """What gets one multiplier: a matrix, or all those of a block, the layers whose mean signal steers it, and who follows."""

    name: str
    parameters: tuple[Tensor, ...]
    layers: tuple[str, ...]
    followers: tuple[Tensor, ...] = ()


def blocks_of(names: Iterable[str]) -> dict[str, str]:
    """Return the block of each layer, which is its path up to the first number; a layer outside of blocks is its own.

    A path may begin with the number of a part of an ``nn.Sequential``, such as an encoder before its head. Where one part holds
    most of the layers and numbers blocks of its own, those are the blocks.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for name in names:
        match = BLOCK.match(name)
        members[match.group() if match else name].append(name)
    found: dict[str, str] = {}
    for block, inside in members.items():
        blocks = dict.fromkeys(inside, block)
        if block.isdigit() and block not in inside and 2 * len(inside) > sum(map(len, members.values())):
            inner = blocks_of(name.removeprefix(f"{block}.") for name in inside)
            if len({part for part in inner.values() if part.rpartition(".")[2].isdigit()}) > 1:
                blocks = {f"{block}.{name}": f"{block}.{part}" for name, part in inner.items()}
        found |= blocks
    return found


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
            left_out[layer.name] = (
                "the optimizer does not train it, or its group does not have the setting, or a weight decay of 0"
            )
        elif id(parameter) in at_ends:
            left_out[layer.name] = f"{at_ends[id(parameter)]}: pass ends=True to steer it, too"
        elif not ends and layer.layer_type == "embedding":
            left_out[layer.name] = "embedding: pass ends=True to steer it, too"
        else:
            parts.setdefault(id(parameter), []).append(layer.name)
            found.setdefault(id(parameter), (PART.sub("", layer.name), parameter))
    followers = _followers(model, list(parts)) if follow else {}
    blocks = blocks_of(name for name, _ in found.values())
    members: dict[str, list[int]] = {}
    for key, (name, _) in found.items():
        members.setdefault(blocks[name] if per == "block" else name, []).append(key)
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

    Type and name tell embeddings and the output layer, as they do for HTMuon, and names such as ``patch_embed`` the input layer.
    Where they do not, a convolution that is defined last outside of blocks is the output layer, and in a model without a table of
    embeddings what is defined first reads the input.
    """
    named = dict(model.named_parameters())
    ends = {}
    for name, role in parameter_roles(model).items():
        if role.reason.startswith("embedding") or role.reason == "output layer":
            ends[id(named[name])] = role.reason
    holders = [(path, module) for path, module in model.named_modules() if list(_matrices(module))]
    if "output layer" not in ends.values() and len(holders) > 1:
        path, last = holders[-1]
        holder = path.rpartition(".")[0]
        if isinstance(last, CONVOLUTIONS) and all(not holder or other.startswith(f"{holder}.") for other, _ in holders):
            ends[id(last.weight)] = "output layer"
    inner = [(path, module) for path, module in holders if not ends.keys() & {id(p) for _, p in _matrices(module)}]
    by_name = [module for path, module in inner if INPUT_NAMES & set(_before_blocks(path))]
    has_table = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in model.modules())
    if by_name or (inner and not has_table):
        ends |= dict.fromkeys(map(id, _reading_input((by_name or [inner[0][1]])[0])), "input layer")
    return ends


def _matrices(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a module itself that hold matrices, with their names in it."""
    return ((name, p) for name, p in module.named_parameters(recurse=False) if p.ndim > 1 and "bias" not in name)


def _before_blocks(path: str) -> Iterator[str]:
    """Yield the parts of a path up to the first number."""
    return itertools.takewhile(lambda part: not part.isdigit(), path.split("."))


def _reading_input(module: nn.Module) -> list[nn.Parameter]:
    """Return the matrices with which a layer reads its input."""
    matrices = list(_matrices(module))
    if isinstance(module, nn.RNNBase):
        return [p for name, p in matrices if name.startswith("weight_ih_l0")]
    return [p for _, p in matrices] if isinstance(module, nn.MultiheadAttention) else [matrices[0][1]]


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
