"""Write what docs/ takes from the code: the columns, the texts of ``htsr explain``, tables inside pages, and README's spectrum.

python docs/generate.py
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from inspect import signature
from pathlib import Path

from torch import nn

from htsr.audit.columns import COLUMNS, COMPARISON_COLUMNS, HISTORY_COLUMNS, STEP_COLUMNS, Column
from htsr.audit.explanations import EXPLANATIONS
from htsr.audit.phases import MEANINGS
from htsr.audit.step_columns import VERDICTS
from htsr.comparison.meanings import CHANGE_MEANINGS, KIND_MEANINGS
from htsr.compat.access import REFUSED_METHODS
from htsr.compat.arguments import IGNORED, NO_TPL, REFUSED, TRUNCATED_FITS, Options
from htsr.compat.weightwatcher import WeightWatcher
from htsr.weights import open_source
from htsr.weights.readers import formats as readers
from htsr.weights.readers.formats import BY_SUFFIX, CONTAINERS, FOREIGN_MODELS, Format

PAGE = Path(__file__).with_name("columns.md")
EXPLAINED = Path(__file__).with_name("explanations.md")
OF_HISTORIES = [column for column in HISTORY_COLUMNS if column not in COLUMNS]
INTRODUCTION = """\
# Columns

*`python docs/generate.py` writes this page.*

Eigenvalues are those of W^T W (of each slice, for a convolution), not divided by N. Names that contain `log` take log10.
A number that could not be had is missing (NaN), never a stand-in such as -1. Whole numbers are nullable integers (`Int64`)
where they can be missing. [Auditing a checkpoint](auditing.md) explains the columns to look at first.
"""


def table(records: Iterable[Column]) -> list[str]:
    """Lines of a Markdown table. An option of ``analyze`` that fills a column stands behind its meaning."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for column in records:
        option = f" (needs `{column.needs}=`)" if column.needs else ""
        lines.append(f"| `{column.name}` | {column.dtype} | {column.meaning.replace('|', chr(92) + '|')}{option} |")
    return lines


def page() -> str:
    """The text of docs/columns.md."""
    sections = [
        ("An audit", "`Analysis.details` of `htsr.analyze`, and the files that `htsr audit -o` writes.", COLUMNS),
        ("A comparison", "`Comparison.details` of `htsr.compare`.", COMPARISON_COLUMNS),
        ("A training run", "`History.details` has the columns of an audit, and these.", OF_HISTORIES),
        ("The steps of an optimizer", "`StepAudit.details` of `htsr.audit_steps`.", STEP_COLUMNS),
    ]
    lines = [INTRODUCTION]
    for title, where, records in sections:
        lines += [f"## {title}", "", where, "", *table(records), ""]
    return "\n".join(lines)


def explanations() -> str:
    """The text of docs/explanations.md."""
    lines = [
        "# What the numbers mean",
        "",
        "*`python docs/generate.py` writes this page from the texts of `htsr explain`.*",
        "",
    ]
    for name, text in EXPLANATIONS.items():
        lines += [f"## `{name}`", "", text, ""]
    lists = {
        "Phases": MEANINGS,
        "Kinds of a comparison": KIND_MEANINGS,
        "Changes of a layer": CHANGE_MEANINGS,
        "Verdicts on an optimizer's step": VERDICTS,
    }
    for title, meanings in lists.items():
        lines += [f"## {title}", "", *(f"- `{name}`: {text}" for name, text in meanings.items()), ""]
    return "\n".join(lines)


def formats() -> list[str]:
    """Lines of the table of formats, by suffix."""
    extras = {"GGUF": "gguf", "ONNX": "onnx", "KERAS": "keras"}
    lines = ["| suffix | what it is | needs | opened in a process of its own |", "|---|---|---|---|"]
    by_format: dict[Format, list[str]] = {}
    for suffix, found in BY_SUFFIX.items():
        by_format.setdefault(found, []).append(f"`{suffix}`")
    for found, suffixes in by_format.items():
        extra = next((extras[name] for name in extras if found is getattr(readers, name)), "")
        needs = f"`htsr[{extra}]`" if extra else ""
        lines.append(f"| {', '.join(suffixes)} | {found.kind} | {needs} | {'yes' if found.guarded else 'no'} |")
    return lines


def refused_formats() -> list[str]:
    """Lines of the table of files that no reader knows, with what to do with them."""
    advice: dict[tuple[str, str], list[str]] = {}
    for suffix, found in {**FOREIGN_MODELS, **CONTAINERS}.items():
        advice.setdefault(found, []).append(f"`{suffix}`")
    rows = [f"| {', '.join(names)} | {what} | {todo} |" for (what, todo), names in advice.items()]
    return ["| file | what it is | what to do |", "|---|---|---|", *rows]


def layer_types() -> list[str]:
    """Lines of the table of torch's layers, with the rows that one of each gives."""
    modules = [
        nn.Linear(4, 6), nn.Embedding(6, 4), nn.EmbeddingBag(6, 4), nn.Bilinear(3, 4, 5), nn.MultiheadAttention(8, 2),
        nn.RNN(4, 6), nn.LSTM(4, 6), nn.GRU(4, 6), nn.LSTMCell(4, 6), nn.Conv1d(4, 6, 3), nn.Conv2d(4, 6, 3),
        nn.Conv3d(4, 6, 3), nn.ConvTranspose2d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(4, 4, 3, groups=4),
    ]  # fmt: skip
    lines = ["| layer | rows of a layer `x` | `layer_type` |", "|---|---|---|"]
    for module in modules:
        found = open_source(nn.ModuleDict({"x": module})).layers
        names = [f"`{layer.name}`" for layer in found]
        text = ", ".join(names if len(names) < 5 else [*names[:4], "..."])
        groups = getattr(module, "groups", 1)
        kind = f"`{type(module).__name__}`" + (f" with `groups={groups}`" if groups > 1 else "")
        if groups > 1:
            kind += ", a channel each" if module.in_channels == groups else ""
        lines.append(f"| {kind} | {text} | {', '.join(dict.fromkeys(f'`{layer.layer_type}`' for layer in found))} |")
    return lines


# What is known of the options of WeightWatcher that htsr.compat honours: what they do here, and whether a test finds
# WeightWatcher's own values.
FILTERS = "works; a filter that matches nothing is an error"
HONOURED = {
    "layers": (FILTERS, "yes"),
    "min_evals": (FILTERS, "yes"),
    "max_evals": (FILTERS, "yes"),
    "max_N": (FILTERS, "yes"),
    "start_ids": (FILTERS, "yes"),
    "pool": ("with False, each slice of a Conv2d has a row; so has `ww2x=True`", "yes"),
    "conv2d_norm": ("with False, no factor 1/2", "yes"),
    "base_model": ("the difference of the two models by name, also where WeightWatcher ignores it", "yes"),
    "intra": ("products of neighbouring layers", "yes"),
    "sparsify": ("the random mask of `intra` takes a seed", "yes, without the mask"),
    "stacked": ("all layers above each other; it keeps as many eigenvalues as the first layer has", "yes"),
    "inverse": ("fits 1/eigenvalue; WeightWatcher inverts the slices of a kernel more than once", "yes, dense layers"),
    "xmax": (
        '-1, -2, ... leave out so many of the largest; `"force"` with `pl_package="powerlaw"` ends the law at the largest',
        "yes",
    ),
    "fix_fingers": (
        '`"clip_xmax"` and `"xmin_peak"` as there; `htsr.fit_power_law(..., clip_fingers=True)` differs by one',
        "yes",
    ),
    "max_fingers": ("as there", "yes"),
    "finger_thresh": ("as there", "yes"),
    "xmin_max": ("as there, with its lower bound, which is a logarithm", "yes"),
    "pl_package": ('`"powerlaw"`: the same fit', "yes"),
    "fit": ('`"PL"`', "yes"),
    "mp_fit": ("htsr's bulk", "no, on purpose"),
    "randomize": ("htsr's shuffles, with a seed", "no, on purpose"),
    "detX": ("works", "yes"),
    "ERG": ("works", "yes"),
    "tolerance": ("works", "yes"),
    "plot": ("one picture of each layer is saved, none shown", "no"),
    "savefig": ("where the pictures go; `describe` ignores it, as there", "no"),
}


def options_of_weightwatcher() -> list[str]:
    """Lines of the table of WeightWatcher's options, in the order honoured, without effect, refused."""
    accepted = {field.name for field in fields(Options)} | set(signature(WeightWatcher.analyze).parameters)
    unknown = accepted - set(HONOURED) - {"self", "model", "seed", "others", "params"}
    assert not unknown, f"docs/generate.py does not say what htsr.compat does with {unknown}"
    lines = ["| option of `analyze` and `describe` | in `htsr.compat` | same value |", "|---|---|---|"]
    grouped: dict[tuple[str, str], list[str]] = {}
    for name, known in HONOURED.items():
        grouped.setdefault(known, []).append(f"`{name}`")
    lines += [f"| {', '.join(names)} | {what} | {same} |" for (what, same), names in grouped.items()]
    lines.append(f"| {', '.join(f'`{name}`' for name in IGNORED)} | accepted; they change nothing | - |")
    tpl = ", ".join(f'`"{name}"`' for name in TRUNCATED_FITS)
    lines.append(f"| `fit=` {tpl} | refused: {NO_TPL} | - |")
    lines += [f"| `{name}` | refused: {why} | - |" for name, (_, why) in REFUSED.items()]
    return lines


def refused_methods() -> list[str]:
    """Lines of the table of WeightWatcher's methods that htsr.compat does not have."""
    grouped: dict[str, list[str]] = {}
    for name, why in REFUSED_METHODS.items():
        grouped.setdefault(why, []).append(f"`{name}`")
    rows = [f"| {', '.join(names)} | {why} |" for why, names in grouped.items()]
    return ["| refused method | why, and what to do |", "|---|---|", *rows]


TABLES: dict[str, Callable[[], list[str]]] = {
    "formats": formats,
    "refused formats": refused_formats,
    "layer types": layer_types,
    "options of WeightWatcher": options_of_weightwatcher,
    "refused methods of WeightWatcher": refused_methods,
}
TABLE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end of table -->)", flags=re.DOTALL)


def filled(text: str) -> str:
    """The text of a page with the tables that it asks for by ``<!-- table: name -->``."""
    return TABLE.sub(lambda match: f"{match[1]}\n" + "\n".join(TABLES[match[2]]()) + f"\n\n{match[3]}", text)


def draw_spectrum(output: Path) -> None:
    """Draw README's picture: one layer of MiniLM that has learned something beside one that is noise."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from htsr import analyze
    from htsr.demo.run import trained_transformer

    names = {"encoder.layer.0.output.dense": "trained", "pooler.dense": "never trained"}
    audit = analyze(trained_transformer(), layers=list(names), progress=False)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for ax, name in zip(axes, names, strict=True):
        audit[name].plot(scale="log-lin", ax=ax)
    figure.savefig(output, dpi=100, facecolor="white")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    EXPLAINED.write_text(explanations(), encoding="utf-8")
    for path in Path(__file__).parent.glob("*.md"):
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    draw_spectrum(Path(__file__).parent / "spectrum.png")
