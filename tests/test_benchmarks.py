"""The benchmarks run, in their quick form; what several of them share is right."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        (
            "audit_llm.py",
            ("| one job, first run |", "| --n-jobs 2, first run |", "`--resume` took over", "| dask, two workers |"),
        ),
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
        ("tokens_null.py", ("| Gaussian | 5 | 50 |", "| covariance of the embedding | 5 |", "| 0.300 |")),
        ("htmuon_kernel.py", ("| 6 | [0.003, 1] | 0.42 % |", "| iterate 6 bfloat16 |", "| 64x64 | eigh |")),
        (
            "htmuon_step.py",
            (
                "| HTMuon, default |",
                "| HTMuon, svd, interval 5 |",
                "| torch.optim.AdamW |",
                "| -0.125 |",
                "| GPT, batch 8, step 1 | 12 |",
            ),
        ),
        (
            "momenta.py",
            ("digits, batch 8: 10 momenta, shapes [(16, 9), ", "GPT, batch 8, bfloat16 parameters: 24 momenta,"),
        ),
        (
            "update_accuracy.py",
            (
                "| HTMuon, match_muon | bfloat16 |",
                "| torch.optim.Muon | float16 |",
                "| rank 4 | float32 |",
                "| GPT, batch 64, step 1 | bfloat16 |",
            ),
        ),
        (
            "gpu.py",
            (
                "| HTMuon, default |",
                "- dion's Muon: ",
                "| HTMuon, match_muon | float16 |",
                "| 2 | background |",
                "The largest difference of alpha is ",
            ),
        ),
        ("monitor_overhead.py", ("| 10 | inline |", "| 100 | background |", "| 20 | 5.", "| 20 | no monitor |")),
        (
            "steps.py",
            (
                "| original | 64 | 1.",
                "| sqrt(out / in) | 64 | 1.",
                "| 1e-08 |",
                "| update divided by the clip factor | clipped | clipped | clipped |",
                "| Muon and AdamW | 2 | 0 |",
            ),
        ),
        (
            "fingerprint.py",
            (
                "| all twelve | unseen: mixer | 4 |",
                "| SGD | 8 | ",
                " of 37 |",
                "| localisation of right vectors | ",
            ),
        ),
        ("import_time.py", ("| import torch |", "| htsr --help |", "| from htsr.optim import HTMuon |")),
        ("history_opening.py", ("| alpha() |", "| one spectrum |")),
        (
            "gradient_geometry.py",
            (
                "## digits, trained state",
                "| frobenius | decrease by a step, together |",
                "| spectral | loss after 3 steps |",
            ),
        ),
        ("widths.py", ("After 1 step, 2 seeds, widths 16, 32:", "| blocks.1.down |", "| position |")),
        ("studies/language.py", ("| p = 0 | ", "| p = 1/8 | ")),
        ("studies/images.py", ("| p = 1/8 | ",)),
        ("studies/finetuning.py", ("| AdamW | ",)),
        ("studies/steering.py", ("| uniform | ", "| measured | ", "| shuffled | ", "| inverted | ")),
        ("studies/width_transfer.py", ("| spectral | ",)),
        ("studies/gan.py", ("| p = 1/8 | ",)),
        ("studies/pruning.py", ("| 70% | block | ", "| 60% | layer | ")),
        (
            "limits.py",
            ("| lognormal of width 0.414, smooth | 1000 |", "| shuffled, seed 0 | 39 |"),
        ),
    ],
)
def test_in_quick_form(name, rows):
    command = [sys.executable, str(BENCHMARKS / name), "--quick"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    for row in rows:
        assert row in result.stdout


@pytest.fixture(params=["raw", "spectral", "match_muon"])
def scale(request):
    return request.param


@pytest.mark.parametrize("power", [-0.25, 0.0, 0.125, 1.0])
def test_error_of_an_update_is_that_of_dense_matrices(monkeypatch, power, scale):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from update_accuracy import Decomposition, errors_by_rank

    draw = torch.Generator().manual_seed(0)
    G, Y = torch.randn(2, 7, 5, generator=draw, dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(G, full_matrices=False)
    errors = errors_by_rank(Y, Decomposition(U, S, Vh, 5), power, scale, 4)
    for rank in range(1, 5):
        exact = (U[:, :rank] * S[:rank] ** power) @ Vh[:rank]
        if scale == "spectral":
            exact /= torch.linalg.matrix_norm(exact, ord=2)
        elif scale == "match_muon":
            exact *= rank**0.5 / torch.linalg.matrix_norm(exact)
        torch.testing.assert_close(errors[rank - 1], (Y - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_noise_has_the_stated_norm(monkeypatch, dtype):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from update_accuracy import noise

    G = torch.randn(300, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounded = G.to(dtype)
    actual = torch.linalg.matrix_norm(rounded.double() - G, ord=2).item()
    assert 0.6 < actual / noise(rounded) < 1  # the formula takes every entry at the worst place between powers of two


def test_recorded_momentum_is_what_htmuon_updates_with(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from momenta import nesterov_momentum

    from htsr.optim import HTMuon

    draw = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(6, 9))
    # with power 1 and the raw scale, an update is the momentum
    optimizer = HTMuon([p], lr=1.0, power=1.0, scale="raw", method="svd", weight_decay=0.0)
    for _ in range(3):
        before = p.detach().clone()
        p.grad = torch.randn(6, 9, generator=draw)
        optimizer.step()
    momentum = nesterov_momentum(p.grad, optimizer.state[p]["momentum_buffer"], 0.95)
    torch.testing.assert_close(before - p.detach(), momentum, rtol=1e-4, atol=1e-5)


@pytest.fixture
def studies(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS / "studies")


def test_seeds_that_train_together_train_as_each_does_alone(studies):
    from seeds_together import SeedsTogether

    from htsr.demo.gpt import GPT

    def made(seed):
        torch.manual_seed(seed)
        return GPT(8, 16, 1, 2)

    sequences = torch.randint(256, (2, 3, 9), generator=torch.Generator().manual_seed(0))
    together, alone = SeedsTogether([made(0), made(1)], GPT.loss), [made(0), made(1)]
    losses = together.backward(sequences)
    torch.testing.assert_close(together.losses_by_vmap(sequences), losses)
    for model, same, sequence, loss in zip(together.models, alone, sequences, losses, strict=True):
        expected = same.loss(sequence)
        expected.backward()
        torch.testing.assert_close(loss, expected.detach())
        for p, other in zip(model.parameters(), same.parameters(), strict=True):
            torch.testing.assert_close(p.grad, other.grad)


def _figures(settings, lr, seeds, device):
    """The loss is lowest at the rate 0.2; far above it, a run diverges. An arm may be worse by a constant."""
    import math

    if lr > 100:
        from study import DivergedError

        raise DivergedError
    return [{"loss": abs(math.log2(lr / 0.2)) + settings.get("worse", 0) + 0.01 * seed} for seed in seeds]


def test_a_study_tunes_beyond_its_grid_and_goes_on_where_it_was(studies, tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor
    from types import SimpleNamespace

    import study
    from report import compared

    monkeypatch.setattr(study, "ProcessPoolExecutor", lambda workers, *_, **__: ThreadPoolExecutor(workers))
    options = SimpleNamespace(results=tmp_path, quick=False, minutes=0.0, workers=2, device="cpu")
    cell = study.Cell("c", {"a": {}}, (0.025, 0.05), "a")
    done = study.Study("s", _figures, "loss", True, options, tuning=(100, 101), final=(0, 1, 2))
    done.complete([cell])
    assert done.runs().empty  # no time, no run
    options.minutes = 1.0
    done.complete([cell])
    first = done.runs()
    tuned = first[first["stage"] == study.TUNING]
    assert sorted(tuned["lr"].unique()) == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.4])
    assert set(first.loc[first["stage"] == study.FINAL, "lr"]) == {0.2}
    cell = study.Cell("c", {"a": {}, "b": {"worse": 1.0, "lrs": (0.2, 200.0)}}, (0.1, 0.2, 0.4), "a")
    done.complete([cell])
    runs = done.runs()
    assert len(runs) == len(first) + 3 * 2 + 3  # of b alone; a was done
    row = compared(runs, cell, "loss").loc["b"]
    assert row["difference"] == pytest.approx(1.0)
    assert row["n"] == 3
