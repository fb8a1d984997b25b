"""Recognise matrices that a formula made: Fourier, STFT and cosine bases, and filter banks of triangles.

Such matrices stand in models of sound as kernels or buffers. They are not trained, and their spectra say nothing about training:
a basis of sinusoids has equal eigenvalues, or fewer than its sides suggest.
"""

from collections.abc import Callable

import torch

# Fewer rows or columns may look like sinusoids by chance.
MIN_ROWS, MIN_COLUMNS = 8, 16
# No basis in use is larger, and comparing more would take memory.
MAX_ENTRIES = 2**24
# Rounding of the stored type aside, entries lie this close to the formula, relative to the largest ones.
TOLERANCE = 2e-3
# Rows that are only smooth look like sinusoids of frequencies below this, in radians for each column.
MIN_FREQUENCY = 0.2
# The window of an STFT tapers to zero, where the phase is lost in rounding.
MIN_WINDOW = 0.1


def fixed_basis(weight: torch.Tensor) -> str | None:
    """Return which formula made a matrix, in words; None if it is none of those known here."""
    if weight.ndim != 2 or weight.numel() > MAX_ENTRIES:
        return None
    tolerance = TOLERANCE + 2 * torch.finfo(weight.dtype).eps
    matrix = weight.detach().to(device="cpu", dtype=torch.float64)
    for rows in (matrix, matrix.T):
        if rows.shape[0] < MIN_ROWS or rows.shape[1] < MIN_COLUMNS or not bool(rows.any()):
            continue
        if _sinusoids(rows, tolerance):
            return "its rows are sinusoids, as in a Fourier or cosine transform"
        half = len(rows) // 2
        pairs = ((rows[:half], rows[half:]), (rows[::2], rows[1::2]))
        if any(_exponentials(real, imaginary, tolerance) for real, imaginary in pairs):
            return "its rows are cosines and sines under one window, as in a short-time Fourier transform"
        if _one_part(rows, tolerance):
            return "its rows are the cosines or sines of a short-time Fourier transform under one window"
        if _triangles(rows):
            return "its rows are overlapping bumps along the frequencies, as in a bank of mel filters"
    return None


def _sinusoids(rows: torch.Tensor, tolerance: float) -> bool:
    """Return whether every row is a sinusoid, of frequencies that differ: x[n - 1] + x[n + 1] = 2 cos(w) x[n]."""
    middle, sides = rows[:, 1:-1], rows[:, :-2] + rows[:, 2:]
    if not bool(_follow(middle[:MIN_ROWS], sides[:MIN_ROWS], tolerance)[0].all()):  # nearly every matrix ends here
        return False
    follow, cosines = _follow(middle, sides, tolerance)
    frequencies = torch.arccos((cosines / 2).clamp(-1, 1))
    distinct = len(torch.unique((frequencies * (4 * rows.shape[1] / torch.pi)).round()))
    return bool(follow.all()) and float(frequencies.max()) > MIN_FREQUENCY and distinct > len(rows) // 2


def _follow(middle: torch.Tensor, sides: torch.Tensor, tolerance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which rows follow the recurrence of a sinusoid, and twice the cosine of the frequency of each."""
    energy = middle.square().sum(1)
    cosines = (sides * middle).sum(1) / energy.clamp(min=1e-300)
    error = (sides - cosines[:, None] * middle).square().sum(1)
    return error <= (2 * tolerance) ** 2 * energy + 1e-30, cosines


def _exponentials(real: torch.Tensor, imaginary: torch.Tensor, tolerance: float) -> bool:
    """Return whether the rows are the parts of complex exponentials, of frequencies that differ, under one window."""
    if real.shape != imaginary.shape or len(real) < MIN_ROWS // 2:
        return False
    for rows in (slice(MIN_ROWS // 2), slice(None)):  # nearly every matrix ends with the first few rows
        size = torch.hypot(real[rows], imaginary[rows])
        window = size.mean(0)
        if float((size - window).abs().max()) > 4 * tolerance * float(window.max()):
            return False
    seen = window > MIN_WINDOW * window.max()
    both = seen[1:] & seen[:-1]
    if int(both.sum()) < MIN_COLUMNS // 2:
        return False
    unit = torch.complex(real, imaginary) / size.clamp(min=1e-300)
    steps = (unit[:, 1:] * unit[:, :-1].conj())[:, both]  # the turn from each sample to the next
    mean = steps.mean(1, keepdim=True)
    turns_evenly = float((steps - mean).abs().square().mean().sqrt()) < 4 * tolerance / MIN_WINDOW
    return turns_evenly and float(mean.real.max() - mean.real.min()) > 0.5


def _one_part(rows: torch.Tensor, tolerance: float) -> bool:
    """Return whether the rows are the real or the imaginary rows of a discrete Fourier transform under a window."""
    if len(rows) > rows.shape[1]:
        return False
    return any(
        _fits(rows[:MIN_ROWS], part, tolerance) and _fits(rows, part, tolerance) for part in (torch.cos, torch.sin)
    )


def _fits(rows: torch.Tensor, part: Callable[[torch.Tensor], torch.Tensor], tolerance: float) -> bool:
    """Return whether some window makes the rows from the cosines or sines of whole frequencies."""
    count, columns = rows.shape
    angles = torch.outer(torch.arange(count), torch.arange(columns)).double() * (2 * torch.pi / columns)
    basis = part(angles)
    window = (rows * basis).sum(0) / basis.square().sum(0).clamp(min=1e-12)
    return float((rows - basis * window).abs().max()) < 4 * tolerance * float(rows.abs().max())


def _triangles(rows: torch.Tensor) -> bool:
    """Return whether each row rises to one peak and falls, is zero elsewhere, and has its peak beyond that of the row before."""
    if float(rows.min()) < 0 or float((rows > 0).double().mean()) > 0.5:
        return False
    peaks = rows.argmax(1)
    columns = torch.arange(rows.shape[1])
    slack = 1e-6 * rows.abs().amax(1, keepdim=True)
    rise = rows.diff(dim=1)
    before = columns[1:] <= peaks[:, None]
    one_peak = ((rise >= -slack) | ~before).all() & ((rise <= slack) | before).all()
    overlap = (rows[1:] * rows[:-1]).sum(1) > 0
    ordered = (peaks.diff() >= 0).all() and len(torch.unique(peaks)) > len(rows) // 2
    return bool(one_peak and ordered) and float(overlap.double().mean()) > 0.5
