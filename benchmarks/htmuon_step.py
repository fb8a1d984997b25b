"""A whole optimizer step: HTMuon beside torch.optim.Muon and torch.optim.AdamW, on noise and on momenta of real trainings."""

import argparse
import statistics
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any

import torch
from momenta import STEPS, recorded
from provenance import alternate, median_ratio, table, write
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from htsr.optim import HTMuon

# Of each of GPT-2 small's 12 blocks: query, key and value, output, and the MLP.
WIDTH, BLOCKS = 768, 12
WAYS = {
    "default": {},
    "exact: svd": {"method": "svd"},
    "exact: eigh": {"method": "eigh"},
    "iterate, float32": {"method": "iterate", "dtype": torch.float32},
    "fastest: 5 steps, bfloat16": {"method": "iterate", "steps": 5, "dtype": torch.bfloat16},
    "stream": {"method": "stream"},
    "svd, interval 5": {"method": "svd", "interval": 5},
    "default, row_normalize": {"row_normalize": True},
}
POWERS = (-0.125, 0.0, 0.125, 0.5, 1.0)
REFERENCE_POWER = 0.125
MUON = "torch.optim.Muon"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class ExactMatrices(TorchDispatchMode):
    """Counts the matrices whose singular vectors torch computes, the exact path of an update, while it is active."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        aten, options = torch.ops.aten, kwargs or {}
        if function is aten._linalg_svd.default or (
            function is aten._linalg_eigh.default and options.get("compute_v", len(args) < 3 or args[2])
        ):
            self.count += args[0].shape[:-2].numel()
        return function(*args, **options)


def parameters(matrices: Iterable[Tensor]) -> list[torch.nn.Parameter]:
    """Return random parameters on the device with the matrices as gradients."""
    params = []
    for matrix in matrices:
        p = torch.nn.Parameter((0.02 * torch.randn(matrix.shape)).to(DEVICE, matrix.dtype))
        p.grad = matrix.to(DEVICE)
        params.append(p)
    return params


def step_seconds(optimizers: Mapping[str, Optimizer], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a step of each optimizer in each round, in turn; an interval has its one power in every turn."""

    def turn(optimizer: Optimizer) -> Callable[[], None]:
        def run() -> None:
            for _ in range(_steps_in_a_turn(optimizer)):
                optimizer.step()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        return run

    seconds = alternate({name: turn(optimizer) for name, optimizer in optimizers.items()}, rounds)
    return {name: [value / _steps_in_a_turn(optimizers[name]) for value in values] for name, values in seconds.items()}


def _steps_in_a_turn(optimizer: Optimizer) -> int:
    return optimizer.param_groups[0].get("interval", 1)


def ways(params: list[torch.nn.Parameter], rounds: int) -> list[str]:
    """Return the table of the ways to compute the update."""
    optimizers: dict[str, Optimizer] = {MUON: torch.optim.Muon(params, lr=1e-6)}
    optimizers |= {f"HTMuon, {way}": HTMuon(params, lr=1e-6, **settings) for way, settings in WAYS.items()}
    optimizers["torch.optim.AdamW"] = torch.optim.AdamW(params, lr=1e-6)
    seconds = step_seconds(optimizers, rounds)
    return table(
        ["step", "median ms", f"this / {MUON}"],
        [
            [name, f"{1e3 * statistics.median(values):.3g}", f"{median_ratio(values, seconds[MUON]):.2f}"]
            for name, values in seconds.items()
        ],
    )


def powers(params: list[torch.nn.Parameter], rounds: int) -> list[str]:
    """Return the table of the powers, at default settings."""
    optimizers = {power: HTMuon(params, lr=1e-6, power=power) for power in POWERS}
    seconds = step_seconds({f"{power:g}": optimizer for power, optimizer in optimizers.items()}, rounds)
    reference = seconds[f"{REFERENCE_POWER:g}"]
    return table(
        ["p", "median ms", f"this / p = {REFERENCE_POWER:g}"],
        [
            [name, f"{1e3 * statistics.median(values):.3g}", median_ratio(values, reference)]
            for name, values in seconds.items()
        ],
    )


def real_momenta(rounds: int, quick: bool) -> list[str]:
    """Return the table of default steps on recorded momenta, one row for all matrices of a training in one step.

    Without a momentum of its own, an optimizer updates with the gradient: here the recorded momentum.
    """
    rows: list[list[object]] = []
    ratios, matrices, exact_matrices = [], 0, 0
    momenta = recorded(STEPS[0] if quick else STEPS[-1])
    for (training, step), members in groupby(momenta, lambda momentum: (momentum.training, momentum.step)):
        params = parameters(momentum.matrix for momentum in members)
        if quick and max(max(p.shape) for p in params) > 512:
            continue
        muon = torch.optim.Muon(params, lr=1e-6, momentum=0.0)
        ours = HTMuon(params, lr=1e-6, momentum=0.0)
        with ExactMatrices() as exact:
            ours.step()
        seconds = step_seconds({MUON: muon, "HTMuon": ours}, rounds)
        ratios.append(median_ratio(seconds["HTMuon"], seconds[MUON]))
        matrices, exact_matrices = matrices + len(params), exact_matrices + exact.count
        rows.append(
            [
                f"{training}, step {step}",
                len(params),
                exact.count,
                left_out(ours),
                f"{1e3 * statistics.median(seconds[MUON]):.3g}",
                f"{ratios[-1]:.2f}",
            ]
        )
    rows.append(
        ["all: median, worst", matrices, exact_matrices, "", "", f"{statistics.median(ratios):.2f}, {max(ratios):.2f}"]
    )
    header = ["momenta", "matrices", "exact path", "directions left out, %", f"{MUON}, ms", f"HTMuon / {MUON}"]
    return table(header, rows)


def left_out(optimizer: HTMuon) -> str:
    """Return the mean share of singular directions that the last step left out, in percent."""
    if not hasattr(optimizer, "resolution"):
        return ""
    return f"{100 * statistics.mean(map(float, optimizer.resolution().values())):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model and first steps; nothing is written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="fewer take less time and memory")
    arguments = parser.parse_args()
    width, blocks = (64, 2) if arguments.quick else (WIDTH, arguments.blocks)
    shapes = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)] * blocks
    draw = torch.Generator().manual_seed(0)
    params = parameters(1e-3 * torch.randn(shape, generator=draw) for shape in shapes)
    lines = [
        f"{len(params)} matrices, {blocks} of GPT-2 small's {BLOCKS} blocks, on a {DEVICE.type}. The gradients are noise.",
        "",
        *ways(params, arguments.rounds),
        "",
        "Default steps at several powers.",
        "",
        *powers(params, arguments.rounds),
        "",
        "Default steps on the momenta of real trainings. The exact path takes singular vectors.",
        "",
        *real_momenta(arguments.rounds, arguments.quick),
    ]
    if arguments.quick:
        print("\n".join(lines))
    else:
        write("htmuon_step.md" if DEVICE.type == "cpu" else "htmuon_step_gpu.md", "\n".join(lines))


if __name__ == "__main__":
    main()
