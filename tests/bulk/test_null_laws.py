"""The laws of large noise agree with fresh draws of shapes that they were not fitted to."""

import numpy as np
import pytest

import htsr
from htsr.bulk import nulls
from htsr.bulk.null_laws import draws_by_law
from htsr.bulk.nulls import STATISTICS, noise_null

LARGE = [(1025, 1025), (4096, 4096), (11008, 4096), (262144, 1025), (262144, 16384), (32768, 32768)]


def check(monkeypatch, N, M, draws):
    """Compare the medians and the 90 % bands of the laws with the draws' own, up to four standard errors of these."""
    monkeypatch.setattr(nulls, "_count", lambda M, matrices: draws)
    by_law = draws_by_law(N, M, 1000)
    for name, drawn, law in zip(STATISTICS, nulls._draw(N, M, 1, "ks"), by_law, strict=True):
        for level in (0.05, 0.5, 0.95):
            share, error = np.mean(drawn <= np.quantile(law, level)), np.sqrt(level * (1 - level) / draws)
            assert abs(share - level) < 4 * error + 0.02, (name, level, share)
        median, deviation = np.median(drawn), np.std(drawn)
        assert abs(np.median(law) - median) < 5 * deviation / np.sqrt(draws), name


@pytest.mark.parametrize(("N", "M"), [(700, 512), (3000, 600)])
def test_laws_agree_with_draws(monkeypatch, N, M):
    check(monkeypatch, N, M, 40)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("N", "M", "draws"), [(1500, 1300, 300), (30000, 1100, 300), (8192, 3072, 60), (4096, 4096, 50), (11008, 4096, 50)]
)
def test_laws_agree_with_draws_of_large_shapes(monkeypatch, N, M, draws):
    check(monkeypatch, N, M, draws)


@pytest.mark.parametrize(("N", "M"), LARGE)
def test_laws_could_be_draws(N, M):
    assert nulls._are_draws(draws_by_law(N, M, 1000), 1000)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The shapes that are drawn; the draws are those of a law."""
    shapes = []

    def draw(N, M, matrices, xmin):
        shapes.append((N, M, matrices, xmin))
        return draws_by_law(N, M, nulls._count(M, matrices))

    monkeypatch.setattr(nulls, "_draw", draw)
    monkeypatch.setenv("HTSR_CACHE_DIR", str(tmp_path))
    noise_null.cache_clear()
    yield shapes
    noise_null.cache_clear()


def test_large_shapes_need_no_draws_and_no_file(asked, tmp_path):
    null = noise_null(11008, 4096)
    assert asked == []
    assert list(tmp_path.iterdir()) == []
    median, low, high = null.band("alpha")
    assert 1 < low < median < high
    with pytest.raises(ValueError, match="read-only"):
        null.alpha[:] = 0


@pytest.mark.parametrize("shape", [(1024, 1024, 1, "ks"), (1025, 1025, 9, "ks"), (1025, 1025, 1, "median")])
def test_other_shapes_and_rules_are_drawn(asked, shape):
    noise_null(*shape)
    assert asked == [shape]


def test_p_values_of_the_laws_tell_noise_from_heavy_tails():
    null = noise_null(4096, 2048)
    medians = {name: null.band(name)[0] for name in ("alpha", "D", "stable_rank")}
    assert null.p_value(**medians) == 1
    assert null.p_value(**medians | {"alpha": 3.0}) < 0.005
    assert null.bulk_p_value(null.band("bulk_distance")[0]) == pytest.approx(0.5, abs=0.1)
    fit = htsr.fit_power_law(np.random.default_rng(0).pareto(3.0, size=2048) + 1)
    assert null.p_value(alpha=fit.alpha, D=fit.D, stable_rank=200.0) < 1e-4
