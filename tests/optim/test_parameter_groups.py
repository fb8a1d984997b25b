"""Which parameter goes where, and why."""

import pytest
import torch
from torch import nn

from htsr.demo.gpt import GPT
from htsr.optim import HTMuon, parameter_groups, parameter_roles


def matrices(model):
    return [name for name, role in parameter_roles(model).items() if role.algorithm == "htmuon"]


def test_a_gpt():
    model = GPT()
    chosen = matrices(model)
    assert len(chosen) == 18
    assert all(name.startswith("blocks.") for name in chosen)
    reasons = {name: role.reason for name, role in parameter_roles(model).items()}
    assert reasons["embedding.weight"] == "embedding"
    assert reasons["head.weight"] == "output layer"
    assert reasons["norm.weight"] == "1-D"


def test_groups_hold_every_parameter_once():
    model = GPT()
    groups = parameter_groups(model, power=0.5)
    assert [group["algorithm"] for group in groups] == ["htmuon", "adamw", "adamw"]
    assert groups[0]["power"] == 0.5
    assert groups[2]["weight_decay"] == 0
    names = [name for group in groups for name, _ in group["params"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def test_convolutions_are_matrices_and_the_last_linear_is_the_head():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    assert matrices(model) == ["0.weight", "3.weight"]


@pytest.mark.parametrize("name", ["lm_head", "classifier", "fc_out", "score"])
def test_heads_by_name(name):
    model = nn.ModuleDict({name: nn.Linear(4, 4), "z": nn.ModuleDict({"last": nn.Linear(4, 4)})})
    assert matrices(model) == ["z.last.weight"]


def test_of_a_classifier_only_the_last_layer_is_the_head():
    model = nn.ModuleDict(
        {"features": nn.Conv2d(3, 8, 3), "classifier": nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))}
    )
    assert matrices(model) == ["features.weight", "classifier.0.weight"]


def test_attention_heads_are_no_output():
    def attention_head():
        return nn.ModuleDict({"key": nn.Linear(8, 4), "query": nn.Linear(8, 4)})

    heads = nn.ModuleDict({"heads": nn.ModuleList([attention_head(), attention_head()]), "proj": nn.Linear(8, 8)})
    model = nn.ModuleDict({"attention": heads, "lm_head": nn.Linear(8, 30)})
    assert len(matrices(model)) == 5
    assert "lm_head.weight" not in matrices(model)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: m,
        torch.compile,
        nn.DataParallel,
        lambda m: nn.ModuleDict({"model": m}),
        lambda m: nn.Sequential(nn.Sequential(m)),
    ],
)
def test_wrapping_does_not_change_the_roles(wrap):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ModuleDict({"block": nn.Linear(8, 8)}), nn.Linear(8, 2))
    plain = [role.algorithm for role in parameter_roles(model).values()]
    assert [role.algorithm for role in parameter_roles(wrap(model)).values()] == plain
    assert plain.count("htmuon") == 2


def test_a_block_that_ends_inside_has_no_head():
    model = nn.ModuleDict({"mixer": nn.Linear(4, 4), "mlp": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))})
    assert len(matrices(model)) == 3


def test_unknown_or_idle_settings_are_errors():
    with pytest.raises(TypeError, match=r"got 'pwoer' \(did you mean 'power'\?\)"):
        parameter_groups(GPT(), pwoer=0.5)
    with pytest.raises(ValueError, match="no matrices that power could apply to"):
        parameter_groups(nn.LayerNorm(4), power=0.5)


def test_one_layer_alone_is_a_matrix():
    assert matrices(nn.Linear(4, 4)) == ["weight"]


@pytest.mark.parametrize("head_first", [True, False])
def test_a_tied_head_is_an_embedding(head_first):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            parts = {"out": nn.Linear(8, 30, bias=False), "table": nn.Embedding(30, 8)}
            for name in parts if head_first else reversed(parts):
                self.add_module(name, parts[name])
            self.out.weight = self.table.weight
            self.body = nn.Linear(8, 8)
            self.more = nn.Linear(8, 8)

    roles = parameter_roles(Model())
    tied = [role for role in roles.values() if "shared" in role.reason]
    assert len(tied) == 1
    assert tied[0].algorithm == "adamw"


def test_bare_parameters():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pos_embed = nn.Parameter(torch.zeros(10, 8))
            self.mixing = nn.Parameter(torch.zeros(8, 8))
            self.row = nn.Parameter(torch.zeros(1, 8))
            self.experts = nn.Parameter(torch.zeros(4, 8, 8))
            self.attention = nn.MultiheadAttention(8, 2)

    assert matrices(Model()) == ["mixing", "attention.in_proj_weight", "attention.out_proj.weight"]


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="got ReLU without any"):
        parameter_groups(nn.ReLU())


def test_a_model_without_matrices_gets_adamw_only():
    groups = parameter_groups(nn.LayerNorm(4))
    assert [group["algorithm"] for group in groups] == ["adamw"]
    HTMuon(groups)
