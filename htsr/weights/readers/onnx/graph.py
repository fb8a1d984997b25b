"""Walk through an ONNX model, its subgraphs and its local functions, and note which operation uses which constant."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htsr.errors import InputError
from htsr.weights.readers.onnx.constants import Address, Constant, constant_of_node, initializers
from htsr.weights.readers.onnx.values import Value, constants_of, folded, split_values

# A model that unrolls to more operations than this, through functions that call functions, or whose subgraphs are deeper, is
# refused. The largest language models have some 20,000 operations.
MAX_NODES, MAX_DEPTH = 1_000_000, 32

Scope = ChainMap[str, "Value | None"]


@dataclass(frozen=True)
class Use:
    """One operation that uses a value made of constants.

    Attributes:
        node: The operation.
        place: The position of the value among its inputs.
        inputs: All of its inputs that are made of constants, None for the others.
        scale: The constant by which the graph multiplies the result of an integer product or look-up, if there is one.
        zero: The zero point that the graph subtracts from the result of an integer look-up, if there is one.
    """

    node: Any
    place: int
    inputs: tuple[Value | None, ...]
    scale: Value | None = None
    zero: Value | None = None

    @property
    def value(self) -> Value:
        """The value that is used."""
        value = self.inputs[self.place]
        assert value is not None
        return value


@dataclass
class Walk:
    """What a walk through a model found.

    Attributes:
        path: The file.
        model: The parsed model.
        constants: Every constant that the model stores, by its address.
        uses: The operations that use each constant, itself or in a chain.
        biases: The name of the constant that is added to a matrix product, by the name of the product.
    """

    path: Path
    model: Any
    constants: dict[Address, Constant] = field(default_factory=dict)
    uses: dict[Address, list[Use]] = field(default_factory=dict)
    biases: dict[str, str] = field(default_factory=dict)
    _nodes: int = 0

    def __post_init__(self) -> None:
        """Walk through the model."""
        functions = enumerate(self.model.functions)
        self._functions = {(item.domain, item.name): (item, (("functions", number),)) for number, item in functions}
        versions = {item.domain: item.version for item in self.model.opset_import}
        self._opset = versions.get("", versions.get("ai.onnx", 1))
        self._graph(self.model.graph, (("graph", None),), ChainMap(), 0)

    def _graph(self, graph: Any, address: Address, outer: Scope, depth: int) -> None:
        """Walk through a graph, which sees the names of the graph around it."""
        scope = outer.new_child({item.name: None for item in graph.input})
        for constant in initializers(graph, address):
            self.constants.setdefault(constant.address, constant)
            scope[constant.name] = constant
        self._body(graph.node, address, scope, depth)

    def _body(self, nodes: Sequence[Any], address: Address, scope: Scope, depth: int) -> None:
        """Walk through a list of nodes."""
        if depth > MAX_DEPTH:
            raise InputError(f"{self.path}: its subgraphs or functions are more than {MAX_DEPTH} levels deep: refused")
        readers: dict[str, list[Any]] = {}
        for number, node in enumerate(nodes):
            self._nodes += 1
            if self._nodes > MAX_NODES:
                raise InputError(f"{self.path}: it unrolls to more than {MAX_NODES:,} operations: refused")
            for name in node.input:
                readers.setdefault(name, []).append(node)
            self._node(node, (*address, ("node", number)), scope, depth)
        writers = {name: node for node in nodes for name in node.output}
        for node in nodes:
            inputs = tuple(scope.get(name) for name in node.input)
            self._note_bias(node, inputs, readers, scope)
            if node.op_type in ("MatMulInteger", "ConvInteger"):
                self._used(node, inputs, _scales_after(node, readers, writers, scope)[1])
            elif _looks_up_integers(node, inputs):
                self._used(node, inputs, *_scale_of_rows(node, readers, writers, scope))

    def _note_bias(
        self, node: Any, inputs: Sequence[Value | None], readers: Mapping[str, list[Any]], scope: Scope
    ) -> None:
        """Note which constant is added to the result of a node, if it is a matrix product."""
        added: list[str] = []
        if node.op_type == "Gemm" and len(inputs) > 2 and inputs[2] is not None:
            added = [node.input[2]]
        elif node.op_type == "MatMul" and node.output:
            sums = [reader for reader in readers.get(node.output[0], ()) if reader.op_type == "Add"]
            added = [name for reader in sums for name in reader.input if scope.get(name) is not None]
        if len(added) == 1:
            self.biases[node.output[0]] = added[0]

    def _node(self, node: Any, address: Address, scope: Scope, depth: int) -> None:
        """Note what one node stores, computes from constants, or uses."""
        if node.op_type == "Constant" and node.output:
            constant = constant_of_node(node, address)
            if constant is not None:
                self.constants.setdefault(address, constant)
                scope[node.output[0]] = self.constants[address]
            return
        inputs = tuple(scope.get(name) if name else None for name in node.input)
        for name in node.output:  # an inner name may hide a constant of the graph around it
            scope[name] = None
        function = self._functions.get((node.domain, node.op_type))
        if function is not None:
            self._call(node, *function, inputs, scope, depth)
            return
        for number, attribute in enumerate(node.attribute):
            place = (*address, ("attribute", number))
            if attribute.HasField("g"):
                self._graph(attribute.g, (*place, ("g", None)), scope, depth + 1)
            for position, graph in enumerate(attribute.graphs):
                self._graph(graph, (*place, ("graphs", position)), scope, depth + 1)
        pieces = split_values(self.path, node, inputs)
        if pieces:
            scope.update(zip(node.output, pieces, strict=True))
            return
        value = folded(self.path, self.model, node, inputs, self._opset)
        if value is not None:
            scope[node.output[0]] = value
        elif node.op_type not in ("MatMulInteger", "ConvInteger") and not _looks_up_integers(node, inputs):
            self._used(node, inputs)

    def _call(
        self, node: Any, function: Any, address: Address, inputs: Sequence[Value | None], scope: Scope, depth: int
    ) -> None:
        """Walk through the body of a function with the constants that a call hands to it."""
        inner: Scope = ChainMap(dict(zip(function.input, inputs, strict=False)))
        self._body(function.node, address, inner, depth + 1)
        for outside, inside in zip(node.output, function.output, strict=False):
            scope[outside] = inner.get(inside)

    def _used(
        self, node: Any, inputs: tuple[Value | None, ...], scale: Value | None = None, zero: Value | None = None
    ) -> None:
        """Note that a node uses constants."""
        for place, value in enumerate(inputs):
            for constant in constants_of(value) if value is not None else ():
                self.uses.setdefault(constant.address, []).append(Use(node, place, inputs, scale, zero))
        if scale is not None:
            for constant in constants_of(scale):
                self.uses.setdefault(constant.address, []).insert(0, Use(node, len(inputs), (*inputs, scale)))


def _looks_up_integers(node: Any, inputs: Sequence[Value | None]) -> bool:
    """Return whether a node takes rows out of a table of 8-bit integers."""
    table = inputs[0] if inputs else None
    return node.op_type == "Gather" and table is not None and constants_of(table)[0].dtype in ("int8", "uint8")


def _scale_of_rows(
    node: Any, readers: Mapping[str, list[Any]], writers: Mapping[str, Any], scope: Scope
) -> tuple[Value | None, Value | None]:
    """Return the scale and the zero point that the graph applies to the integers that a node looked up, if it has them."""
    name = node.output[0] if node.output else ""
    for reader in readers.get(name, ()):
        inputs = [scope.get(item) for item in reader.input]
        if reader.op_type == "MatMulInteger" and reader.input[0] == name:
            left, _ = _scales_after(reader, readers, writers, scope)
            return left, inputs[2] if len(inputs) > 2 else None
        if reader.op_type.startswith(("DequantizeLinear", "QLinear", "QGemm")) and reader.input[0] == name:
            return inputs[1], inputs[2] if len(inputs) > 2 else None
    return None, None


def _scales_after(
    node: Any, readers: Mapping[str, list[Any]], writers: Mapping[str, Any], scope: Scope
) -> tuple[Value | None, Value | None]:
    """Return the scales of both factors of an integer product, which the graph applies to the result: Cast, then Mul."""
    # onnxruntime writes Mul(Cast(MatMulInteger(x, w)), Mul(scale of x, scale of w)); mostly, only that of w is a constant
    name = node.output[0] if node.output else ""
    for reader in readers.get(name, ()):
        if reader.op_type == "Cast" and reader.output:
            name = reader.output[0]
    for reader in readers.get(name, ()):
        if reader.op_type != "Mul" or name not in reader.input:
            continue
        for other in reader.input:
            product = writers.get(other)
            if other != name and product is not None and product.op_type == "Mul":
                left, right = (scope.get(factor) for factor in product.input)
                return (left, right) if left is not None and right is not None else (None, left or right)
            if other != name and scope.get(other) is not None:
                return None, scope[other]
    return None, None
