"""Weights of one family of models at several widths: do their norms scale as the spectral condition asks?"""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from htsr.audit.layout import as_text
from htsr.audit.progress import tqdm
from htsr.dynamics.coordinate_check import exponent_text
from htsr.dynamics.width_exponent import fit_width_exponent
from htsr.errors import InputError
from htsr.spectra.leading import leading_directions
from htsr.text import visible
from htsr.weights import Layer, open_source, select
from htsr.weights.names import distinct_ends
from htsr.weights.select import Patterns
from htsr.weights.source import Source, is_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.plots.style import ManyAxes

SKIPPED = ("role", "reason")


def width_audit(
    sources: Sequence[Source], *, layers: Patterns = None, skip: Patterns = None, progress: bool | None = None
) -> "WidthAudit":
    """Fit how the norms of the weights of a family grow with the width, from its files alone.

    The norm is ``||W||_2 sqrt(n_in / n_out)``, by how much a matrix can enlarge the root mean square of its input. The spectral
    condition (arXiv 2310.17813, condition 1) asks that it does not depend on the width; then one learning rate and one
    initialisation serve the family.

    Args:
        sources: At least two models of one family with different widths: anything that ``analyze`` takes.
        layers: Patterns of layers to keep, as in ``analyze``.
        skip: Patterns of layers to leave out.
        progress: True or False shows or hides the progress bar; by default it is shown on a terminal, after a second.

    Returns:
        A row for each role, with exponent, standard error and verdict.

    Raises:
        FileNotFoundError: If a path does not exist.
        InputError: If a source cannot be read, or no layer occurs in two sources with different widths.
        TypeError: If ``sources`` is not a list.
        ValueError: If there are fewer than two sources.

    Notes:
        Layers match if they have the same name inside their block, up to numbers, and stand at the same relative depth: block b
        of B counts as block ``floor((b + 1/2) D / B)`` of the shallowest model, which has D. All layers with one such name
        make a role, provided that the same sides grow: the input, the output, or both. The width of a role is its ``n_in``, or
        ``n_out`` where only the output grows. The exponent has an intercept for each depth, so depths are to it what seeds are
        to ``coordinate_check``, and its verdicts are the same. A head or an embedding of two models is only two values, and
        its exponent has no error.

        A convolution counts as the matrix ``(out, in * positions)``. For an embedding, whose input is one token, the norm is
        the root mean square of its largest row. Tied weights count once.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> def blocks(width):
        ...     return torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(6)))
        >>> width_audit([blocks(64), blocks(256)]).details[["role", "grows", "layers", "verdict"]]
            role grows  layers verdict
        0  other  both      12    flat
    """
    if isinstance(sources, str | os.PathLike) or not isinstance(sources, Sequence):
        raise TypeError(f"expected a list of sources, one for each width, got {type(sources).__name__}")
    if len(sources) < 2:
        raise ValueError(f"expected at least two sources, of different widths, got {len(sources)}")
    paths = [source for source in sources if is_path(source)]
    labels = distinct_ends(paths) if len(paths) == len(sources) else [str(i) for i in range(len(sources))]
    inventories = [select(open_source(source, conv="unfold"), layers, skip) for source in sources]
    matched, skipped = _roles([inventory.layers for inventory in inventories])
    found = [(role, label, one) for role, of in matched.items() for label, one in _in(labels, of)]
    rows = []
    for role, label, one in tqdm(
        found, desc="width audit", unit="layer", delay=1, disable=None if progress is None else not progress
    ):
        layer = one.layer
        n_in, n_out = sides(layer)
        rows.append(
            {
                "role": role.name, "grows": role.grows, "depth": one.depth, "source": label, "name": layer.name,
                "n_in": n_in, "n_out": n_out, "width": n_out if role.grows == "out" else n_in,
                "rms_operator_norm": rms_operator_norm(layer),
            }
        )  # fmt: skip
    if not rows:
        raise InputError(
            f"expected models of one family at several widths, found no layer in common whose shape differs: "
            f"{'; '.join(f'{role}: {reason}' for role, reason in skipped[:5])}"
        )
    measurements = pd.DataFrame(rows)
    details = pd.DataFrame([_row(of) for _, of in measurements.groupby(["role", "grows"], sort=False)])
    return WidthAudit(details, measurements, pd.DataFrame(skipped, columns=list(SKIPPED)), tuple(labels))


def sides(layer: Layer) -> tuple[int, int]:
    """Return n_in and n_out of a weight; an embedding stores a row for each of its inputs, the tokens."""
    n_out, n_in = layer.shape[0], math.prod(layer.shape[1:])
    return (n_out, n_in) if layer.layer_type == "embedding" else (n_in, n_out)


def rms_operator_norm(layer: Layer) -> float:
    """Return by how much a weight can enlarge a root mean square: its spectral norm times sqrt(n_in / n_out).

    For an embedding it is the root mean square of the largest row; NaN for a weight that is not finite.
    """
    weight = layer.load().detach().to("cpu", torch.float64).flatten(1)
    if not torch.isfinite(weight).all():
        return math.nan
    n_in, n_out = sides(layer)
    if layer.layer_type == "embedding":
        return float(torch.linalg.vector_norm(weight, dim=1).max()) / math.sqrt(n_out)
    top, _, _ = leading_directions(weight, 1)
    return float(top[0]) * math.sqrt(n_in / n_out) if len(top) else 0.0


class Role(NamedTuple):
    """What layers at several depths have in common: their name inside a block, and which of their sides grow."""

    name: str
    grows: str


class Member(NamedTuple):
    """A layer of a role: which source it comes from, and its depth in blocks of the shallowest source."""

    source: int
    depth: int
    layer: Layer


def _in(labels: Sequence[str], members: Sequence[Member]) -> Iterator[tuple[str, Member]]:
    """Yield the label of its source with each member."""
    return ((labels[member.source], member) for member in members)


def _roles(families: Sequence[Sequence[Layer]]) -> tuple[dict[Role, list[Member]], list[tuple[str, str]]]:
    """Return the members of each role that occurs at several widths, and a reason for every other name."""
    placed: dict[tuple[str, int], list[Member]] = defaultdict(list)
    found = [_places(layers) for layers in families]
    shallowest = min(blocks for blocks, _ in found)
    for source, (blocks, inside) in enumerate(found):
        for layer, block, name in inside:
            depth = -1 if block < 0 else int((block + 0.5) * shallowest / blocks)
            placed[name, depth].append(Member(source, depth, layer))
    roles: dict[Role, list[Member]] = defaultdict(list)
    reasons: dict[str, str] = {}
    for (name, _), members in placed.items():
        inputs, outputs = (
            len(set(side)) > 1 for side in zip(*(sides(member.layer) for member in members), strict=True)
        )
        if len({member.source for member in members}) < 2:
            reasons[name] = "in one source only"
        elif not (inputs or outputs):
            reasons[name] = "of one shape in all sources"
        else:
            roles[Role(name, "both" if inputs and outputs else "in" if inputs else "out")] += members
    kept = {role.name for role in roles}
    return roles, [(name, reason) for name, reason in reasons.items() if name not in kept]


def _places(layers: Sequence[Layer]) -> tuple[int, list[tuple[Layer, int, str]]]:
    """Return the number of blocks, and each layer with its block, -1 outside, and its name inside, with stars for numbers."""
    from htsr.plots.models.places import places

    own = [layer for layer in layers if layer.tied_to is None]
    found = places([layer.name for layer in own], [layer.layer_type for layer in own])
    inside = [
        (layer, place.block, re.sub(r"\d+", "*", layer.name[len(place.label) :].lstrip("._")) or place.role)
        for layer, place in zip(own, found, strict=True)
    ]
    return max((place.block for place in found), default=-1) + 1, inside


def _row(of: pd.DataFrame) -> dict[str, object]:
    """Return the row of a role from the norms of its layers."""
    first = of.iloc[0]
    sound = of[of["rms_operator_norm"] > 0]
    fit = fit_width_exponent(sound["width"].tolist(), sound["rms_operator_norm"].tolist(), sound["depth"].tolist())
    means = np.log(sound["rms_operator_norm"]).groupby(sound["width"]).mean()
    ends = np.exp([means.iloc[0], means.iloc[-1]]) if len(means) else [math.nan, math.nan]
    return {
        "role": first["role"], "grows": first["grows"], "layers": len(of),
        "width_narrowest": of["width"].min(), "width_widest": of["width"].max(),
        "exponent": fit.exponent, "error": fit.error, "verdict": fit.verdict or "not finite or zero",
        "norm_narrowest": ends[0], "norm_widest": ends[1],
    }  # fmt: skip


@dataclass(frozen=True, repr=False, eq=False)
class WidthAudit:
    """The result of ``width_audit``.

    Attributes:
        details: One row for each role: which sides ``grows`` names, the number of ``layers`` over all sources, ``exponent`` of
            the width with which ``rms_operator_norm`` grows, its standard ``error``, the ``verdict``, and geometric means of
            the norm at the smallest and at the largest width.
        measurements: One row for each layer: its role, relative ``depth`` (-1 outside the blocks), source, name, sides, width
            and ``rms_operator_norm``.
        skipped: Roles without a row, and why.
        sources: What the sources are called.
    """

    details: pd.DataFrame
    measurements: pd.DataFrame
    skipped: pd.DataFrame
    sources: tuple[str, ...]

    def headline(self) -> str:
        """One sentence: which roles have a norm that depends on the width."""
        text = f"Norms of {len(self.details)} roles in {len(self.sources)} models: "
        named = [
            f"{visible(row.role)} {row.verdict}"
            for row in self.details.itertuples(index=False)
            if row.verdict.startswith(("grows", "vanishes"))
        ]
        return text + ("; ".join(named) if named else "none is seen to depend on the width") + "."

    def plot(self, *, ax: "ManyAxes | None" = None) -> "Figure":
        """Draw the norm of each role against its width.

        Args:
            ax: matplotlib axes; a figure of its own by default.

        Returns:
            The matplotlib Figure. Roles with a verdict other than flat are coloured and named.
        """
        from htsr import plots

        names = self.measurements["role"] + " (" + self.measurements["grows"] + ")"
        table = self.measurements.assign(name=names, value=self.measurements["rms_operator_norm"])
        marked = self.details[self.details["verdict"] != "flat"]
        panels = {"": (table, list(marked["role"] + " (" + marked["grows"] + ")"))}
        return plots.figure_of(plots.plot_widths(panels, "RMS operator norm", ax=ax))

    def __repr__(self) -> str:
        shown = self.details.rename(columns={"role": "name"})
        pairs = zip(shown["exponent"], shown["error"], strict=True)
        norms = {name: shown[name].map("{:.3g}".format) for name in ("norm_narrowest", "norm_widest")}
        shown = shown.assign(
            name=shown["name"].map(visible), exponent=[exponent_text(*pair) for pair in pairs], **norms
        )
        columns = ["name", "grows", "layers", *norms, "exponent", "verdict"]
        return f"{self.headline()}\n{as_text(shown[columns], ('norm_narrowest', 'norm_widest', 'layers'))}"
