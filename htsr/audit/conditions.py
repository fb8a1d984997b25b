"""Conditions on a table of layers, such as ``alpha > 8``: what a gate in a CI pipeline or a monitor watches for.

The text is parsed by Python's own grammar and walked node by node; nothing is ever evaluated as code.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pandas as pd

from htsr.audit.phases import PHASES
from htsr.errors import InputError

MAX_LENGTH = 1000
# Texts of these are one of PHASES; an empty one is a missing value.
PHASE_COLUMNS = ("phase", "previous_phase", "phase_a", "phase_b", "phase_delta")

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_AGGREGATES: dict[str, Callable[[pd.Series], float]] = {
    "min": pd.Series.min, "max": pd.Series.max, "mean": pd.Series.mean, "median": pd.Series.median,
}  # fmt: skip
_GRAMMAR = (
    "expected comparisons of columns, numbers and quoted texts (alpha > 8, phase == 'rank-collapse', "
    "phase in ('a', 'b')), joined by and, or, not; for the whole model min, max, mean, median of a column "
    "(median(alpha) < 2), or count(alpha > 8) >= 3"
)

Value = float | str | bool | None


@dataclass(frozen=True)
class Verdict:
    """What a condition says of a table.

    Attributes:
        condition: The text of the condition.
        names: The layers for which it holds; empty for a condition on the model as a whole.
        holds: Whether it holds for a layer, or for the model.
        unknown: The layers for which a value is missing, so that it could not be said. They never count as matches.
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
            shown = ", ".join(f"{name} ({self.values[name]})" for name in self.names)
            return f"{self.condition}: holds for {_layers(len(self.names))}: {shown}"
        shown = ", ".join(f"{name} is {value}" for name, value in self.values.items())
        return f"{self.condition}: {'holds' if self.holds else 'does not hold'}" + (f" ({shown})" if shown else "")

    def doubts(self) -> str:
        """One sentence on what could not be said, or nothing."""
        if not self.unknown:
            return ""
        return (
            f"{self.condition}: could not be said of {_layers(len(self.unknown))} without a value there, which never "
            f"match: {', '.join(self.unknown)}"
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
        object.__setattr__(self, "text", self.text.strip())
        if not self.text or len(self.text) > MAX_LENGTH:
            raise InputError(f"a condition of {len(self.text)} characters: expected 1 to {MAX_LENGTH}; {_GRAMMAR}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about escapes and literals in the text
                tree = ast.parse(self.text, mode="eval").body
            _check_grammar(tree, self.text)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as err:
            if isinstance(err, InputError):
                raise
            raise InputError(f"{self.text!r} is no condition: {_GRAMMAR}{_hint(self.text)}") from err
        object.__setattr__(self, "_tree", tree)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it speaks of, in order of appearance."""
        return tuple(dict.fromkeys(_columns(self._tree)))

    @property
    def of_model(self) -> bool:
        """Whether it speaks of the whole table only, not of single rows."""
        return not _columns(self._tree, rows_only=True)

    def check_columns(self, table: pd.DataFrame) -> None:
        """Refuse a table that lacks a column, or whose types do not fit; needs no rows.

        Args:
            table: A table, possibly empty.

        Raises:
            InputError: If a column is missing (the message lists those with similar names), or a number is compared with
                a text.
        """
        for column in self.columns:
            if column not in table:
                near = get_close_matches(column, list(table), n=3, cutoff=0.5)
                named = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(table)}"
                raise InputError(f"{self.text!r}: there is no column {column!r}: {named}{_hint(self.text)}")
        _check_types(self._tree, table, self.text)

    def check(self, table: pd.DataFrame) -> Verdict:
        """Say for which layers of a table it holds.

        Args:
            table: A row a layer, with the columns it speaks of; ``name`` and ``tied_to`` are used where there.

        Returns:
            The verdict.

        Raises:
            InputError: If the table lacks a column, or its types do not fit.
        """
        self.check_columns(table)
        model = _aggregates(self._tree, table)
        if self.of_model:
            holds = _truth(self._tree, {}, model)
            return Verdict(
                self.text,
                holds is True,
                unknown=("the model",) if holds is None else (),
                values={name: _text(value) for name, value in model.items()},
            )
        names, unknown, values = [], [], {}
        labels = table["name"] if "name" in table else pd.Series([f"row {i}" for i in table.index], dtype="str")
        shown = tuple(dict.fromkeys(_columns(self._tree, rows_only=True)))
        for name, row in zip(labels, table.to_dict("records"), strict=True):
            holds = _truth(self._tree, row, model)
            if holds is None:
                unknown.append(str(name))
            elif holds:
                names.append(str(name))
                values[str(name)] = ", ".join(f"{column} {_text(_known(row[column]))}" for column in shown)
        return Verdict(self.text, bool(names), tuple(names), tuple(unknown), values)


def _check_grammar(node: ast.expr, text: str, inside: str = "") -> None:
    """Refuse every node that is not a truth: a comparison, or and, or, not of such."""
    if isinstance(node, ast.BoolOp):
        for part in node.values:
            _check_grammar(part, text, inside)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check_grammar(node.operand, text, inside)
    elif isinstance(node, ast.Compare):
        _check_value(node.left, text, inside)
        for op, part in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                if not isinstance(part, ast.Tuple | ast.List | ast.Set) or not all(map(_is_literal, part.elts)):
                    raise _refused(part, text, "expected in ('one', 'two')")
            elif type(op) not in _COMPARISONS:
                raise _refused(node, text)
            else:
                _check_value(part, text, inside)
        if not any(isinstance(part, ast.Name) for part in ast.walk(node)):
            raise _refused(node, text, "names no column")
    else:
        raise _refused(node, text)


def _check_value(node: ast.expr, text: str, inside: str) -> None:
    if isinstance(node, ast.Name) or _is_literal(node):
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
        if inside:
            raise _refused(node, text, f"stands inside {inside}")
        if node.func.id in _AGGREGATES and isinstance(node.args[0], ast.Name):
            return
        if node.func.id == "count":
            _check_grammar(node.args[0], text, inside="count(...)")
            return
    raise _refused(node, text)


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant) and type(node.value) in (int, float, str, bool)


def _refused(node: ast.expr, text: str, why: str = "") -> InputError:
    part = ast.get_source_segment(text, node) or text
    return InputError(f"{text!r}: cannot use {part!r}{f' ({why})' if why else ''}: {_GRAMMAR}{_hint(text)}")


def _hint(text: str) -> str:
    if "==" not in text and "=" in text.replace("<=", "").replace(">=", "").replace("!=", ""):
        return "; equality is written =="
    if any(sign in text for sign in ("&", "|", "!")) and "!=" not in text:
        return "; write and, or, not"
    if "'" not in text and '"' not in text and "==" in text:
        return "; texts need quotes: phase == 'rank-collapse'"
    return ""


def _columns(node: ast.AST, rows_only: bool = False) -> list[str]:
    """Columns under a node; with ``rows_only`` only those outside aggregates."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Call):
        return [] if rows_only else [name for part in node.args for name in _columns(part)]
    return [name for part in ast.iter_child_nodes(node) for name in _columns(part, rows_only)]


def _check_types(node: ast.AST, table: pd.DataFrame, text: str) -> None:
    """Refuse comparisons of numbers with texts, which are a slip and never true."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in _AGGREGATES:
            assert isinstance(part.args[0], ast.Name)
            if _kind(part.args[0], table) != "number":
                raise InputError(f"{text!r}: {part.func.id} needs a column of numbers, {part.args[0].id} holds texts")
        if not isinstance(part, ast.Compare):
            continue
        operands = [part.left, *part.comparators]
        for left, op, right in zip(operands, part.ops, operands[1:], strict=False):
            members = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else [right]
            for member in members:
                kinds = {_kind(left, table), _kind(member, table)}
                if len(kinds) > 1:
                    shown = ast.get_source_segment(text, part) or text
                    raise InputError(f"{text!r}: {shown!r} compares a {' with a '.join(sorted(kinds))}")
            if _kind(left, table) == "text" and isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
                raise InputError(f"{text!r}: texts are compared with ==, != and in, not with < or >")
            _check_phases(operands, text)


def _check_phases(operands: list[ast.expr], text: str) -> None:
    """Refuse a phase that there is not: such a gate would never fire."""
    if not any(isinstance(node, ast.Name) and node.id in PHASE_COLUMNS for node in operands):
        return
    members = [
        part
        for node in operands
        for part in (node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node])
    ]
    for member in members:
        if isinstance(member, ast.Constant) and member.value not in PHASES:
            raise InputError(f"{text!r}: {member.value!r} is no phase: expected one of {', '.join(PHASES)}")


def _kind(node: ast.expr, table: pd.DataFrame) -> str:
    if isinstance(node, ast.Name):
        kind = table[node.id].dtype
        return "number" if pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind) else "text"
    if isinstance(node, ast.Constant):
        return "text" if isinstance(node.value, str) else "number"
    return "number"


def _aggregates(tree: ast.expr, table: pd.DataFrame) -> dict[str, Value]:
    """Value of each aggregate in a condition, by its text; missing where no layer has a value."""
    own = table[table["tied_to"].fillna("") == ""] if "tied_to" in table else table
    values: dict[str, Value] = {}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        assert isinstance(call.func, ast.Name)
        if call.func.id == "count":
            truths = [_truth(call.args[0], row, {}) for row in own.to_dict("records")]
            known = [truth for truth in truths if truth is not None]
            values[ast.unparse(call)] = float(sum(known)) if known else None
        else:
            assert isinstance(call.args[0], ast.Name)
            column = own[call.args[0].id].astype("Float64").astype("float64")
            values[ast.unparse(call)] = _known(float(_AGGREGATES[call.func.id](column.dropna())))
    return values


def _truth(node: ast.expr, row: Mapping[Any, Any], model: Mapping[str, Value]) -> bool | None:
    """True, False, or None where a missing value leaves it open (Kleene's logic)."""
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
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            found = None if a is None else a in [_value(part, row, model) for part in right.elts]
            links.append(found if found is None or isinstance(op, ast.In) else not found)
        else:
            b = _value(right, row, model)
            links.append(None if a is None or b is None else bool(_COMPARISONS[type(op)](a, b)))
    return False if False in links else None if None in links else True


def _value(node: ast.expr, row: Mapping[Any, Any], model: Mapping[str, Value]) -> Value:
    if isinstance(node, ast.Name):
        value = _known(row[node.id])
        return None if value == "" and node.id in PHASE_COLUMNS else value
    if isinstance(node, ast.Call):
        return model[ast.unparse(node)]
    return ast.literal_eval(node)


def _known(value: Any) -> Value:
    return None if pd.isna(value) else value


def _text(value: Value) -> str:
    return "missing" if value is None else repr(value) if isinstance(value, str) else f"{value:.4g}"


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count != 1 else ''}"
