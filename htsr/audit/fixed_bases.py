"""Recognise matrices that a formula made: Fourier, STFT and cosine bases, and banks of mel filters.

Such matrices stand in models of sound as kernels or buffers. They are not trained, and their spectra say nothing about training:
a basis of sinusoids has equal eigenvalues, or fewer than its sides suggest.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Chosen here. A sinusoid, with a window or between two frequencies of the transform, keeps at least this share of its energy in
# this many neighbouring frequencies; noise of 64 samples keeps a third there. A whole basis has at least this many different
# frequencies for each row: half of it if sines and cosines take turns.
ENERGY, NEIGHBOURS, FREQUENCIES = 0.85, 2, 0.4
# With fewer samples or rows, a few neighbouring frequencies are most of them.
MIN_SAMPLES, MIN_ROWS = 32, 8
# Rows that are looked at after the first two; nearly every trained matrix has one among them that is no sinusoid.
FIRST = 8


def fixed_basis(weight: torch.Tensor) -> str | None:
    """Return which formula made a matrix, in words; None if it is none of those known here."""
    # A kernel of one channel, (frequencies, 1, samples), comes here as a matrix (frequencies, samples).
    if weight.ndim != 2:
        return None
    for rows, name in ((weight, "rows"), (weight.mT, "columns")):
        if rows.shape[0] < MIN_ROWS or rows.shape[1] < MIN_SAMPLES:
            continue
        if _are_sinusoids(rows):
            return f"its {name} are sinusoids, each of its own frequency, as in a Fourier or cosine transform"
        if _are_triangles(rows):
            return f"its {name} are overlapping bumps along the frequencies, as in a bank of mel filters"
    return None


def _are_sinusoids(rows: torch.Tensor) -> bool:
    """Return whether each row that is not zero is a sinusoid, possibly times a window, of as many frequencies as a basis has."""
    place, stride = len(rows) // 3, -(-len(rows) // FIRST)
    if _peaks(rows[place : place + 2]) is None or _peaks(rows[::stride]) is None:
        return False
    peaks = _peaks(rows)
    return peaks is not None and len(np.unique(peaks)) >= FREQUENCIES * len(rows)


def _peaks(rows: torch.Tensor) -> "NDArray[np.int64] | None":
    """Return the strongest frequency of each row that is not zero; None if one of them is no sinusoid."""
    power = np.abs(np.fft.rfft(rows.float().cpu().numpy(), axis=1)) ** 2
    power[:, 1:] *= 2  # each stands for a negative frequency, too
    total = power.sum(axis=1)
    power, total = power[total > 1e-12 * total.max()], total[total > 1e-12 * total.max()]
    # nearly every trained matrix ends here: not even as many frequencies as the strongest hold enough of a row
    if not len(power) or ((2 * NEIGHBOURS + 1) * power.max(axis=1) < ENERGY * total).any():
        return None
    peaks = power.argmax(axis=1)
    near = peaks[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1)
    near_power = np.pad(power, ((0, 0), (NEIGHBOURS, NEIGHBOURS)))[np.arange(len(power))[:, None], near + NEIGHBOURS]
    return peaks if (near_power.sum(axis=1) >= ENERGY * total).all() else None


def _are_triangles(rows: torch.Tensor) -> bool:
    """Return whether each row rises to one peak and falls, is zero elsewhere, and has its peak beyond that of the row before."""
    if bool((rows[:FIRST] < 0).any()) or bool((rows < 0).any()) or int((rows > 0).sum()) > rows.numel() // 2:
        return False
    rows = rows.to(torch.float64)
    peaks = rows.argmax(1)
    columns = torch.arange(rows.shape[1], device=rows.device)
    slack = 1e-6 * rows.abs().amax(1, keepdim=True)
    rise = rows.diff(dim=1)
    before = columns[1:] <= peaks[:, None]
    one_peak = ((rise >= -slack) | ~before).all() & ((rise <= slack) | before).all()
    overlap = (rows[1:] * rows[:-1]).sum(1) > 0
    ordered = (peaks.diff() >= 0).all() and len(torch.unique(peaks)) > len(rows) // 2
    return bool(one_peak and ordered) and float(overlap.double().mean()) > 0.5
