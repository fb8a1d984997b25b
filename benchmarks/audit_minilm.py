"""Compare htsr.analyze with WeightWatcher's analyze() on a trained Transformer: time, and agreement of the fits.

Both read the same weights from memory and fit the same 39 matrices; htsr also fits the noise bulk of each.
"""

import statistics

import numpy as np
from provenance import alternate, median_ratio, write
from safetensors.torch import load_file

import htsr
from htsr.compat.crosscheck import quiet_weightwatcher
from htsr.demo.run import trained_transformer

ROUNDS = 7


def main() -> None:
    tensors = load_file(trained_transformer())
    with quiet_weightwatcher() as weightwatcher:
        seconds = alternate(
            {
                "weightwatcher": lambda: weightwatcher.WeightWatcher(model=tensors).analyze(),
                "htsr": lambda: htsr.analyze(tensors, progress=False),
                "htsr, bulk=False": lambda: htsr.analyze(tensors, bulk=False, progress=False),
            },
            ROUNDS,
        )
    table = htsr.crosscheck(tensors)
    lines = ["| program | median seconds | weightwatcher / this |", "|---|---|---|"]
    for name, values in seconds.items():
        ratio = median_ratio(seconds["weightwatcher"], values)
        lines.append(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} |")
    lines.append("")
    for other in ("weightwatcher", "powerlaw"):
        worst = {
            metric: float(np.max(np.abs(table[f"{metric}_{other}"] / table[metric] - 1)))
            for metric in ("alpha", "D", "xmin")
        }
        worst_text = ", ".join(f"{metric} {value:.1e}" for metric, value in worst.items())
        lines.append(f"Largest relative difference from {other} over {len(table)} matrices: {worst_text}.")
    write("audit_minilm.md", "\n".join(lines))


if __name__ == "__main__":
    main()
