"""A Monitor that captures updates sets each step beside what the optimizer promises."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import AdamW

import htsr
from htsr.report.page.runs import runs_data
from tests.dynamics.networks import batch, htmuon, muon_and_adamw, perceptron


def train(model, optimizers, closure, monitor, steps=2):
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        closure(model).backward()
        for optimizer in optimizers:
            optimizer.step()
    monitor.close()


@pytest.mark.parametrize("capture", [("updates",), ("weights", "updates"), ("weights", "gradients", "updates")])
@pytest.mark.parametrize("background", [False, True])
def test_columns_of_a_history_are_those_of_an_audit(tmp_path, capture, background):
    torch.manual_seed(0)
    model = perceptron()
    optimizers = muon_and_adamw(model)
    audit = htsr.audit_steps(model, optimizers, batch(), steps=2)
    monitor = htsr.Monitor(
        model, optimizers, every=1, capture=capture, run_dir=tmp_path / "run", bulk=False, background=background
    )
    train(model, optimizers, batch(), monitor)
    assert not monitor.failed
    details = htsr.History(tmp_path / "run").details
    rows = details[(details["quantity"] == capture[0]) & (details["step"] > 0)]
    for column in ("step_per_lr", "step_vs_promise"):
        expected = audit.details.set_index(["step", "name"])[column]
        np.testing.assert_allclose(
            rows[column], expected[list(zip(rows["step"], rows["name"], strict=True))], rtol=1e-6
        )
    assert set(rows["verdict"]) == {"as promised"}
    assert details[details["step"] == 0]["step_per_lr"].isna().all()
    assert details[details["quantity"] == "gradients"]["step_per_lr"].isna().all()
    metrics = [metric["name"] for metric in runs_data({"run": monitor.history})["metrics"]]
    assert ("step_vs_promise" in metrics) == ("updates" in capture)


@pytest.mark.parametrize("capture", [("updates",), ("weights", "updates")])
def test_a_condition_stops_a_training_whose_steps_are_clipped(tmp_path, capture):
    torch.manual_seed(0)
    model = perceptron()
    optimizers = muon_and_adamw(model)
    old = [p.detach().clone() for p in optimizers[0].param_groups[0]["params"]]

    def clip(optimizer, *_):
        with torch.no_grad():
            for p, before in zip(optimizer.param_groups[0]["params"], old, strict=True):
                p.copy_(before + (p - before) / 20)

    optimizers[0].register_step_post_hook(clip)
    monitor = htsr.Monitor(model, optimizers, every=1, capture=capture, run_dir=tmp_path / "run", bulk=False)
    seen = []
    monitor.on("step_vs_promise < 0.5", lambda monitor, verdict: seen.append(verdict))
    monitor.on("verdict == 'clipped'", "stop")
    train(model, optimizers, batch(), monitor, steps=1)
    assert monitor.should_stop
    assert set(seen[0].names) == {"0", "2", "4"}


def test_nothing_is_measured_where_nobody_asked_for_updates(tmp_path):
    torch.manual_seed(0)
    model = perceptron()
    optimizer = AdamW(model.parameters())
    monitor = htsr.Monitor(model, optimizer, every=1, run_dir=tmp_path / "run", bulk=False)
    train(model, [optimizer], batch(), monitor, steps=1)
    assert monitor.history.details["step_per_lr"].isna().all()
    assert (monitor.history.details["verdict"] == "").all()


class Parts(nn.Module):
    """Layers that are parts of one parameter: queries, keys and values, gates, and experts."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.experts = nn.Parameter(torch.randn(3, 4, 8) / 4)
        self.idle = nn.Linear(4, 4)

    def forward(self, x):
        x = x.unflatten(1, (1, 16)) * torch.ones(1, 3, 1)
        x = self.lstm(self.attention(x, x, x)[0])[0][:, -1]
        return torch.einsum("eoi,bi->bo", self.experts * torch.tensor([1.0, 2.0, 3.0])[:, None, None], x)


@pytest.mark.parametrize("splits", [None, {"attention.in_proj_weight": 3}])
def test_a_part_of_a_matrix_gets_the_numbers_of_the_matrix(tmp_path, splits):
    torch.manual_seed(0)
    model = Parts()
    optimizer = htsr.optim.HTMuon(
        htsr.optim.parameter_groups(model, stacks=("experts",), splits={"attention.in_proj_weight": splits and 3})
    )
    audit = htsr.audit_steps(model, optimizer, batch(), steps=1)
    monitor = htsr.Monitor(model, optimizer, every=1, capture=("updates",), run_dir=tmp_path / "run", bulk=False)
    train(model, [optimizer], batch(), monitor, steps=1)
    assert not monitor.failed
    rows = monitor.history.details.set_index("name")
    rows = rows[rows["step"] == 1]
    expected = audit.details.set_index("name")
    whole = "attention.in_proj_weight"
    for part, letter in enumerate("qkv"):
        own = expected.loc[f"{whole}[{part}]" if splits else whole, "step_per_lr"]
        assert rows.loc[f"{whole}[{letter}]", "step_per_lr"] == pytest.approx(own, rel=1e-6)
    for gate in "ifgo":
        assert rows.loc[f"lstm.weight_hh_l0[{gate}]", "step_per_lr"] == pytest.approx(
            expected.loc["lstm.weight_hh_l0", "step_per_lr"], rel=1e-6
        )
    for number in range(3):
        assert rows.loc[f"experts[{number}]", "step_per_lr"] == pytest.approx(
            expected.loc[f"experts[{number}]", "step_per_lr"], rel=1e-6
        )
    assert rows.loc["idle", "verdict"] == "no gradient"


def test_an_optimizer_that_makes_no_step_is_not_judged(tmp_path):
    """A GAN's discriminator may step more often than its generator."""
    torch.manual_seed(0)
    model = perceptron()
    hidden, rest = torch.optim.SGD(model[0].parameters(), lr=0.1), htmuon(model[2:])
    monitor = htsr.Monitor(model, [hidden, rest], every=1, capture=("updates",), run_dir=tmp_path / "run", bulk=False)
    for both in (True, False, True):
        batch()(model).backward()
        hidden.step()
        if both:
            rest.step()
        model.zero_grad()
    monitor.close()
    details = monitor.history.details
    said = {step: list(rows["verdict"]) for step, rows in details[details["quantity"] == "updates"].groupby("step")}
    assert said[1] == ["no promise", *["as promised"] * 3]
    assert said[2] == ["no promise", "", "", ""]
