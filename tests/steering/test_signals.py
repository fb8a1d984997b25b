"""Signals and their intervals beside the tables of analyze."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import htsr
from htsr import InputError
from htsr.steering.signals import Reader

NAMES = ["1", "0"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 30))


def details_of(model, **options):
    details = htsr.analyze(model, bulk=False, progress=False, **options).details
    return details.set_index("name").loc[NAMES]


def test_alpha_comes_with_its_bootstrap_interval_or_that_of_sigma(model):
    resampled, plain = details_of(model, bootstrap=50), details_of(model)
    found = Reader("alpha").read_model(model, NAMES, interval=True)
    assert found.to_numpy() == pytest.approx(resampled[["alpha", "alpha_low", "alpha_high"]].to_numpy())
    found = Reader("alpha").read_model(model, NAMES, interval=False)
    assert found["value"].to_numpy() == pytest.approx(plain["alpha"].to_numpy())
    assert (found["high"] - found["value"]).to_numpy() == pytest.approx(1.96 * plain["sigma"].to_numpy())
    assert (found["low"] + found["high"]).to_numpy() == pytest.approx(2 * plain["alpha"].to_numpy())


def test_other_columns_have_no_interval_and_the_excess_has_that_of_noise():
    details = pd.DataFrame({"name": ["0", "1"], "alpha_excess": [1.0, np.inf], "stable_rank": [5.0, 6.0]})
    assert Reader("stable_rank")._from_details(details, NAMES).to_numpy().tolist() == [[6.0] * 3, [5.0] * 3]
    excess = Reader("alpha_excess")._from_details(details, NAMES)
    assert excess.loc["0"].tolist() == pytest.approx([1, -0.96, 2.96])
    assert excess.loc["1"].isna().all()


def test_a_function_must_return_a_series_of_the_layers():
    details = pd.DataFrame({"name": ["0", "1"], "alpha": [2.0, 3.0]})
    assert Reader(lambda table: table["alpha"] ** 2)._from_details(details, NAMES)["value"].tolist() == [9.0, 4.0]
    with pytest.raises(TypeError, match="pandas Series, got list"):
        Reader(lambda table: [1.0, 2.0])._from_details(details, NAMES)
    with pytest.raises(InputError, match="keep the index"):
        Reader(lambda table: table["alpha"].reset_index(drop=True))._from_details(details, NAMES)
    with pytest.raises(TypeError, match="got 3"):
        Reader(3)
