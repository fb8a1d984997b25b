"""The benchmarks run, in their quick form."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        (
            "noise_calibration.py",
            (
                "| Laplace 64 x 64 |",
                "| 4 | 500 |",
                "| 2000 x 1000 | 1.200 |",
                "| rank-collapse | 0 | 0 | 0 | 0 | 0 | 10 |",
            ),
        ),
        (
            "audit_speed.py",
            (
                "| bare eigvalsh (numpy) |",
                "| 512 x 256 |",
                "| n_jobs=2, one BLAS thread each |",
                "| htsr |",
                "peak MB above the import",
            ),
        ),
        (
            "tail_accuracy.py",
            (
                "| Pareto n=1000 |",
                "| inverse Wishart 256 x 256 |",
                "| Marchenko-Pastur Q=2, n=300 |",
                "| 4096 |",
            ),
        ),
        ("htmuon_kernel.py", ("| 6 | [0.003, 1] | 0.42 % |", "| iterate 6 bfloat16 |", "| 64x64 | eigh |")),
        ("htmuon_step.py", ("| HTMuon, default |", "| HTMuon, svd, interval 5 |", "| torch.optim.AdamW |")),
        ("monitor_overhead.py", ("| 10 | inline |", "| 100 | background |", "| 20 | 5.", "| 20 | no monitor |")),
        ("import_time.py", ("| import torch |", "| htsr --help |", "| from htsr.optim import HTMuon |")),
        ("history_opening.py", ("| alpha() |", "| one spectrum |")),
        (
            "limits.py",
            ("| 256 x 128 | 64 |", "| lognormal of width 0.414, smooth | 1000 |", "| shuffled, seed 0 | 39 |"),
        ),
    ],
)
def test_in_quick_form(name, rows):
    command = [sys.executable, str(BENCHMARKS / name), "--quick"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    for row in rows:
        assert row in result.stdout
