"""Two sources side by side: what changed between them, layer by layer, and what the change looks like."""

import math
import os
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from htsr.audit.analysis import Analysis, details_frame, some
from htsr.audit.layer import Settings
from htsr.comparison.layer import COMPARED, LayerComparison, compare_layer, note_of_change, ratio
from htsr.errors import InputError
from htsr.progress import tqdm
from htsr.tails.power_law import XminRule, check_xmin
from htsr.weights import Inventory, Layer, open_source, select
from htsr.weights.readers.peft import ADAPTER_CONFIG
from htsr.weights.select import Patterns
from htsr.weights.source import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compare(
    a: Source,
    b: Source,
    *,
    layers: Patterns = None,
    skip: Patterns = None,
    rank: int = 10,
    xmin: XminRule = "ks",
    bulk: bool = True,
    seed: int = 0,
    progress: bool | None = None,
) -> "Comparison":
    """Compare two sources layer by layer: before and after fine-tuning, base and merged LoRA, two epochs.

    Args:
        a: The earlier or base model: anything that ``analyze`` takes.
        b: The later one. It need not be of the same kind: a module and a checkpoint compare well. The directory of a LoRA
            adapter stands for what it makes of A.
        layers: Names, globs or layer types to keep; all by default.
        skip: Names, globs or layer types to leave out.
        rank: Dimension of the leading singular subspaces whose principal angles are taken; 10 was chosen here, less where a
            matrix has less rank.
        xmin: How tails are chosen, as in ``fit_power_law``.
        bulk: Say what noise would look like, as in ``analyze``; tells a change with structure from noise.
        seed: As in ``analyze``.
        progress: True or False shows or hides the progress bar; by default as in ``analyze``.

    Returns:
        The comparison. Layers are matched by name and shape; those without a partner are listed in ``unmatched``.

    Raises:
        FileNotFoundError: If a path does not exist.
        InputError: If a source cannot be read, or no layer of A has a partner in B.
        ValueError: If ``rank`` is not a positive number, or ``xmin`` unknown.

    Notes:
        One pair of matrices is in memory at a time. Eigenvalues of the change that the rounding of the two stored weights
        can make are zero: a merged LoRA of rank 8 changes a layer by hard rank 8 whatever the precision.

        The alpha of a change needs care. A change that looks like noise has an alpha, too, and for small matrices it
        often lies between 2 and 6. ``null_alpha_delta`` says what noise of this shape has, ``null_p_value_delta`` and
        ``phase_delta`` whether the change differs from it.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> base, noise = torch.randn(80, 60), torch.randn(80, 60)
        >>> c = compare({"w": base}, {"w": base + 0.1 * noise + 0.1})
        >>> c.details[["name", "status", "num_spikes_delta", "hard_rank_delta"]]
          name   status  num_spikes_delta  hard_rank_delta
        0    w  changed                 1               60
        >>> print(f"{c['w'].row['relative_change']:.2f}")
        0.14
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"expected rank= as a whole number from 1 on, got {rank!r}")
    check_xmin(xmin)
    settings = Settings(xmin=xmin, bulk=bulk, seed=seed)
    inventory_a, inventory_b = _select(open_source(a), _open_on(b, a), layers, skip)
    pairs, unmatched = _match(inventory_a, inventory_b)
    results: dict[str, LayerComparison] = {}
    bar = tqdm(pairs, desc="compare", unit="layer", delay=1, disable=None if progress is None else not progress)
    for layer_a, layer_b in bar:
        bar.set_postfix_str(layer_a.name, refresh=False)
        first = results.get(layer_a.tied_to or "")
        if first is not None and layer_b.tied_to == layer_a.tied_to:
            results[layer_a.name] = first.repeated(layer_a)
        else:
            results[layer_a.name] = compare_layer(layer_a, layer_b, rank, settings)
    return Comparison(inventory_a, inventory_b, results, unmatched)


def _open_on(source: Source, base: Source) -> Inventory:
    """A source; the directory of an adapter is opened as what it makes of the base."""
    adapter = isinstance(source, str | os.PathLike) and os.path.isfile(os.path.join(source, ADAPTER_CONFIG))
    return open_source(source, base=base) if adapter else open_source(source)


def _select(a: Inventory, b: Inventory, layers: Patterns, skip: Patterns) -> tuple[Inventory, Inventory]:
    """Both inventories, filtered alike. A pattern that matches in one of them only is fine; in neither it is refused."""

    def known(patterns: Patterns, here: Inventory, there: Inventory) -> Patterns:
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
    """Pairs of layers of one name and shape, in the order of A; and the rest, with the reason."""
    of_a, of_b = ({layer.name: layer for layer in inventory.layers} for inventory in (a, b))
    pairs, unmatched = [], []
    for name in dict.fromkeys([*of_a, *of_b]):
        layer_a, layer_b = of_a.get(name), of_b.get(name)
        if layer_a and layer_b and layer_a.shape == layer_b.shape:
            pairs.append((layer_a, layer_b))
        elif layer_a and layer_b:
            shapes = [_shape(layer.shape) for layer in (layer_a, layer_b)]
            unmatched.append((name, "both", " | ".join(shapes), f"{shapes[0]} in A, {shapes[1]} in B"))
        elif layer_a:
            unmatched.append((name, "A", _shape(layer_a.shape), _why_alone(layer_a, "B", b, of_a)))
        elif layer_b:
            unmatched.append((name, "B", _shape(layer_b.shape), _why_alone(layer_b, "A", a, of_b)))
    if not pairs:
        raise InputError(
            f"no layer of {a.source} has a partner of the same name and shape in {b.source}: expected two versions of one "
            f"model, got A: {some(list(of_a)) or 'no layer'}; B: {some(list(of_b)) or 'no layer'}"
        )
    return pairs, pd.DataFrame(unmatched, columns=["name", "source", "shape", "reason"], dtype="str")


def _why_alone(layer: Layer, other: str, inventory: Inventory, own: dict[str, Layer]) -> str:
    for item in inventory.skipped:
        if item.name in (layer.name, layer.longname, f"{layer.name}.weight"):
            return f"not analysed in {other}: {item.reason}"
    for candidate in inventory.layers:
        shorter, longer = sorted((layer.name, candidate.name), key=len)
        if candidate.name not in own and candidate.shape == layer.shape and longer.endswith(f".{shorter}"):
            return f"no such name in {other}, which has {candidate.name} of the same shape"
    return f"no such name in {other}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


class Comparison:
    """What ``compare`` found.

    Attributes:
        details: One row for each layer that A and B share, in the order of A. The columns are listed in
            ``htsr.comparison.layer.COMPARED``.
        unmatched: Name, source (A, B or both), shape and reason of every layer without a partner.
        skipped: Name, source, shape and reason of every tensor that is not analysed, biases for instance.
        a: The ``Analysis`` of the matched layers of A.
        b: The same of B.
        delta: The same of the changes, B - A: ``c.delta["layer"].plot()`` draws the spectrum of one.
    """

    def __init__(
        self, a: Inventory, b: Inventory, results: dict[str, LayerComparison], unmatched: pd.DataFrame
    ) -> None:
        self._results = results
        self.details: pd.DataFrame = details_frame([result.row for result in results.values()], COMPARED)
        self.unmatched = unmatched
        skipped: dict[tuple[str, str, str], list[str]] = {}
        for side, inventory in (("A", a), ("B", b)):
            for item in inventory.skipped:
                skipped.setdefault((item.name, _shape(item.shape), item.reason), []).append(side)
        self.skipped = pd.DataFrame(
            [
                (name, sides[0] if len(sides) == 1 else "both", shape, why)
                for (name, shape, why), sides in skipped.items()
            ],
            columns=["name", "source", "shape", "reason"],
            dtype="str",
        )
        nothing = pd.DataFrame(columns=["name", "shape", "reason"], dtype="str")
        self.a = Analysis(a.source, "htsr", {name: result.a for name, result in results.items()}, nothing)
        self.b = Analysis(b.source, "htsr", {name: result.b for name, result in results.items()}, nothing)
        change = f"{b.source} - {a.source}"
        self.delta = Analysis(change, "htsr", {name: result.delta for name, result in results.items()}, nothing)

    def __getitem__(self, name: str) -> LayerComparison:
        if name not in self._results:
            raise KeyError(f"{name!r}: expected one of the {len(self)} layers, {some(list(self._results))}")
        return self._results[name]

    def __iter__(self) -> Iterator[LayerComparison]:
        return iter(self._results.values())

    def __len__(self) -> int:
        return len(self._results)

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
        spectra = self.a.spectra
        square = sum(float(spectra[name].eigenvalues.sum()) for name in used["name"])
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
                for name in ("relative_change", "alpha_change", "alpha_delta", "cka", "overlap_out", "overlap_in")
            },
        }

    def plot(self, kind: str = "change") -> "Figure":
        """Draw the comparison.

        Args:
            kind: ``"change"``: size of the change, alpha of A and B, and overlap of the leading subspaces, layer by layer.
                The name of a layer: the ESDs of A, B and the change.

        Returns:
            A matplotlib Figure.

        Raises:
            ValueError: If ``kind`` is neither, or there is nothing to draw.
        """
        from htsr.plots import plot_change, plot_esd_of_change

        if kind == "change":
            return plot_change(self)
        if kind not in self._results:
            raise ValueError(f"expected kind='change' or one of the layers {some(list(self._results))}, got {kind!r}")
        return plot_esd_of_change(self[kind])

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

    def __repr__(self) -> str:
        return f"{self.headline()}\n{brief_change(self.details).to_string(index=False, max_rows=60)}"

    def _repr_html_(self) -> str:
        table = brief_change(self.details).to_html(index=False, max_rows=60, border=0, na_rep="")
        return f"<p>{escape(self.headline()).replace(chr(10), '<br>')}</p>{table}"

    def headline(self) -> str:
        """A few lines: what was compared, how much changed, and what changed most."""
        s = self.summary()
        counts = (
            f"{s['num_layers']} layers in both ({s['num_unchanged']} unchanged, {s['num_failed']} failed, {s['num_tied']} "
            f"tied), {s['num_unmatched']} without a partner, {s['num_skipped']} tensors skipped"
        )
        lines = [f"A: {self.a.source}; B: {self.b.source}", counts]
        changed = self.most_changed(3)
        changed = changed[changed["relative_change"] > 0]
        if len(changed):
            first = ", ".join(f"{row['name']} ({row['relative_change']:.2g})" for row in changed.to_dict("records"))
            lines.append(f"change / weight: {s['relative_change']:.2g} of the whole; largest in {first}")
        elif s["num_failed"] < s["num_layers"]:
            lines.append("nothing changed")
        if not math.isnan(s["alpha_a_median"] + s["alpha_b_median"]):
            lines.append(f"alpha: median {s['alpha_a_median']:.2f} in A, {s['alpha_b_median']:.2f} in B")
        return "\n".join(lines)


def brief_change(details: pd.DataFrame) -> pd.DataFrame:
    """The columns of a comparison that fit on a terminal, rounded for reading."""
    digits = {"relative_change": "{:.2g}", "alpha_a": "{:.2f}", "alpha_b": "{:.2f}", "alpha_delta": "{:.2f}",
              "stable_rank_delta": "{:.1f}", "cka": "{:.3f}", "overlap_out": "{:.2f}", "overlap_in": "{:.2f}"}  # fmt: skip
    table = details[["name", "N", "M"]].copy()
    for column, form in digits.items():
        table[column] = ["" if pd.isna(value) else form.format(value) for value in details[column]]
    return table.assign(note=[note_of_change(row) for row in details.to_dict("records")])
