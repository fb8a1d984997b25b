"""Which parameters are matrices for HTMuon, and which get AdamW."""

from collections import defaultdict
from typing import Any, NamedTuple

from torch import nn

# Output layers by name: any component, or the last one. Muon leaves embeddings and the output layer to AdamW (K. Jordan
# 2024): their rows belong to tokens or classes and do not act together as one linear map.
HEAD_ANYWHERE = {"lm_head", "head", "heads", "classifier"}
HEAD_LAST = HEAD_ANYWHERE | {"fc_out", "embed_out", "unembed", "unembedding", "score", "output_projection", "logits"}
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
        **settings: Put into the group of matrices, e.g. ``power=0.25``.

    Returns:
        Up to three groups with named parameters. Shared parameters appear once.

    Raises:
        ValueError: If the model has no parameters.
    """
    roles = parameter_roles(model)
    if not roles:
        raise ValueError(f"expected a model with parameters, got {type(model).__name__} without any")
    members: dict[tuple[str, bool], list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        members[roles[name].algorithm, roles[name].decay].append((name, parameter))
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
    head = _last_linear_of_the_top_level(model)
    return {name: _role(name, parameter, owners[id(parameter)], head) for name, parameter in model.named_parameters()}


def _role(name: str, parameter: nn.Parameter, owners: list[tuple[str, nn.Module]], head: nn.Module | None) -> Role:
    if parameter.ndim < 2:
        return Role("adamw", False, f"{parameter.ndim}-D")
    if any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for _, module in owners):
        return Role("adamw", True, "embedding" if len(owners) == 1 else "embedding, shared with another layer")
    if any(_is_head_name(path) or module is head for path, module in owners):
        return Role("adamw", True, "output layer")
    kind = type(owners[0][1]).__name__
    if isinstance(owners[0][1], nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return Role("htmuon", True, f"weight of a {kind}")
    if parameter.ndim > 2:
        return Role("adamw", True, f"{parameter.ndim}-D parameter of a {kind}, not known to be one matrix")
    if any(word in name.lower() for word in EMBEDDING_WORDS):
        return Role("adamw", True, "embedding by its name")
    if 1 in parameter.shape:
        return Role("adamw", True, "a single row or column")
    return Role("htmuon", True, f"matrix of a {kind}")


def _is_head_name(path: str) -> bool:
    parts = path.split(".")
    return parts[-1] in HEAD_LAST or not HEAD_ANYWHERE.isdisjoint(parts)


def _last_linear_of_the_top_level(model: nn.Module) -> nn.Module | None:
    """The output layer of a model that does not name it: its last layer, if that is a Linear among other layers."""
    layers = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    ]
    if len(layers) < 2:
        return None
    path, last = layers[-1]
    return last if isinstance(last, nn.Linear) and "." not in path else None
