"""Three programs on one model, and the guard around weightwatcher."""

import logging
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.crosscheck import quiet_weightwatcher


def test_three_programs_agree():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 2), nn.Linear(300, 40), nn.Linear(30, 10), nn.Linear(4, 4)
    )
    table = htsr.crosscheck(model)
    assert list(table["name"]) == ["0", "1", "2", "3"]
    comparable = table[:3]  # layer 3 has 10 eigenvalues, for which WeightWatcher has another rule
    for name in ("alpha", "D", "xmin"):
        np.testing.assert_allclose(comparable[f"{name}_weightwatcher"], comparable[name], rtol=1e-6)
        np.testing.assert_allclose(table[f"{name}_powerlaw"], table[name], rtol=1e-6)


def test_no_fit_no_row():
    assert len(htsr.crosscheck({"w": torch.zeros(30, 20)})) == 0


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
