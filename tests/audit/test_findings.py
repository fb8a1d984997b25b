"""Findings: said where there is something to say, with the numbers, and silent elsewhere."""

import numpy as np
import torch

import htsr
from htsr.audit.findings import KINDS, SEVERITIES
from tests.conftest import planted


def findings(W, **options):
    return [str(found) for found in htsr.analyze({"w": W}, **options)["w"].findings]


def test_noise():
    (first, *_) = findings(np.random.default_rng(0).normal(size=(128, 128)))
    assert first.startswith("Indistinguishable from noise: bulk fits noise (p = ")
    assert "is not evidence of structure: 90 % of noise matrices of this shape have an alpha of" in first


def test_noise_but_for_its_scales():
    rng = np.random.default_rng(0)
    (first, *_) = findings(rng.normal(size=(128, 128)) * rng.lognormal(size=128))
    assert first.startswith("Noise, but for row and column scales (p = ")
    assert first.endswith("): random numbers with these are as structured.")


def test_trap_names_its_element():
    W = np.random.default_rng(0).normal(size=(120, 120))
    W[3, 17] = 30
    assert any("1 correlation trap" in s and "(3, 17) = 30" in s for s in findings(W, randomize=True))
    assert not any("trap" in s for s in findings(W))


def test_trap_names_the_mean():
    W = np.random.default_rng(0).normal(size=(120, 120)) + 0.5
    assert any("1 correlation trap" in s and "a mean of 0.5" in s for s in findings(W, randomize=True))


def test_alpha_below_two_with_p():
    evals = torch.from_numpy(np.sort((1 - np.random.default_rng(0).random(300)) ** (-1 / 0.6)))
    (said, *_) = findings(planted(evals, 300))
    assert "is below 2; 90 % of noise matrices of this shape have an alpha of" in said
    assert "that noise looks this heavy-tailed)" in said


def test_rank_collapse():
    rng = np.random.default_rng(0)
    (said, *_) = findings(rng.normal(size=(200, 50)) @ rng.normal(size=(50, 150)))
    assert said == "Rank collapse: 100 of 150 eigenvalues are zero or as good as zero."


def test_short_tail():
    W = np.random.default_rng(0).normal(size=(300, 200))
    row = htsr.analyze({"w": W})["w"].row
    assert row["num_pl_spikes"] < 30
    assert f"The fit of the tail rests on {row['num_pl_spikes']} of 200 eigenvalues." in findings(W)
    assert not any("rests on" in sentence for sentence in findings(np.diag(np.geomspace(1, 100, 300))))


def test_a_failed_layer_says_why():
    assert findings(np.full((20, 20), np.nan)) == ["Not fitted: non-finite (400 of 400)."]


def test_a_healthy_layer_is_not_talked_about():
    evals = torch.from_numpy((1 - np.random.default_rng(0).random(400)) ** (-1 / 2.0))
    assert findings(planted(evals.sort().values, 400)) == []


def test_tables_hold_them_once_for_tied_layers():
    first, second = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
    second.weight = first.weight
    a = htsr.analyze(torch.nn.Sequential(first, second))
    assert set(a.findings["name"]) == {"0"}
    assert a.details["findings"][0] == " ".join(map(str, a["0"].findings))
    assert a.summary()["num_random_like"] == 1
    assert "phases: 1 random-like" in repr(a)


def test_kinds_severities_and_order():
    """The worst first: by kind, then by the number that ranks the kind, whatever the order of the model."""
    rng = np.random.default_rng(0)
    pareto = torch.from_numpy(np.sort((1 - rng.random(300)) ** (-1 / 0.6)))
    a = htsr.analyze(
        {
            "heavy": planted(pareto, 300),
            "small": rng.normal(size=(40, 4)),
            "noise": rng.normal(size=(128, 128)),
            "collapsed": rng.normal(size=(200, 50)) @ rng.normal(size=(50, 150)),
            "broken": np.full((20, 20), np.nan),
        }
    )
    found = a.findings
    assert list(found.columns) == ["name", "kind", "severity", "finding", "evidence"]
    assert [kind for kind in KINDS if kind in set(found["kind"])] == list(dict.fromkeys(found["kind"]))
    first = found.groupby("name", sort=False).first()
    assert dict(first["kind"]) == {
        "broken": "unusable",
        "noise": "noise",
        "collapsed": "rank-collapse",
        "heavy": "over-trained",
        "small": "not-fitted",
    }
    assert list(found["severity"]) == sorted(found["severity"], key=SEVERITIES.index)
    assert dict(zip(a.details["name"], a.details["severity"], strict=True))["heavy"] == "caution"
    assert "bulk_p_value" in found.set_index("kind").loc["noise", "evidence"]


def test_findings_of_one_kind_are_ranked():
    rng = np.random.default_rng(1)
    ranks = {f"rank{rank}": rng.normal(size=(64, rank)) @ rng.normal(size=(rank, 64)) for rank in (60, 40, 50)}
    found = htsr.analyze(ranks).findings
    assert list(found.loc[found["kind"] == "rank-collapse", "name"]) == ["rank40", "rank50", "rank60"]


def test_noise_is_not_called_under_trained():
    """The row, the summary, the headline and the verdict agree."""
    draws = ({"w": np.random.default_rng(seed).normal(size=(128, 128))} for seed in range(99))
    a = next(a for a in map(htsr.analyze, draws) if a["w"].row["alpha"] > 6)
    assert a["w"].row["warning"] == "noise"
    assert a.summary()["num_under_trained"] == 0
    assert a.verdict.startswith("1 of 1 fitted matrix is noise, as if it had never been trained: w.")
    assert "under-trained" not in repr(a)
    assert a.to_weightwatcher()["warning"][0] == "under-trained"


def test_findings_show_whole_in_a_notebook():
    a = htsr.analyze({"w": np.random.default_rng(0).normal(size=(128, 128))})
    sentence = a.findings["finding"][0]
    assert len(sentence) > 100
    assert sentence in a.findings._repr_html_()
    assert sentence in a.findings.head(1)._repr_html_()
    assert sentence in repr(a.findings)


def test_small_matrices_of_noise_are_not_called_under_trained():
    """Their phase is undecided, but noise of their shape is as heavy-tailed, so alpha says nothing."""
    words = set()
    for seed in range(12):
        torch.manual_seed(seed)
        a = htsr.analyze(
            torch.nn.Sequential(torch.nn.Conv2d(8, 32, 3), torch.nn.Linear(64, 10), torch.nn.Linear(20, 40))
        )
        words |= set(a.details["warning"])
        assert not {"under-trained", "over-trained"} & set(a.findings["kind"])
    assert words <= {"", "noise"}
