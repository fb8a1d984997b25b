"""Say what each variable of a Keras layer is, by the layer's class, its configuration and the name of the variable."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from htsr.weights.readers.einsum import einsum_matrix
from htsr.weights.recurrent import recurrent_type
from htsr.weights.roles import LayerRole

# Gates in Keras's order, by torch's letters. Keras has i, f, c, o for LSTM and z, r, h for GRU.
GATES = {"lstm_cell": "ifgo", "gru_cell": "zrn", "simple_rnn_cell": ""}
# The names of a layer's variables in the order in which it creates them, by its class; files in Keras 3's format number them.
KERNEL = ("kernel", "bias")
SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias")
CELL = ("kernel", "recurrent_kernel", "bias")
# Variables that are no weights of a matrix product.
NO_WEIGHT = re.compile(r"bias|gamma|beta|alpha|moving_mean|moving_variance|\w*_scale|\w*_zero|seed_generator_state")
# A configuration whose layers are deeper than this was made to be.
MAX_DEPTH = 64


@dataclass(frozen=True)
class KerasLayer:
    """A layer of a model: its class in snake case, and its configuration."""

    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variable:
    """What a variable is.

    Attributes:
        name: Its name: torch's for the weights of layers that torch has, ``weight``, otherwise Keras's.
        role: What it does; None if only its name can tell.
        axes: The order of axes in which it is read; None if as stored.
        shape: The shape in which it is read; None if as stored.
        note: A caveat for the user.
        reason: Why it is not analysed.
    """

    name: str
    role: LayerRole | None = None
    axes: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    note: str = ""
    reason: str | None = None


def layers_of(config: object, name: str = "", depth: int = 0) -> Iterator[tuple[str, KerasLayer]]:
    """Yield every layer of a configuration under its name, which begins with the names of the layers around it."""
    if depth > MAX_DEPTH:
        return
    if isinstance(config, list):
        for item in config:
            yield from layers_of(item, name, depth + 1)
        return
    arguments = config.get("config") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(arguments, Mapping):
        return
    kind, own = snake_case(str(config.get("class_name"))), arguments.get("name")
    full = f"{name}.{own}".lstrip(".") if isinstance(own, str) and depth and kind != "stacked_rnn_cells" else name
    if full != name:
        yield full, KerasLayer(kind, arguments)
    for key, value in arguments.items():
        inner = value if isinstance(value, list) else [value]
        for item in inner:
            if key == "layer" and kind == "bidirectional":  # its two layers are named after the one it was given
                yield from _both_directions(item, full, depth)
            elif key in ("layers", "layer", "cell", "cells", "forward_layer", "backward_layer"):
                yield from layers_of(item, full, depth + 1)


def _both_directions(config: object, name: str, depth: int) -> Iterator[tuple[str, KerasLayer]]:
    for place, layer in layers_of(config, "", depth + 1):
        for direction in ("forward", "backward"):
            yield f"{name}.{direction}_{place}", layer


def snake_case(name: str) -> str:
    """Return a class name in snake case, as keras.src.utils.naming.to_snake_case does."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def layer_at(names: Sequence[str], stored: Sequence[str], layers: Mapping[str, KerasLayer]) -> KerasLayer:
    """Return the layer that owns a variable, by the names of the layers around it and of the groups that store them."""
    known = layers.get(".".join(names))
    if known is not None:
        return known
    # a cell of a recurrent layer and the projections of an attention have no entry in the configuration
    around = layers.get(".".join(names[:-1])) if len(names) > 1 else None
    outer = around.kind if around is not None else _class_of_group(stored[-2] if len(stored) > 1 else "")
    if names and outer.removesuffix("s") in ("lstm", "gru", "simple_rnn", "conv_lstm1d", "conv_lstm2d", "conv_lstm3d"):
        return KerasLayer(f"{outer}_cell", around.arguments if around is not None else {})
    if "attention" in outer and names:
        return KerasLayer("attention_output" if "output" in names[-1] else "attention_input")
    own = (
        names[-1]
        if names and (not stored or stored[-1] in ("layer", "cell", "forward_layer", "backward_layer"))
        else ""
    )
    return KerasLayer(_class_of_group(own or (stored[-1] if stored else "")))


def _class_of_group(group: str) -> str:
    """Return the class that Keras names a group or a layer after: ``dense`` for ``dense_1``."""
    return re.sub(r"_\d+$", "", re.sub("^(forward|backward)_", "", group))


def variable(layer: KerasLayer, name: str, shape: tuple[int, ...]) -> Variable:
    """Return what a variable of a layer is; ``name`` is its name or its number."""
    kind, sides = layer.kind, len(shape)
    name = _variable_name(kind, name)
    if kind == "spectral_normalization":  # its file holds the kernel of the layer inside once more
        return Variable(name, reason=f"{name}: kept by the spectral normalisation of a layer, which has the weight")
    if NO_WEIGHT.fullmatch(name):
        return Variable(name, reason=f"{name}: not the weight of a matrix product")
    if kind in GATES and name in CELL and sides == 2:
        gates = GATES[kind]
        role = LayerRole(recurrent_type(gates), (1, 0), gates=gates)
        return Variable("weight_hh_l0" if name == "recurrent_kernel" else "weight_ih_l0", role)
    if kind.startswith("conv_lstm") and name in CELL and 3 <= sides <= 5:
        stacked = _kernel(kind, shape, {})
        return Variable(name, stacked and replace(stacked, gates=GATES["lstm_cell"]))
    if name == "embeddings" and sides == 2:
        return Variable("weight", LayerRole("embedding"))
    if "depthwise" in kind or name == "depthwise_kernel":  # (*positions, in, multiplier)
        flat = (*shape[:-2], 1, shape[-2] * shape[-1]) if 3 <= sides <= 5 else shape
        return Variable("weight" if name == "kernel" else name, _kernel(kind, flat, {}), shape=flat)
    if "conv" in kind and name in ("kernel", "pointwise_kernel") and 3 <= sides <= 5:
        return Variable("weight" if name == "kernel" else name, _kernel(kind, shape, layer.arguments))
    if kind in ("attention_input", "attention_output", "einsum_dense") and name == "kernel":
        return _einsum(layer, shape)
    if sides == 2:
        return Variable("weight" if name == "kernel" else name, LayerRole("dense", (1, 0)))
    return Variable("weight" if name == "kernel" else name)


def _variable_name(kind: str, name: str) -> str:
    """Return the name of a variable that a file numbers; the number if the class of its layer is unknown."""
    if not name.isdecimal() or len(name) > 2:
        return name
    names: tuple[str, ...] = ()
    if kind.endswith("_cell"):
        names = CELL
    elif kind == "embedding" or kind == "reversible_embedding":
        names = ("embeddings",)
    elif kind.startswith("separable_conv"):
        names = SEPARABLE
    elif kind in ("dense", "einsum_dense", "attention_input", "attention_output") or "conv" in kind:
        names = KERNEL
    elif kind == "spectral_normalization":
        names = ("kernel", "vector_u")
    elif kind.endswith("normalization"):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
    elif kind == "p_re_lu":
        names = ("alpha",)
    return names[int(name)] if int(name) < len(names) else name


def _kernel(kind: str, shape: tuple[int, ...], arguments: Mapping[str, Any]) -> LayerRole | None:
    """Return the role of a kernel ``(*positions, in, out)``."""
    sides, groups = len(shape), arguments.get("groups", 1)
    if sides < 3:
        return None
    if not isinstance(groups, int) or groups < 1 or shape[-1] % groups:
        groups = 1
    axes = (sides - 1, sides - 2, *range(sides - 2))
    return LayerRole(f"conv{'_transpose' * ('transpose' in kind)}{sides - 2}d", axes, groups=groups)


def _einsum(layer: KerasLayer, shape: tuple[int, ...]) -> Variable:
    """Return the kernel of an EinsumDense, also within an attention, as the matrix that its equation makes of it."""
    # the projections of an attention are (in, heads, size) and (heads, size, out)
    equation = {"attention_input": "abc,cde->abde", "attention_output": "abcd,cde->abe"}.get(
        layer.kind, layer.arguments.get("equation")
    )
    found = einsum_matrix(equation, 1, shape) if isinstance(equation, str) else None
    if found is not None:
        role = LayerRole("dense" if len(found.shape) == 2 else "stack")
        return Variable("weight", role, axes=found.axes, shape=found.shape)
    if len(shape) == 2:
        return Variable("weight", LayerRole("dense", (1, 0)))
    return Variable("weight", reason="the kernel of an EinsumDense whose equation is unknown: save the model as .keras")
