"""The results behind the pages that the tests of this folder open."""

import numpy as np
import torch
from torch import nn

import htsr
from htsr.optim import HTMuon

# Names that a stranger's file may hold.
HOSTILE = (
    "<script>alert(1)</script>", '"></script>', "</script><img src=x onerror=alert(1)>", "evil\u202ename", "x" * 300,
    "it's \"quoted\"", "a#b%20c%zz", "=1+1", "-2+3", "layer, with comma", "<!--", "&lt;b&gt;",
)  # fmt: skip


def heavy(draw, tail: float, shape=(96, 64)) -> np.ndarray:
    """Return a matrix whose singular values have a power law; a smaller ``tail`` is heavier."""
    n = min(shape)
    u, _ = np.linalg.qr(draw.standard_normal((shape[0], n)))
    v, _ = np.linalg.qr(draw.standard_normal((shape[1], n)))
    return ((u * (draw.pareto(tail, n) + 0.3)) @ v.T).astype("float32")


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Return a model of two blocks with layers that read as noise, heavy, hardly heavy and not fitted, and hostile names."""
    draw = np.random.default_rng(seed)
    found = {"embed.weight": heavy(draw, 0.7), "flat.weight": np.ones((30, 20), "float32"), "norm.weight": np.ones(9)}
    for block in range(2):
        for role, tail in (("q_proj", 3), ("k_proj", 5), ("v_proj", 30), ("o_proj", 2)):
            found[f"model.layers.{block}.self_attn.{role}.weight"] = heavy(draw, tail)
        found[f"model.layers.{block}.mlp.up_proj.weight"] = draw.standard_normal((96, 64)).astype("float32")
    return found | {name: heavy(draw, 2 + number / 3, (24, 16)) for number, name in enumerate(HOSTILE)}


def changed(before: dict[str, np.ndarray], seed: int = 9) -> dict[str, np.ndarray]:
    """Return weights of which the first blocks moved by a low-rank step, and one layer by noise."""
    draw = np.random.default_rng(seed)
    after = dict(before)
    for name in before:
        if "layers.0.self_attn" in name:
            step = draw.standard_normal((96, 2)) @ draw.standard_normal((2, 64))
            after[name] = (before[name] + 0.1 * step).astype("float32")
    after["embed.weight"] = before["embed.weight"] + 0.01 * draw.standard_normal((96, 64)).astype("float32")
    return after


def train(run_dir, power: float, seed: int) -> None:
    """Record a run of six steps with HTMuon, a capture every second one."""
    torch.manual_seed(seed)
    sizes = {"body": (40, 30), "<b>head</b>": (30, 20)}
    model = nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})
    optimizer = HTMuon([{"params": list(model.parameters()), "algorithm": "htmuon"}], power=power, lr=0.02)
    with htsr.Monitor(model, optimizer, every=2, run_dir=run_dir, about={"seed": seed}) as monitor:
        for _ in range(6):
            optimizer.zero_grad()
            loss = model["<b>head</b>"](model["body"](torch.randn(8, 40))).square().mean()
            loss.backward()
            optimizer.step()
            monitor.record(loss=loss.item())
