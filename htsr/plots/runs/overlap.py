"""How far the leading singular subspaces of a weight turn between the steps of a run."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from htsr.plots.grids import name_columns, name_rows
from htsr.plots.style import SMALL, ManyAxes, axes_for, figure_of, label_axes, put_title


def subspace_overlaps(
    weights: "Mapping[int, torch.Tensor | np.ndarray]", rank: int = 10, side: Literal["out", "in"] = "out"
) -> pd.DataFrame:
    """Compare the leading singular subspaces of a weight at every two steps.

    Args:
        weights: The weight at each step, all of one shape, ``(out, in)`` or ``(out, in, *kernel)``.
        rank: Dimension of the subspaces; the smaller side limits it.
        side: ``"out"`` compares the left singular vectors, ``"in"`` the right ones.

    Returns:
        Steps down and across: the mean squared cosine of the principal angles, 1 for equal subspaces, and ``rank / out`` (or
        ``rank / in``) for random ones.

    Raises:
        ValueError: If there are fewer than two weights, they have different shapes, or ``rank`` or ``side`` is out of range.
    """
    if side not in ("out", "in"):
        raise ValueError(f"expected side to be 'out' or 'in', got {side!r}")
    if rank < 1:
        raise ValueError(f"expected rank >= 1, got {rank}")
    matrices = {step: torch.as_tensor(weight).detach().double().flatten(1).cpu() for step, weight in weights.items()}
    shapes = {tuple(matrix.shape) for matrix in matrices.values()}
    if len(matrices) < 2 or len(shapes) > 1:
        raise ValueError(
            f"expected two or more weights of one shape, got {len(matrices)} of the shapes {sorted(shapes)}"
        )
    subspaces = {}
    for step, matrix in matrices.items():
        U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
        subspaces[step] = (U if side == "out" else Vh.mT)[:, :rank]
    steps = list(subspaces)
    k = subspaces[steps[0]].shape[1]
    overlaps = [[float((subspaces[a].mT @ subspaces[b]).square().sum()) / k for b in steps] for a in steps]
    return pd.DataFrame(overlaps, index=steps, columns=steps)


def plot_overlap(
    weights: "Mapping[int, torch.Tensor | np.ndarray]",
    rank: int = 10,
    side: Literal["out", "in"] = "out",
    *,
    title: str = "",
    ax: ManyAxes | None = None,
) -> Axes:
    """Draw the overlap of the leading singular subspaces of a weight at every two steps.

    Args:
        weights: The weight at each step, for instance from checkpoints: a run directory keeps eigenvalues, not vectors.
        rank: Dimension of the subspaces.
        side: ``"out"`` compares the left singular vectors, ``"in"`` the right ones.
        title: The layer's name.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: As ``subspace_overlaps``.
    """
    table = subspace_overlaps(weights, rank, side)
    axes: Axes = axes_for(ax, width=4.6, height=3.8)[0, 0]
    edges = np.arange(len(table) + 1) - 0.5
    image = axes.pcolormesh(edges, edges, table.to_numpy(), cmap="viridis", vmin=0, vmax=1, linewidth=0)
    axes.grid(False)
    axes.invert_yaxis()
    name_rows(axes, list(map(str, table.index)))
    name_columns(axes, list(table.columns))
    label_axes(axes, "optimizer step", "optimizer step")
    bar = figure_of(axes).colorbar(image, ax=axes, pad=0.02)
    bar.set_label("overlap", fontsize=SMALL + 1)
    bar.ax.tick_params(labelsize=SMALL)
    weight = torch.as_tensor(next(iter(weights.values()))).flatten(1)
    k = min(rank, *weight.shape)
    chance = k / weight.shape[0 if side == "out" else 1]
    put_title(axes, title, f"leading {k} directions of the {side}puts; {chance:.2g} by chance")
    return axes
