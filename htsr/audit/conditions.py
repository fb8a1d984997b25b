"""Conditions on a table of layers, such as ``alpha > 8``: what a gate in a CI pipeline or a monitor watches for."""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pandas as pd

from htsr.audit import grammar
from htsr.audit.columns import BY_NAME
from htsr.errors import InputError
from htsr.text import escaped, visible

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_AGGREGATES: dict[str, Callable[[pd.Series], float]] = {
    "min": pd.Series.min, "max": pd.Series.max, "mean": pd.Series.mean, "median": pd.Series.median,
}  # fmt: skip

Value = float | str | bool | None


@dataclass(frozen=True)
class Verdict:
    """The result of a condition on a table.

    Attributes:
        condition: The text of the condition.
        names: The layers for which it holds; empty for a condition on the model as a whole.
        holds: Whether it holds for a layer, or for the model.
        unknown: The layers for which the condition could not be evaluated, since a value is missing. They never match.
        values: Layer, or aggregate such as ``median(alpha)``, and the values that were compared, in words.
    """

    condition: str
    holds: bool
    names: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        if self.names:
            shown = ", ".join(f"{visible(name)} ({self.values[name]})" for name in self.names)
            return f"{escaped(self.condition)}: holds for {_layers(len(self.names))}: {shown}"
        shown = ", ".join(f"{name} is {value}" for name, value in self.values.items())
        return f"{escaped(self.condition)}: {'holds' if self.holds else 'does not hold'}" + (
            f" ({shown})" if shown else ""
        )

    def doubts(self) -> str:
        """One sentence on the layers for which it was not evaluated; empty if there are none."""
        if not self.unknown:
            return ""
        return (
            f"{escaped(self.condition)}: not evaluated for {_layers(len(self.unknown))} with missing values (missing values "
            f"never match): {', '.join(map(visible, self.unknown))}"
        )


@dataclass(frozen=True)
class Condition:
    """A condition on the rows of a table, or on the table as a whole.

    Args:
        text: Comparisons (``<  <=  >  >=  ==  !=``, chains such as ``2 < alpha < 6``, ``in`` and ``not in`` a list of values)
            of columns, numbers and quoted texts, joined by ``and``, ``or``, ``not``. ``min``, ``max``, ``mean`` and
            ``median`` of a column, and ``count`` of a condition, are numbers of the whole model; tied layers and missing
            values are left out of them.

    Raises:
        InputError: If the text is not such a condition.
        TypeError: If it is not a text.

    Notes:
        A missing value (NaN, NA, None) makes a comparison neither true nor false, as in SQL: ``not alpha > 8`` does not
        match a layer without alpha either, while ``alpha > 8 or status == 'failed'`` matches it by its status.

    Example:
        >>> table = pd.DataFrame({"name": ["a", "b", "c"], "alpha": [2.5, 9.0, float("nan")]})
        >>> print(Condition("alpha > 8").check(table))
        alpha > 8: holds for 1 layer: b (alpha 9)
        >>> Condition("alpha > 8").check(table).unknown
        ('c',)
        >>> print(Condition("median(alpha) < 2").check(table))
        median(alpha) < 2: does not hold (median(alpha) is 5.75)
    """

    text: str
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"expected a condition such as 'alpha > 8', got {type(self.text).__name__}")
        object.__setattr__(self, "text", self.text.strip())
        object.__setattr__(self, "_tree", grammar.parse(self.text))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, in order of appearance."""
        return tuple(dict.fromkeys(grammar.columns(self._tree)))

    @property
    def of_model(self) -> bool:
        """Whether it is about the whole table only, not about single rows."""
        return not grammar.columns(self._tree, rows_only=True)

    def check_columns(self, table: pd.DataFrame) -> None:
        """Refuse a table that lacks a column, or whose types do not fit; needs no rows.

        Args:
            table: A table, possibly empty.

        Raises:
            InputError: If a column is missing (the message lists those with similar names), a number is compared with a
                text, or a column with a text that it never holds.
        """
        grammar.check_columns(self._tree, table, self.text)

    def check(self, table: pd.DataFrame, scalars: Mapping[str, float] = MappingProxyType({})) -> Verdict:
        """Evaluate the condition on a table.

        Args:
            table: One row a layer, with the columns that the condition names, and ``name`` and ``tied_to`` if it has them.
            scalars: Numbers of the whole model, by name, that the condition may name as it names columns; NaN is missing. A
                column counts before a scalar of its name.

        Returns:
            The verdict.

        Raises:
            InputError: If the table lacks a column, or its types do not fit.
        """
        numbers: dict[str, Value] = {
            name: _known(scalars[name]) for name in self.columns if name in scalars and name not in table
        }
        self.check_columns(table.assign(**dict.fromkeys(numbers, 0.0)))
        model = numbers | _aggregates(self._tree, table, numbers)
        shown = [name for name in dict.fromkeys(grammar.columns(self._tree, rows_only=True)) if name not in numbers]
        if not shown:
            return self._of_model(model)
        names, unknown, values = [], [], {}
        labels = table["name"] if "name" in table else pd.Series([f"row {i}" for i in table.index], dtype="str")
        for name, row in zip(labels, table.to_dict("records"), strict=True):
            holds = _truth(self._tree, row, model)
            if holds is None:
                unknown.append(str(name))
            elif holds:
                names.append(str(name))
                found = {column: _known(row[column]) for column in shown} | numbers
                values[str(name)] = ", ".join(f"{column} {_text(value)}" for column, value in found.items())
        return Verdict(self.text, bool(names), tuple(names), tuple(unknown), values)

    def check_scalars(self, scalars: Mapping[str, float]) -> Verdict:
        """Evaluate a condition that names no column of a table, fast enough for every step of a training.

        Args:
            scalars: The value of each name in the condition; NaN, or no value, is missing.

        Returns:
            The verdict.
        """
        return self._of_model({name: _known(scalars.get(name)) for name in self.columns})

    def _of_model(self, model: Mapping[str, Value]) -> Verdict:
        """Return the verdict on the model as a whole from the numbers in the condition."""
        holds = _truth(self._tree, {}, model)
        return Verdict(
            self.text,
            holds is True,
            unknown=("the model",) if holds is None else (),
            values={name: _text(value) for name, value in model.items()},
        )


def _aggregates(tree: ast.expr, table: pd.DataFrame, numbers: Mapping[str, Value]) -> dict[str, Value]:
    """Return the value of each aggregate in a condition, by its text; None if no layer has a value."""
    own = table[table["tied_to"].fillna("") == ""] if "tied_to" in table else table
    values: dict[str, Value] = {}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        assert isinstance(call.func, ast.Name)
        if call.func.id == "count":
            truths = [_truth(call.args[0], row, numbers) for row in own.to_dict("records")]
            known = [truth for truth in truths if truth is not None]
            values[ast.unparse(call)] = float(sum(known)) if known else None
        else:
            assert isinstance(call.args[0], ast.Name)
            if call.args[0].id in numbers:
                raise InputError(
                    f"{ast.unparse(tree)!r}: {call.func.id} is taken over layers, and {call.args[0].id} is one number of "
                    f"the whole model: write {call.args[0].id} alone"
                )
            column = own[call.args[0].id].astype("Float64").astype("float64")
            values[ast.unparse(call)] = _known(float(_AGGREGATES[call.func.id](column.dropna())))
    return values


def _truth(node: ast.expr, row: Mapping[Any, Any], model: Mapping[str, Value]) -> bool | None:
    """Return True, False, or None if it depends on a missing value (Kleene's logic)."""
    if isinstance(node, ast.BoolOp):
        truths = [_truth(part, row, model) for part in node.values]
        decisive = isinstance(node.op, ast.Or)
        return decisive if decisive in truths else None if None in truths else not decisive
    if isinstance(node, ast.UnaryOp):
        truth = _truth(node.operand, row, model)
        return None if truth is None else not truth
    assert isinstance(node, ast.Compare)
    links = []
    operands = [node.left, *node.comparators]
    for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
        a = _value(left, row, model)
        if isinstance(op, ast.In | ast.NotIn):
            found = None if a is None else a in [_value(part, row, model) for part in grammar.members(right)]
            links.append(found if found is None or isinstance(op, ast.In) else not found)
        else:
            b = _value(right, row, model)
            links.append(None if a is None or b is None else bool(_COMPARISONS[type(op)](a, b)))
    return False if False in links else None if None in links else True


def _value(node: ast.expr, row: Mapping[Any, Any], model: Mapping[str, Value]) -> Value:
    """Return the value of an operand in a row, or None if it is missing."""
    if isinstance(node, ast.Name):
        if node.id in model:
            return model[node.id]
        value = _known(row[node.id])
        values = BY_NAME[node.id].values if node.id in BY_NAME else ()
        return None if value == "" and values and "" not in values else value
    if isinstance(node, ast.Call):
        return model[ast.unparse(node)]
    return ast.literal_eval(node)


def _known(value: Any) -> Value:
    """Return a value, or None if it is missing."""
    return None if pd.isna(value) else value


def _text(value: Value) -> str:
    """Return a value for people."""
    return "missing" if value is None else repr(value) if isinstance(value, str) else f"{value:.4g}"


def _layers(count: int) -> str:
    """Return a number of layers in words."""
    return f"{count} layer{'s' if count != 1 else ''}"
