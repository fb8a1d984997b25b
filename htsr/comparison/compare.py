"""Two versions of a model, compared layer by layer: what changed, and what the spectrum of the change looks like."""

import math
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd

from htsr.audit.about import About
from htsr.audit.analysis import Analysis, check_whole_number, skipped_frame
from htsr.audit.columns import COMPARISON_COLUMNS
from htsr.audit.files_read import Stamp, stamps
from htsr.audit.findings import Finding, ranked
from htsr.audit.layer import LayerAnalysis, Settings
from htsr.audit.progress import tqdm
from htsr.audit.results import Results
from htsr.audit.table import brief_change, shape_text, shortened, text_frame
from htsr.comparison.analyses import (
    NO_WEIGHTS,
    analyze_alike,
    as_analysis,
    change_of,
    check_alike,
    compare_spectra,
    inventory_of,
    of_layers,
)
from htsr.comparison.findings import KINDS
from htsr.comparison.kinds import kind_of_change
from htsr.comparison.layer import LayerComparison, compare_layer, ratio
from htsr.comparison.verdict import verdict_of_comparison
from htsr.errors import InputError
from htsr.tails.xmin_rules import XminRule, check_xmin
from htsr.text import visible
from htsr.weights import Inventory, Layer, open_source, select
from htsr.weights.select import Patterns
from htsr.weights.source import Source, is_adapter, is_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.plots.style import ManyAxes


# Columns of what only one of the sources has, or what is analysed in neither.
ONE_SIDED = ("name", "source", "shape", "reason")


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
    other_parent: Source | None = None,
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
        other_parent: A second model that B may be a mixture of, beside A: a merge of two fine-tuned models, or an average of two
            checkpoints. Anything that ``analyze`` takes.
        seed: As in ``analyze``.
        progress: True or False shows or hides the progress bar; by default as in ``analyze``.

    Returns:
        The comparison. Layers are matched by name and shape; those without a partner are listed in ``unmatched``.

    Raises:
        FileNotFoundError: If a path does not exist.
        InputError: If a source cannot be read, or no layer of A has a partner in B.
        TypeError: If a source is of none of these kinds, or ``rank`` is not a whole number.
        ValueError: If ``rank`` is below 1, or ``xmin`` unknown.

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
    settings = Settings(xmin=xmin, bulk=bulk, seed=seed)
    kept_a, kept_b = as_analysis(a), as_analysis(b)
    if kept_a is not None or kept_b is not None:
        options = {"bulk": bulk, "seed": seed, "progress": progress}
        return _compare_analyses(
            analyze_alike(a, kept_b, **options) if kept_a is None else kept_a,  # type: ignore[arg-type]
            analyze_alike(b, kept_a, **options) if kept_b is None else kept_b,  # type: ignore[arg-type]
            layers,
            skip,
        )
    inventory_a, inventory_b = _select(open_source(a, state=state), _open_on(b, a, state), layers, skip)
    pairs, unmatched = _match(inventory_a, inventory_b)
    third = [] if other_parent is None else _open_on(other_parent, a, state).layers
    others = {(layer.name, layer.shape): layer for layer in third}
    results: dict[str, LayerComparison] = {}
    bar = tqdm(pairs, desc="compare", unit="layer", delay=1, disable=None if progress is None else not progress)
    for layer_a, layer_b in bar:
        bar.set_postfix_str(visible(layer_a.name), refresh=False)
        first = results.get(layer_a.tied_to or "")
        if first is not None and layer_b.tied_to == layer_a.tied_to:
            results[layer_a.name] = first.repeated(layer_a)
        else:
            results[layer_a.name] = compare_layer(
                layer_a, layer_b, rank, settings, others.get((layer_a.name, layer_a.shape))
            )
    own = (result for result in results.values() if not result.row["tied_to"])
    kind, evidence = kind_of_change([result.signature for result in own if result.signature])
    only_a, only_b = _only(inventory_a, results), _only(inventory_b, results)
    change = replace(only_a, source=f"{inventory_b.source} - {inventory_a.source}", metadata={})

    def side(inventory: Inventory, layers: dict[str, LayerAnalysis], files: dict[Path, Stamp]) -> Analysis:
        return Analysis(About.of(inventory, stamps=files), skipped_frame(inventory), layers)

    return Comparison(
        side(only_a, {name: result.a for name, result in results.items()}, stamps(only_a) if is_path(a) else {}),
        side(only_b, {name: result.b for name, result in results.items()}, stamps(only_b) if is_path(b) else {}),
        side(change, {name: result.delta for name, result in results.items()}, {}),
        results,
        unmatched=unmatched,
        skipped=_skipped(inventory_a, inventory_b),
        kind=kind,
        kind_evidence=evidence,
    )


def _compare_analyses(a: Analysis, b: Analysis, layers: Patterns, skip: Patterns) -> "Comparison":
    """Return the comparison of two analyses, which keep no weights."""
    check_alike(a, b)
    inventory_a, inventory_b = _select(inventory_of(a, b), inventory_of(b, a), layers, skip)
    pairs, unmatched = _match(inventory_a, inventory_b)
    results = {layer.name: compare_spectra(a[layer.name], b[layer.name]) for layer, _ in pairs}
    return Comparison(
        of_layers(a, {name: result.a for name, result in results.items()}),
        of_layers(b, {name: result.b for name, result in results.items()}),
        change_of(a, b, {name: result.delta for name, result in results.items()}),
        results,
        unmatched=unmatched,
        skipped=_skipped(inventory_a, inventory_b),
        kind="undecided",
        kind_evidence=f"Only spectra were compared, since {NO_WEIGHTS}.",
    )


def _open_on(source: Source, base: Source, state: str | None) -> Inventory:
    """Open a source; the directory of an adapter is opened as the base with the adapter merged into it."""
    if state is not None:
        return open_source(source, state=state)
    return open_source(source, base=base) if is_adapter(source) else open_source(source)


def _only(inventory: Inventory, names: Collection[str]) -> Inventory:
    """Return these layers of an inventory, and nothing skipped."""
    return replace(inventory, layers=[layer for layer in inventory.layers if layer.name in names], skipped=[])


def _select(a: Inventory, b: Inventory, layers: Patterns, skip: Patterns) -> tuple[Inventory, Inventory]:
    """Filter both inventories alike, and refuse a pattern that matches in neither of them."""

    def known(patterns: Patterns, here: Inventory, there: Inventory) -> Patterns:
        """Return the patterns that match here; the others must match there."""
        if patterns is None:
            return None
        found = []
        for pattern in [patterns] if isinstance(patterns, str) or not isinstance(patterns, Iterable) else patterns:
            try:
                select(here, pattern)
            except InputError:
                select(there, pattern)
            else:
                found.append(pattern)
        return found

    return (
        select(a, known(layers, a, b), known(skip, a, b)),
        select(b, known(layers, b, a), known(skip, b, a)),
    )


def _match(a: Inventory, b: Inventory) -> tuple[list[tuple[Layer, Layer]], pd.DataFrame]:
    """Return the pairs of layers with one name and shape, in the order of A, and the other layers with the reason."""
    of_a, of_b = ({layer.name: layer for layer in inventory.layers} for inventory in (a, b))
    pairs, unmatched = [], []
    for name in dict.fromkeys([*of_a, *of_b]):
        layer_a, layer_b = of_a.get(name), of_b.get(name)
        if layer_a and layer_b and layer_a.shape == layer_b.shape:
            pairs.append((layer_a, layer_b))
        elif layer_a and layer_b:
            shapes = [shape_text(layer.shape) for layer in (layer_a, layer_b)]
            unmatched.append((name, "both", " | ".join(shapes), f"{shapes[0]} in A, {shapes[1]} in B"))
        elif layer_a:
            unmatched.append((name, "A", shape_text(layer_a.shape), _why_alone(layer_a, "B", b, of_a)))
        elif layer_b:
            unmatched.append((name, "B", shape_text(layer_b.shape), _why_alone(layer_b, "A", a, of_b)))
    if not pairs:
        raise InputError(
            f"no layer of {a.source} has a partner of the same name and shape in {b.source}: expected two versions of one "
            f"model, got A: {shortened(list(of_a)) or 'no layer'}; B: {shortened(list(of_b)) or 'no layer'}"
        )
    return pairs, text_frame(unmatched, ONE_SIDED)


def _why_alone(layer: Layer, other: str, inventory: Inventory, own: dict[str, Layer]) -> str:
    """Return why a layer has no partner in the inventory of the other source."""
    for item in inventory.skipped:
        if item.name in (layer.name, layer.longname, f"{layer.name}.weight"):
            return f"not analysed in {other}: {item.reason}"
    for candidate in inventory.layers:
        shorter, longer = sorted((layer.name, candidate.name), key=len)
        if candidate.name not in own and candidate.shape == layer.shape and longer.endswith(f".{shorter}"):
            return f"no such name in {other}, which has {candidate.name} of the same shape"
    return f"no such name in {other}"


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
                The name of a layer: the ESDs of A, B and the change.
            ax: Where to draw: three matplotlib axes for ``"change"``, one for a layer. A figure of its own by default.

        Returns:
            The matplotlib Figure.

        Raises:
            ValueError: If ``kind`` is neither, there is nothing to draw, or ``ax`` holds too few axes.
        """
        from htsr.plots import figure_of, plot_change

        if kind == "change":
            return figure_of(plot_change(self, ax=ax))
        if kind not in self:
            raise ValueError(
                f"expected kind='change' or one of the layers {shortened(list(self.keys()))}, got {kind!r}"
            )
        return self[kind].plot(ax=ax)

    def save(self, path: str | Path) -> Path:
        """Write the comparison.

        Args:
            path: Where to. The suffix picks the format: ``.html`` a self-contained report, ``.json`` summary, details,
                unmatched and skipped, ``.csv`` and ``.parquet`` the details.

        Returns:
            The path written.

        Raises:
            InputError: If the suffix is none of these.
        """
        from htsr.report.save import save_comparison

        return save_comparison(self, Path(path))

    def ranked_findings(self) -> list[Finding]:
        """The findings of all layers, the worst first."""
        return ranked((finding for result in self for finding in result.findings), KINDS)

    def _verdict(self) -> list[str]:
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
        lines = [f"A: {visible(self.a.source)}; B: {visible(self.b.source)}", counts, *self._verdict()]
        if not math.isnan(s["alpha_a_median"] + s["alpha_b_median"]):
            lines.append(f"alpha: median {s['alpha_a_median']:.2f} in A, {s['alpha_b_median']:.2f} in B")
        return "\n".join(lines)


def _skipped(a: Inventory, b: Inventory) -> pd.DataFrame:
    """Return the tensors that are not analysed; one that both sources skip for one reason has one row."""
    sides: dict[tuple[str, str, str], list[str]] = {}
    for side, inventory in (("A", a), ("B", b)):
        for item in inventory.skipped:
            sides.setdefault((item.name, shape_text(item.shape), item.reason), []).append(side)
    rows = ((name, "both" if len(of) > 1 else of[0], shape, why) for (name, shape, why), of in sides.items())
    return text_frame(rows, ONE_SIDED)
