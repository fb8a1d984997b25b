"""Phases: the rules one by one, and each phase on generated matrices."""

import numpy as np
import pytest

import htsr
from htsr.audit.phases import PHASES, phase
from htsr.bulk.bbp import bbp_threshold

NOISE = {"num_evals": 300, "M": 300, "weak_rank_loss": 0, "num_spikes": 0, "bulk_p_value": 0.4, "alpha": 9.0, "D": 0.13}
TAIL = NOISE | {"num_spikes": 40, "bulk_p_value": 1e-6, "alpha": 2.6, "D": 0.04, "xmin": 1.0, "xmax": 20.0}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (NOISE, "random-like"),
        (NOISE | {"num_spikes": 3, "spike_strength": 1.4}, "bleeding-out"),
        (NOISE | {"num_spikes": 3, "spike_strength": 2.1}, "bulk+spikes"),
        (TAIL, "heavy-tailed"),
        (TAIL | {"D": 0.09}, "bulk-decay"),
        (TAIL | {"xmax": 3.0}, "bulk-decay"),
        (TAIL | {"alpha": 7.0}, "bulk-decay"),
        (TAIL | {"bulk_p_value": None, "num_spikes": None}, "heavy-tailed"),
        (TAIL | {"bulk_p_value": float("nan"), "alpha": float("nan")}, "undecided"),
        (NOISE | {"weak_rank_loss": 3}, "rank-collapse"),
        (NOISE | {"weak_rank_loss": 2}, "random-like"),
        (NOISE | {"num_evals": 31}, "undecided"),
        (NOISE | {"num_evals": 31, "weak_rank_loss": 2}, "rank-collapse"),
    ],
)
def test_rules(row, name):
    assert phase(row).name == name
    assert phase(row).name in PHASES
    assert phase(row).evidence


def orthonormal(rng, rows, columns):
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0]


def spiked(rng, N, M, times):
    k = len(times)
    return rng.normal(size=(N, M)) + (orthonormal(rng, N, k) * (times * bbp_threshold(N, M))) @ orthonormal(rng, M, k).T


def mixed(rng, N, M, variances):
    """Rows whose covariance is dense; a diagonal one would be a scale for each column."""
    return (rng.normal(size=(N, M)) * np.sqrt(variances)) @ orthonormal(rng, M, M)


GENERATED = {
    "random-like": lambda rng, N, M: rng.normal(size=(N, M)),
    "bleeding-out": lambda rng, N, M: spiked(rng, N, M, np.full(5, 1.5)),
    "bulk+spikes": lambda rng, N, M: spiked(rng, N, M, np.full(3, 4.0)),
    "bulk-decay": lambda rng, N, M: mixed(rng, N, M, rng.exponential(size=M)),
    "heavy-tailed": lambda rng, N, M: mixed(rng, N, M, rng.pareto(1.2, size=M) + 1),
    "rank-collapse": lambda rng, N, M: rng.normal(size=(N, 20)) @ rng.normal(size=(20, M)),
}


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_generated_matrices(name, dtype):
    """Ten draws each; the benchmark has a hundred of more kinds and shapes."""
    called = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        W = GENERATED[name](rng, *[(256, 256), (512, 256)][seed % 2]).astype(dtype)
        called.append(htsr.analyze({"w": W})["w"].row["phase"])
    assert called.count(name) >= 9


@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_no_scale(scale):
    W = GENERATED["heavy-tailed"](np.random.default_rng(0), 256, 256)
    rows = [htsr.analyze({"w": factor * W})["w"].row for factor in (1.0, scale)]
    assert rows[0]["phase_evidence"] == rows[1]["phase_evidence"]


def test_noise_beside_a_low_rank_is_a_collapse():
    rng = np.random.default_rng(0)
    W = GENERATED["rank-collapse"](rng, 300, 200) + 1e-4 * rng.normal(size=(300, 200))
    row = htsr.analyze({"w": W})["w"].row
    assert (row["phase"], row["rank_loss"], row["weak_rank_loss"]) == ("rank-collapse", 0, 180)


def test_no_phase_without_a_bulk():
    assert htsr.analyze({"w": np.random.default_rng(0).normal(size=(64, 64))}, bulk=False)["w"].row["phase"] == ""


def test_all_zero_is_a_collapse():
    row = htsr.analyze({"w": np.zeros((64, 64))})["w"].row
    assert (row["phase"], row["status"]) == ("rank-collapse", "failed")


def test_noise_in_the_slices_of_a_convolution():
    """Of 60 draws of Laplace noise at most 6 are called anything but noise; slices that are too small, undecided."""
    rng = np.random.default_rng(0)
    called = [htsr.analyze({"w": rng.laplace(size=(64, 32, 3, 3))})["w"].row["phase"] for _ in range(60)]
    assert called.count("random-like") >= 54
    assert htsr.analyze({"w": rng.normal(size=(16, 8, 3, 3))})["w"].row["phase"] == "undecided"
