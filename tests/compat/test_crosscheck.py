"""Three programs on one model, and the guard around weightwatcher."""

import logging
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.compat.crosscheck import quiet_weightwatcher


def test_three_programs_agree():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 2), nn.Linear(300, 40), nn.Linear(30, 10), nn.Linear(4, 4)
    )
    table = htsr.crosscheck(model)
    assert list(table["name"]) == ["0", "1", "2", "3", "4"]
    table, comparable = table[:4], table[:3]  # layer 3 has 10 eigenvalues, which WeightWatcher fits by another rule
    for name in ("alpha", "D", "xmin"):
        np.testing.assert_allclose(comparable[f"{name}_weightwatcher"], comparable[name], rtol=1e-6)
        np.testing.assert_allclose(table[f"{name}_powerlaw"], table[name], rtol=1e-6)


def gaussian_weight(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (gaussian_weight(60, 40), ""),
        (gaussian_weight(60, 40).bfloat16(), ""),
        (gaussian_weight(20, 16, 3, 3), ""),
        (gaussian_weight(40, 15), "weightwatcher: fits 15 eigenvalues, fewer than 20, by another rule"),
        (
            gaussian_weight(60, 40) * 1e-6,
            "htsr keeps 40 of 40 eigenvalues below weightwatcher's absolute cut-off 1e-05",
        ),
        (gaussian_weight(30, 24, 5), "weightwatcher: does not take 3-D weights from a state dict"),
        (gaussian_weight(50010, 25), "weightwatcher: skips layers with a side above 50000"),
    ],
)
def test_reasons(weight, reason):
    table = htsr.crosscheck({"w": weight})
    assert list(table["reason"]) == [reason]


def test_reasons_for_repeated_eigenvalues_and_searches_that_do_not_converge():
    draw = np.random.default_rng(0)
    repeated = np.repeat(draw.pareto(1.5, 40) + 1, [3] * 20 + [1] * 20)
    near = np.concatenate([draw.uniform(1, 2, 22), 1000 * (1 + 1e-9 * draw.random(2)), [1e3]])
    table = htsr.crosscheck({name: torch.diag(torch.from_numpy(values**0.5)) for name, values in
                             (("repeated", repeated), ("near", near))})  # fmt: skip
    assert (
        "powerlaw: left out the better xmin, because its search for alpha did not converge there"
        in table.loc[1, "reason"]
    )
    assert table.loc[1, "D_powerlaw"] > table.loc[1, "D"]
    differs = not np.isclose(table.loc[0, "alpha_powerlaw"], table.loc[0, "alpha"], rtol=1e-6)
    assert ("powerlaw: tries repeated eigenvalues only once" in table.loc[0, "reason"]) is differs


def test_each_difference_has_a_reason_and_nothing_else_has():
    weights = {f"{n}": gaussian_weight(n + 30, n, seed=n) for n in (9, 19, 20, 33, 70)}
    weights |= {f"small {n}": gaussian_weight(n + 30, n, seed=n) * 3e-4 for n in (9, 33, 70)}
    table = htsr.crosscheck(weights)
    assert len(table) == len(weights)
    columns = [f"{name}_{program}" for name in ("alpha", "D", "xmin") for program in ("weightwatcher", "powerlaw")]
    for row in table.to_dict("records"):
        pairs = [(row[column], row[column.rpartition("_")[0]]) for column in columns]
        pairs.append((row["alpha_htsr"], row["alpha"]))
        agree = all(np.isclose(*pair, rtol=1e-6, atol=0, equal_nan=True) for pair in pairs)
        assert (row["reason"] == "") is agree, row
        assert "not explained" not in row["reason"]
    assert table["reason"].ne("").any()
    assert table["alpha_htsr"].notna().all()


def test_kernels_that_htsr_decomposes_in_another_way():
    torch.manual_seed(0)
    table = htsr.crosscheck(
        nn.Sequential(nn.Conv2d(1, 3, 9), nn.Conv2d(64, 64, 5, groups=64), nn.Conv2d(32, 64, 3, groups=2))
    )
    for name in ("alpha", "D", "xmin"):
        np.testing.assert_allclose(table[f"{name}_weightwatcher"], table[name], rtol=1e-6)
    assert list(table["reason"]) == [
        "htsr takes the kernel as one 3 x 81 matrix, because each slice is a vector",
        "htsr takes the kernel as one 64 x 25 matrix, because each slice is a vector",
        "htsr cuts the kernel into its groups",
    ]


def test_layers_without_a_fit_have_a_row_and_a_reason():
    model = nn.Sequential(nn.Linear(30, 20), nn.Linear(30, 20), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    table = htsr.crosscheck(model)
    assert list(table["name"]) == ["0", "1", "2"]
    assert list(table["reason"])[1:] == [
        "shares the weight of 0",
        "htsr does not fit it: 4 distinct positive values, a fit needs 8",
    ]
    assert table.loc[1:, ["alpha", "alpha_weightwatcher", "alpha_powerlaw", "alpha_htsr"]].isna().all(axis=None)
    unfitted = htsr.crosscheck({"w": torch.zeros(30, 20)})
    assert list(unfitted) == list(table)
    assert "htsr does not fit it" in unfitted.loc[0, "reason"]


@pytest.mark.parametrize("first_import", [True, False])
def test_the_guard_restores_what_weightwatcher_changes(first_import, capsys):
    if first_import:
        for name in [name for name in sys.modules if name.split(".")[0] == "weightwatcher"]:
            del sys.modules[name]
    root = logging.getLogger()
    own = logging.getLogger("weightwatcher")
    before = (list(warnings.filters), list(root.handlers), root.level, own.level)
    with quiet_weightwatcher() as weightwatcher:
        weightwatcher.WeightWatcher(model={"w.weight": torch.randn(12, 10)}).analyze()
    assert (list(warnings.filters), list(root.handlers), root.level, own.level) == before
    assert capsys.readouterr() == ("", "")
