"""The densities behind a picture of a spectrum."""

import numpy as np
import pytest

import htsr
from htsr.plots.spectra.density import bulk_density, histogram, log_histogram, tail_density
from tests.conftest import pareto, planted

LOGARITHMIC = {"log-lin"}


@pytest.fixture(scope="module")
def tail():
    return htsr.fit_power_law(pareto(2.5, 900).numpy())


def area(x, y, scale):
    return np.trapezoid(y, np.log10(x) if scale in LOGARITHMIC else x)


@pytest.mark.parametrize("scale", ["log-log", "lin", "log-lin"])
def test_the_tail_has_its_share_of_the_area(tail, scale):
    x, y = tail_density(tail, 1200, scale)
    below_xmax = 1 - (tail.xmax / tail.xmin) ** (1 - tail.alpha)
    assert area(x, y, scale) == pytest.approx(tail.n_tail / 1200 * below_xmax, rel=0.01)


@pytest.mark.parametrize("scale", ["log-log", "lin", "log-lin"])
@pytest.mark.parametrize("N", [200, 500])
def test_the_bulk_has_its_share_of_the_area(scale, N):
    W = np.random.default_rng(0).normal(size=(N, 200))
    W[:, 0] *= 9
    spectrum = htsr.Spectrum.from_weight(W)
    bulk = htsr.fit_marchenko_pastur(spectrum, spectrum.N, spectrum.M)
    x, y = bulk_density(bulk, 200, scale)
    assert area(x, y, scale) == pytest.approx(199 / 200, rel=0.02)


@pytest.mark.parametrize("scale", ["log-log", "lin", "log-lin"])
def test_bars_have_the_share_of_the_eigenvalues_in_them(scale):
    evals = np.sort(np.random.default_rng(0).lognormal(size=300))
    edges, density = histogram(evals, scale)
    width = np.diff(np.log10(edges)) if scale in LOGARITHMIC else np.diff(edges)
    counts, _ = np.histogram(evals, edges)
    np.testing.assert_allclose(np.nan_to_num(density) * width * 300, counts, atol=1e-9)


def test_a_linear_axis_ends_beyond_the_edge():
    evals = np.append(np.linspace(0.1, 4, 100), 500.0)
    assert histogram(evals, "lin", edge=4.0)[0][-1] == pytest.approx(8 * 1.02)
    assert histogram(evals[:-1], "lin", edge=4.0)[0][-1] == pytest.approx(4 * 1.02)


def test_the_drawn_tail_lies_on_the_histogram():
    spectrum = htsr.Spectrum.from_weight(planted(pareto(2.5, 900), 900))
    fit = htsr.fit_power_law(spectrum)
    edges, density = log_histogram(spectrum.nonzero)
    middles = np.sqrt(edges[1:] * edges[:-1])
    law = np.interp(np.log(middles), *map(np.log, tail_density(fit, fit.n)))
    well_filled = (middles > fit.xmin) & (density * np.diff(edges) * 900 > 30)
    assert well_filled.sum() > 5
    np.testing.assert_allclose(density[well_filled], np.exp(law[well_filled]), rtol=0.5)


def test_a_log_histogram_counts_every_value_above_its_left_edge():
    evals = np.sort(np.random.default_rng(0).lognormal(size=300))
    edges, density = log_histogram(evals)
    assert np.nansum(density * np.diff(edges)) == pytest.approx(np.mean(evals >= edges[0]), abs=1 / 300)
