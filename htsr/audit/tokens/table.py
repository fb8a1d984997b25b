"""Named directions as tables and as lines for people."""

from collections.abc import Iterable, Sequence

import pandas as pd

from htsr.audit.layout import in_markdown, markdown_table
from htsr.audit.table import WholeTexts
from htsr.audit.tokens.alignment import least_p_value
from htsr.p_values import PValue
from htsr.text import encodable, escaped, visible

# The columns of a table of directions with their types.
COLUMNS = {
    "direction": "int64", "singular_value": "float64", "share": "float64", "side": "str", "stream": "str", "promoted": "str",
    "suppressed": "str", "alignment": "float64", "null_alignment": "float64", "contrast": "float64",
    "null_contrast": "float64", "p_value": "float64", "reads_as_noise": "bool",
    "embedding": "str",
}  # fmt: skip
# A direction with a larger p-value reads as noise.
LEVEL = 0.05
# Layers and directions of each that a terminal shows.
MAX_LAYERS, MAX_DIRECTIONS = 5, 3


def directions_frame(rows: Iterable[Sequence[object]], with_name: bool = False) -> pd.DataFrame:
    """Return rows of directions as a table with every column."""
    dtypes = {"name": "str"} | COLUMNS if with_name else COLUMNS
    texts = [[encodable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    return WholeTexts(pd.DataFrame(texts, columns=list(dtypes)).astype(dtypes))


def tokens_table(named: Iterable[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Return the tables of several layers as one, with the name of the layer in front."""
    rows = ((name, *row) for name, table in named for row in table.itertuples(index=False))
    return directions_frame(rows, with_name=True)


def tokens_lines(table: pd.DataFrame, order: Sequence[str] | None = None) -> list[str]:
    """Return lines for people: the directions beyond the null in the first layers of an order, and a count of the others.

    Without an order, the layers whose directions come closest to tokens are the first.
    """
    if not len(table):
        return ["Directions by tokens: no direction of a matrix in the residual stream to name"]
    beyond = table[~table["reads_as_noise"]]
    if order is None:
        order = list(beyond.sort_values("alignment", ascending=False, kind="stable")["name"])
    layers = [name for name in dict.fromkeys(order) if (beyond["name"] == name).any()][:MAX_LAYERS]
    which = "; ".join(map(visible, dict.fromkeys(table["embedding"])))
    lines = [
        f"Directions by the tokens that they promote | suppress, without the final norm and later layers ({which}):"
    ]
    sizes = table["name"].value_counts()
    shown = 0
    for name in layers:
        lines.append(f"  {visible(name)}")
        for row in beyond[beyond["name"] == name].head(MAX_DIRECTIONS).itertuples(index=False):
            about = f"{row.stream} {100 * row.share:.3g} % of the squared norm, {p_text(row.p_value, int(sizes[name]))}"
            lines.append(f"    {row.direction} ({about}): {escaped(row.promoted)} | {escaped(row.suppressed)}")
            shown += 1
    if len(beyond) > shown:
        lines.append(f"  and {len(beyond) - shown} more directions that single out tokens as random ones do not")
    noise = len(table) - len(beyond)
    matrices = "1 matrix" if len(sizes) == 1 else f"{len(sizes)} matrices"
    return [
        *lines,
        f"  {noise} of {len(table)} directions, in {matrices}, single out tokens no more than random ones do",
    ]


def tokens_markdown(table: pd.DataFrame) -> str:
    """Return the directions that do not read as noise as a section in Markdown, nothing if no directions were named."""
    if not len(table):
        return ""
    beyond = table[~table["reads_as_noise"]]
    sizes = table["name"].value_counts()
    texts = {
        "layer": beyond["name"].map(visible),
        "direction": beyond["direction"].astype("str"),
        "stream": beyond["stream"],
        "share": beyond["share"].map("{:.3g}".format),
        "p-value": [p_text(p, int(sizes[name])) for name, p in zip(beyond["name"], beyond["p_value"], strict=True)],
        "promoted": beyond["promoted"].map(escaped),
        "suppressed": beyond["suppressed"].map(escaped),
    }
    first, *_, last = tokens_lines(table)
    shown = [markdown_table(pd.DataFrame(texts, dtype="str"))] if len(beyond) else []
    return "\n\n".join(["\n## Directions by tokens", in_markdown(first), *shown, in_markdown(last.strip())]) + "\n"


def p_text(p: float, k: int) -> str:
    """Return a p-value of one of k directions in words."""
    floor = least_p_value(k)
    return PValue(floor, f"{floor:.1g}").equals(p)
