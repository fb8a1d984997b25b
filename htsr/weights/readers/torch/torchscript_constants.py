"""List the constants of a TorchScript file: the weights of a frozen or traced model, which no module holds any longer.

``torch.jit.freeze`` moves the parameters of a model into ``constants.pkl``, and the code calls them ``CONSTANTS.c0``, and so on.
The code is parsed as text and never run: the operation that takes a constant tells what it is.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from htsr.weights.inventory import StoredTensor, never_read
from htsr.weights.recurrent import recurrent_type
from htsr.weights.roles import LayerRole

# Operations of torch, with the position of their weight among the arguments and its role.
WEIGHTS = {
    "linear": {1: "dense"},
    "matmul": {0: "dense", 1: "dense"},
    "mm": {0: "dense", 1: "dense"},
    "bmm": {0: "stack", 1: "stack"},
    "addmm": {2: "dense"},
    "embedding": {0: "embedding"},
    "embedding_bag": {0: "embedding"},
    "bilinear": {2: "bilinear"},
} | {f"conv{n}d": {1: f"conv{n}d"} for n in (1, 2, 3)}
WEIGHTS |= {f"conv_transpose{n}d": {1: f"conv_transpose{n}d"} for n in (1, 2, 3)}
# Recurrent operations and their gates in torch's order. A level has weight_ih, weight_hh and, mostly, two biases.
GATES = {"lstm": "ifgo", "gru": "rzn", "rnn_tanh": "", "rnn_relu": "", "lstm_cell": "ifgo", "gru_cell": "rzn",
         "rnn_tanh_cell": "", "rnn_relu_cell": ""}  # fmt: skip
# Operations that give the same matrix, or its transpose.
TURNS = {"t", "numpy_T", "contiguous", "detach", "to"}
# A chain of variables that is longer than this is none that torch wrote.
MAX_DEPTH = 16
# Where the list of the weights stands among the arguments of a recurrent layer.
LEVELS = 2
# Where the number of groups stands among the arguments of a convolution.
GROUPS = 6


@dataclass(frozen=True)
class Use:
    """An operation that takes a constant.

    Attributes:
        operation: Its name in torch: ``linear``.
        place: The position of the constant, or of the list that holds it, among the arguments.
        groups: The number of groups of a convolution; None if the code does not say it.
        projection: Whether it projects the state of an LSTM.
    """

    operation: str
    place: int
    groups: int | None = None
    projection: bool = False


def uses_of_constants(codes: Sequence[str]) -> dict[str, list[Use]]:
    """Return the operations that take each constant, by its name in the code."""
    uses: dict[str, list[Use]] = {}
    for code in codes:
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # code that torch did not write
            continue
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            nodes = list(ast.walk(function))
            assigned = {
                target.id: node.value
                for node in nodes
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for node in nodes:
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    for name, use in _uses_in(node.func.attr, node.args, assigned):
                        uses.setdefault(name, []).append(use)
    return uses


def _uses_in(
    operation: str, arguments: Sequence[ast.expr], assigned: Mapping[str, ast.expr]
) -> Iterator[tuple[str, Use]]:
    """Yield the constants among the arguments of a call, also those behind a variable or a view."""
    groups = None
    if operation == "_convolution" and len(arguments) > 8:  # has the sizes of the kernel, and whether it is transposed
        sides, turned = arguments[3], arguments[6]
        number = len(sides.elts) if isinstance(sides, ast.List) else 0
        transposed = isinstance(turned, ast.Constant) and turned.value is True
        operation = f"conv{'_transpose' * transposed}{number}d"
        arguments = [*arguments[:GROUPS], arguments[8]]
    if operation.startswith("conv"):
        last = arguments[GROUPS] if len(arguments) > GROUPS else ast.Constant(1)
        groups = last.value if isinstance(last, ast.Constant) and isinstance(last.value, int) else None
    for place, argument in enumerate(arguments):
        found = _behind(argument, assigned)
        items = found.elts if isinstance(found, ast.List) else [found]
        own = _weights_of_level(len(items), arguments) if operation == "lstm" and place == LEVELS else 0
        for number, item in enumerate(items):
            constant = _behind(item, assigned)
            if isinstance(constant, ast.Attribute) and isinstance(constant.value, ast.Name):
                if constant.value.id == "CONSTANTS":
                    yield constant.attr, Use(operation, place, groups, own in (3, 5) and number % own == own - 1)


def _weights_of_level(count: int, arguments: Sequence[ast.expr]) -> int:
    """Return how many of the ``count`` tensors of an LSTM belong to one level and direction; 0 if the code does not say it."""
    # lstm(input, hx, weights, has_biases, num_layers, dropout, train, bidirectional, batch_first)
    values = [item.value if isinstance(item, ast.Constant) else None for item in arguments]
    if len(values) < 8 or not isinstance(values[4], int) or not isinstance(values[7], bool) or values[4] < 1:
        return 0
    return count // (values[4] * (1 + values[7]))


def _behind(value: ast.expr, assigned: Mapping[str, ast.expr]) -> ast.expr:
    """Return the expression behind variables, annotations and operations that turn a matrix."""
    for _ in range(MAX_DEPTH):
        if isinstance(value, ast.Name) and value.id in assigned:
            value = assigned[value.id]
        elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "annotate":
            value = value.args[-1] if value.args else value.func
        elif isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.args:
            if value.func.attr not in TURNS:
                break
            value = value.args[0]
        else:
            break
    return value


def constant_with_role(stored: StoredTensor, uses: Sequence[Use]) -> StoredTensor:
    """Return a constant with the role that the first operation using it as a weight gives it, or with a reason."""
    if stored.reason is not None:
        return stored
    for use in uses:
        role = _role(use, stored.shape)
        if role is not None:
            unknown = use.operation.startswith("conv") and use.groups is None
            note = "the file does not say into how many groups this convolution is divided" if unknown else ""
            return replace(stored, role=role, note=note)
    what = f"argument {uses[0].place} of {uses[0].operation}" if uses else "a constant that no operation takes directly"
    return replace(stored, read=never_read, reason=f"{what}: not known to be the weight of a matrix product")


def _role(use: Use, shape: tuple[int, ...]) -> LayerRole | None:
    """Return the role that an operation gives to a constant of this shape; None if it is no weight there."""
    sides = len(shape)
    if use.operation in GATES:
        gates = GATES[use.operation]
        if use.projection:
            return LayerRole(recurrent_type(gates)) if sides == 2 else None
        fits = use.place >= LEVELS and sides == 2 and shape[0] % max(len(gates), 1) == 0
        return LayerRole(recurrent_type(gates), gates=gates) if fits else None
    layer_type = WEIGHTS.get(use.operation, {}).get(use.place)
    if layer_type is None or sides < 2:
        return None
    if layer_type.startswith("conv"):
        if sides != int(layer_type[-2]) + 2:
            return None
        groups = use.groups or 1
        return LayerRole(layer_type, groups=groups if groups > 0 and shape[0] % groups == 0 else 1)
    if layer_type == "bilinear":
        return LayerRole(layer_type) if sides == 3 else None
    return LayerRole("stack" if sides > 2 else layer_type)
