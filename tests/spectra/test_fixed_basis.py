"""Fourier and cosine bases are named; noise, trained weights and smooth matrices are not taken for them."""

import math

import pytest
import torch

import htsr
from htsr.spectra.fixed_basis import is_sinusoidal


def fourier(samples, window=None):
    """The kernel of a short-time Fourier transform: cosines, then sines."""
    basis = torch.fft.fft(torch.eye(samples, dtype=torch.complex128))[: samples // 2 + 1]
    rows = torch.cat([basis.real, basis.imag])
    return rows if window is None else rows * window(samples, dtype=torch.float64)


def cosine(samples, rows):
    """The first rows of the discrete cosine transform (DCT-II)."""
    return torch.cos(math.pi / samples * (torch.arange(samples) + 0.5) * torch.arange(rows)[:, None])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("samples", [64, 256, 400])
@pytest.mark.parametrize("window", [None, torch.hann_window, torch.hamming_window, torch.blackman_window])
def test_fourier_bases(samples, window):
    basis = fourier(samples, window)
    assert is_sinusoidal(basis)
    assert is_sinusoidal(basis.mT.to(torch.float16))
    assert is_sinusoidal(basis * (1 + 0.01 * noise(*basis.shape)))  # trained a little


@pytest.mark.parametrize(("samples", "rows"), [(40, 13), (64, 64), (256, 80)])
def test_cosine_bases(samples, rows):
    assert is_sinusoidal(cosine(samples, rows))


@pytest.mark.parametrize("weight", [
    noise(64, 64), noise(8, 32), noise(500, 40), noise(64, 64).cumsum(1), torch.eye(64), torch.ones(64, 64), torch.zeros(64, 64),
    fourier(64)[:1] * noise(64, 1), noise(64, 66).double() @ fourier(64), noise(4, 4), noise(64, 64, 3, 3),
    fourier(64)[torch.arange(66) % 3],  # a few frequencies, over and over
], ids=str)  # fmt: skip
def test_no_bases(weight):
    assert not is_sinusoidal(weight)


def test_no_trained_weight_is_a_basis(minilm):
    assert not any(is_sinusoidal(layer.load()) for layer in htsr.weights.open_source(minilm).layers)


def test_a_basis_is_named_and_not_called_a_collapse():
    row = htsr.analyze({"stft.weight": fourier(64, torch.hann_window).unsqueeze(1)})[
        "stft"
    ].row  # a kernel of one channel
    assert row["phase"] == "fixed-basis"
    assert "Fixed basis" in row["findings"]
    assert "collapse" not in row["findings"]
