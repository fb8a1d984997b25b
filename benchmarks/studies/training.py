"""What the studies of HTMuon's power share: the optimizers of their arms, a loop for several seeds, and figures of spectra."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from seeds_together import Loss, SeedsTogether
from study import DivergedError, rates
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

import htsr
from htsr.optim import HTMuon, LinearPower, parameter_groups

# Of AdamW's groups beside the matrices, in every arm; the default of HTMuon.
AUXILIARY_LR = 1e-3
# The powers of the grid, by the names of their arms.
POWERS = {f"p = {text}": p for text, p in (
    ("-1/4", -0.25), ("-1/8", -0.125), ("0", 0.0), ("1/16", 0.0625), ("1/8", 0.125), ("1/4", 0.25), ("1/2", 0.5)
)}  # fmt: skip
BASELINE = "p = 0"
# Updates of the raw scale shrink as p grows, so their learning rates are the larger.
RAW = {
    name: {"power": p, "scale": "raw", "lrs": rates(middle, 3)}
    for (name, p), middle in zip(POWERS.items(), (0.005, 0.01, 0.04, 0.08, 0.16, 0.16, 0.16), strict=True)
}

Batches = Callable[[int], tuple[Tensor, ...]]
# Make the optimizers of all models; what it does beside that, such as steering, is its own.
Optimizers = Callable[[Sequence[nn.Module], Mapping[str, Any], float, int], list[Optimizer]]


def optimizers(
    models: Sequence[nn.Module],
    settings: Mapping[str, Any],
    lr: float,
    steps: int,
    geometry: Mapping[str, str] | None = None,
) -> list[Optimizer]:
    """Return the optimizers of an arm; the parameters of all models share them.

    ``optimizer`` is ``htmuon`` (the default), ``muon`` (which takes no kernels; AdamW gets them), ``adamw`` or ``sgd``; other
    settings are those of HTMuon, and a pair as ``power`` is the first and the last power of a line. ``geometry`` is that of
    ``parameter_groups``.
    """
    names = {"power", "scale", "row_normalize", "method", "adjust_lr", "weight_decay"}
    given = {key: value for key, value in settings.items() if key in names}
    kind = settings.get("optimizer", "htmuon")
    if kind == "adamw":
        return [AdamW(_all(models), lr=lr, betas=(0.9, 0.95), weight_decay=given.get("weight_decay", 0.1))]
    if kind == "sgd":
        return [SGD(_all(models), lr=lr, momentum=0.9, weight_decay=5e-4)]
    groups = _joined([parameter_groups(model, geometry=geometry) for model in models])
    if kind == "htmuon":
        power = given.pop("power", 0.0)
        return [
            HTMuon(
                groups,
                lr=lr,
                adamw_lr=AUXILIARY_LR,
                power=LinearPower(*power, steps=steps) if isinstance(power, tuple | list) else power,
                **given,
            )
        ]
    assert kind == "muon"
    flat = [(p, group["algorithm"] == "htmuon" and p.ndim == 2) for group in groups for p in group["params"]]
    matrices, rest = [p for p, is_matrix in flat if is_matrix], [p for p, is_matrix in flat if not is_matrix]
    return [
        Muon(matrices, lr=lr, momentum=0.95, nesterov=True, weight_decay=0.1),
        AdamW(rest, lr=AUXILIARY_LR, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.1),
    ]


def _all(models: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [p for model in models for p in model.parameters()]


def _joined(of_models: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one list of groups with the parameters of all models, without their names, which would repeat."""
    joined = [{key: value for key, value in group.items() if key != "param_names"} for group in of_models[0]]
    for position, group in enumerate(joined):
        group["params"] = [
            entry[1] if isinstance(entry, tuple) else entry
            for groups in of_models
            for entry in groups[position]["params"]
        ]
    return joined


def drawn(count: int, settings: Mapping[str, Any], seeds: Sequence[int], device: str) -> Tensor:
    """Draw which of so many examples each step takes for each seed; shape (steps, seeds, batch)."""
    shape = (settings["steps"], settings["batch"])
    ours = [torch.randint(count, shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(ours, dim=1).to(device)


def cosine(step: int, steps: int) -> float:
    """Return the factor of the rate, which falls along a cosine from 1 to 0.1."""
    return 0.55 + 0.45 * math.cos(math.pi * min(step, steps) / steps)


def train(
    make: Callable[[], nn.Module],
    loss: Loss,
    batches: Batches,
    settings: Mapping[str, Any],
    lr: float,
    seeds: Sequence[int],
    device: str,
    make_optimizers: Optimizers | None = None,
) -> tuple[SeedsTogether, float]:
    """Train a network for each seed and return them, with the seconds that it took.

    Args:
        make: Returns a network; its initialisation follows torch's seed.
        loss: The loss of a network on a batch.
        batches: Returns the batch of a step, whose first dimension counts seeds.
        settings: Those of the arm; ``steps`` among them.
        lr: The learning rate of the matrices, or of all parameters for AdamW and SGD.
        seeds: One for each network.
        device: Where to train.
        make_optimizers: ``optimizers`` by default.

    Raises:
        DivergedError: If a gradient is not finite.
    """
    start = time.perf_counter()
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(make().to(device))
    together, steps = SeedsTogether(models, loss), settings["steps"]
    used = (make_optimizers or optimizers)(models, settings, lr, steps)
    schedules = [LambdaLR(optimizer, lambda step: cosine(step, steps)) for optimizer in used]
    for step in range(steps):
        together.backward(*batches(step))
        for optimizer, schedule in zip(used, schedules, strict=True):
            try:
                optimizer.step()
            except htsr.InputError as error:  # HTMuon refuses gradients that are not finite
                raise DivergedError(str(error)) from None
            schedule.step()
    return together, time.perf_counter() - start


def spectra(model: nn.Module, layers: str) -> dict[str, float]:
    """Return medians over the layers: alpha, alpha weighted with the norm, stable rank and spectral norm."""
    details = htsr.analyze(model.cpu(), layers=layers, bulk=False, progress=False).details
    columns = ("alpha", "alpha_weighted", "stable_rank", "spectral_norm")
    return {f"{column}": float(details[column].median()) for column in columns}
