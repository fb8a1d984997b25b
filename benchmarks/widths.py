"""What coordinate_check and width_audit say of learning-rate rules that theory knows.

python benchmarks/widths.py

A byte-level GPT learns Python's standard library at several widths. Muon's rules ask for these exponents of the changes of a
hidden layer (arXiv 2310.17813): 0 for sqrt(n_out / n_in), 1/2 for 0.2 sqrt(max(n_out, n_in)); Adam without muP asks for 1 while
its updates line up with the activations. The exponents of the norms of weights are those of the initialisation before training.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import htsr
from htsr.demo.corpus import standard_library
from htsr.demo.gpt import GPT, tokens
from htsr.optim import HTMuon, parameter_groups

CONTEXT, BATCH, DEPTH = 64, 16, 2


def muon(rule: str) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Return a function that makes Muon with a learning-rate rule; it leaves embeddings and head to AdamW."""
    return lambda model: HTMuon(parameter_groups(model), lr=0.02, power=0.0, adjust_lr=rule)


OPTIMIZERS = {
    "Muon, sqrt(n_out / n_in)": muon("spectral"),
    "Muon, sqrt(max(1, n_out / n_in))": muon("original"),
    "Muon, 0.2 sqrt(max(n_out, n_in))": muon("match_rms_adamw"),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small widths, one seed, one step")
    options = parser.parse_args()
    widths, seeds, steps, trained = ((16, 32), 2, 1, 2) if options.quick else ((64, 128, 256), 5, 5, 100)
    text = tokens(standard_library()[0])

    def loss(model: nn.Module) -> Tensor:
        return model.loss(text[torch.randint(len(text) - CONTEXT, (BATCH, 1)) + torch.arange(CONTEXT + 1)])

    def make(width: int) -> nn.Module:
        return GPT(CONTEXT, width, DEPTH)

    print("# Exponents of the width\n\n## Changes of activations, and the activations, after the first steps\n")
    for after in dict.fromkeys((1, steps)):
        print(f"After {after} step{'s' * (after > 1)}, {seeds} seeds, widths {', '.join(map(str, widths))}:\n")
        checks = {}
        for name, optimizer in OPTIMIZERS.items():
            start = time.process_time()
            checks[name] = htsr.coordinate_check(
                make, optimizer, loss, widths=widths, steps=after, seeds=seeds, progress=False
            )
            print(f"- {name}: {time.process_time() - start:.1f} s of processor time")
        print("\n| layer |", *(f"{name} |" for name in checks))
        print("|---|" + "---|" * len(checks))
        tables = [check.details.set_index("name") for check in checks.values()]
        for layer in tables[0].index:
            cells = [f"{t.loc[layer, 'change_exponent']:+.2f} ± {t.loc[layer, 'change_error']:.2f} |" for t in tables]
            print(f"| {layer} |", *cells)
        print()
    print(f"## Norms of weights, at the start and after {trained} steps\n")
    audits = {}
    for name, optimizer in {"at the start": None, **OPTIMIZERS}.items():
        models = []
        for width in widths:
            torch.manual_seed(0)
            model = make(width)
            own = None if optimizer is None else optimizer(model)
            for _ in range(0 if own is None else trained):
                own.zero_grad()
                loss(model).backward()
                own.step()
            models.append(model)
        audits[name] = htsr.width_audit(models, progress=False).details.set_index("role")
    print("| role |", *(f"{name} |" for name in audits))
    print("|---|" + "---|" * len(audits))
    for role in audits["at the start"].index:
        cells = [f"{table.loc[role, 'exponent']:+.2f} ± {table.loc[role, 'error']:.2f} |" for table in audits.values()]
        print(f"| {role} |", *cells)
    print(f"\ntorch {torch.__version__}, htsr {htsr.__version__}")


if __name__ == "__main__":
    main()
