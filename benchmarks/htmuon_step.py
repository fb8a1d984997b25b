"""One optimizer step of HTMuon (exact SVD) against torch.optim.Muon on the matrices of the demo's GPT."""

import statistics

import torch
from provenance import alternate, median_ratio, write

from htsr.demo.gpt import GPT
from htsr.optim import HTMuon, parameter_roles

ROUNDS = 15


def main() -> None:
    torch.manual_seed(0)
    model = GPT(128)
    batch = torch.randint(256, (16, 129))
    model.loss(batch).backward()
    roles = parameter_roles(model)
    matrices = [p for name, p in model.named_parameters() if roles[name].algorithm == "htmuon"]
    optimizers = {
        "torch.optim.Muon": torch.optim.Muon(matrices, lr=1e-6),
        "HTMuon p = 0": HTMuon(matrices, lr=1e-6, power=0.0),
        "HTMuon p = 1/8": HTMuon(matrices, lr=1e-6, power=0.125),
    }
    programs = {name: optimizer.step for name, optimizer in optimizers.items()}
    seconds = alternate({**programs, "forward and backward": lambda: model.loss(batch).backward()}, ROUNDS)
    lines = [f"{len(matrices)} matrices of 128 x 128, 512 x 128 and 128 x 512.", ""]
    lines += ["| step | median ms | this / torch.optim.Muon |", "|---|---|---|"]
    for name, values in seconds.items():
        ratio = median_ratio(values, seconds["torch.optim.Muon"])
        lines.append(f"| {name} | {1e3 * statistics.median(values):.1f} | {ratio:.2f} |")
    write("htmuon_step.md", "\n".join(lines))


if __name__ == "__main__":
    main()
