"""Comparisons with analyses, which keep spectra and no weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import htsr
from htsr.cli.main import main


def net(seed=0):
    torch.manual_seed(seed)
    return {
        "a.weight": torch.randn(60, 40),
        "b.weight": torch.randn(40, 50),
        "c.weight": torch.full((20, 30), torch.nan),
    }


@pytest.fixture(scope="module")
def pair():
    before = net()
    after = {**before, "b.weight": before["b.weight"] + 0.1 * torch.randn(40, 50)}
    return before, after


@pytest.mark.parametrize("kept", ["both", "a", "b"])
def test_analyses_files_and_sources_give_the_same_rows(pair, tmp_path, kept):
    before, after = pair
    exact = htsr.compare(before, after).details.set_index("name")
    a = htsr.analyze(before).save(tmp_path / "a.htsr") if kept != "b" else before
    b = htsr.analyze(after) if kept != "a" else after
    c = htsr.compare(a, b)
    rows = c.details.set_index("name")
    for column in ("alpha_a", "alpha_b", "alpha_change", "stable_rank_b", "phase_a", "least_relative_change", "N", "M"):
        assert rows[column].equals(exact[column]), column
    assert dict(rows["status"]) == {"a": "unchanged", "b": "changed", "c": "failed"}
    assert rows["relative_change"].isna().all()
    assert c.kind == "undecided"
    assert "an analysis keeps spectra, not weights" in c.kind_evidence
    assert c.a["b"].spectrum is not None
    assert "alpha: median" in repr(c)


def test_the_least_change_is_a_lower_bound_that_scaling_meets(pair):
    before, after = pair
    rows = htsr.compare(before, after).details.set_index("name")
    assert 0 < rows["least_relative_change"]["b"] < rows["relative_change"]["b"]
    scaled = htsr.compare(before, {**before, "b.weight": 1.25 * before["b.weight"]}).details.set_index("name")
    assert scaled["least_relative_change"]["b"] == pytest.approx(0.25, rel=1e-6)
    assert scaled["relative_change"]["b"] == pytest.approx(0.25, rel=1e-6)


def test_selection_and_unmatched(pair):
    before, after = map(htsr.analyze, pair)
    assert list(htsr.compare(before, after, layers="b").keys()) == ["b"]
    assert list(htsr.compare(before, after, layers="40x50").keys()) == ["b"]
    other = htsr.analyze({"a.weight": torch.randn(60, 41), "b.weight": torch.randn(40, 50)})
    c = htsr.compare(before, other)
    assert list(c.keys()) == ["b"]
    assert dict(zip(c.unmatched["name"], c.unmatched["source"], strict=True)) == {"a": "both", "c": "A"}
    with pytest.raises(htsr.InputError, match=r"no layer of .* has a partner"):
        htsr.compare(before, htsr.analyze({"z": torch.randn(30, 20)}))


def test_the_same_spectra_and_the_same_files(pair, tmp_path):
    """Equal spectra do not make equal weights, but equal files do."""
    before = {name: W for name, W in pair[0].items() if name != "c.weight"}
    kept = htsr.analyze(before).save(tmp_path / "kept.htsr")
    c = htsr.compare(kept, {name: -W for name, W in before.items()})
    assert c.kind == "undecided"
    assert c.kind_evidence.startswith("All 2 spectra are the same, but the weights need not be")
    for copy in ("one", "two"):
        save_file(before, tmp_path / f"{copy}.safetensors")
        htsr.analyze(tmp_path / f"{copy}.safetensors").save(tmp_path / f"{copy}.htsr")
    for b in ("two.htsr", "two.safetensors"):
        c = htsr.compare(tmp_path / "one.htsr", tmp_path / b)
        assert c.kind == "identical", c.kind_evidence
        assert "read the same file" in c.kind_evidence


def test_settings_must_agree(pair):
    before, after = pair
    with pytest.raises(htsr.InputError, match="same settings, got xmin=median in A and xmin=the default in B"):
        htsr.compare(htsr.analyze(before, xmin="median"), htsr.analyze(after))
    c = htsr.compare(htsr.analyze(before, xmin="median"), after)
    assert c.b.about.settings["xmin"] == "median"


@pytest.mark.parametrize("asked", [{"xmin": "median"}, {"state": "exp_avg"}])
def test_an_option_that_cannot_be_met_is_refused(pair, asked):
    (name,) = asked
    with pytest.raises(ValueError, match=f"expected {name}="):
        htsr.compare(htsr.analyze(pair[0]), pair[1], **asked)


def test_a_comparison_is_no_side_of_one(pair, tmp_path):
    path = htsr.compare(*pair).save(tmp_path / "c.htsr")
    with pytest.raises(htsr.InputError, match="expected an analysis to compare, got a comparison"):
        htsr.compare(path, pair[0])


def test_on_the_command_line(pair, tmp_path, capsys):
    for name, weights in zip("ab", pair, strict=True):
        np.savez(tmp_path / f"{name}.npz", **{key: value.numpy() for key, value in weights.items()})
        assert main(["audit", str(tmp_path / f"{name}.npz"), "-o", str(tmp_path / f"{name}.htsr")]) == 0
    assert main(["compare", str(tmp_path / "a.htsr"), str(tmp_path / "b.htsr"), "-o", str(tmp_path / "c.htsr")]) == 0
    assert main(["report", str(tmp_path / "c.htsr")]) == 0
    assert "alpha_b" in (tmp_path / "c.html").read_text()
    assert main(["report", str(tmp_path / "a.htsr"), "-o", str(tmp_path / "a.md")]) == 0
    assert "| name |" in (tmp_path / "a.md").read_text()
    assert "wrote" in capsys.readouterr().out
