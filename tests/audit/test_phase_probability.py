"""How sure a phase is: near a bound less, far from it nearly 1, and as often right as it says."""

import numpy as np
import pytest
import torch

import htsr
from htsr.audit.noise_like import noise_test
from htsr.audit.phase_probability import SURE, phase_chances, sure_phase
from htsr.audit.phases import BETWEEN, Phase
from htsr.tails.resampling import Refits
from tests.audit.test_phases import GENERATED, mixed

ROW = {
    "N": 300, "M": 200, "bulk_p_value": 1e-6, "alpha": 2.6, "D": 0.04, "xmin": 1.0, "xmax": 20.0, "spectral_norm": 20.0,
    "spike_strength": 5.0, "bulk_max": 2.0, "spike_threshold": 2.1,
}  # fmt: skip


def refits(alpha=2.6, D=0.04, spread=0.1, count=2000):
    rng = np.random.default_rng(0)
    scatter = np.exp(spread * rng.normal(size=(3, count)))
    unused = np.zeros(count)
    return Refits(1 + (alpha - 1) * scatter[0], scatter[1], D * scatter[2], unused, unused, unused, unused)


@pytest.mark.parametrize(
    ("changes", "name", "low", "high"),
    [
        ({}, "heavy-tailed", 0.95, 1),
        ({"D": 0.11}, "heavy-tailed", 0.4, 0.6),
        ({"D": 0.5}, "bulk-decay", 0.95, 1),
        ({"xmax": 4.0}, "heavy-tailed", 0.4, 0.6),
        ({"bulk_p_value": 0.4, "spike_strength": 4.0}, "bulk+spikes", 0.9, 1),
        ({"bulk_p_value": 0.4, "spike_strength": 2.0}, "bulk+spikes", 0.4, 0.6),
        ({"bulk_p_value": 0.4, "spike_strength": None, "spectral_norm": 1.9, "bulk_max": 900.0, "spike_threshold": 950.0},
         "random-like", 0.9, 1),
        ({"bulk_p_value": 0.005, "spike_strength": 4.0}, "bulk+spikes", 0.4, 0.6),
    ],
)  # fmt: skip
def test_a_phase_is_least_sure_at_its_bounds(changes, name, low, high):
    chances = phase_chances(ROW | changes, refits(), None)
    assert sum(chances.values()) == pytest.approx(1)
    assert low <= chances[name] <= high


def test_two_phases_share_a_name_where_neither_is_sure():
    named, probability = sure_phase(Phase("heavy-tailed", "why"), ROW | {"D": 0.11}, refits(), None)
    assert named == Phase(BETWEEN, "why")
    assert probability > SURE
    assert sure_phase(Phase("heavy-tailed", "why"), ROW, refits(), None).phase.name == "heavy-tailed"


def test_some_phases_do_not_depend_on_chance():
    assert sure_phase(Phase("rank-collapse", ""), ROW, refits(), None).probability == 1
    assert np.isnan(sure_phase(Phase("undecided", ""), ROW, refits(), None).probability)
    assert np.isnan(sure_phase(Phase("heavy-tailed", ""), ROW, None, None).probability)


def test_noise_with_scales_is_surely_noise():
    rng = np.random.default_rng(0)
    weight = torch.tensor(rng.normal(size=(120, 90)) * np.exp(0.5 * rng.normal(size=(120, 1))))
    tested = noise_test(weight, "entries")
    chances = phase_chances(ROW, refits(), tested)
    assert sum(chances.values()) == pytest.approx(1)
    assert (chances["random-like"] > 0.5) == (tested.p_value > 0.02)


def test_without_resamples_there_is_no_probability():
    details = htsr.analyze({"w": GENERATED["heavy-tailed"](np.random.default_rng(0), 100, 60)}, progress=False).details
    assert details["phase_probability"].isna().all()


@pytest.mark.slow
def test_new_draws_have_the_phase_as_often_as_it_says():
    rng = np.random.default_rng(3)
    makers = [
        *GENERATED.values(),
        *(lambda rng, N, M, a=a: mixed(rng, N, M, rng.pareto(a, size=M) + 1) for a in (2.0, 3.0)),
    ]
    said, agreed = [], []
    for make in makers:
        draws = [
            htsr.analyze({"w": make(rng, 300, 200)}, bootstrap=60, progress=False).details.iloc[0] for _ in range(24)
        ]
        phases = [set(row["phase"].split(" or ")) for row in draws]
        said += [row["phase_probability"] for row in draws]
        agreed += [np.mean([bool(a & b) for b in phases[:i] + phases[i + 1 :]]) for i, a in enumerate(phases)]
    said, agreed = np.array(said), np.array(agreed)
    for low, high in ((0.0, 0.85), (0.85, 0.97), (0.97, 1.01)):
        inside = (said >= low) & (said < high)
        assert inside.sum() > 8
        assert abs(said[inside].mean() - agreed[inside].mean()) < 0.2
