"""Does p pay in language modelling? A byte-level GPT learns Python's standard library at seven powers, with seeds.

    python benchmarks/studies/language.py --cells 'small*'   # hours on two cores; goes on where it was stopped
    python benchmarks/studies/language.py                    # the larger ones, too: for a card
    python benchmarks/studies/language.py --report           # tables and pictures of the runs that are there

The matrices of the blocks get HTMuon's update with p, or what the arm names; AdamW trains the rest at 0.001 in every arm. Each
arm of each set-up has a learning rate of its own, tuned on other seeds. The figure is the held-out loss, in nats a byte.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from report import carry_out
from study import Cell, Study, arguments, machine, rates
from torch import Tensor
from training import BASELINE, POWERS, RAW, Optimizers, drawn, spectra, train

from htsr.demo.corpus import standard_library
from htsr.demo.gpt import GPT, tokens

METRIC = "held_out_loss"
CONTEXT, HELD_OUT_BATCHES, HELD_OUT_SIZE = 128, 16, 32
BASE = {"width": 128, "depth": 3, "batch": 16, "steps": 300}
SMALL = {"width": 64, "depth": 2, "batch": 8, "steps": 150}  # for two cores
LRS = rates(0.02)


def powers(*chosen: str, **settings: Any) -> dict[str, dict[str, Any]]:
    """Return an arm for each of some powers, all by default."""
    return {name: {"power": p, **settings} for name, p in POWERS.items() if not chosen or name in chosen}


FIVE = ("p = -1/4", "p = -1/8", "p = 0", "p = 1/8", "p = 1/4")
OTHERS = {
    BASELINE: {"power": 0.0},
    "AdamW": {"optimizer": "adamw", "lrs": rates(0.004)},
    "torch.optim.Muon": {"optimizer": "muon"},
    "HTNorMuon, p = 0": {"power": 0.0, "row_normalize": True},
    "HTNorMuon, p = 1/8": {"power": 0.125, "row_normalize": True},
    "p from 1/4 to -1/4": {"power": (0.25, -0.25)},
    "p from -1/4 to 1/4": {"power": (-0.25, 0.25)},
    "p from 0 to -1/4": {"power": (0.0, -0.25)},
}
EXACT = {"Muon by exact SVD": {"power": 0.0, "method": "svd"}}


def small(
    name: str, arms: Mapping[str, Mapping[str, Any]], lrs: tuple[float, ...] = rates(0.04, 3), **settings: Any
) -> Cell:
    """Return a set-up for two cores."""
    return Cell(f"small{name}", arms, lrs, BASELINE, {**SMALL, **settings}, tuning=2, final=6)


CELLS = [
    Cell("300 steps", powers(), LRS, BASELINE, BASE),
    Cell("scale raw", powers(scale="raw"), rates(0.04), BASELINE, BASE),
    Cell("other optimizers", OTHERS, LRS, BASELINE, BASE),
    Cell("1200 steps", powers(*FIVE), LRS, BASELINE, {**BASE, "steps": 1200}),
    Cell("batch 64", powers(*FIVE), LRS, BASELINE, {**BASE, "batch": 64}),
    Cell("width 256", powers(*FIVE), LRS, BASELINE, {**BASE, "width": 256}),
    Cell("scale spectral", powers(scale="spectral"), LRS, BASELINE, BASE),
    Cell("4800 steps", powers(*FIVE), LRS, BASELINE, {**BASE, "steps": 4800}),
    small("", powers()),
    small(", other optimizers", {**OTHERS, **EXACT, **powers("p = -1/8", "p = 1/8")}),
    small(", scale raw", RAW),
    small(", batch 32", powers(*FIVE), batch=32),
    small(", 600 steps", powers(*FIVE), steps=600),
    small(", width 128", powers(*FIVE), width=128),
    small(", scale spectral", powers(scale="spectral")),
    small(", 1200 steps", powers(*FIVE), steps=1200),
    small(", 2400 steps", powers(*FIVE), steps=2400),
    small(", 4800 steps", powers("p = -1/8", "p = 0", "p = 1/8"), rates(0.01, 3), steps=4800),
]
QUICK = Cell(
    "quick", powers("p = 0", "p = 1/8"), (0.01, 0.02, 0.04), BASELINE, {"width": 16, "depth": 1, "batch": 2, "steps": 2}
)


@functools.cache
def texts(device: str) -> tuple[Tensor, Tensor]:
    """Return the text to train on and the held-out text."""
    train_text, held_out = standard_library()
    return tokens(train_text).to(device), tokens(held_out).to(device)


def windows(text: Tensor, starts: Tensor) -> Tensor:
    """Return windows of the text that begin at these places."""
    return text[starts[..., None] + torch.arange(CONTEXT + 1, device=text.device)]


def run(
    settings: Mapping[str, Any],
    lr: float,
    seeds: Sequence[int],
    device: str,
    make_optimizers: Optimizers | None = None,
) -> list[dict[str, Any]]:
    """Train a GPT for each seed and return its figures."""
    text, held_out = texts(device)
    starts = drawn(len(text) - CONTEXT, settings, seeds, device)
    together, seconds = train(
        lambda: GPT(CONTEXT, settings["width"], settings["depth"]),
        GPT.loss,
        lambda step: (windows(text, starts[step]),),
        settings,
        lr,
        seeds,
        device,
        make_optimizers,
    )
    draw = torch.Generator().manual_seed(0)
    batches = [
        torch.randint(len(held_out) - CONTEXT, (HELD_OUT_SIZE,), generator=draw) for _ in range(HELD_OUT_BATCHES)
    ]
    losses = sum(together.losses_of_shared(windows(held_out, batch.to(device))) for batch in batches) / HELD_OUT_BATCHES
    return [
        {METRIC: loss, **spectra(model, "blocks.*"), "seconds": seconds / len(seeds), "machine": machine(device)}
        for loss, model in zip(losses.tolist(), together.models, strict=True)
    ]


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    carry_out(
        Study("language", run, METRIC, True, options, overview=True), [QUICK] if options.quick else CELLS, __doc__
    )


if __name__ == "__main__":
    main()
