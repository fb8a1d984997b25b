"""Does it pay to steer layers by their alpha? TempBalance, AlphaDecay and TargetAlpha beside shuffled, inverted and uniform arms.

    apt-get install dataset-fashion-mnist
    python benchmarks/studies/steering.py            # goes on where it was stopped
    python benchmarks/studies/steering.py --report   # tables and pictures of the runs that are there

Each method gets what it was made for: TempBalance SGD's learning rates on a convolutional network (test error, percent),
AlphaDecay AdamW's weight decay on a GPT, TargetAlpha the power of HTMuon on the same GPT (held-out loss, nats a byte).
*Measured* holds the mean of the multipliers at 1, *as published* does not; *shuffled* gives the multipliers of *measured* to
other layers, *inverted* mirrors them by rank, *uniform* is the optimizer alone. Each arm has a learning rate of its own, tuned
on other seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import fashion_mnist
import images
import language
from report import carry_out
from study import Cell, Study, arguments, rates
from torch import nn
from torch.optim import Optimizer
from training import optimizers

from htsr import steering

METRIC, TUNED_BY = "figure", "tuned_by"
EVERY = 25
UNIFORM = "uniform"
# What measured multipliers must beat to be worth their measurement.
CONTROL = ("shuffled",)


def arms(published: bool = True, **settings: Any) -> dict[str, dict[str, Any]]:
    """Return the four arms of a method, and the published form where the mean is not held."""
    found = {arm: {"arm": arm, **settings} for arm in (UNIFORM, "measured", "shuffled", "inverted")}
    return {**found, "as published": {"arm": "measured", "published": True, **settings}} if published else found


CELLS = [
    Cell("TempBalance", arms(steer="TempBalance"), rates(0.05), UNIFORM,
         {"task": "images", "optimizer": "sgd", **images.CONV}, also=CONTROL),
    Cell("AlphaDecay", arms(steer="AlphaDecay"), rates(0.004), UNIFORM,
         {"task": "language", "optimizer": "adamw", **language.BASE}, also=CONTROL),
    Cell("AlphaDecay, small", arms(steer="AlphaDecay"), rates(0.008), UNIFORM,
         {"task": "language", "optimizer": "adamw", **language.SMALL}, tuning=2, final=6, also=CONTROL),
    # At the tuned rate, 150 steps of a weight decay of 0.1 take 2 % off a weight; these take half.
    Cell("AlphaDecay, small, weight decay 1", arms(steer="AlphaDecay", weight_decay=1.0), rates(0.002, 3), UNIFORM,
         {"task": "language", "optimizer": "adamw", **language.SMALL, "steps": 600}, tuning=2, final=6, also=CONTROL),
    Cell("TargetAlpha, small", arms(published=False, steer="TargetAlpha"), rates(0.04), UNIFORM,
         {"task": "language", "power": 0.0, **language.SMALL}, tuning=2, final=6, also=CONTROL),
]  # fmt: skip
QUICK = Cell(
    "quick", arms(published=False, steer="TargetAlpha"), (0.01, 0.02, 0.04), UNIFORM,
    {"task": "language", "power": 0.0, "width": 64, "depth": 1, "batch": 2, "steps": 2},
)  # fmt: skip


def steered(models: Sequence[nn.Module], settings: Mapping[str, Any], lr: float, steps: int) -> list[Optimizer]:
    """Return an optimizer for each model, whose layers a schedule steers."""
    options = {"arm": settings["arm"], "every": EVERY}
    method = {"TempBalance": steering.TempBalance, "AlphaDecay": steering.AlphaDecay}.get(settings["steer"])
    found = []
    for model in models:
        (optimizer,) = optimizers([model], settings, lr, steps)
        if method is not None:
            mean = None if settings.get("published") else "arithmetic"
            method(optimizer, model, mean=mean, **options)
        else:  # alpha's interval holds the target at nearly every reading of so small layers
            target = steering.TargetAlpha(3.5)
            steering.LayerwiseSchedule(optimizer, model, setting="power", map=target, dead_band=0.0, **options)
        found.append(optimizer)
    return found


def run(settings: Mapping[str, Any], lr: float, seeds: Sequence[int], device: str) -> list[dict[str, Any]]:
    """Train a network for each seed and return its figures."""
    task = images if settings["task"] == "images" else language
    rows = task.run(settings, lr, seeds, device, steered)
    tuned_by = images.TUNED_BY if task is images else language.METRIC
    return [{METRIC: row[task.METRIC], TUNED_BY: row[tuned_by], **row} for row in rows]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(fashion_mnist.FOLDER), help="the folder of Fashion-MNIST")
    options = parser.parse_args()
    study = Study("steering", run, METRIC, True, options, tuned_by=TUNED_BY, shared={"data": options.data})
    carry_out(study, [QUICK] if options.quick else CELLS, __doc__)


if __name__ == "__main__":
    main()
