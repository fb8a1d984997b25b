"""The grammar of conditions: which expressions are one, and which of those fit a table.

Python's own parser reads the text and these functions walk its tree; nothing is ever evaluated as code.
"""

import ast
import warnings

import pandas as pd

from htsr.audit.columns import BY_NAME
from htsr.audit.table import did_you_mean
from htsr.errors import InputError

MAX_LENGTH = 1000
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
AGGREGATES = ("min", "max", "mean", "median")
GRAMMAR = (
    "expected comparisons of columns, numbers and quoted texts (alpha > 8, phase == 'rank-collapse', "
    "phase in ('a', 'b')), joined by and, or, not; for the whole model min, max, mean, median of a column "
    "(median(alpha) < 2), or count(alpha > 8) >= 3"
)


def parse(text: str) -> ast.expr:
    """Return the tree of a condition, or raise ``InputError`` if the text is none."""
    if not text or len(text) > MAX_LENGTH:
        raise InputError(f"a condition of {len(text)} characters: expected 1 to {MAX_LENGTH}; {GRAMMAR}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes and literals in the text
            tree = ast.parse(text, mode="eval").body
        _check_truth(tree, text)
    except InputError:
        raise
    except (SyntaxError, ValueError, MemoryError, RecursionError) as err:
        raise InputError(f"{text!r} is not a condition: {GRAMMAR}{_hint(text)}") from err
    return tree


def columns(node: ast.AST, rows_only: bool = False) -> list[str]:
    """Return the columns that an expression names; with ``rows_only`` only those outside aggregates."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Call):
        return [] if rows_only else [name for part in node.args for name in columns(part)]
    return [name for part in ast.iter_child_nodes(node) for name in columns(part, rows_only)]


def check_columns(tree: ast.expr, table: pd.DataFrame, text: str) -> None:
    """Refuse a table that lacks a column of the condition, or whose types do not fit; the table needs no rows."""
    for column in columns(tree):
        if column not in table:
            known = did_you_mean(column, list(table)) or f"expected one of {', '.join(table)}"
            raise InputError(f"{text!r}: there is no column {column!r}: {known}{_hint(text)}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            _check_operands(node, table, text)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in AGGREGATES:
            assert isinstance(node.args[0], ast.Name)
            if _kind(node.args[0], table) != "number":
                raise InputError(f"{text!r}: {node.func.id} needs a column of numbers, {node.args[0].id} holds texts")


def members(node: ast.expr) -> list[ast.expr]:
    """Return the values of a list such as ``('a', 'b')``, or the expression itself."""
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]


def _check_operands(comparison: ast.Compare, table: pd.DataFrame, text: str) -> None:
    """Refuse a comparison that can never be true: of a number with a text, or with a text that its column never holds."""
    operands = [comparison.left, *comparison.comparators]
    for left, op, right in zip(operands, comparison.ops, operands[1:], strict=False):
        for member in members(right):
            kinds = {_kind(left, table), _kind(member, table)}
            if len(kinds) > 1:
                shown = ast.get_source_segment(text, comparison) or text
                raise InputError(f"{text!r}: {shown!r} compares a {' with a '.join(sorted(kinds))}")
        if _kind(left, table) == "text" and isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            raise InputError(f"{text!r}: texts are compared with ==, != and in, not with < or >")
    for name in (node.id for node in operands if isinstance(node, ast.Name)):
        values = BY_NAME[name].values if name in BY_NAME else ()
        for member in (member for node in operands for member in members(node)):
            if values and isinstance(member, ast.Constant) and member.value not in values:
                raise InputError(
                    f"{text!r}: {member.value!r} is never in {name}: expected one of {', '.join(map(repr, values))}"
                )


def _kind(node: ast.expr, table: pd.DataFrame) -> str:
    """Return whether an operand is a number or a text."""
    if isinstance(node, ast.Name):
        kind = table[node.id].dtype
        return "number" if pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind) else "text"
    if isinstance(node, ast.Constant):
        return "text" if isinstance(node.value, str) else "number"
    return "number"


def _check_truth(node: ast.expr, text: str, inside: str = "") -> None:
    """Refuse an expression that is not true or false: a comparison, or comparisons joined by and, or, not."""
    if isinstance(node, ast.BoolOp):
        for part in node.values:
            _check_truth(part, text, inside)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check_truth(node.operand, text, inside)
    elif isinstance(node, ast.Compare):
        _check_value(node.left, text, inside)
        for op, part in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                if not isinstance(part, ast.Tuple | ast.List | ast.Set) or not all(map(_is_literal, part.elts)):
                    raise _refused(part, text, "expected in ('one', 'two')")
            elif type(op) not in COMPARISONS:
                raise _refused(node, text)
            else:
                _check_value(part, text, inside)
        if not any(isinstance(part, ast.Name) for part in ast.walk(node)):
            raise _refused(node, text, "names no column")
    else:
        raise _refused(node, text)


def _check_value(node: ast.expr, text: str, inside: str) -> None:
    """Refuse an operand that is not a column, a number, a text or an aggregate."""
    if isinstance(node, ast.Name) or _is_literal(node):
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
        if inside:
            raise _refused(node, text, f"stands inside {inside}")
        if node.func.id in AGGREGATES and isinstance(node.args[0], ast.Name):
            return
        if node.func.id == "count":
            _check_truth(node.args[0], text, inside="count(...)")
            return
    raise _refused(node, text)


def _is_literal(node: ast.expr) -> bool:
    """Return whether an expression is a number, possibly signed, a text or a truth value."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant) and type(node.value) in (int, float, str, bool)


def _refused(node: ast.expr, text: str, why: str = "") -> InputError:
    """Return the error that names the part of the text that is not allowed."""
    part = ast.get_source_segment(text, node) or text
    return InputError(f"{text!r}: cannot use {part!r}{f' ({why})' if why else ''}: {GRAMMAR}{_hint(text)}")


def _hint(text: str) -> str:
    """Return how to write what the text probably means."""
    if "==" not in text and "=" in text.replace("<=", "").replace(">=", "").replace("!=", ""):
        return "; equality is written =="
    if any(sign in text for sign in ("&", "|", "!")) and "!=" not in text:
        return "; write and, or, not"
    if "'" not in text and '"' not in text and "==" in text:
        return "; texts need quotes: phase == 'rank-collapse'"
    return ""
