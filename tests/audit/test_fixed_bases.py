"""Matrices that a formula made are recognised, against scipy, numpy and transformers; no other matrix is."""

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.signal
import torch

import htsr
from htsr.audit.fixed_bases import fixed_basis


def stft(size, window):
    """Return the real and the imaginary rows of a short-time Fourier transform."""
    rows = np.fft.fft(np.eye(size))[: size // 2 + 1] * scipy.signal.get_window(window, size)
    return rows.real, rows.imag


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("window", ["hann", "hamming", "boxcar", "blackman"])
@pytest.mark.parametrize("size", [32, 100])
def test_fourier_bases_under_a_window(size, window, dtype):
    real, imaginary = stft(size, window)
    interleaved = np.stack([real, imaginary], 1).reshape(-1, size)
    for rows in (np.concatenate([real, -imaginary]), interleaved, real, imaginary):
        assert "Fourier" in fixed_basis(torch.tensor(rows).to(dtype))
        assert "Fourier" in fixed_basis(torch.tensor(rows.T.copy()).to(dtype))


@pytest.mark.parametrize("norm", [None, "ortho"])
@pytest.mark.parametrize("kind", [2, 3, 4])
def test_cosine_transforms(kind, norm):
    rows = torch.tensor(scipy.fft.dct(np.eye(64), type=kind, norm=norm, axis=0)).float()
    for matrix in (rows, rows.T, rows[:20] if kind != 3 else rows, rows[:20].T if kind != 3 else rows):
        assert "cosine transform" in fixed_basis(matrix)


def test_a_basis_that_was_trained_a_little():
    basis = torch.tensor(np.concatenate(stft(64, "hann")))
    assert fixed_basis(basis * (1 + 0.01 * torch.randn(basis.shape, generator=torch.Generator().manual_seed(0))))


def test_no_trained_weight_is_a_basis(minilm):
    assert not any(fixed_basis(layer.load()) for layer in htsr.weights.open_source(minilm).layers)


def test_banks_of_mel_filters():
    audio = pytest.importorskip("transformers.audio_utils", reason="transformers is not installed")
    for number, scale in ((40, "htk"), (80, "slaney")):
        bank = torch.tensor(audio.mel_filter_bank(201, number, 0, 8000, 16000, norm="slaney", mel_scale=scale)).float()
        assert "mel filters" in fixed_basis(bank)
        assert "mel filters" in fixed_basis(bank.T)


@pytest.mark.parametrize(
    "matrix",
    {
        "noise": torch.randn(64, 128, generator=torch.Generator().manual_seed(0)),
        "constant": torch.ones(32, 64),
        "constant rows": torch.arange(64.0)[:, None].repeat(1, 64),
        "identity": torch.eye(64),
        "signs": torch.tensor(scipy.linalg.hadamard(64)).float(),
        "rank one": torch.outer(torch.arange(1.0, 65.0), torch.linspace(-1, 2, 48)),
        "sparse": torch.relu(torch.randn(64, 64, generator=torch.Generator().manual_seed(1)) - 2),
        "smooth": torch.randn(64, 128, generator=torch.Generator().manual_seed(2)).cumsum(1).cumsum(1),
        "triangular": torch.ones(64, 64).tril(),
        "zero": torch.zeros(64, 64),
        "small": torch.eye(4),
        "few frequencies": torch.tensor(stft(64, "boxcar")[0]).float()[torch.arange(66) % 3],
        "mixed sinusoids": torch.randn(64, 33, generator=torch.Generator().manual_seed(3))
        @ torch.tensor(stft(64, "boxcar")[0]).float(),
    }.items(),
    ids=lambda item: item[0],
)
def test_other_matrices(matrix):
    assert fixed_basis(matrix[1]) is None
    assert fixed_basis(matrix[1].T) is None


def test_a_basis_is_named_in_a_finding_instead_of_a_rank_collapse():
    # like the kernel of silero-vad: (out, 1, samples), with two rows that are zero
    kernel = torch.tensor(np.concatenate(stft(64, "hann"))).float()[:, None]
    analysis = htsr.analyze({"forward_basis_buffer": kernel, "again.weight": torch.randn(66, 8) @ torch.randn(8, 64)})
    (said,) = analysis["forward_basis_buffer"].findings
    assert said.text.startswith("Fixed basis, not a trained weight: its rows are sinusoids")
    assert analysis["forward_basis_buffer"].row["phase"] == "fixed-basis"
    assert analysis["again"].findings[0].text.startswith("Rank collapse")
    assert analysis.summary()["num_rank_collapse"] == 1
