"""The results behind the pages that the tests of this folder open."""

import numpy as np
import pandas as pd
import torch
from torch import nn

import htsr
from htsr.audit.findings import findings_of_row, ranked
from htsr.optim import HTMuon
from htsr.report.page.analysis import SHOWN, analysis_data, layers
from htsr.report.page.depth import depth_of
from htsr.report.page.document import document
from htsr.report.page.pictures import picture_of_layer, points_for
from htsr.report.page.table import table_of
from htsr.training.store.capture import Capture
from htsr.training.store.files import SCHEMA
from htsr.training.store.writer import RunWriter

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


def large_page(count: int) -> str:
    """Return the page of so many layers: those of 20 matrices of 512 x 384, again and again."""
    draw = np.random.default_rng(0)
    analysis = htsr.analyze({f"w{n}": heavy(draw, 1 + n / 4, (512, 384)) for n in range(20)}, progress=False)
    details = pd.concat([analysis.details] * -(-count // 20), ignore_index=True).head(count)
    details["name"] = details["longname"] = layer_names(count)
    pictures = [picture_of_layer(layer, points_for(count)) for layer in analysis]
    findings = ranked(found for row in details.to_dict("records") for found in findings_of_row(row))
    return document(
        analysis_data(analysis)
        | {"pictures": [pictures[n % 20] for n in range(count)], "depth": depth_of(details, "alpha")}
        | layers(details, findings)
        | table_of(details, analysis.columns, SHOWN)
    )


def layer_names(count: int) -> list[str]:
    """Return names as in a transformer with four matrices a block."""
    roles = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
    return [f"model.layers.{n // 4}.{roles[n % 4]}" for n in range(count)]


def long_run(run_dir, count: int, captures: int) -> None:
    """Record a run of so many layers, whose spectra widen from capture to capture."""
    draw = np.random.default_rng(0)
    analysis = htsr.analyze({f"w{n}": heavy(draw, 1 + n / 4) for n in range(20)}, progress=False)
    rows, spectra = [layer.row | {"quantity": "weights"} for layer in analysis], list(analysis.spectra.values())
    names = layer_names(count)
    about = {"schema": SCHEMA, "htsr": htsr.__version__, "model": "sample", "optimizer": None}
    writer = RunWriter(run_dir, about, 0)
    for number in range(captures):
        seen = {
            ("weights", name): htsr.Spectrum(
                spectra[n % 20].eigenvalues ** (1 + 0.01 * number), shape=spectra[n % 20].shape
            )
            for n, name in enumerate(names)
        }
        own = [rows[n % 20] | {"name": name, "longname": name} for n, name in enumerate(names)]
        writer.save(Capture(10 * number, float(number), 0.1, own, seen, [{"lr": 0.1}]))
        writer.record(10 * number, {"loss": 3 / (number + 1)})
    writer.close()
