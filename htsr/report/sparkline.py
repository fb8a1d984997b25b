"""Pictures the size of a word, as inline SVG in the colour of the text around them, so that they suit a dark page, too."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

WIDTH, HEIGHT, BINS = 104, 24, 26
# The vermilion of the plots' palette, which stands out on white and on black.
TAIL = "#d55e00"
# The lowest values of a spectrum, this share of them, spread over many decades and would squeeze the rest.
LEFT_OUT = 0.05


def esd_sparkline(eigenvalues: ArrayLike, xmin: float | None = None) -> Markup:
    """Return the histogram of the logarithms of a spectrum, the fitted tail in colour; empty if there is nothing to draw."""
    evals = np.asarray(eigenvalues, dtype=np.float64)
    evals = np.sort(evals[evals > 0])
    evals = evals[int(LEFT_OUT * len(evals)) :]
    if len(evals) < 2 or evals[0] == evals[-1]:
        return Markup("")
    counts, edges = np.histogram(np.log10(evals), bins=BINS)
    heights = np.log1p(counts) / np.log1p(counts.max()) * (HEIGHT - 2)
    start = np.inf if xmin is None or not np.isfinite(xmin) else np.log10(xmin)
    step = WIDTH / BINS
    bars: dict[bool, list[str]] = {False: [], True: []}
    for i, height in enumerate(heights):
        if height:
            in_tail = bool((edges[i] + edges[i + 1]) / 2 >= start)
            bars[in_tail].append(f"M{i * step:.1f} {HEIGHT}v-{height:.1f}h{step - 1:.1f}v{height:.1f}z")
    title = f"{len(evals):,} eigenvalues from {evals[0]:.3g} to {evals[-1]:.3g}"
    return _svg(
        title,
        f'<path d="{"".join(bars[False])}" fill="currentColor" opacity=".45"/><path d="{"".join(bars[True])}" fill="{TAIL}"/>',
    )


def line_sparkline(values: Sequence[float], title: str) -> Markup:
    """Return a line through values in their order; empty with fewer than two."""
    known = [(i, value) for i, value in enumerate(values) if np.isfinite(value)]
    if len(known) < 2:
        return Markup("")
    low, high = min(value for _, value in known), max(value for _, value in known)
    across, up = (WIDTH - 2) / (len(values) - 1), (HEIGHT - 4) / ((high - low) or 1.0)
    points = " ".join(f"{1 + i * across:.1f},{HEIGHT - 2 - (value - low) * up:.1f}" for i, value in known)
    return _svg(title, f'<polyline points="{points}" fill="none" stroke="{TAIL}" stroke-width="1.5"/>')


def _svg(title: str, content: str) -> Markup:
    """Return an inline picture with a title for those who cannot see it."""
    name = Markup.escape(title)
    return Markup(
        f'<svg role="img" aria-label="{name}" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="vertical-align:middle"><title>{name}</title>{content}</svg>'
    )
