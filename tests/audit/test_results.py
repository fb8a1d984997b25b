"""Analyses and comparisons as mappings: by name, by position, and with a hint where a name is wrong."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import htsr

NAMES = ["encoder.0.q_proj", "encoder.0.k_proj", "encoder.1.q_proj", "head"]


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(30, 20, generator=generator) for name in NAMES}


@pytest.fixture(scope="module", params=["analysis", "comparison"])
def results(request):
    if request.param == "analysis":
        return htsr.analyze(weights())
    return htsr.compare(weights(), weights(1))


def test_names_and_layers(results):
    assert list(results.keys()) == NAMES == [layer.name for layer in results] == list(results.details["name"])
    assert list(results.values()) == list(results)
    assert dict(results.items()) == dict(results) == {layer.name: layer for layer in results}
    assert results._ipython_key_completions_() == NAMES
    assert len(results) == 4


def test_in_takes_names_and_layers(results):
    assert all(name in results for name in results.keys())
    assert all(layer in results for layer in results)
    for other in ("encoder", "", None, 0, results.details, htsr.analyze(weights())[0]):
        assert other not in results


@pytest.mark.parametrize("position", [0, 3, -1, -4, np.int64(2), torch.tensor(1)])
def test_positions(results, position):
    assert results[position] is results[NAMES[int(position)]]


@pytest.mark.parametrize("position", [4, -5, 10**9])
def test_positions_outside(results, position):
    with pytest.raises(IndexError, match=f"no layer at position {position}: there are 4"):
        results[position]


@pytest.mark.parametrize("key", [slice(0, 2), slice(None), 1.0, None, ("head",), ["head"], torch.nn.Linear(2, 2)])
def test_other_keys(results, key):
    with pytest.raises(TypeError, match="expected the name of a layer or its position, got") as failure:
        results[key]
    assert ("list(...)" in str(failure.value)) == isinstance(key, slice)


@pytest.mark.parametrize(
    ("typo", "hint"),
    [("encoder.0.q_porj", "did you mean encoder.0.q_proj"), ("Head", "did you mean head?"), ("1.q", "encoder.1.q_proj"),
     ("k_proj", "did you mean encoder.0.k_proj?")],
)  # fmt: skip
def test_a_wrong_name_gets_a_hint(results, typo, hint):
    with pytest.raises(KeyError) as failure:
        results[typo]
    assert f"no layer {typo!r}: " in str(failure.value)
    assert hint in str(failure.value)
    assert "expected one of the 4 layers, encoder.0.q_proj" in str(failure.value)


def test_a_name_like_no_other_gets_no_hint(results):
    with pytest.raises(KeyError) as failure:
        results["zzz"]
    assert "did you mean" not in str(failure.value)


def test_no_layer_at_all():
    nothing = htsr.analyze({"bias": torch.zeros(3)})
    assert (len(nothing), list(nothing), nothing.details.empty) == (0, [], True)
    with pytest.raises(KeyError, match="there are no layers"):
        nothing["bias"]
    with pytest.raises(IndexError, match="there are 0"):
        nothing[0]
    assert repr(nothing) == nothing.headline()
    assert "<table" in nothing._repr_html_()


def test_copies(results):
    for again in (pickle.loads(pickle.dumps(results)), copy.deepcopy(results)):
        assert list(again.keys()) == NAMES
        assert repr(again) == repr(results)


def test_in_a_notebook_and_a_terminal(results):
    for text in (repr(results), results._repr_html_()):
        assert all(name in text for name in NAMES)
    assert repr(results).startswith(results.headline())


def test_markup_in_a_source_is_escaped():
    model = type("<b>Net</b>", (nn.Linear,), {})(30, 20)
    assert "<b>Net" not in htsr.analyze(model)._repr_html_()
    assert "<b>Net" not in htsr.compare(model, model)._repr_html_()
