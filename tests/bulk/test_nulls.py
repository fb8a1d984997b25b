"""Nulls agree with dense noise, are seeded and cached, and give calibrated p-values."""

import io
import os
import random
from pathlib import Path

import numpy as np
import pytest

import htsr
from htsr.bulk import nulls
from htsr.bulk.nulls import noise_null
from htsr.bulk.wishart import wishart_eigenvalues
from htsr.files import seal

DRAWS = 100


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache, in memory and on disk, and nulls of a few draws, so that a test soon has another."""
    monkeypatch.setattr(nulls, "_count", lambda M, matrices: DRAWS)
    monkeypatch.setenv("HTSR_CACHE_DIR", str(tmp_path))
    noise_null.cache_clear()
    yield tmp_path
    noise_null.cache_clear()


def dense_fits(N, M, draws):
    rng = np.random.default_rng(1)
    spectra = (np.linalg.eigvalsh((W := rng.normal(size=(N, M))).T @ W) for _ in range(draws))
    return [(htsr.fit_power_law(evals), evals) for evals in spectra]


def test_null_alpha_is_what_dense_noise_gives():
    fits = dense_fits(96, 64, 300)
    median, low, high = noise_null(96, 64).band("alpha")
    alphas = np.array([fit.alpha for fit, _ in fits])
    assert low < np.median(alphas) < high
    assert np.median(alphas) == pytest.approx(median, rel=0.1)
    assert np.mean((low <= alphas) & (alphas <= high)) == pytest.approx(0.9, abs=0.06)


def test_p_values_hold_their_level_on_dense_noise():
    null = noise_null(96, 64)
    p = np.array([null.p_value(alpha=f.alpha, D=f.D, stable_rank=e.sum() / e[-1]) for f, e in dense_fits(96, 64, 400)])
    assert np.mean(p <= 0.05) <= 0.085  # three standard errors above 5 %
    assert np.mean(p <= 0.5) > 0.2  # and it is no constant


def test_bulk_p_values_are_uniform_enough():
    null, rng = noise_null(96, 64), np.random.default_rng(2)
    fits = (htsr.fit_marchenko_pastur(wishart_eigenvalues(96, 64, rng), 96, 64) for _ in range(3000))
    p = np.array([null.bulk_p_value(fit.D) for fit in fits])
    for level, slack in ((0.5, 0.06), (0.1, 0.025), (0.01, 0.006), (0.001, 0.002)):
        assert np.mean(p < level) == pytest.approx(level, abs=slack)


def test_heavy_tails_are_told_apart():
    null = noise_null(200, 200)
    fit = htsr.fit_power_law(np.random.default_rng(0).pareto(3.0, size=200) + 1)
    assert null.p_value(alpha=fit.alpha, D=fit.D, stable_rank=40.0) < 0.01
    assert null.bulk_p_value(0.4) == 1e-6


def test_kept_on_disk_and_the_same_everywhere(fresh, monkeypatch):
    first = noise_null(40, 20)
    (path,) = fresh.rglob("*.npy")
    assert path.name == "40x20x1-ks.npy"
    noise_null.cache_clear()
    monkeypatch.setattr(nulls, "_draw", lambda *args: pytest.fail("drawn twice"))
    assert np.array_equal(noise_null(40, 20).alpha, first.alpha)


def test_seeded_by_the_shape_alone(fresh):
    first = noise_null(40, 20)
    for path in fresh.rglob("*.npy"):
        path.unlink()
    noise_null.cache_clear()
    np.random.default_rng().normal()
    assert np.array_equal(noise_null(40, 20).alpha, first.alpha)
    assert not np.array_equal(noise_null(41, 20).alpha, first.alpha)


@pytest.mark.parametrize("damage", [b"", b"not an array", b"\x93NUMPY\x01\x00half a header"])
def test_a_damaged_file_is_drawn_anew(fresh, damage):
    first = noise_null(40, 20)
    (path,) = fresh.rglob("*.npy")
    path.write_bytes(damage)
    noise_null.cache_clear()
    assert np.array_equal(noise_null(40, 20).alpha, first.alpha)
    assert path.stat().st_size > 1000


def sealed(path, draws):
    content = io.BytesIO()
    np.save(content, draws)
    path.write_bytes(seal(content.getvalue(), path.name))


def with_cell(draws, row, column, value):
    changed = draws.copy()
    changed[row, column] = value
    return changed


@pytest.mark.parametrize(
    "change",
    [
        np.ones_like,
        np.zeros_like,
        lambda draws: np.full_like(draws, np.nan),
        lambda draws: draws[:, ::-1],
        lambda draws: draws[::-1],
        lambda draws: draws[:, :60],
        lambda draws: draws[:4],
        lambda draws: draws.astype(np.float32),
        lambda draws: draws.astype(str),
        lambda draws: with_cell(draws, 0, 0, 0.5),
        lambda draws: with_cell(draws, 0, -1, np.nan),
        lambda draws: with_cell(draws, 2, -1, np.inf),
        lambda draws: with_cell(draws, 1, -1, 1.5),
        lambda draws: with_cell(draws, 4, 0, -np.inf),
    ],
)
def test_a_foreign_file_is_drawn_anew_even_if_its_checksum_fits(fresh, change):
    first = noise_null(40, 20)
    (path,) = fresh.rglob("*.npy")
    sealed(path, change(np.array([getattr(first, name) for name in nulls.STATISTICS])))
    noise_null.cache_clear()
    assert np.array_equal(noise_null(40, 20).alpha, first.alpha)


def test_any_flipped_bit_of_the_cache_is_noticed(fresh, monkeypatch):
    noise_null(40, 20)
    (path,) = fresh.rglob("*.npy")
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(200):
        bit = draw.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert nulls._read(path, DRAWS) is None
    path.write_bytes(whole)
    assert nulls._read(path, DRAWS) is not None


def test_the_file_of_another_shape_is_no_null_of_this_one(fresh):
    other, (path,) = noise_null(41, 20), fresh.rglob("*.npy")
    first = noise_null(40, 20)
    path.rename(path.with_name("40x20x1-ks.npy"))
    noise_null.cache_clear()
    assert np.array_equal(noise_null(40, 20).alpha, first.alpha)
    assert not np.array_equal(other.alpha, first.alpha)


def put_pipe(path):
    os.mkfifo(path)


def put_link_to_device(path):
    path.symlink_to("/dev/zero")


def put_link_to_itself(path):
    path.symlink_to(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
@pytest.mark.parametrize("put", [put_pipe, put_link_to_device, put_link_to_itself, Path.mkdir])
def test_what_is_no_file_is_never_waited_for(fresh, put):
    first = noise_null(40, 20)
    (path,) = fresh.rglob("*.npy")
    path.unlink()
    put(path)
    noise_null.cache_clear()
    assert np.array_equal(noise_null(40, 20).alpha, first.alpha)


def test_tiny_noise_is_kept_too(fresh, monkeypatch):
    shapes = [(8, 8, 1), (2, 2, 4), (3, 2, 9), (300, 2, 6), (9, 3, 3)]
    first = {shape: noise_null(*shape) for shape in shapes}
    noise_null.cache_clear()
    monkeypatch.setattr(nulls, "_draw", lambda *args: pytest.fail("drawn twice"))
    for shape in shapes:
        assert np.array_equal(noise_null(*shape).alpha, first[shape].alpha)


def test_a_folder_that_cannot_be_written_does_no_harm(fresh, monkeypatch):
    (fresh / "file").write_text("")
    monkeypatch.setenv("HTSR_CACHE_DIR", str(fresh / "file"))
    assert len(noise_null(40, 20).alpha) == DRAWS


def test_convolutions_pool_their_slices():
    null = noise_null(16, 12, 9)
    W = np.random.default_rng(0).normal(size=(16, 12, 3, 3))
    median, low, high = null.band("stable_rank")
    assert low * 0.9 < htsr.analyze({"w": W})["w"].row["stable_rank"] < high * 1.1
    assert median > 30  # of 108 pooled eigenvalues; one slice alone has 12


def test_too_small_for_a_null():
    assert noise_null(5, 1) is None
    assert noise_null(5, 4) is None


def test_sides_the_wrong_way_round():
    with pytest.raises(ValueError, match="larger side first"):
        noise_null(20, 40)
    with pytest.raises(ValueError, match="larger side first"):
        htsr.fit_marchenko_pastur(np.ones(40), 20, 40)


def test_unknown_statistic():
    with pytest.raises(ValueError, match="expected one of alpha"):
        noise_null(40, 20).band("kurtosis")


def test_few_draws_still_tell_a_heavy_tail():
    """At sides like those of language models there are 50 draws; the smallest share that can be counted is 1/51."""
    null = noise_null(64, 64, 40)
    few = htsr.NoiseNull(64, 64, 40, *(getattr(null, name)[:: len(null.alpha) // 50] for name in nulls.STATISTICS))
    alpha, stable_rank = null.alpha.min() / 3, null.stable_rank.min() / 3
    assert few.p_value(alpha=alpha, D=0.02, stable_rank=stable_rank) < 0.001
    median = {name: float(np.median(getattr(null, name))) for name in ("alpha", "D", "stable_rank")}
    assert few.p_value(**median) == 1


def test_tiny_shapes_whose_noise_may_have_no_bulk():
    null = noise_null(8, 8)
    assert null.bulk_p_value(null.band("bulk_distance")[0]) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((100, 50, 0), ValueError),
        ((-1, -5), ValueError),
        ((100, 50, 1, "kss"), ValueError),
        ((100, 50, 1, 3.0), ValueError),
        ((100.0, 50), TypeError),
        ((100, 50, None), TypeError),
    ],
)
def test_what_is_no_shape(arguments, error):
    with pytest.raises(error, match="expected"):
        noise_null(*arguments)


def test_nobody_can_change_the_null_of_others():
    with pytest.raises(ValueError, match="read-only"):
        noise_null(40, 20).alpha[:] = 0
