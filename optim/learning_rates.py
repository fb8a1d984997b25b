"""Learning rates of Muon's implementations: what each multiplies them by, and what one is in the unit of another."""

import math
from collections.abc import Callable, Mapping

# What a learning rate is multiplied by for a matrix of r rows (outputs) and c columns (inputs).
Factor = Callable[[int, int], float]
FACTORS: Mapping[str, Factor] = {
    "original": lambda r, c: math.sqrt(max(1, r / c)),
    "spectral": lambda r, c: math.sqrt(r / c),
    "match_rms_adamw": lambda r, c: 0.2 * math.sqrt(max(r, c)),
    "unit_rms": lambda r, c: math.sqrt(max(r, c)),
    "none": lambda r, c: 1.0,
}
