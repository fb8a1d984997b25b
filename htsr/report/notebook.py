"""How results look as the value of a notebook's cell: compact, sentences whole, a small ESD in each row."""

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from htsr.audit.columns import BY_NAME
from htsr.audit.explanations import EXPLANATIONS
from htsr.audit.layout import is_numeric
from htsr.report.sparkline import esd_sparkline, line_sparkline
from htsr.text import escaped, visible

if TYPE_CHECKING:
    import pandas as pd

    from htsr.audit.analysis import Analysis
    from htsr.audit.layer import LayerAnalysis
    from htsr.bulk import MarchenkoPasturFit
    from htsr.comparison.compare import Comparison
    from htsr.comparison.layer import LayerComparison
    from htsr.tails import PowerLawFit
    from htsr.training import History, Monitor

# A cell shows all layers of a model with so many at most; of a larger one the worst.
MAX_ROWS, WORST = 60, 20
# The numbers of a layer that its cell shows.
OF_LAYER = (
    "alpha", "alpha_low", "alpha_high", "sigma", "D", "goodness_of_fit", "num_pl_spikes", "null_alpha_low", "null_alpha_high",
    "null_p_value", "num_spikes", "stable_rank", "hard_rank", "phase",
)  # fmt: skip
CELL = "padding:2px 8px;white-space:nowrap"
LEFT, RIGHT = f"{CELL};text-align:left", f"{CELL};text-align:right"
# A sentence may break, but into lines that a person can read.
SENTENCE = "padding:2px 8px;text-align:left;white-space:normal;min-width:16em"


def analysis_html(analysis: "Analysis") -> str:
    """Return the verdict, and the table of layers with a small ESD in each row."""
    return _page(analysis, {name: _esd(layer) for name, layer in analysis.items()})


def comparison_html(comparison: "Comparison") -> str:
    """Return the verdict, and the table of layers with a small ESD of each change."""
    return _page(comparison, {name: _esd(layer.delta) for name, layer in comparison.items()})


def _esd(layer: "LayerAnalysis") -> Markup:
    """Return a small ESD, empty if there is no spectrum."""
    if layer.spectrum is None:
        return Markup("")
    return esd_sparkline(layer.spectrum.eigenvalues, layer.fit.xmin)


def _page(result: "Analysis | Comparison", pictures: dict[str, Markup]) -> str:
    """Return the headline, with the verdict in bold, and the table with pictures."""
    said = set(result.verdict_sentences())
    lines = [f"<b>{escape(line)}</b>" if line in said else str(escape(line)) for line in result.headline().split("\n")]
    rows = list(range(len(result))) if len(result) <= MAX_ROWS else result.worst_first()[:WORST]
    table = result.brief().iloc[rows]
    names = list(pictures)
    shown = [pictures[names[row]] for row in rows]
    more = (
        f"<p>The {WORST} worst of {len(result)} layers; <code>.details</code> has all.</p>"
        if len(rows) < len(result)
        else ""
    )
    return f"<p>{'<br>'.join(lines)}</p>{more}{_table(table, shown)}"


def layer_html(layer: "LayerAnalysis") -> str:
    """Return a layer's findings, its ESD and its numbers with their meaning."""
    row = layer.row
    sides = f"{row['N']} x {row['M']}" + (f", {row['rf']} slices" if row["rf"] > 1 else "")
    title = f"<b>{escape(visible(layer.name))}</b> ({escape(row['layer_type'])}, {sides}, {escape(row['dtype'])})"
    findings = _sentences(found.text for found in layer.findings)
    return f"<p>{title}</p>{findings}{_figure(layer)}{_numbers(layer)}"


def layer_comparison_html(layer: "LayerComparison") -> str:
    """Return what changed in a layer, with small ESDs of A, B and the change."""
    sides = (("A", layer.a), ("B", layer.b), ("B - A", layer.delta))
    cells = "".join(
        f'<tr><td>{name}</td><td>{_esd(side)}</td><td style="{LEFT}">{escape(str(side.fit))}</td></tr>'
        for name, side in sides
    )
    change = BY_NAME["relative_change"].text(layer.row["relative_change"])
    size = f", change / weight {change}" if change else ""
    findings = _sentences(found.text for found in layer.findings)
    title = f"<b>{escape(visible(layer.name))}</b>: {escape(layer.row['status'])}{size}"
    return f"<p>{title}</p>{findings}<table>{cells}</table>"


def fit_html(fit: "PowerLawFit") -> str:
    """Return a fit in a sentence, with its spectrum."""
    if fit.status == "failed":
        return f"<p>No power-law fit: {escape(escaped(fit.reason))}.</p>"
    picture = esd_sparkline(fit.values, fit.xmin)
    caution = f" {escape(escaped(fit.reason)).capitalize()}." if fit.reason else ""
    return (
        f"<p>{picture} Power law with alpha = {fit.alpha:.2f} ± {fit.sigma:.2f} (standard error for this xmin), fitted to the "
        f"{fit.n_tail} of {fit.n} values from xmin = {fit.xmin:.4g} on; KS distance D = {fit.D:.3f}.{caution}</p>"
    )


def bulk_html(fit: "MarchenkoPasturFit") -> str:
    """Return a noise bulk in a sentence."""
    spikes = (
        "no eigenvalue lies" if not fit.num_spikes else f"{fit.num_spikes} eigenvalue{'s' * (fit.num_spikes > 1)} lie"
    )
    strength = f", the strongest signal has singular value {fit.spike_strengths[0]:.4g}" if fit.num_spikes else ""
    return (
        f"<p>Marchenko-Pastur bulk from {fit.edge_low:.4g} to {fit.edge_high:.4g} (sigma = {fit.sigma:.4g} ± "
        f"{fit.sigma_error:.2g}, D = {fit.D:.3f}); {spikes} above {fit.spike_threshold:.4g}{strength}.</p>"
    )


def history_html(history: "History") -> str:
    """Return what a run holds: lines of the median alpha and of each recorded scalar, and alpha by step and layer."""
    lines = []
    if len(history):
        alpha = history.alpha(history.quantities[0]).astype("float64").median(axis=1)
        lines.append(("median alpha", list(alpha.dropna())))
    scalars = history.scalars
    lines += [(name, list(scalars[name].dropna())) for name in scalars.columns if name != "step"]
    cells = "".join(
        f'<tr><td style="{LEFT}">{escape(visible(name))}</td><td>{line_sparkline(values, visible(name))}</td>'
        f"<td>{values[0]:.4g} to {values[-1]:.4g}</td></tr>"
        for name, values in lines
        if values
    )
    table = ""
    if len(history):
        names = history.alpha(history.quantities[0]).rename(columns=visible)
        table = names.to_html(max_cols=12, max_rows=30, float_format="{:.2f}".format, border=0)
    return f"<p>{escape(history.headline())}</p><table>{cells}</table>{table}"


def monitor_html(monitor: "Monitor") -> str:
    """Return where a monitor stands, and what it has captured so far."""
    look = ""
    if monitor.run_dir is not None:
        call = f"htsr.History({visible(monitor.run_dir)!r})"
        look = f"<br><code>{escape(call)}</code> opens what is there, <code>htsr watch</code> follows it in a terminal."
    return f"<p>{escape(visible(repr(monitor), 1000))}{look}</p>"


def _table(table: "pd.DataFrame", pictures: Sequence[Markup]) -> str:
    """Return a table of texts with a picture behind each name."""
    texts = table.astype("str")
    styles = {name: RIGHT if is_numeric(texts[name]) else LEFT for name in texts} | {"note": SENTENCE}
    head = "".join(
        f'<th style="{styles[name]}"{_meaning(name)}>{escape(name)}</th>' + ("<th>ESD</th>" if name == "name" else "")
        for name in texts
    )
    rows = []
    for cells, picture in zip(texts.to_dict("records"), pictures, strict=True):
        row = "".join(
            f'<td style="{styles[str(name)]}">{escape(text)}</td>' + (f"<td>{picture}</td>" if name == "name" else "")
            for name, text in cells.items()
        )
        rows.append(f"<tr>{row}</tr>")
    return f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _numbers(layer: "LayerAnalysis") -> str:
    """Return the numbers of a layer that have a value, each with its meaning."""
    cells = [
        f'<tr><td style="{LEFT}"{_meaning(name)}>{name}</td><td style="{RIGHT}">{escape(text)}</td>'
        f'<td style="{SENTENCE}">{escape(BY_NAME[name].meaning)}</td></tr>'
        for name in OF_LAYER
        if (text := BY_NAME[name].text(layer.row[name]))
    ]
    return f"<table>{''.join(cells)}</table>" if cells else ""


def _figure(layer: "LayerAnalysis") -> Markup:
    """Return the ESD of a layer; nothing if it has no spectrum."""
    if layer.spectrum is None or not len(layer.spectrum.nonzero):
        return Markup("")
    import matplotlib as mpl

    from htsr.plots.style import axes_for

    figure = layer.plot(ax=axes_for(None, width=4.6, height=2.9)[0, 0])
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "htsr", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})  # the same picture gives the same bytes
    document = text.getvalue()
    return Markup(document[document.index("<svg") :])


def _meaning(name: str) -> Markup:
    """Return what a column means as a tooltip, nothing for a name that no table has."""
    text = EXPLANATIONS.get(name) or (BY_NAME[name].meaning if name in BY_NAME else "")
    return Markup(' title="{}"').format(text) if text else Markup("")


def _sentences(sentences: Iterable[str]) -> str:
    """Return sentences as a list, nothing if there are none."""
    items = "".join(f"<li>{escape(escaped(sentence))}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""
