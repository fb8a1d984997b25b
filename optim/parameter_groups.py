"""Which parameters are matrices for HTMuon, and which get AdamW."""

from collections import defaultdict
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import nn

from htsr.errors import InputError
from htsr.optim.matrices import Reading

# Output layers by the name of the layer or of the module that ends in it. Muon leaves embeddings and the output layer to
# AdamW (K. Jordan 2024): their rows belong to tokens or classes and do not act together as one linear map.
HEAD_NAMES = {
    "lm_head", "head", "classifier", "fc_out", "embed_out", "unembed", "unembedding", "score", "output_projection", "logits",
}  # fmt: skip
WEIGHT_LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
SETTINGS = (
    "lr", "power", "momentum", "nesterov", "weight_decay", "scale", "method", "row_normalize", "steps", "dtype", "interval",
    "adjust_lr", "row_beta", "cautious", "momentum_dtype", "compile",
)  # fmt: skip
EMBEDDING_WORDS = ("embed", "wte", "wpe", "pos_", "position", "token")


class Role(NamedTuple):
    """What HTMuon does with a parameter, and why.

    Attributes:
        algorithm: ``htmuon`` or ``adamw``.
        decay: Whether weight decay applies.
        reason: The rule that decided.
        reading: How ``htmuon`` reads it as matrices.
    """

    algorithm: str
    decay: bool
    reason: str
    reading: Reading = Reading()


def parameter_groups(
    model: nn.Module,
    *,
    embeddings_and_head: str = "adamw",
    stacks: tuple[str, ...] = (),
    splits: Mapping[str, int | tuple[int, ...] | Reading] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Groups for ``HTMuon``: matrices, then embeddings and head, then norms and biases without weight decay.

    Args:
        model: The model.
        embeddings_and_head: ``"adamw"``, as Muon has it, or ``"htmuon"``, as in the paper's language models, where all
            but one-dimensional parameters are matrices.
        stacks: Patterns (``fnmatch``) of the names of parameters whose last two dimensions are one matrix each, such as
            ``"*.experts.*"``.
        splits: For patterns of names, what is updated on its own: a number of equal parts of the rows, their sizes, or
            a ``Reading``. ``{"*.qkv.weight": 3}`` splits query, key and value.
        **settings: Put into the groups of matrices, e.g. ``power=0.25``: any of ``HTMuon``'s settings of matrices.

    Returns:
        Groups with named parameters: matrices, one group for each way to read them, then up to two others. Shared
        parameters appear once.

    Raises:
        TypeError: If a setting is unknown.
        InputError: If the model has no parameters, settings are given and it has no matrices, or a pattern fits none.
    """
    unknown = set(settings) - set(SETTINGS)
    if unknown:
        raise TypeError(f"expected settings among {', '.join(SETTINGS)}, got {', '.join(sorted(unknown))}")
    roles = parameter_roles(model, embeddings_and_head=embeddings_and_head, stacks=stacks, splits=splits)
    if not roles:
        raise InputError(f"expected a model with parameters, got {type(model).__name__} without any")
    members: dict[tuple[str, bool, Reading], list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        members[roles[name][:2] + roles[name][3:]].append((name, parameter))
    if settings and not any(algorithm == "htmuon" for algorithm, *_ in members):
        raise InputError(f"{type(model).__name__} has no matrices that {', '.join(settings)} could apply to")
    groups: list[dict[str, Any]] = []
    for (algorithm, _, reading), params in members.items():
        if algorithm == "htmuon":
            own = {} if reading == Reading() else reading._asdict()
            groups.append({"params": params, "algorithm": "htmuon", **own, **settings})
    if members["adamw", True, Reading()]:
        groups.append({"params": members["adamw", True, Reading()], "algorithm": "adamw"})
    if members["adamw", False, Reading()]:
        groups.append({"params": members["adamw", False, Reading()], "algorithm": "adamw", "weight_decay": 0.0})
    return groups


def parameter_roles(
    model: nn.Module,
    *,
    embeddings_and_head: str = "adamw",
    stacks: tuple[str, ...] = (),
    splits: Mapping[str, int | tuple[int, ...] | Reading] | None = None,
) -> dict[str, Role]:
    """Decide for each parameter, by layer type and name, and say why.

    Args:
        model: The model.
        embeddings_and_head: See ``parameter_groups``.
        stacks: See ``parameter_groups``.
        splits: See ``parameter_groups``.

    Returns:
        Role of each parameter, by its name in ``model.named_parameters()``.

    Raises:
        InputError: If ``embeddings_and_head`` is neither, or a pattern fits no parameter.

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
    if embeddings_and_head not in {"adamw", "htmuon"}:
        raise InputError(f"expected embeddings_and_head to be adamw or htmuon, got {embeddings_and_head!r}")
    owners: dict[int, list[tuple[str, nn.Module]]] = defaultdict(list)
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)].append((path, module))
    heads = _output_layers(model)
    roles = {}
    named = dict(model.named_parameters())
    for pattern in (*stacks, *(splits or {})):
        if not any(fnmatchcase(name, pattern) for name in named):
            raise InputError(f"expected a pattern of parameter names, {pattern!r} fits none of {', '.join(named)}")
    for name, parameter in named.items():
        role = _role(name, parameter, owners[id(parameter)], heads)
        stack = next((pattern for pattern in stacks if fnmatchcase(name, pattern)), None)
        if stack and parameter.ndim > 2:
            role = Role("htmuon", True, f"matrices, as {stack!r} says", Reading("stack"))
        elif embeddings_and_head == "htmuon" and role.algorithm == "adamw" and parameter.ndim == 2:
            role = Role("htmuon", True, f"{role.reason}, a matrix in the paper's layout")
        for pattern, split in (splits or {}).items():
            if role.algorithm == "htmuon" and fnmatchcase(name, pattern):
                reading = split if isinstance(split, Reading) else role.reading._replace(split=split, split_dim=0)
                role = role._replace(reading=reading, reason=f"{role.reason}, split as {pattern!r} says")
        roles[name] = role
    return roles


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
    fused = 3 if name.rpartition(".")[0].endswith("c_attn") or name.endswith("in_proj_weight") else None
    if isinstance(owners[0][1], nn.MultiheadAttention) and fused:
        return Role("htmuon", True, "query, key and value of a MultiheadAttention", Reading(split=fused))
    if kind == "Conv1D" and parameter.ndim == 2:  # transformers' GPT-2; (in, out)
        same = fused and parameter.shape[1] == 3 * parameter.shape[0]
        reason = "query, key and value of a Conv1D" if same else "weight of a Conv1D"
        return Role("htmuon", True, reason, Reading("transposed", fused if same else None))
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
