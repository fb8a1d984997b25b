"""List the weights of an ONNX model.

A weight may be an initializer, the value of a Constant node, or what the graph makes of these: transposed, reshaped,
dequantised. ``constants`` finds and reads what is stored, ``values`` computes with it, ``graph`` walks through
the graph, and ``weights`` says what an operation does with it.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, StoredTensor, never_read
from htsr.weights.metadata import bounded_metadata
from htsr.weights.readers.onnx.constants import Constant, parse_model
from htsr.weights.readers.onnx.graph import Use, Walk
from htsr.weights.readers.onnx.values import Value, constants_of, evaluate, whole
from htsr.weights.readers.onnx.weights import ANONYMOUS, Weight, weight_of
from htsr.weights.roles import LayerRole

# Levels of a recurrent layer that get names of their own.
MAX_LEVELS = 100


def read_onnx(path: Path) -> Listing:
    """List the constants of a model in its order, each with the role that the operation using it implies."""
    model = parse_model(path)
    walk = Walk(path, model)
    tensors: list[StoredTensor] = []
    names: set[str] = set()
    for constant in walk.constants.values():
        stored = _stored(walk, constant, names)
        names.add(stored.key)
        tensors.append(stored)
    return Listing(str(path), tensors, metadata=bounded_metadata(_about(model)))


def _about(model: Any) -> dict[str, object]:
    """Return who made a model, and the properties that they gave it."""
    made = {name: getattr(model, name) for name in ("producer_name", "producer_version", "domain", "doc_string")}
    return {name: text for name, text in made.items() if text} | {p.key: p.value for p in model.metadata_props}


def _stored(walk: Walk, constant: Constant, names: Collection[str]) -> StoredTensor:
    """List one constant by its first use as a weight, or with the reason why no operation uses it as one."""
    name = constant.name
    reasons: list[str] = []
    is_part = False
    for use in walk.uses.get(constant.address, ()):
        main = constants_of(use.value)[0]
        if main != constant:
            is_part = is_part or not reasons
            reasons.append(f"a scale, a zero point, a shape or a part of {main.name}")
            continue
        is_part = is_part or use.place >= len(use.node.input)  # a scale that the graph applies after the operation
        found = weight_of(use, name)
        if isinstance(found, Weight):
            found = _uncut(found, constant)
            return _weight(walk, constant, use, found, names)
        reasons.append(found)
    key = _distinct(name, constant, names)
    if reasons:
        return StoredTensor(
            key,
            constant.shape,
            constant.dtype,
            never_read,
            longkey=name,
            reason=reasons[0],
            # integers that belong to no weight are shapes and positions
            num_params=0 if is_part or re.match("u?int|bool", constant.dtype) else None,
        )
    return StoredTensor(key, constant.shape, constant.dtype, partial(_read, walk.path, constant), longkey=name)


def _uncut(weight: Weight, constant: Constant) -> Weight:
    """Return a weight with all of its constant, if several operations share its parts or one of them takes a part of it."""
    value = whole(weight.value, constant)
    if value is weight.value:
        return weight
    role = weight.role
    if role is None or len(value.shape) == 2:  # its name tells how it is to be cut
        role = role if role is not None and role.layer_type == "embedding" else None
    elif not role.layer_type.startswith("conv") or len(value.shape) != len(weight.value.shape):
        role = LayerRole("stack")
    return replace(weight, value=value, role=role)


def _weight(walk: Walk, constant: Constant, use: Use, weight: Weight, names: Collection[str]) -> StoredTensor:
    """List a constant that is a weight, with its values as the operation sees them."""
    # a narrow type is a quantised one only if the graph multiplies it by scales
    narrow = re.match("u?int|float[48]_", constant.dtype)
    quantised = narrow is not None and any("float" in scale.dtype for scale in constants_of(weight.value)[1:])
    key = (
        re.sub("(_Transposed)?_quantized$", "", constant.name) if quantised else constant.name
    )  # as onnxruntime names it
    parts = {part.name for part in constants_of(weight.value)[1:]}
    for end, norm in (("_v", "_g"), (".original1", ".original0")):  # the graph computes what weight_norm does
        stem = key.removesuffix(end)
        if stem != key and f"{stem}{norm}" in parts:
            key = stem.replace("parametrizations.", "")
    if ANONYMOUS.match(key):
        taken = {other.name for other in walk.constants.values()}.union(names)
        made = [_name_beside_bias(walk, use), *_made_names(use.node, weight.variable)]
        key = next((name for name in made if name and name not in taken), key)
    key = _distinct(key, constant, names)
    return StoredTensor(
        key=key,
        shape=weight.value.shape,
        dtype=constant.dtype,
        read=partial(_read, walk.path, weight.value),
        longkey=constant.name,
        role=weight.role,
        quantised=quantised,
        note=f"dequantised from {constant.dtype}" if quantised else "",
    )


def _distinct(name: str, constant: Constant, names: Collection[str]) -> str:
    """Return a name that no other constant has: two subgraphs may use the same one."""
    if name not in names:
        return name
    place = ".".join(field if position is None else str(position) for field, position in constant.address[1:])
    return f"{place}.{name}"


def _name_beside_bias(walk: Walk, use: Use) -> str:
    """Return torch's name of a weight, ``attn.in_proj_weight``, by that of the bias which the graph adds; empty if none."""
    bias = walk.biases.get(use.node.output[0], "") if use.node.output else ""
    named = re.fullmatch(r"((?:[\w.]*[._])?)bias((?:_[ih]h)?(?:_l\d+)?(?:_reverse)?)", bias)
    return f"{named.group(1)}weight{named.group(2)}" if named else ""


def _made_names(node: Any, variable: str) -> Iterator[str]:
    """Yield names for a weight without one: after the module of its operation, then after the operation."""
    module, operation = _module(node)
    if module and variable != "weight":  # a recurrent layer of torch becomes one operation for each level
        yield from (f"{module}.{variable}_l{level}" for level in range(MAX_LEVELS))
    elif module:
        yield f"{module}.{variable}"
    if operation:
        yield f"{operation}.{variable}"


def _module(node: Any) -> tuple[str, str]:
    """Return the module from which an operation was exported and the operation's own name; empty if the file has none."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":  # the newer exporter: "['', 'encoder', 'encoder.fc', 'linear']"
            names = re.findall(r"'([^']*)'", entry.value)
            return names[-2] if len(names) > 1 else "", ""
    # The older exporter writes /encoder/fc/MatMul. TensorFlow Lite joins the names of all operations that it fused by semicolons;
    # most of them belong to the layer that has the weight.
    paths = [[part for part in name.split("/") if part] for name in node.name.split(";")]
    modules = [".".join(path[:-1]) for path in paths]
    module = Counter(modules).most_common(1)[0][0]
    return module, ".".join(paths[modules.index(module)]) if module else ""


def _read(path: Path, value: Value, rows: slice | None) -> torch.Tensor:
    """Return a value of the graph as a tensor, or some of its rows."""
    array = evaluate(path, value, rows)
    if array.dtype.name not in ("float16", "float32", "float64") and array.dtype.kind in "fV":  # ml_dtypes
        array = array.astype("float32")
    return as_tensor(array)


def external_files(path: Path) -> list[Path]:
    """Return the files beside a graph, or below, that hold the values of its tensors; some may be missing."""
    names = {
        entry.value
        for tensor in _all_tensors(parse_model(path).graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [
        path.parent / name for name in sorted(names) if not Path(name).is_absolute() and ".." not in Path(name).parts
    ]


def _all_tensors(graph: Any) -> Iterator[Any]:
    """Yield the tensors of a graph, of its operations and of the graphs inside them."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _all_tensors(inner)
