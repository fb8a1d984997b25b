"""Which parameters are matrices for HTMuon, and which get AdamW."""

from collections import defaultdict
from typing import Any, NamedTuple

from torch import nn

# Output layers by the name of the layer or of the module that ends in it. Muon leaves embeddings and the output layer to
# AdamW (K. Jordan 2024): their rows belong to tokens or classes and do not act together as one linear map.
HEAD_NAMES = {
    "lm_head", "head", "classifier", "fc_out", "embed_out", "unembed", "unembedding", "score", "output_projection", "logits",
}  # fmt: skip
WEIGHT_LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
SETTINGS = ("lr", "power", "momentum", "nesterov", "weight_decay", "scale", "method")
EMBEDDING_WORDS = ("embed", "wte", "wpe", "pos_", "position", "token")


class Role(NamedTuple):
    """What HTMuon does with a parameter, and why.

    Attributes:
        algorithm: ``htmuon`` or ``adamw``.
        decay: Whether weight decay applies.
        reason: The rule that decided.
    """

    algorithm: str
    decay: bool
    reason: str


def parameter_groups(model: nn.Module, **settings: Any) -> list[dict[str, Any]]:
    """Groups for ``HTMuon``: matrices, then embeddings and head, then norms and biases without weight decay.

    Args:
        model: The model.
        **settings: Put into the group of matrices, e.g. ``power=0.25``: lr, power, momentum, nesterov, weight_decay, scale,
            method.

    Returns:
        Up to three groups with named parameters. Shared parameters appear once.

    Raises:
        TypeError: If a setting is unknown.
        ValueError: If the model has no parameters, or settings are given and it has no matrices.
    """
    unknown = set(settings) - set(SETTINGS)
    if unknown:
        raise TypeError(f"expected settings among {', '.join(SETTINGS)}, got {', '.join(sorted(unknown))}")
    roles = parameter_roles(model)
    if not roles:
        raise ValueError(f"expected a model with parameters, got {type(model).__name__} without any")
    members: dict[tuple[str, bool], list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        members[roles[name].algorithm, roles[name].decay].append((name, parameter))
    if settings and not members["htmuon", True]:
        raise ValueError(f"{type(model).__name__} has no matrices that {', '.join(settings)} could apply to")
    groups: list[dict[str, Any]] = []
    if members["htmuon", True]:
        groups.append({"params": members["htmuon", True], "algorithm": "htmuon", **settings})
    if members["adamw", True]:
        groups.append({"params": members["adamw", True], "algorithm": "adamw"})
    if members["adamw", False]:
        groups.append({"params": members["adamw", False], "algorithm": "adamw", "weight_decay": 0.0})
    return groups


def parameter_roles(model: nn.Module) -> dict[str, Role]:
    """Decide for each parameter, by layer type and name, and say why.

    Args:
        model: The model.

    Returns:
        Role of each parameter, by its name in ``model.named_parameters()``.

    Example:
        >>> model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 10))
        >>> for name, role in parameter_roles(model).items():
        ...     print(name, role.algorithm, "-", role.reason)
        0.weight adamw - embedding
        1.weight htmuon - weight of a Linear
        1.bias adamw - 1-D
        2.weight adamw - 1-D
        2.bias adamw - 1-D
        3.weight adamw - output layer
        3.bias adamw - 1-D
    """
    owners: dict[int, list[tuple[str, nn.Module]]] = defaultdict(list)
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)].append((path, module))
    heads = _output_layers(model)
    return {name: _role(name, parameter, owners[id(parameter)], heads) for name, parameter in model.named_parameters()}


def _role(name: str, parameter: nn.Parameter, owners: list[tuple[str, nn.Module]], heads: set[nn.Module]) -> Role:
    if parameter.ndim < 2:
        return Role("adamw", False, f"{parameter.ndim}-D")
    if any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for _, module in owners):
        return Role("adamw", True, "embedding" if len(owners) == 1 else "embedding, shared with another layer")
    if any(module in heads for _, module in owners):
        return Role("adamw", True, "output layer")
    kind = type(owners[0][1]).__name__
    if isinstance(owners[0][1], WEIGHT_LAYERS):
        return Role("htmuon", True, f"weight of a {kind}")
    if parameter.ndim > 2:
        return Role("adamw", True, f"{parameter.ndim}-D parameter of a {kind}, not known to be one matrix")
    if any(word in name.lower() for word in EMBEDDING_WORDS):
        return Role("adamw", True, "embedding by its name")
    if 1 in parameter.shape:
        return Role("adamw", True, "a single row or column")
    return Role("htmuon", True, f"matrix of a {kind}")


def _output_layers(model: nn.Module) -> set[nn.Module]:
    """The layers that give a model's output, by name or by place.

    By name: the last layer of a module called ``head``, ``classifier`` and so on, or a layer of that name itself. Where no
    name says so, by place: the layer defined last, if it is a Linear among other layers and the module that holds it holds
    all the others, too, be it the model, a wrapper around it or one Sequential. The last layer of a block deep inside is
    not taken for an output.

    Args:
        model: The model.

    Returns:
        The layers.
    """
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)]
    last_under: dict[str, nn.Module] = {}
    for path, module in layers:
        parts = path.split(".")
        for depth, part in enumerate(parts, start=1):
            if part in HEAD_NAMES:
                last_under[".".join(parts[:depth])] = module
    heads: set[nn.Module] = {module for module in last_under.values() if isinstance(module, nn.Linear)}
    if heads or len(layers) < 2:
        return heads
    path, last = layers[-1]
    holder = path.rpartition(".")[0]
    holds_all = all(other.startswith(f"{holder}.") or not holder for other, _ in layers)
    return {last} if isinstance(last, nn.Linear) and holds_all else set()
