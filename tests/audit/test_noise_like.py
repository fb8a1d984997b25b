"""A layer that differs from Gaussian noise only by scales, entries or zeros is noise, and the row says by which."""

import numpy as np
import pytest

import htsr
from htsr.audit.noise_like import EXPLAINED_LEVEL


def scales(rng):
    return rng.normal(size=(96, 128)) * rng.lognormal(size=(96, 1))


def entries(rng):
    return rng.standard_t(2.5, size=(96, 128))


def zeros(rng):
    return rng.normal(size=(96, 128)) * (rng.random((96, 128)) < 0.1)


def both(rng):
    return rng.standard_t(1.5, size=(96, 128)) * rng.lognormal(size=128)


def correlated(rng):
    W = rng.normal(size=(96, 128))
    W[1:] += 0.3 * W[:-1]
    return W


NOISE = {
    "row and column scales": scales,
    "entries": entries,
    "zero pattern": zeros,
    "scales and entries": both,
}


def rows(draw, draws=6, **options):
    weights = {f"w{seed}": draw(np.random.default_rng(seed)) for seed in range(draws)}
    return htsr.analyze(weights, **options).details


@pytest.mark.parametrize("explanation", NOISE)
def test_noise_is_explained(explanation):
    table = rows(NOISE[explanation])
    assert (table["phase"] == "random-like").sum() >= 5
    # scales alone take away much of heavy entries, too
    assert (table["explained_by"] == explanation).sum() >= (1 if explanation == "scales and entries" else 4)
    explained = table[table["explained_by"] == explanation]
    assert explained["phase_evidence"].str.startswith("noise, but for ").all()
    assert (explained["null_p_value"] >= EXPLAINED_LEVEL).all()
    assert (explained["gaussian_p_value"] < 0.05).any()
    assert (rows(NOISE[explanation], null="gaussian")["phase"] != "random-like").sum() >= 4


def test_the_profile_knows_no_entries():
    assert set(rows(scales, null="profile")["explained_by"]) == {"row and column scales"}
    assert "structure beyond scales" in set(rows(both, null="profile")["explained_by"])


def test_gaussian_noise_needs_no_explanation():
    table = rows(lambda rng: rng.normal(size=(96, 128)))
    assert (table["explained_by"] == "").sum() >= 5
    gaussian = rows(lambda rng: rng.normal(size=(96, 128)), null="gaussian")
    assert (gaussian["null_p_value"] == gaussian["gaussian_p_value"]).all()
    assert (gaussian["explained_by"] == "").all()


def test_dependent_rows_are_structure_though_the_spectrum_passes():
    table = rows(correlated)
    assert (table["phase"] != "random-like").all()
    assert set(table["explained_by"]) == {"structure beyond scales and entries"}
    assert table["phase_evidence"].str.endswith("neighbouring rows are correlated").all()


def test_a_small_weight_has_the_gaussian_null():
    row = htsr.analyze({"w": np.random.default_rng(0).normal(size=(15, 40))})["w"].row
    assert row["null_p_value"] == row["gaussian_p_value"]


def test_shuffled_structure_is_noise():
    def shuffled(rng):
        W = rng.normal(size=(128, 6)) @ rng.normal(size=(6, 96)) * rng.lognormal(sigma=0.7, size=96)
        return rng.permutation(W.ravel()).reshape(W.shape)

    assert (rows(shuffled)["phase"] == "random-like").sum() >= 5


def test_unknown_null_is_refused():
    with pytest.raises(ValueError, match="expected null to be one of gaussian, profile, entries, got 'normal'"):
        htsr.analyze({"w": np.eye(20)}, null="normal")


def test_alpha_excess_is_alpha_on_the_scale_of_noise():
    row = htsr.analyze({"w": np.random.default_rng(0).normal(size=(96, 128))})["w"].row
    ends = {name: row[f"null_alpha{name}"] for name in ("_low", "", "_high")}
    below = row["alpha"] < ends[""]
    assert row["alpha_excess"] == pytest.approx(
        1.645 * (row["alpha"] - ends[""]) / abs(ends["_low" if below else "_high"] - ends[""])
    )
    assert (row["alpha_excess"] < 0) == below
    assert rows(lambda rng: rng.standard_t(1.5, size=(96, 128)))["alpha_excess"].max() < -1.5
