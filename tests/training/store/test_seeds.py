"""Runs that differ in their seed: means, paired differences, numbers of seeds, the best learning rate."""

import logging
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from torch import nn

import htsr
from htsr.training.store import seeds


def runs_of(values, **more):
    """A table of runs from ``{(power, seed): value}``."""
    rows = [(power, seed, f"{power}-{seed}", value) for (power, seed), value in values.items()]
    return pd.DataFrame(rows, columns=["power", "seed", "run", "value"]).assign(**more)


def drawn(rng, num_seeds=6, effect=0.3):
    luck = rng.normal(size=num_seeds)
    return {(p, s): luck[s] + effect * p + 0.1 * rng.normal() for p in (0.0, 0.25, 0.5) for s in range(num_seeds)}


def test_pairs_are_those_of_scipy():
    values = drawn(np.random.default_rng(0))
    found = seeds.paired(runs_of(values), "power", 0.0, None).set_index("power")
    assert list(found.index) == [0.25, 0.5]
    for power in found.index:
        a, b = (np.array([values[p, s] for s in range(6)]) for p in (power, 0.0))
        expected = stats.ttest_rel(a, b).confidence_interval(0.95)
        row = found.loc[power]
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), rel=1e-12)
        assert row["difference"] == pytest.approx(np.mean(a - b))
        assert row["n"] == 6


def test_only_seeds_that_both_have_are_paired():
    values = drawn(np.random.default_rng(0))
    del values[0.5, 0], values[0.0, 1]
    values[0.25, 2] = math.nan
    assert list(seeds.paired(runs_of(values), "power", 0.0, None)["n"]) == [4, 4]


def test_the_paired_interval_covers():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(1500):
        values = drawn(rng, 5)
        low, high = seeds.interval(np.array([values[0.5, s] - values[0.0, s] for s in range(5)]))
        inside += low <= 0.15 <= high
    assert 0.93 <= inside / 1500 <= 0.97


@pytest.mark.parametrize(("sd", "see"), [(1.0, 1.0), (0.1, 0.05), (2.0, 0.5)])
def test_so_many_seeds_show_the_difference_in_four_of_five_studies(sd, see):
    n = seeds.seeds_needed(sd, see)
    sample = np.random.default_rng(0).normal(see, sd, size=(4000, n))
    t = sample.mean(1) / (sample.std(1, ddof=1) / math.sqrt(n))
    assert np.mean(t > stats.t.ppf(0.975, n - 1)) == pytest.approx(0.8, abs=0.06 if n < 15 else 0.025)


@pytest.mark.parametrize("n", [2, 5, 10])
def test_the_smallest_visible_difference_is_seen_in_four_of_five_studies(n):
    visible = seeds.smallest_difference(0.5, n)
    sample = np.random.default_rng(0).normal(visible, 0.5, size=(20_000, n))
    t = sample.mean(1) / (sample.std(1, ddof=1) / math.sqrt(n))
    assert np.mean(t > stats.t.ppf(0.975, n - 1)) == pytest.approx(0.8, abs=0.015)
    assert seeds.seeds_needed(0.5, visible * 1.001) <= n
    assert math.isnan(seeds.smallest_difference(0.5, 1))
    assert seeds.smallest_difference(0.0, 3) == 0


def test_where_no_number_of_seeds_is_enough_none_is_named():
    assert seeds.seeds_needed(1.0, 0.0) is None
    assert seeds.seeds_needed(1.0, 1e-9) is None
    assert seeds.seeds_needed(math.nan, 1.0) is None
    one = seeds.paired(runs_of({(0.0, 0): 1.0, (0.5, 0): 2.0}), "power", 0.0, None)
    assert one["n"].item() == 1
    assert one[["low", "high", "seeds_needed"]].isna().all(axis=None)


def test_means_over_seeds_refuse_runs_that_differ_in_more():
    values = drawn(np.random.default_rng(0))
    table = runs_of(values, lr=0.1)
    found = seeds.by_setting(table, ["power"]).set_index("power")
    assert found.loc[0.25, "mean"] == pytest.approx(np.mean([values[0.25, s] for s in range(6)]))
    assert list(found["n"]) == [6, 6, 6]
    table.loc[0, "lr"] = 0.2
    with pytest.raises(htsr.InputError, match="differ in lr, too"):
        seeds.by_setting(table, ["power"])
    assert len(seeds.by_setting(table, ["power", "lr"])) == 4


def test_two_runs_of_one_seed_are_no_pair():
    table = pd.concat([runs_of({(0.0, 0): 1.0, (0.5, 0): 2.0}), runs_of({(0.5, 0): 3.0})])
    with pytest.raises(htsr.InputError, match="one run for each power and seed, found 2"):
        seeds.paired(table, "power", 0.0, None)
    with pytest.raises(ValueError, match=r"expected baseline= to be one of 0.0, 0.5"):
        seeds.paired(runs_of({(0.0, 0): 1.0, (0.5, 0): 2.0}), "power", 0.3, None)


@pytest.mark.parametrize("lowest", [True, False])
def test_a_best_learning_rate_at_the_edge_is_told(lowest, caplog):
    sign = 1 if lowest else -1
    losses = {(0.0, 0.1): 3, (0.0, 0.2): 1, (0.0, 0.4): 2, (0.5, 0.1): 3, (0.5, 0.2): 2, (0.5, 0.4): 1}
    rows = [(p, lr, s, f"{p}{lr}{s}", sign * (loss + 0.01 * s)) for (p, lr), loss in losses.items() for s in range(3)]
    table = pd.DataFrame(rows, columns=["power", "lr", "seed", "run", "value"])
    with caplog.at_level(logging.WARNING):
        found = seeds.best(table, "power", "lr", lowest=lowest).set_index("power")
    assert list(found["lr"]) == [0.2, 0.4]
    assert list(found["at_edge"]) == [False, True]
    assert "the best lr lies at the edge" in caplog.text
    assert "(0.5: 0.4)" in caplog.text


def tuned_runs(values, **more):
    """A table of runs at power 0 from ``{(lr, seed): loss}``."""
    rows = [(0.0, lr, seed, f"{lr}-{seed}", loss) for (lr, seed), loss in values.items()]
    return pd.DataFrame(rows, columns=["power", "lr", "seed", "run", "value"]).assign(**more)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_rate_that_diverges_is_not_the_best(bad, caplog):
    values = {(0.1, s): 1 + 0.1 * s for s in range(3)} | {(0.2, 0): 0.5, (0.2, 1): bad, (0.2, 2): bad, (0.05, 0): 2.0}
    found = seeds.best(tuned_runs(values), "power", "lr", lowest=True).iloc[0]
    assert (found["lr"], found["mean"], found["n"], found["at_edge"]) == (0.1, pytest.approx(1.1), 3, False)
    assert "2 of 7 runs have no finite value and make their lr lose: 0.2-1, 0.2-2" in caplog.text
    none = seeds.best(tuned_runs(dict.fromkeys(values, bad)), "power", "lr", lowest=True).iloc[0]
    assert (none["lr"], none["n"]) == (None, 0)


def test_a_rate_is_not_the_best_because_its_seeds_were_lucky(caplog):
    values = {(0.1, 0): 1.0, (0.1, 1): 3.0, (0.2, 0): 1.5, (0.4, 0): 1.9, (0.4, 1): 3.9}
    found = seeds.best(tuned_runs(values), "power", "lr", lowest=True).iloc[0]
    assert (found["lr"], found["mean"], found["n"]) == (0.1, 2.0, 2)
    luck, rng = [0.0, 5.0, -3.0, 1.0], np.random.default_rng(0)
    some = {(lr, s): abs(lr - 0.2) + luck[s] for lr in (0.1, 0.2, 0.4, 0.8) for s in range(4) if rng.random() < 0.7}
    assert seeds.best(tuned_runs(some), "power", "lr", lowest=True)["lr"].item() == 0.2
    apart = seeds.best(tuned_runs({(0.1, 0): 1.0, (0.2, 1): 0.5, (0.4, 2): 1.0}), "power", "lr", lowest=True).iloc[0]
    assert apart["lr"] == 0.2
    assert "lr at power 0.0 was tried with other seeds at each value" in caplog.text


def test_rates_that_are_text_are_ordered_as_numbers():
    values = {("5e-4", 0): 3.0, ("1e-3", 0): 2.0, ("2e-3", 0): 1.0}
    found = seeds.best(tuned_runs(values), "power", "lr", lowest=True).iloc[0]
    assert (found["lr"], found["at_edge"]) == ("2e-3", True)
    with pytest.raises(ValueError, match=r"expected 'lr' to be a number in every run, got '0\.1 to 0\.2'"):
        seeds.best(tuned_runs({("0.1 to 0.2", 0): 1.0}), "power", "lr", lowest=True)


def test_lost_and_shorter_runs_are_told(caplog):
    values = {(p, s): p + 0.1 * s for p in (0.0, 0.5) for s in range(4)} | {(0.5, 3): math.inf}
    table = runs_of(values, last_step=[300] * 7 + [20])
    means = seeds.by_setting(table, ["power"])
    assert list(means["n"]) == [4, 3]
    assert means["mean"].iloc[1] == pytest.approx(0.6)
    assert seeds.paired(table, "power", 0.0, None)["n"].item() == 3
    assert "1 of 8 runs have no finite value and are left out, which makes their setting look better" in caplog.text
    assert "end at different steps, from 20 to 300; compared is where each ended. Shorter ones: 0.5-3" in caplog.text


def test_repetitions_and_what_differs_within_a_setting_are_refused():
    table = runs_of({(p, s): p for p in (0.0, 0.5) for s in range(3)})
    with pytest.raises(
        htsr.InputError, match=r"one run for each power and seed, found 2 with power = 0\.0 and seed = 0"
    ):
        seeds.by_setting(pd.concat([table, table]), ["power"])
    with pytest.raises(htsr.InputError, match="differ in width, too"):
        seeds.paired(table.assign(width=[64, 64, 64, 64, 128, 192]), "power", 0.0, None)
    tuned = table.assign(lr=[0.1] * 3 + [0.2] * 3)  # each power may have a rate of its own
    assert seeds.paired(tuned, "power", 0.0, None)["n"].item() == 3


@pytest.mark.parametrize(
    ("settings", "error"),
    [(["value"], ValueError), ([], ValueError), ([1], TypeError), (["power", "power"], ValueError)],
)
def test_names_that_are_no_settings_are_refused(settings, error):
    with pytest.raises(error, match="expected"):
        seeds.by_setting(runs_of({(0.0, 0): 1.0}), settings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of two powers, with a loss each."""
    folder = tmp_path_factory.mktemp("runs")
    for power in (0.0, 0.125):
        for seed in range(3):
            with htsr.Monitor(nn.Linear(12, 10), run_dir=folder / f"{power}-{seed}", bulk=False, bootstrap=0,
                              about={"power": power, "seed": seed}) as monitor:  # fmt: skip
                for step in range(40):
                    monitor.step(held_out_loss=2 + power + 0.1 * seed + (step < 36))
    return htsr.History.load_many(folder)


def test_runs_on_disk(runs):
    table = runs.table("power", "held_out_loss")
    assert list(table["mean"]) == pytest.approx([2.1, 2.225])
    assert list(table["n"]) == [3, 3]
    row = runs.paired("power", baseline=0.0, metric="held_out_loss", see=0.01).iloc[0]
    assert row["difference"] == pytest.approx(0.125)
    assert row["seeds_needed"] == 2  # the seeds differ by nothing but luck that pairs share
    assert len(runs.where(seed=[0, 2])) == len(runs.where(seed=np.array([0, 2]))) == len(runs.where(seed={0, 2})) == 4
    assert list(runs.where(power=0.125, seed=1).settings["seed"]) == [1]
    with pytest.raises(ValueError, match=r"a recorded scalar \(held_out_loss\) or a column of details, got 'held_out'"):
        runs.table("power", "held_out")
    with pytest.raises(htsr.InputError, match="found none among 6"):
        runs.where(seed=9)
    with pytest.raises(ValueError, match="tell 'width'"):
        runs.where(width=3)
    with pytest.raises(ValueError, match=r"about=\{'width'"):
        runs.table("width", "held_out_loss")
    with pytest.raises(ValueError, match="nothing"):
        runs.table("power", "nothing")


def test_the_picture_shows_means_and_runs(runs):
    figure = runs.plot_against("power", ["held_out_loss", "stable_rank"])
    left = figure.axes[0]
    assert left.get_ylabel() == "held_out_loss"
    lengths = [len(line.get_xdata()) for line in left.lines]
    assert lengths == [6, 2, 2, 2]  # runs, means, and the two ends of each interval
    assert len(left.collections) == 2  # the band, and the lines between the ends


def test_a_run_without_the_metric_is_named(runs, tmp_path):
    with htsr.Monitor(nn.Linear(12, 10), run_dir=tmp_path / "other", bulk=False, bootstrap=0, about={"power": 0.5}):
        pass
    more = {**runs, "other": htsr.History(tmp_path / "other")}
    with pytest.raises(htsr.InputError, match="1 of 7 did not, such as 'other'"):
        seeds.values(more, "held_out_loss")
