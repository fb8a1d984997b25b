"""The singular values of gradient, momentum and update, before and after the power."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes

from htsr.plots.style import BLUE, GREEN, GREY, ManyAxes, axes_for, label_axes, put_legend, put_title, sequence_colours
from htsr.plots.ticks import log_axis
from htsr.spectra.spectrum import Spectrum

# Whatever has singular values: a matrix, the singular values themselves, or a spectrum, which holds their squares.
Matrix = torch.Tensor | np.ndarray | Spectrum


def singular_values(matrix: Matrix) -> np.ndarray:
    """Return singular values, scaled to a root mean square of 1.

    Args:
        matrix: A matrix ``(out, in)`` or a kernel, its singular values (one row), or its spectrum.

    Returns:
        The singular values that are not zero, the largest first. A matrix of that scale has the Frobenius norm sqrt(rank),
        which is that of Muon's update.

    Raises:
        ValueError: If every value is zero.
    """
    if not isinstance(matrix, Spectrum) and np.ndim(matrix) > 1:
        matrix = Spectrum.from_weight(matrix)
    if isinstance(matrix, Spectrum):
        values = np.sqrt(matrix.nonzero)
    else:
        values = np.asarray(
            matrix.detach().double().cpu() if isinstance(matrix, torch.Tensor) else matrix, dtype=np.float64
        )
    values = np.sort(values[values > 0])[::-1]
    if not len(values):
        raise ValueError("there is no singular value above zero")
    return values / np.sqrt(np.mean(values**2))


def plot_update_spectrum(
    momentum: Matrix,
    power: float | Sequence[float] = (),
    *,
    gradient: Matrix | None = None,
    update: Matrix | None = None,
    title: str = "",
    ax: ManyAxes | None = None,
) -> Axes:
    """Draw the singular values of a momentum before and after the power, and those of gradient and update where given.

    All are scaled to a root mean square of 1, so that their shapes can be compared: p = 0 (Muon) makes them all 1, p = 1 leaves
    them as they are.

    Args:
        momentum: The momentum: a matrix, its singular values (one row), or a spectrum from ``History.spectrum``.
        power: One or several powers p; each gets a line, the singular values to the power p.
        gradient: The gradient, the same ways.
        update: The update that the optimizer made, the same ways; it contains the weight decay.
        title: The layer's name.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If one of them is zero.
    """
    before = singular_values(momentum)
    powers = [power] if isinstance(power, float | int) else list(power)
    axes: Axes = axes_for(ax, width=6, height=3.8)[0, 0]
    for matrix, colour, label in ((gradient, GREY, "gradient"), (update, GREEN, "update")):
        if matrix is not None:
            values = singular_values(matrix)
            axes.plot(np.arange(1, len(values) + 1), values, color=colour, linewidth=1.4, label=label)
    axes.plot(np.arange(1, len(before) + 1), before, color=BLUE, linewidth=1.4, label="momentum")
    for p, shade in zip(powers, sequence_colours(len(powers)), strict=True):
        after = singular_values(before**p)
        label = f"momentum, p = {p:.4g}"
        axes.plot(np.arange(1, len(after) + 1), after, color=shade, linewidth=1.6, linestyle="--", label=label)
    log_axis(axes, "y")
    label_axes(axes, "rank of the singular value", "singular value / rms")
    put_title(axes, title)
    put_legend(axes, own=ax is None)
    return axes
