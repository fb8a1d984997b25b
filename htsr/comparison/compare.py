"""Two versions of a model, compared layer by layer: what changed, and what the spectrum of the change looks like."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
import torch

from htsr.audit.about import OF_CHANGE, About
from htsr.audit.analysis import Analysis
from htsr.audit.arguments import check_null, check_whole_number
from htsr.audit.columns import COMPARISON_COLUMNS
from htsr.audit.files_read import Stamp, stamps
from htsr.audit.findings import Finding, ranked
from htsr.audit.jobs import draw_nulls
from htsr.audit.layer import LayerAnalysis, Settings
from htsr.audit.progress import tqdm
from htsr.audit.results import Results
from htsr.audit.table import brief_change, shortened, skipped_frame
from htsr.audit.tokens import Sources, reload_of
from htsr.audit.verdict import Sentence
from htsr.choices import Null
from htsr.comparison.analyses import (
    NO_WEIGHTS,
    analyze_alike,
    as_analysis,
    change_of,
    check_alike,
    check_asked,
    compare_spectra,
    inventory_of,
    kind_of_spectra,
    of_layers,
)
from htsr.comparison.directions import of_changes
from htsr.comparison.findings import KINDS
from htsr.comparison.jobs import Pair, compare_pairs
from htsr.comparison.kinds import kind_of_change
from htsr.comparison.layer import LayerComparison, ratio
from htsr.comparison.matching import match, only, open_on, select_alike, skipped_on_sides
from htsr.comparison.verdict import alphas_in_words, verdict_of_comparison
from htsr.spectra.devices import check_device
from htsr.tails.xmin_rules import XminRule, check_xmin
from htsr.text import visible
from htsr.weights import Inventory, open_source
from htsr.weights.select import Patterns
from htsr.weights.source import Source, is_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.plots.style import ManyAxes


def compare(
    a: Source,
    b: Source,
    *,
    layers: Patterns = None,
    skip: Patterns = None,
    rank: int = 10,
    state: str | None = None,
    xmin: XminRule = "ks",
    bulk: bool = True,
    null: Null = "entries",
    other_parent: Source | None = None,
    tokens: int = 0,
    n_jobs: int | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> "Comparison":
    """Compare two sources layer by layer: before and after fine-tuning, base and merged LoRA, two epochs.

    Args:
        a: The earlier or base model: anything that ``analyze`` takes, an ``Analysis``, or a ``.htsr`` file that holds one.
            With an analysis on either side only spectra and fits are compared, since it keeps no weights.
        b: The later model. It need not be of the same kind: you can compare a module with a checkpoint. The directory of a LoRA
            adapter stands for A with the adapter merged into it.
        layers: Names, globs or layer types to keep; all by default.
        skip: Names, globs or layer types to leave out.
        rank: Dimension of the leading singular subspaces whose principal angles are measured, or the rank of the matrix if that
            is lower. The default of 10 was chosen here.
        state: Compare what the optimizers keep for each weight, ``"exp_avg"`` for instance, as in ``analyze``.
        xmin: How tails are chosen, as in ``fit_power_law``.
        bulk: Say what noise would look like, as in ``analyze``; this tells a change with structure from noise.
        null: What noise keeps of a layer, as in ``analyze``.
        other_parent: A second model that B may be a mixture of, beside A: a merge of two fine-tuned models, or an average of two
            checkpoints. Anything that ``analyze`` takes.
        tokens: Name so many leading directions of each change in the residual stream by tokens, as ``LayerComparison.tokens``
            does, so that a saved result keeps them. A and B must be paths, one of them to a model with its tokenizer.
        n_jobs: Layers compared at a time, as in ``analyze``.
        device: Where to compute, ``"cuda"`` for instance; by default where the weights are.
        seed: As in ``analyze``.
        progress: True or False shows or hides the progress bar; by default as in ``analyze``.

    Returns:
        The comparison. Layers are matched by name and shape; those without a partner are listed in ``unmatched``.

    Raises:
        FileNotFoundError: If a path does not exist.
        InputError: If a source cannot be read, or no layer of A has a partner in B.
        TypeError: If a source is of none of these kinds, or ``rank`` is not a whole number.
        ValueError: If ``rank`` is below 1, or ``xmin`` or ``null`` unknown; if an analysis was made without ``xmin``,
            ``state`` or ``null``.

    Notes:
        One pair of matrices is in memory at a time. Eigenvalues of the change count as zero if the rounding of the two stored
        weights can account for them: a merged LoRA of rank 8 changes a layer by hard rank 8 whatever the precision.

        Be careful with the alpha of a change. A change that looks like noise has an alpha, too, and for small matrices it
        often lies between 2 and 6. ``null_alpha_of_delta`` is the alpha of noise of this shape; ``null_p_value_of_delta`` and
        ``phase_of_delta`` say whether the change differs from noise.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> base, noise = torch.randn(80, 60), torch.randn(80, 60)
        >>> c = compare({"w": base}, {"w": base + 0.1 * noise + 0.1})
        >>> c.details[["name", "status", "num_spikes_of_delta", "hard_rank_of_delta"]]
          name   status  num_spikes_of_delta  hard_rank_of_delta
        0    w  changed                    1                  60
        >>> print(f"{c['w'].row['relative_change']:.2f}")
        0.14
    """
    check_whole_number("rank", rank, 1)
    check_xmin(xmin)
    if n_jobs is not None and check_whole_number("n_jobs", n_jobs) == 0:
        raise ValueError("expected n_jobs to be a number of layers, -1 for every core, or None, got 0")
    if device is not None:
        check_device(device)
    check_null(null)
    settings = Settings(xmin=xmin, bulk=bulk, null=null, seed=seed, device=None if device is None else str(device))
    kept_a, kept_b = as_analysis(a), as_analysis(b)
    if kept_a is not None or kept_b is not None:
        check_asked(kept_b if kept_a is None else kept_a, xmin=xmin, state=state, null=null)
        options = {"bulk": bulk, "n_jobs": n_jobs, "device": device, "seed": seed, "progress": progress}
        Sources(NO_WEIGHTS).check(tokens)
        return _compare_analyses(
            analyze_alike(a, kept_b, **options) if kept_a is None else kept_a,  # type: ignore[arg-type]
            analyze_alike(b, kept_a, **options) if kept_b is None else kept_b,  # type: ignore[arg-type]
            layers,
            skip,
        )
    opened_a, opened_b = open_source(a, state=state), open_on(b, a, state)
    inventory_a, inventory_b = select_alike(opened_a, opened_b, layers, skip)
    reloads = reload_of(opened_a, a), reload_of(opened_b, b)
    Sources(*reloads).check(tokens)
    pairs, unmatched = match(inventory_a, inventory_b)
    third = [] if other_parent is None else open_on(other_parent, a, state).layers
    others = {(layer.name, layer.shape): layer for layer in third}
    repeats = {layer_a.name: layer_a.tied_to for layer_a, layer_b in pairs if layer_a.tied_to == layer_b.tied_to}
    own_pairs = [
        Pair(layer_a, layer_b, others.get((layer_a.name, layer_a.shape)))
        for layer_a, layer_b in pairs
        if repeats.get(layer_a.name) not in {first.name for first, _ in pairs}
    ]
    draw_nulls([pair.a for pair in own_pairs], settings, n_jobs=n_jobs, progress=progress)
    done: dict[str, LayerComparison] = {}
    hidden = None if progress is None else not progress
    with tqdm(total=len(own_pairs), desc="compare", unit="layer", delay=1, disable=hidden) as bar:
        from_files = all(map(is_path, (a, b, *([] if other_parent is None else [other_parent]))))
        for result in compare_pairs(own_pairs, rank, settings, n_jobs=n_jobs, from_files=from_files):
            done[result.name] = result
            bar.set_postfix_str(visible(result.name), refresh=False)
            bar.update()
    results = {
        layer_a.name: done[layer_a.name]
        if layer_a.name in done
        else done[repeats[layer_a.name] or ""].repeated(layer_a)
        for layer_a, _ in pairs
    }
    results = of_changes(results, *reloads, tokens, progress)
    own = [result.signature for result in results.values() if not result.row["tied_to"]]
    which = "that could be compared" if None in own else "that both have" if len(unmatched) else ""
    kind, evidence = kind_of_change([known for known in own if known], which)
    only_a, only_b = only(inventory_a, results), only(inventory_b, results)
    change = replace(only_a, source=f"{inventory_b.source} - {inventory_a.source}", metadata={})

    def side(
        inventory: Inventory, layers: dict[str, LayerAnalysis], files: dict[Path, Stamp], **settings: str
    ) -> Analysis:
        return Analysis(About.of(inventory, settings=settings, stamps=files), skipped_frame(inventory), layers)

    return Comparison(
        side(only_a, {name: result.a for name, result in results.items()}, stamps(only_a) if is_path(a) else {}),
        side(only_b, {name: result.b for name, result in results.items()}, stamps(only_b) if is_path(b) else {}),
        side(change, {name: result.delta for name, result in results.items()}, {}, **OF_CHANGE),
        results,
        unmatched=unmatched,
        skipped=skipped_on_sides(inventory_a, inventory_b),
        kind=kind,
        kind_evidence=evidence,
    )


def _compare_analyses(a: Analysis, b: Analysis, layers: Patterns, skip: Patterns) -> "Comparison":
    """Return the comparison of two analyses, which keep no weights."""
    check_alike(a, b)
    inventory_a, inventory_b = select_alike(inventory_of(a, b), inventory_of(b, a), layers, skip)
    pairs, unmatched = match(inventory_a, inventory_b)
    results = {layer.name: compare_spectra(a[layer.name], b[layer.name]) for layer, _ in pairs}
    kind, evidence = kind_of_spectra(a, b, [result.row for result in results.values()])
    return Comparison(
        of_layers(a, {name: result.a for name, result in results.items()}),
        of_layers(b, {name: result.b for name, result in results.items()}),
        change_of(a, b, {name: result.delta for name, result in results.items()}),
        results,
        unmatched=unmatched,
        skipped=skipped_on_sides(inventory_a, inventory_b),
        kind=kind,
        kind_evidence=evidence,
    )


class Comparison(Results[LayerComparison]):
    """The result of ``compare``.

    ``c["name"]`` and ``c[0]`` are one layer, ``c.keys()`` the names, ``dict(c)`` a dictionary by name. Iteration goes over the
    layers, not over their names, and ``in`` takes a name or a layer.

    Attributes:
        details: One row for each layer that A and B share, in the order of A.
        columns: Type, meaning and unit of each column of ``details``, by name.
        unmatched: Name, source (A, B or both), shape and reason of every layer without a partner.
        skipped: Name, source, shape and reason of every tensor that is not analysed, biases for instance.
        a: The ``Analysis`` of the matched layers of A.
        b: The same of B.
        delta: The same of the changes, B - A: ``c.delta["layer"].plot()`` draws the spectrum of one.
        kind: What kind of change it is: ``identical``, ``rounded``, ``quantised``, ``merged-lora``, ``direction-removed``,
            ``pruned``, ``few-layers``, ``fine-tuned``, ``trained-on``, ``interpolated`` (needs ``other_parent``), ``unrelated``,
            or ``undecided``.
        kind_evidence: The numbers that decided the kind, in a sentence.
    """

    columns: ClassVar = {column.name: column for column in COMPARISON_COLUMNS}
    expendable: ClassVar = (
        "alpha_b", "alpha_a", "alpha_of_delta", "stable_rank_of_delta", "N", "M", "rf", "overlap_in", "overlap_out", "cka",
    )  # fmt: skip

    def __init__(
        self,
        a: Analysis,
        b: Analysis,
        delta: Analysis,
        results: dict[str, LayerComparison],
        *,
        unmatched: pd.DataFrame,
        skipped: pd.DataFrame,
        kind: str,
        kind_evidence: str,
    ) -> None:
        super().__init__(results)
        self.a, self.b, self.delta = a, b, delta
        self.unmatched, self.skipped = unmatched, skipped
        self.kind, self.kind_evidence = kind, kind_evidence

    def most_changed(self, count: int = 10, by: str = "relative_change") -> pd.DataFrame:
        """The layers that changed most, tied ones left out.

        Args:
            count: How many.
            by: A numeric column of ``details``; ``alpha_change`` counts by its absolute value.

        Returns:
            Their rows of ``details``, the largest first; layers without a value are left out.

        Raises:
            ValueError: If there is no such numeric column.
        """
        if by not in self.details.select_dtypes("number"):
            numeric = ", ".join(self.details.select_dtypes("number"))
            raise ValueError(f"expected by= to be one of the numeric columns {numeric}, got {by!r}")
        own = self.details[(self.details["tied_to"] == "") & self.details[by].notna()]
        return own.loc[own[by].astype("float64").abs().sort_values(ascending=False, kind="stable").index[:count]]

    def summary(self) -> dict[str, float]:
        """Numbers for the whole model.

        Returns:
            Counts, tied layers counted apart; ``relative_change``, the Frobenius norm of all changes together over that of
            all of A; medians of alpha over all layers with a fit, of the other columns over the layers that changed.
        """
        own = self.details[self.details["tied_to"] == ""]
        used = own[own["status"] != "failed"]
        changed = own[own["status"] == "changed"]
        spectra = [result.a.spectrum for result in self]
        square = sum(float(spectrum.eigenvalues.sum()) for row in used.index if (spectrum := spectra[row]) is not None)
        return {
            "num_layers": len(self),
            "num_unchanged": int((own["status"] == "unchanged").sum()),
            "num_failed": int((own["status"] == "failed").sum()),
            "num_tied": len(self) - len(own),
            "num_unmatched": len(self.unmatched),
            "num_skipped": len(self.skipped),
            "relative_change": ratio(float(np.linalg.norm(used["frobenius"])), math.sqrt(square)),
            "alpha_a_median": float(used["alpha_a"].median()),
            "alpha_b_median": float(used["alpha_b"].median()),
            **{
                f"{name}_median": float(changed[name].median())
                for name in ("relative_change", "alpha_change", "alpha_of_delta", "cka", "overlap_out", "overlap_in")
            },
        }

    def plot(self, kind: str = "change", *, ax: "ManyAxes | None" = None) -> "Figure":
        """Draw the comparison.

        Args:
            kind: ``"change"``: size of the change, alpha of A and B, and overlap of the leading subspaces, layer by layer.
                The name of a layer: the ESDs of A, B and the change. The name of a numeric column of ``details``: that column
                against depth, as in ``Analysis.plot``.
            ax: Where to draw: three matplotlib axes for ``"change"``, one for a layer. A figure of its own by default.

        Returns:
            The matplotlib Figure.

        Raises:
            ValueError: If ``kind`` is none of these, there is nothing to draw, or ``ax`` holds too few axes.
        """
        from htsr.plots import figure_of, plot_change, plot_depth

        if kind == "change":
            return figure_of(plot_change(self, ax=ax))
        if kind in self:
            return self[kind].plot(ax=ax)
        if kind in self.details.select_dtypes("number"):
            return figure_of(plot_depth(self.details, kind, ax=ax))
        raise ValueError(
            f"expected kind='change', a numeric column of details, or one of the layers {shortened(list(self.keys()))}, got "
            f"{kind!r}"
        )

    def save(self, path: str | Path) -> Path:
        """Write the comparison.

        Args:
            path: Where to. The suffix picks the format: ``.html`` a self-contained report, ``.json`` summary, details,
                unmatched and skipped, ``.csv`` and ``.parquet`` the details.

        Returns:
            The path written.

        Raises:
            InputError: If the suffix is none of these, or ``.parquet`` is asked for without pyarrow (``htsr[parquet]``).
        """
        from htsr.report.save import save_comparison

        return save_comparison(self, Path(path))

    def _named_first(self) -> list[str]:
        """Return the layers that changed most."""
        return list(self.most_changed(len(self))["name"])

    def ranked_findings(self) -> list[Finding]:
        """The findings of all layers, the worst first."""
        return ranked((finding for result in self for finding in result.findings), KINDS)

    def _repr_html_(self) -> str:
        from htsr.report.notebook import comparison_html

        return comparison_html(self)

    def _page(self) -> str:
        from htsr.report.pages import comparison_page

        return comparison_page(self)

    def to_explain(self) -> list[str]:
        """What ``htsr explain`` should be asked about this result: the columns that name kinds of change."""
        return ["kind", "change"]

    def note_command(self, command: str) -> None:
        """Remember the command line that made the comparison."""
        for analysis in (self.a, self.b):
            analysis.note_command(command)

    def sentences(self) -> list[Sentence]:
        """The sentences of the verdict, at most three."""
        return verdict_of_comparison(self)

    def brief(self) -> pd.DataFrame:
        """The columns of ``details`` that fit on a terminal, rounded for people, with a note beside each row."""
        return brief_change(self.details)

    def headline(self) -> str:
        """What was compared, the verdict, and the alpha of A and B, one line each."""
        s = self.summary()
        counts = (
            f"{s['num_layers']} layers in both ({s['num_unchanged']} unchanged, {s['num_failed']} failed, {s['num_tied']} "
            f"tied), {s['num_unmatched']} without a partner, {s['num_skipped']} tensors skipped"
        )
        lines = [f"A: {visible(self.a.source)}; B: {visible(self.b.source)}", counts, *self.verdict_sentences()]
        return "\n".join(filter(None, [*lines, alphas_in_words(s)]))
