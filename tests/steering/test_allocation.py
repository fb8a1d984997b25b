"""Sparsities, ranks and experts against the published formulas, torch's pruning and peft."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import htsr
from htsr import InputError
from htsr.steering import experts, ranks, sparsities
from htsr.steering.matrices import blocks_of


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = [(16, 16), (16, 40), (40, 16)]
    return nn.ModuleDict(
        {
            "table": nn.Embedding(30, 16),
            "blocks": nn.ModuleList(
                nn.ModuleDict({f"m{i}": nn.Linear(*sides, bias=False) for i, sides in enumerate(sizes)})
                for _ in range(4)
            ),
        }
    )


@pytest.fixture(scope="module")
def analysis(model):
    found = htsr.analyze(model, bulk=False, xmin="median", progress=False)
    alphas = np.random.default_rng(0).uniform(2, 6, len(found.details) - 1).round(2)
    found.details["alpha"] = [np.nan, *alphas]  # fixed, so that the formulas can be written out
    return found


def block_means(analysis):
    return analysis.details["alpha"].to_numpy()[1:].reshape(4, 3).mean(axis=1)


def test_sparsities_are_those_of_alpha_pruning_and_torch_reaches_them(model, analysis):
    amounts = sparsities(analysis, 0.7, spread=0.2)
    scores = np.repeat(block_means(analysis), 3)
    prunables = np.tile([256, 640, 640], 4)
    ratios = (scores - scores.min()) / (scores.max() - scores.min()) * (1.2 - 0.8) + 0.8
    ratios *= prunables.sum() * 0.7 / (prunables * ratios).sum()
    assert list(amounts.values()) == pytest.approx(ratios, rel=1e-12)
    copied = nn.ModuleDict({name.replace(".", "_"): nn.Linear(1, 1) for name in amounts})
    zeros = 0
    for name, amount in amounts.items():
        layer = copied[name.replace(".", "_")]
        layer.weight = nn.Parameter(model.get_submodule(name).weight.detach().clone())
        prune.l1_unstructured(layer, "weight", amount=amount)
        zeros += int((layer.weight == 0).sum())
    assert abs(zeros - 0.7 * prunables.sum()) <= len(amounts) / 2  # torch rounds each layer's count


@pytest.mark.parametrize("arm", ["measured", "shuffled", "inverted", "uniform"])
@pytest.mark.parametrize("per", ["block", "layer"])
def test_every_arm_prunes_the_same_share(analysis, arm, per):
    amounts = sparsities(analysis, 0.6, arm=arm, per=per, seed=4)
    weights = np.tile([256, 640, 640], 4)
    assert np.average(list(amounts.values()), weights=weights) == pytest.approx(0.6, abs=1e-12)
    assert (len(set(np.round(list(amounts.values()), 12))) == 1) == (arm == "uniform")


def test_a_layer_cannot_lose_more_than_itself(analysis):
    with pytest.raises(ValueError, match="smaller spread"):
        sparsities(analysis, 0.9, spread=0.5)


def test_experts_are_those_of_alpha_lora(analysis):
    numbers = experts(analysis, 20)
    quotas = 20 * block_means(analysis) ** 2.5 / (block_means(analysis) ** 2.5).sum()
    assert list(numbers) == [f"blocks.{i}" for i in range(4)]
    assert sum(numbers.values()) == 20
    assert (np.abs(np.array(list(numbers.values())) - quotas) < 1).all()
    left = 20 - np.floor(quotas).sum()
    raised = np.array(list(numbers.values())) > np.floor(quotas)
    assert raised.sum() == left
    assert min((quotas % 1)[raised], default=1) >= max((quotas % 1)[~raised], default=0)
    inverted = experts(analysis, 20, arm="inverted")
    assert sorted(inverted.values()) == sorted(numbers.values())


@pytest.mark.parametrize("arm", ["measured", "shuffled", "inverted", "uniform"])
def test_ranks_spend_the_budget(analysis, arm):
    found = ranks(analysis, 60, arm=arm)
    assert sum(found.values()) == 60
    assert 1 <= min(found.values()) <= max(found.values()) <= 16
    if arm == "uniform":
        assert set(found.values()) == {5}
    costs = dict(zip(found, np.tile([32, 56, 56], 4), strict=True))
    for budget in (700, 1501, 3333):
        found = ranks(analysis, budget, count="parameters", arm=arm)
        left = budget - sum(costs[name] * rank for name, rank in found.items())
        assert 0 <= left < min(costs[name] for name, rank in found.items() if rank < 16)


def test_ranks_stand_in_the_ratio_of_the_map(analysis):
    alphas = analysis.details["alpha"].to_numpy()[1:]
    shares = np.interp(alphas, [alphas.min(), alphas.max()], [0.5, 1.5])
    found = np.array(list(ranks(analysis, 60).values()))
    assert (np.abs(found - 60 * shares / shares.sum()) < 1).all()


@pytest.mark.slow  # importing peft takes ten seconds
def test_peft_gives_adapters_these_ranks(model, analysis):
    peft = pytest.importorskip("peft")
    pattern = ranks(analysis, 50)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = model["blocks"]

    adapted = peft.get_peft_model(
        Wrapped(), peft.LoraConfig(r=3, target_modules=["m0", "m1", "m2"], rank_pattern=pattern)
    )
    made = {
        name.removeprefix("base_model.model."): module.lora_A["default"].weight.shape[0]
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A")
    }
    assert made == pattern


@pytest.mark.parametrize("share_out", [sparsities, ranks, experts])
def test_arguments_of_a_wrong_type_are_refused(share_out, analysis):
    with pytest.raises(TypeError, match="expected an Analysis"):
        share_out("model.pt", 0 if share_out is sparsities else 48)
    with pytest.raises(TypeError, match="expected seed to be a whole number"):
        share_out(analysis, 0 if share_out is sparsities else 48, seed="a")


def test_numbers_to_share_out_are_whole(analysis):
    for share_out in (ranks, experts):
        with pytest.raises(TypeError, match="whole number"):
            share_out(analysis, 48.5)


def test_blocks_of_an_encoder_within_a_sequential_are_found():
    named = [f"0.auto.layer.{i}.{m}" for i in range(4) for m in ("q", "k")]
    assert blocks_of([*named, "0.auto.table", "1.linear"]) == {
        **{name: name[:14] for name in named}, "0.auto.table": "0.auto.table", "1.linear": "1",
    }  # fmt: skip
    assert set(blocks_of(["0", "2", "4"]).values()) == {"0", "2", "4"}
    assert set(blocks_of([f"{i}.mlp.{j}" for i in range(3) for j in range(2)]).values()) == {"0", "1", "2"}
    assert blocks_of([f"layers.0.experts.{i}.up" for i in range(4)]).popitem()[1] == "layers.0"


def test_what_cannot_be_shared_out_is_refused(analysis):
    with pytest.raises(ValueError, match="expected per to be layer or block"):
        sparsities(analysis, 0.5, per="x")
    with pytest.raises(TypeError, match="pandas Series"):
        sparsities(analysis, 0.5, signal=lambda details: details["alpha"].to_numpy())
    with pytest.raises(ValueError, match="budget from 12 to 192 ranks"):
        ranks(analysis, 11)
    with pytest.raises(ValueError, match="numeric column"):
        sparsities(analysis, 0.5, signal="beta")
    with pytest.raises(InputError, match="every block"):
        experts(htsr.analyze({"a": torch.randn(20, 20)}, bulk=False, progress=False), 5)
