"""A whole optimizer step on the matrices of GPT-2 small: HTMuon beside torch.optim.Muon and torch.optim.AdamW."""

import argparse
import statistics
from collections.abc import Callable

import torch
from provenance import alternate, median_ratio, write

from htsr.optim import HTMuon

# Of each of GPT-2 small's 12 blocks: query, key and value, output, and the MLP.
WIDTH, BLOCKS = 768, 12
WAYS = {
    "default": {},
    "default, p = 0": {"power": 0.0},
    "exact: svd": {"method": "svd"},
    "exact: eigh": {"method": "eigh"},
    "iterate, float32": {"method": "iterate", "dtype": torch.float32},
    "fastest: 5 steps, bfloat16": {"method": "iterate", "steps": 5, "dtype": torch.bfloat16},
    "stream": {"method": "stream"},
    "svd, interval 5": {"method": "svd", "interval": 5},
    "default, row_normalize": {"row_normalize": True},
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def steps_in_a_turn(optimizer: torch.optim.Optimizer) -> int:
    """An interval has its one spectral step in every turn."""
    return optimizer.param_groups[0].get("interval", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model; nothing is written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="fewer take less time and memory")
    arguments = parser.parse_args()
    width, blocks = (64, 2) if arguments.quick else (WIDTH, arguments.blocks)
    shapes = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)] * blocks
    draw = torch.Generator().manual_seed(0)
    matrices = [torch.nn.Parameter(0.02 * torch.randn(shape, generator=draw).to(DEVICE)) for shape in shapes]
    for p in matrices:
        p.grad = 1e-3 * torch.randn(p.shape, generator=draw).to(DEVICE)
    optimizers: dict[str, torch.optim.Optimizer] = {"torch.optim.Muon": torch.optim.Muon(matrices, lr=1e-6)}
    optimizers |= {f"HTMuon, {way}": HTMuon(matrices, lr=1e-6, **settings) for way, settings in WAYS.items()}
    optimizers["torch.optim.AdamW"] = torch.optim.AdamW(matrices, lr=1e-6)

    def turn(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        def run() -> None:
            for _ in range(steps_in_a_turn(optimizer)):
                optimizer.step()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        return run

    turns = {name: turn(optimizer) for name, optimizer in optimizers.items()}
    seconds = alternate(turns, arguments.rounds)
    for name, optimizer in optimizers.items():
        seconds[name] = [value / steps_in_a_turn(optimizer) for value in seconds[name]]
    lines = [
        f"{len(matrices)} matrices, {blocks} of GPT-2 small's {BLOCKS} blocks, on a {DEVICE.type}.",
        "",
    ]
    lines += ["| step | median ms | this / torch.optim.Muon |", "|---|---|---|"]
    for name, values in seconds.items():
        ratio = median_ratio(values, seconds["torch.optim.Muon"])
        lines.append(f"| {name} | {1e3 * statistics.median(values):.0f} | {ratio:.2f} |")
    if arguments.quick:
        print("\n".join(lines))
    else:
        write("htmuon_step.md" if DEVICE.type == "cpu" else "htmuon_step_gpu.md", "\n".join(lines))


if __name__ == "__main__":
    main()
