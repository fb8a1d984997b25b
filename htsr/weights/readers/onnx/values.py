"""Values that an ONNX graph computes from its constants alone: a weight behind Transpose, Reshape, Cast or DequantizeLinear.

Such a value is a recipe: operations on constants, with the shape of the result. Nothing is computed before the weight is read;
then onnx.reference runs the graph's own operations, one weight at a time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from htsr.errors import InputError
from htsr.weights.readers.onnx.constants import Constant, parse_model, read_constant

# A recipe with more operations than this is no chain that an exporter wrote.
MAX_OPERATIONS = 64
# Shapes, axes and the like are constants with at most this many values.
MAX_SETTINGS = 64


@dataclass(frozen=True)
class Computed:
    """A value that operations compute from constants.

    Attributes:
        operation: Computes the value from its inputs.
        inputs: The inputs, None for one that is left out.
        shape: The shape of the value.
    """

    operation: Callable[..., np.ndarray]
    inputs: tuple["Value | None", ...]
    shape: tuple[int, ...]


Value = Constant | Computed


def constants_of(value: Value) -> list[Constant]:
    """Return the constants from which a value is computed, the largest first; int64, the type of shapes and axes, comes last."""
    found = dict.fromkeys(leaf for leaf in _leaves(value))
    return sorted(found, key=lambda constant: (constant.dtype == "int64", -math.prod(constant.shape)))


def _leaves(value: Value) -> Iterator[Constant]:
    if isinstance(value, Constant):
        yield value
        return
    for item in value.inputs:
        if item is not None:
            yield from _leaves(item)


def _operations(value: Value | None) -> int:
    return 1 + sum(map(_operations, value.inputs)) if isinstance(value, Computed) else 0


def compute(
    operation: Callable[..., np.ndarray], inputs: Sequence[Value | None], shape: Sequence[int]
) -> Computed | None:
    """Return a value computed from others; None if it would take more work than a weight's chain does."""
    value = Computed(operation, tuple(inputs), tuple(int(size) for size in shape))
    if _operations(value) > MAX_OPERATIONS:
        return None
    # packed types aside, which ``operation`` unpacks, no chain makes more elements than its constants have
    stored = sum(math.prod(constant.shape) for constant in constants_of(value))
    return value if math.prod(value.shape) <= 8 * stored else None


def evaluate(path: Path, value: Value, rows: slice | None = None) -> np.ndarray:
    """Return the values of a constant or of a recipe, or some of their rows."""
    model = parse_model(path)
    if isinstance(value, Constant):
        return read_constant(path, model, value, rows)
    inputs = [None if item is None else evaluate(path, item) for item in value.inputs]
    try:
        result = value.operation(*inputs)
    except InputError:
        raise
    except Exception as err:  # onnx.reference raises what numpy raises
        raise InputError(
            f"{path}: a weight cannot be computed from its constants ({type(err).__name__}: {err})"
        ) from err
    return result if rows is None else result[rows]


def folded(path: Path, model: Any, node: Any, inputs: Sequence[Value | None], opset: int) -> Value | None:
    """Return what a node computes if all of its inputs are constants and it belongs in the chain of a weight."""
    if not inputs or any(value is None and name for value, name in zip(inputs, node.input, strict=True)):
        return None
    if node.domain not in ("", "ai.onnx") or inputs[0] is None or not node.output:
        return None
    try:
        shape = _shape(path, model, node, inputs)
    except (
        ValueError,
        IndexError,
        TypeError,
        OverflowError,
        ZeroDivisionError,
        InputError,
    ):  # settings that do not fit the shape
        return None
    if shape is None:
        return None
    if node.op_type == "Identity":
        return inputs[0]
    if node.op_type in (
        "DequantizeLinear",
        "QuantizeLinear",
    ):  # onnx.reference has no older version of it; they compute the same
        opset = max(opset, 19)
    return compute(partial(run_node, node.SerializeToString(), opset), inputs, shape)


def split_values(path: Path, node: Any, inputs: Sequence[Value | None]) -> list[Value | None]:
    """Return the pieces into which a Split cuts a value made of constants; empty if the sizes are unknown."""
    if node.op_type != "Split" or node.domain not in ("", "ai.onnx") or not inputs or inputs[0] is None:
        return []
    shape, settings, count = inputs[0].shape, attributes(node), len(node.output)
    sizes = settings.get("split")
    if len(inputs) > 1 and node.input[1]:
        listed = inputs[1]
        if listed is None or sum(math.prod(constant.shape) for constant in constants_of(listed)) > MAX_SETTINGS:
            return []
        sizes = [int(size) for size in evaluate(path, listed).ravel()]
    axis = settings.get("axis", 0)
    if not -len(shape) <= axis < len(shape):
        return []
    axis %= len(shape)
    if sizes is None:  # equal pieces, of which the last one may be smaller
        size = -(-shape[axis] // count)
        sizes = [size] * (count - 1) + [shape[axis] - size * (count - 1)]
    if len(sizes) != count or sum(sizes) != shape[axis] or min(sizes) < 0:
        return []
    starts = [sum(sizes[:number]) for number in range(count)]
    return [
        compute(partial(piece, axis, start, size), [inputs[0]], (*shape[:axis], size, *shape[axis + 1 :]))
        for start, size in zip(starts, sizes, strict=True)
    ]


def piece(axis: int, start: int, size: int, array: np.ndarray) -> np.ndarray:
    """Return some indices along an axis of an array."""
    return np.take(array, range(start, start + size), axis)


def whole(value: Value, constant: Constant) -> Value:
    """Return the value with all elements of a constant from which a value was cut; the value itself if nothing was cut."""
    found: Value | None = value
    if "float" not in constant.dtype:  # packed integers may have padding
        return value
    while isinstance(found, Computed) and math.prod(found.shape) < math.prod(constant.shape):
        found = next((item for item in found.inputs if item is not None and constant in _leaves(item)), None)
    return value if found is None else found


def run_node(serialised: bytes, opset: int, *inputs: np.ndarray | None) -> np.ndarray:
    """Run one node with onnx.reference."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    node = onnx.NodeProto.FromString(serialised)
    names = [f"input{number}" if array is not None else "" for number, array in enumerate(inputs)]
    del node.input[:], node.output[:]
    node.input.extend(names)
    node.output.append("output")
    unknown = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None)
        for name in (*filter(None, names), "output")
    ]
    graph = onnx.helper.make_graph([node], "node", unknown[:-1], unknown[-1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    given = {name: array for name, array in zip(names, inputs, strict=True) if name}
    (result,) = ReferenceEvaluator(model).run(None, given)
    return np.asarray(result)


def scaled(
    form: tuple[int, ...],
    zero_form: tuple[int, ...],
    weight: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray | None = None,
) -> np.ndarray:
    """Return ``(weight - zero) * scale`` with scale and zero point in these shapes, which broadcast against the weight."""
    values = weight.astype(np.float32)
    if zero is not None:
        values = values - zero.astype(np.float32).reshape(zero_form)
    return values * scale.reshape(form)


def matrix(axes: tuple[int, ...], shape: tuple[int, ...], weight: np.ndarray) -> np.ndarray:
    """Return a weight with its axes in another order, then in another shape."""
    return weight.transpose(axes).reshape(shape)


def attributes(node: Any) -> dict[str, Any]:
    """Return the attributes of a node by name, without graphs."""
    import onnx

    return {
        item.name: onnx.helper.get_attribute_value(item)
        for item in node.attribute
        if not item.ref_attr_name and item.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    }


def _shape(path: Path, model: Any, node: Any, inputs: Sequence[Value | None]) -> tuple[int, ...] | None:
    """Return the shape of what a node computes; None if it is no operation of a weight's chain."""
    first, *rest = inputs
    assert first is not None
    shape, settings = first.shape, attributes(node)

    def numbers(place: int, name: str = "") -> list[int] | None:
        """Return a list of numbers that is an input or, in older versions of ONNX, an attribute."""
        value = inputs[place] if place < len(inputs) else None
        if value is not None and sum(math.prod(constant.shape) for constant in constants_of(value)) <= MAX_SETTINGS:
            return [int(number) for number in evaluate(path, value).ravel()]
        found = settings.get(name)
        return None if found is None or value is not None else [int(number) for number in found]

    match node.op_type:
        case "Identity" | "Cast" | "Sqrt" | "Abs" | "Exp" | "Neg" | "Reciprocal":
            return shape
        case (
            "ReduceMean" | "ReduceSum" | "ReduceL2" | "ReduceSumSquare"
        ):  # of a weight that is standardised or normalised
            reduced = numbers(1, "axes")
            gone = {range(len(shape))[axis] for axis in (range(len(shape)) if reduced is None else reduced)}
            kept = [1 if axis in gone else size for axis, size in enumerate(shape)]
            return (
                tuple(kept)
                if settings.get("keepdims", 1)
                else tuple(size for i, size in enumerate(shape) if i not in gone)
            )
        case "Gather" if len(shape) > 2 and numbers(1) is not None and rest[0] is not None and not rest[0].shape:
            axis = range(len(shape))[settings.get("axis", 0)]  # one matrix of a stack
            return (*shape[:axis], *shape[axis + 1 :])
        case "DequantizeLinear" | "QuantizeLinear":  # both in a row: what training with quantisation exports
            return shape if _scales_fit(shape, rest, settings) else None
        case "Transpose":
            axes = settings.get("perm", range(len(shape))[::-1])
            return tuple(shape[axis] for axis in axes) if sorted(axes) == list(range(len(shape))) else None
        case "Reshape":
            wanted = numbers(1, "shape")
            if wanted is None:
                return None
            wanted = [
                shape[i] if size == 0 and not settings.get("allowzero") else size for i, size in enumerate(wanted)
            ]
            return _reshaped(shape, wanted)
        case "Flatten":
            axis = range(len(shape) + 1)[settings.get("axis", 1)]
            return math.prod(shape[:axis]), math.prod(shape[axis:])
        case "Squeeze":
            axes = numbers(1, "axes") or [axis for axis, size in enumerate(shape) if size == 1]
            gone = {range(len(shape))[axis] for axis in axes}
            return tuple(size for axis, size in enumerate(shape) if axis not in gone)
        case "Unsqueeze":
            axes = numbers(1, "axes")
            if axes is None:
                return None
            new = {range(len(shape) + len(axes))[axis] for axis in axes}
            sizes = iter(shape)
            return tuple(1 if axis in new else next(sizes) for axis in range(len(shape) + len(new)))
        case "Slice":
            starts, ends = numbers(1, "starts"), numbers(2, "ends")
            if starts is None or ends is None:
                return None
            axes, steps = numbers(3, "axes") or range(len(starts)), numbers(4, "steps") or [1] * len(starts)
            kept = list(shape)
            for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
                kept[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
            return tuple(kept)
        case "Concat":
            axis = range(len(shape))[settings["axis"]]
            others = [value.shape for value in rest if value is not None]
            if any(len(other) != len(shape) for other in others):
                return None
            return (*shape[:axis], shape[axis] + sum(other[axis] for other in others), *shape[axis + 1 :])
        case "Mul" | "Sub" | "Add" | "Div" | "Pow" | "Max" | "Min":
            shapes = [value.shape for value in inputs if value is not None]
            result = np.broadcast_shapes(*shapes)
            return result if math.prod(result) == max(map(math.prod, shapes)) else None
    return None


def _reshaped(shape: Sequence[int], wanted: list[int]) -> tuple[int, ...] | None:
    """Return the shape that Reshape gives, where -1 stands for one unknown size; None if it does not fit."""
    known, size = math.prod(side for side in wanted if side != -1), math.prod(shape)
    found = tuple(size // known if side == -1 else side for side in wanted) if known > 0 else ()
    return found if math.prod(found) == size and wanted.count(-1) < 2 else None


def _scales_fit(shape: tuple[int, ...], others: Sequence[Value | None], settings: dict[str, Any]) -> bool:
    """Return whether scale and zero point hold one value for the tensor, for each index of an axis, or for each block of it."""
    axis, block = settings.get("axis", 1), settings.get("block_size", 0)
    scale = others[0].shape if others and others[0] is not None else None
    if scale is None:
        return False
    for zero in others[1:]:
        if zero is not None and zero.shape != scale and math.prod(zero.shape) * math.prod(scale) != 1:
            return False
    if block > 0:
        axis = range(len(shape))[axis]
        return scale == (*shape[:axis], -(-shape[axis] // block), *shape[axis + 1 :])
    return math.prod(scale) == 1 or scale == (shape[range(len(shape))[axis]],)
