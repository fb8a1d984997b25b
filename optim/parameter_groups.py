"""Which parameters are matrices for HTMuon, and which get AdamW."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import nn

from htsr.errors import InputError
from htsr.optim.matrices import Reading
from htsr.optim.notices import tell_once
from htsr.optim.parameters import may_be_matrix
from htsr.optim.settings import ADAMW_ONLY, READING, SETTINGS, unknown_names
from htsr.weights.roles import STATE_SPACE

# Names of output layers, or of modules whose last layer is the output. Muon leaves embeddings and the output layer to AdamW
# (K. Jordan 2024): their rows belong to tokens or classes and do not act together as one linear map.
HEAD_NAMES = {
    "lm_head", "head", "classifier", "fc_out", "embed_out", "unembed", "unembedding", "score", "output_projection", "logits",
}  # fmt: skip
# The end of the reason for which AdamW updates a parameter that may hold matrices.
UNKNOWN = ", not known to be one matrix"
MAX_SHOWN = 6
WEIGHT_LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
MATRIX_SETTINGS = tuple(name for name in SETTINGS if name not in ADAMW_ONLY | READING)
EMBEDDING_WORDS = ("embed", "wte", "wpe", "pos_", "position", "token")


class ParameterRole(NamedTuple):
    """What HTMuon does with a parameter, and why.

    Attributes:
        algorithm: ``htmuon`` or ``adamw``.
        decay: Whether weight decay applies.
        reason: The rule that decided.
        reading: How HTMuon reads the parameter as matrices.
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
    geometry: Mapping[str, str] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Make the groups for ``HTMuon``: matrices, then embeddings and head, then norms and biases without weight decay.

    Args:
        model: The model.
        embeddings_and_head: ``"adamw"`` as in Muon, or ``"htmuon"`` as in the paper's language models, where all
            two-dimensional parameters are matrices.
        stacks: Name patterns (``fnmatch``) of parameters that stack many matrices, each in the last two dimensions, such
            as ``"*.experts.*"``.
        splits: How to split the parameters of a name pattern into parts that are updated on their own: a number of equal
            parts of the rows, the sizes of the parts, or a ``Reading``. ``{"*.qkv.weight": 3}`` splits query, key and
            value.
        geometry: The algorithm of some parameters, ``"htmuon"`` or ``"adamw"`` by name, in place of what type and name say:
            ``htsr.gradient_geometry(model, closure).grouping``.
        **settings: Settings of ``HTMuon`` for the groups of matrices, such as ``power=0.25``.

    Returns:
        Groups with named parameters: one group of matrices for each way to read them, then up to two others. A shared
        parameter appears once.

    Raises:
        TypeError: If a setting is unknown, or the model is not a module.
        ValueError: If ``embeddings_and_head`` is neither of the two.
        InputError: If the model has no parameters, or settings are given and it has no matrices, or a pattern matches no
            parameter, or ``geometry`` names none.
    """
    problem = unknown_names(settings, MATRIX_SETTINGS)
    if problem is not None:
        raise TypeError(problem)
    roles = parameter_roles(
        model, embeddings_and_head=embeddings_and_head, stacks=stacks, splits=splits, geometry=geometry
    )
    if not roles:
        raise InputError(f"expected a model with parameters, got {type(model).__name__} without any")
    _tell_what_surprises(roles)
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
    geometry: Mapping[str, str] | None = None,
) -> dict[str, ParameterRole]:
    """Decide by layer type and name which algorithm updates each parameter, and say why.

    Args:
        model: The model.
        embeddings_and_head: See ``parameter_groups``.
        stacks: See ``parameter_groups``.
        splits: See ``parameter_groups``.
        geometry: See ``parameter_groups``.

    Returns:
        The role of each parameter, by its name in ``model.named_parameters()``.

    Raises:
        TypeError: If the model is not a module.
        ValueError: If ``embeddings_and_head`` is neither of the two.
        InputError: If a pattern matches no parameter, or ``geometry`` names none.

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
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"expected the model itself, a torch.nn.Module, got {type(model).__name__}: layer types and names decide which "
            "parameters are matrices, and parameters alone do not tell them. Pass model in place of model.parameters()"
        )
    if embeddings_and_head not in {"adamw", "htmuon"}:
        raise ValueError(f"expected embeddings_and_head to be adamw or htmuon, got {embeddings_and_head!r}")
    owners: dict[int, list[tuple[str, nn.Module]]] = defaultdict(list)
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)].append((path, module))
    heads = _output_layers(model)
    roles = {}
    named = dict(model.named_parameters())
    for pattern in (*stacks, *(splits or {})):
        if not any(fnmatchcase(name, pattern) for name in named):
            raise InputError(f"expected a pattern of parameter names, {pattern!r} matches none of {', '.join(named)}")
    for name, algorithm in (geometry or {}).items():
        if name not in named or algorithm not in {"adamw", "htmuon"}:
            raise InputError(
                f"expected adamw or htmuon for names of parameters in geometry, got {algorithm!r} for {name!r}"
            )
    for name, parameter in named.items():
        role = _role(name, parameter, owners[id(parameter)], heads)
        stack = next((pattern for pattern in stacks if fnmatchcase(name, pattern)), None)
        if stack and may_be_matrix(parameter) and parameter.ndim > 2:
            role = ParameterRole("htmuon", True, f"matrices, as {stack!r} says", Reading("stack"))
        elif (
            embeddings_and_head == "htmuon"
            and role.algorithm == "adamw"
            and may_be_matrix(parameter)
            and parameter.ndim == 2
        ):
            role = ParameterRole("htmuon", True, f"{role.reason}, a matrix in the paper's layout")
        algorithm = (geometry or {}).get(name, role.algorithm)
        if algorithm != role.algorithm and may_be_matrix(parameter):
            reading = role.reading if algorithm == "htmuon" else Reading()
            role = ParameterRole(
                algorithm, True, f"{role.reason}, but {algorithm} by the geometry of its gradient", reading
            )
        for pattern, split in (splits or {}).items():
            if role.algorithm == "htmuon" and fnmatchcase(name, pattern):
                reading = split if isinstance(split, Reading) else role.reading._replace(split=split, split_dim=0)
                role = role._replace(reading=reading, reason=f"{role.reason}, split as {pattern!r} says")
        roles[name] = role
    return roles


def _tell_what_surprises(roles: Mapping[str, ParameterRole]) -> None:
    """Log which parameters of more than two dimensions AdamW updates, and how to change that."""
    names = [name for name, role in roles.items() if role.reason.endswith(UNKNOWN)]
    if names:
        kinds = Counter(roles[name].reason.removesuffix(UNKNOWN) for name in names)
        shown = ", ".join(names[:MAX_SHOWN]) + (", ..." if len(names) > MAX_SHOWN else "")
        tell_once(
            f"AdamW updates {len(names)} of the parameters with more than two dimensions ({shown}), since nothing says that "
            f"they are matrices: {', '.join(f'{count} x {kind}' for kind, count in kinds.items())}. If one of them is a stack "
            f"of matrices, as of experts, pass its name to parameter_groups(model, stacks=(...,))"
        )


def _role(
    name: str, parameter: nn.Parameter, owners: list[tuple[str, nn.Module]], heads: set[nn.Module]
) -> ParameterRole:
    if parameter.ndim < 2:
        return ParameterRole("adamw", False, f"{parameter.ndim}-D")
    if not may_be_matrix(parameter):
        return ParameterRole("adamw", True, f"{str(parameter.dtype).removeprefix('torch.')}, not a real matrix")
    if STATE_SPACE.search(name):
        return ParameterRole("adamw", False, "one parameter for each channel of a state-space model")
    if name.endswith((".bias", "_bias", "_biases")):
        return ParameterRole("adamw", False, f"bias of a {type(owners[0][1]).__name__}")
    if any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for _, module in owners):
        return ParameterRole("adamw", True, "embedding" if len(owners) == 1 else "embedding, shared with another layer")
    if any(module in heads for _, module in owners):
        return ParameterRole("adamw", True, "output layer")
    kind = type(owners[0][1]).__name__
    if isinstance(owners[0][1], WEIGHT_LAYERS):
        return ParameterRole("htmuon", True, f"weight of a {kind}")
    fused = 3 if name.rpartition(".")[0].endswith("c_attn") or name.endswith("in_proj_weight") else None
    if isinstance(owners[0][1], nn.MultiheadAttention) and fused:
        return ParameterRole("htmuon", True, "query, key and value of a MultiheadAttention", Reading(split=fused))
    if kind == "Conv1D" and parameter.ndim == 2:  # transformers' GPT-2; (in, out)
        same = fused and parameter.shape[1] == 3 * parameter.shape[0]
        reason = "query, key and value of a Conv1D" if same else "weight of a Conv1D"
        return ParameterRole("htmuon", True, reason, Reading("transposed", fused if same else None))
    if parameter.ndim > 2:
        return ParameterRole("adamw", True, f"{parameter.ndim}-D parameter of a {kind}{UNKNOWN}")
    if any(word in name.lower() for word in EMBEDDING_WORDS):
        return ParameterRole("adamw", True, "embedding by its name")
    if 1 in parameter.shape:
        return ParameterRole("adamw", True, "a single row or column")
    return ParameterRole("htmuon", True, f"matrix of a {kind}")


def _output_layers(model: nn.Module) -> set[nn.Module]:
    """Return the layers that give a model's output, found by name or else by place.

    A name in ``HEAD_NAMES`` marks a layer, or a module whose last layer is the output. If no name does, the layer defined
    last is the output, provided that it is a Linear, that there are other layers (a recurrent one or an embedding will do), and
    that the module which holds it (the model, a wrapper around it or one Sequential) holds all others of its kind. The last layer
    of a block deep inside is no output.
    """
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)]
    before = any(isinstance(module, nn.RNNBase | nn.Embedding | nn.EmbeddingBag) for module in model.modules())
    last_under: dict[str, nn.Module] = {}
    for path, module in layers:
        parts = path.split(".")
        for depth, part in enumerate(parts, start=1):
            if part in HEAD_NAMES:
                last_under[".".join(parts[:depth])] = module
    heads: set[nn.Module] = {module for module in last_under.values() if isinstance(module, nn.Linear)}
    if heads or len(layers) + before < 2 or not layers:
        return heads
    path, last = layers[-1]
    holder = path.rpartition(".")[0]
    holds_all = all(other.startswith(f"{holder}.") or not holder for other, _ in layers)
    return {last} if isinstance(last, nn.Linear) and holds_all else set()
