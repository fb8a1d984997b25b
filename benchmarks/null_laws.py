"""Draw noise of large shapes and print the table in htsr/bulk/null_laws.py that describes its alpha and D.

python benchmarks/null_laws.py    # about five minutes on one core
"""

from unittest.mock import patch

import numpy as np
from provenance import provenance

from htsr.bulk import nulls
from htsr.bulk.null_laws import LEVELS, D_features, alpha_features, standardised_alpha

# Draws by the smaller side, at each of these aspect ratios.
DRAWS = {512: 600, 1024: 400, 2048: 250, 4096: 60}
RATIOS = (1, 2, 8, 64)


def quantiles(N: int, M: int, draws: int) -> np.ndarray:
    """Return the quantiles of alpha (standardised) and D of fresh noise at ``LEVELS``, shape ``(levels, 2)``."""
    with patch.object(nulls, "_count", lambda M, matrices: draws):
        alpha, D = nulls._draw(N, M, 1, "ks")[:2]
    return np.quantile(np.array([standardised_alpha(alpha, N, M), D]), LEVELS, axis=1)


def main() -> None:
    shapes = [(ratio * M, M, draws) for M, draws in DRAWS.items() for ratio in RATIOS]
    drawn = np.array([quantiles(*shape) for shape in shapes])
    weights = np.sqrt([draws for _, _, draws in shapes])[:, None]
    columns = [
        np.linalg.lstsq(weights * [features(N, M) for N, M, _ in shapes], weights * drawn[..., i], rcond=None)[0]
        for i, features in enumerate((alpha_features, D_features))
    ]
    for level, row in zip(LEVELS, np.concatenate(columns).T, strict=True):
        print(f"    ({level:g}, {', '.join(f'{c:.4f}' for c in row)}),")
    print(provenance())


if __name__ == "__main__":
    main()
