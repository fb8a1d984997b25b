"""Recognise a matrix of sampled sinusoids: the fixed basis of a Fourier or cosine transform, which no training made."""

import torch

# Chosen here. A sinusoid, with a window or between two frequencies of the transform, keeps at least this share of its energy in
# this many neighbouring frequencies; noise of 64 samples keeps a third there. A whole basis has at least this many different
# frequencies for each row: half of it if sines and cosines take turns.
ENERGY, NEIGHBOURS, FREQUENCIES = 0.85, 2, 0.4
# With fewer samples or rows, a few neighbouring frequencies are most of them.
MIN_SAMPLES, MIN_ROWS = 32, 8
# Rows that are looked at first; nearly every trained matrix has one among them that is no sinusoid.
FIRST = 8


def is_sinusoidal(weight: torch.Tensor) -> bool:
    """Return whether each row of a matrix, or each column, is a sinusoid of its own frequency, possibly times a window."""
    # A kernel of one channel, (frequencies, 1, samples), comes here as a matrix (frequencies, samples).
    if weight.ndim != 2:
        return False
    return any(_rows_are_sinusoids(rows) for rows in (weight, weight.mT))


def _rows_are_sinusoids(rows: torch.Tensor) -> bool:
    """Return whether each row that is not zero is a sinusoid of its own frequency."""
    if rows.shape[0] < MIN_ROWS or rows.shape[1] < MIN_SAMPLES:
        return False
    return _peaks(rows[:: -(-len(rows) // FIRST)]) is not None and _has_all_frequencies(rows)


def _has_all_frequencies(rows: torch.Tensor) -> bool:
    """Return whether rows are sinusoids of as many frequencies as a basis has."""
    peaks = _peaks(rows)
    return peaks is not None and len(peaks.unique()) >= FREQUENCIES * len(rows)


def _peaks(rows: torch.Tensor) -> torch.Tensor | None:
    """Return the strongest frequency of each row that is not zero; None if one of them is no sinusoid."""
    power = torch.fft.rfft(rows.to(torch.float32), dim=1).abs().square()
    power[:, 1:] *= 2  # each stands for a negative frequency, too
    total = power.sum(1)
    power, total = power[total > 1e-12 * total.max()], total[total > 1e-12 * total.max()]
    peaks = power.argmax(1)
    near = torch.nn.functional.pad(power, (NEIGHBOURS, NEIGHBOURS))
    windows = near.unfold(1, 2 * NEIGHBOURS + 1, 1)
    share = windows[torch.arange(len(peaks)), peaks].sum(1) / total
    return peaks if len(peaks) and bool((share >= ENERGY).all()) else None
