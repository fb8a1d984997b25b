"""Optimizers of other packages are recognised by their classes and the settings of their groups."""

import math

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim._muon import _zeropower_via_newtonschulz

import htsr
from htsr.dynamics.rules import NEWTON_SCHULZ, default_reading, newton_schulz_range, rule_of
from htsr.optim import Reading
from tests.dynamics.networks import HIDDEN, batch, hidden_and_rest, muon_and_adamw, perceptron

QUINTIC = (3.4445, -4.775, 2.0315)


class Orthogonal(Optimizer):
    """What the Muons below have in common: momentum, Newton-Schulz, a factor for each matrix."""

    def factor(self, group, shape):
        raise NotImplementedError

    def adam(self, group):
        return False

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if self.adam(group):
                    state.setdefault("step", 0)
                    state.setdefault("exp_avg", torch.zeros_like(p))
                    state.setdefault("exp_avg_sq", torch.zeros_like(p))
                    state["step"] += 1
                    beta1, beta2 = group["betas"]
                    state["exp_avg"].lerp_(p.grad, 1 - beta1)
                    state["exp_avg_sq"].lerp_(p.grad.square(), 1 - beta2)
                    root = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt() + group["eps"]
                    update = state["exp_avg"] / (1 - beta1 ** state["step"]) / root
                else:
                    buffer = state.setdefault("momentum_buffer", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 0.05)
                    matrices = p.grad.lerp(buffer, 0.95)
                    matrices = matrices.flatten(1)[None] if p.ndim != 3 else matrices
                    polar = [_zeropower_via_newtonschulz(matrix, QUINTIC, 5, 1e-7) for matrix in matrices]
                    update = self.factor(group, p.shape) * torch.stack(polar).view(p.shape)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * update)


class SingleDeviceMuonWithAuxAdam(Orthogonal):
    """As in K. Jordan's package, where the factor of a kernel is that of its last two dimensions."""

    def factor(self, group, shape):
        return math.sqrt(max(1, shape[-2] / shape[-1]))

    def adam(self, group):
        return not group["use_muon"]


class SingleDeviceMuon(SingleDeviceMuonWithAuxAdam):
    """The same without Adam."""

    def adam(self, group):
        return False


class Dion(Orthogonal):
    """As in microsoft/dion."""

    def factor(self, group, shape):
        r, c = shape[-2:]
        return {
            "spectral_norm": math.sqrt(r / c), "rms_norm": 0.2 * math.sqrt(max(r, c)), None: 1.0
        }[group["adjust_lr"]]  # fmt: skip


class OrthogonalizedOptimizer(Orthogonal):
    """As in NVIDIA's Emerging-Optimizers."""

    __module__ = "emerging_optimizers.orthogonalized_optimizers.orthogonalized_optimizer"


class Nvidia(OrthogonalizedOptimizer):
    def __init__(self, params, scale_mode, extra_scale_factor):
        self.scale_mode, self.extra_scale_factor = scale_mode, extra_scale_factor
        super().__init__(params, {"lr": 0.02, "weight_decay": 0.1, "weight_decay_method": "decoupled"})

    def factor(self, group, shape):
        r, c = shape
        scale = {"spectral": max(r, c), "shape_scaling": max(1, r / c), "unit_rms_norm": r / c}[self.scale_mode]
        return self.extra_scale_factor * math.sqrt(scale)


def jordan_aux(model):
    hidden, rest = hidden_and_rest(model)
    muon = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
    adam = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-10, "weight_decay": 0.1}
    groups = [{"params": hidden, "use_muon": True, **muon}, {"params": rest, "use_muon": False, **adam}]
    return [SingleDeviceMuonWithAuxAdam(groups, {})]


def jordan(model):
    hidden, rest = hidden_and_rest(model)
    return [SingleDeviceMuon(hidden, {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}), AdamW(rest)]


def dion(adjust):
    def make(model):
        hidden, rest = hidden_and_rest(model)
        defaults = {
            "lr": 0.02, "mu": 0.95, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.01, "algorithm": "muon", "step": 0,
            "epsilon": 1e-8, "nesterov": False, "flatten": False, "adjust_lr": adjust,
        }  # fmt: skip
        return [Dion(hidden, defaults), AdamW(rest)]

    return make


def nvidia(mode, extra):
    def make(model):
        hidden, rest = hidden_and_rest(model)
        return [Nvidia(hidden, mode, extra), AdamW(rest)]

    return make


PACKAGES = {
    "K. Jordan's SingleDeviceMuonWithAuxAdam": jordan_aux,
    "K. Jordan's SingleDeviceMuon": jordan,
    "dion's Dion (spectral_norm)": dion("spectral_norm"),
    "dion's Dion (rms_norm)": dion("rms_norm"),
    "dion's Dion (None)": dion(None),
    "NVIDIA's Muon (spectral)": nvidia("spectral", 0.2),
    "NVIDIA's Muon (shape_scaling)": nvidia("shape_scaling", 1.0),
    "NVIDIA's Muon (unit_rms_norm)": nvidia("unit_rms_norm", 1.0),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_muons_of_other_packages_keep_their_promise(name):
    torch.manual_seed(0)
    model = perceptron()
    last = htsr.audit_steps(model, PACKAGES[name](model), batch(), steps=2).last.set_index("name")
    assert set(last.loc[HIDDEN, "rule"]) == {name}
    assert set(last["verdict"]) == {"as promised"}
    assert last.loc[HIDDEN, "step_vs_promise"].between(0.85, 1.01).all()
    assert (last["weight_decay_share"] > 0).all()


def test_jordans_factor_of_kernels_and_stacks():
    class Kernels(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 12, 2)
            self.experts = nn.Parameter(torch.randn(2, 12, 9) / 4)
            self.head = nn.Linear(12, 4)

        def forward(self, x):
            x = self.conv(x.view(-1, 1, 4, 4)).relu().flatten(2)
            return self.head(torch.einsum("boi,eoi->bo", x, self.experts))

    torch.manual_seed(0)
    model = Kernels()
    settings = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.0}
    muon = SingleDeviceMuon([model.conv.weight, model.experts], settings)
    last = htsr.audit_steps(model, [muon, AdamW(model.head.parameters())], batch(), steps=1).last.set_index("name")
    assert set(last["verdict"]) == {"as promised"}
    assert last.loc["conv", "promised_step_per_lr"] == pytest.approx(1.2025 * math.sqrt(4 / 12))
    assert last.loc["experts[1]", "promised_step_per_lr"] == pytest.approx(1.2025)


def test_the_range_of_newton_schulz():
    """Of K. Jordan's quintic, the largest value is that of one step at its local maximum."""
    least, most = newton_schulz_range(QUINTIC, 5)
    assert most == pytest.approx(NEWTON_SCHULZ, rel=3e-4)
    assert least == pytest.approx(0.68, abs=0.005)
    assert newton_schulz_range((1.875, -1.25, 0.375), 12) == pytest.approx((1, 1), abs=1e-6)


@pytest.mark.parametrize(
    "settings", [{"ns_steps": 1}, {"ns_steps": 2}, {"ns_coefficients": (1.875, -1.25, 0.375), "ns_steps": 9}]
)
def test_other_newton_schulz_steps_of_torch(settings):
    torch.manual_seed(0)
    model = perceptron()
    last = htsr.audit_steps(model, muon_and_adamw(model, **settings), batch(), steps=2).last
    assert set(last["verdict"]) == {"as promised"}


def test_what_is_not_known_is_said():
    p = nn.Parameter(torch.ones(3, 2))

    class Strange(Optimizer):
        """A MuonWithAuxAdam of somebody else."""

    Strange.__name__ = "MuonWithAuxAdam"

    for group in ({"lr": 0.1}, {"lr": None}, {}):
        rule = rule_of(Strange([p], {}), group, p, Reading())
        assert (rule.kind, rule.degree, rule.decay) == ("none", None, None)
    others = [
        {"mu": 0.9, "algorithm": "normuon", "adjust_lr": None},
        {"mu": 0.9, "algorithm": "muon", "adjust_lr": "new"},
        {"momentum": 0.9, "use_muon": True, "rms_scale": True},
    ]
    for group in others:
        assert rule_of(Strange([p], {}), {"lr": 0.1, "weight_decay": 0.1, **group}, p, Reading()).kind == "none"


@pytest.mark.parametrize(
    ("shape", "is_convolution", "layout"),
    [
        ((3, 4), False, "flatten"),
        ((3, 4, 5), False, "stack"),
        ((3, 4, 5), True, "flatten"),
        ((3, 4, 2, 2), True, "flatten"),
    ],
)
def test_how_layers_read_their_parameters(shape, is_convolution, layout):
    reading = default_reading(Reading(split=3), torch.empty(shape), is_convolution)
    assert reading == Reading(layout)
