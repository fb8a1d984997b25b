"""The spectral power: error against the float64 SVD, time and matrix products beside torch.optim.Muon's Newton-Schulz."""

import argparse
import statistics

import torch
from provenance import alternate, median_ratio, write
from torch.optim._muon import _zeropower_via_newtonschulz

from htsr.optim import spectral_power
from htsr.optim.quintics import TABLES, largest_error

POWERS = (0.0, 0.125, 0.5, 0.9)
METHODS = {
    "svd": {"method": "svd"},
    "eigh": {"method": "eigh"},
    "stream, 10th step": {"method": "stream"},
    "iterate 5 bfloat16": {"method": "iterate", "steps": 5, "dtype": torch.bfloat16},
    "iterate 6 bfloat16": {"method": "iterate", "steps": 6, "dtype": torch.bfloat16},
    "iterate 6 float16": {"method": "iterate", "steps": 6, "dtype": torch.float16},
    "iterate 6 float32": {"method": "iterate", "steps": 6, "dtype": torch.float32},
    "iterate 7 float32": {"method": "iterate", "steps": 7, "dtype": torch.float32},
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def spectra(m: int, n: int) -> dict[str, torch.Tensor]:
    """Matrices of one shape with different singular values, float64."""
    k = min(m, n)
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(m, n, generator=draw, dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(torch.randn(m, n, generator=draw, dtype=torch.float64), full_matrices=False)
    ranks = torch.arange(1, k + 1, dtype=torch.float64)
    spikes = (U * ranks**-1.0) @ Vh + 0.03 * noise / max(m, n) ** 0.5
    log_uniform = (U * torch.logspace(0, -2, k, dtype=torch.float64)) @ Vh
    return {"noise": noise, "spikes and noise": spikes, "log-uniform to 0.01": log_uniform}


def error(G: torch.Tensor, exact: torch.Tensor, power: float, settings: dict) -> float:
    basis = None
    if settings["method"] == "stream":
        basis = torch.zeros(*[min(G.shape)] * 2, device=DEVICE)
        for _ in range(9):
            spectral_power(G, power, basis=basis, **settings)
    result = spectral_power(G, power, basis=basis, **settings).double().cpu()
    return float((result - exact).norm() / exact.norm())


def accuracy(shapes: list[tuple[int, int]]) -> list[str]:
    lines = ["Relative error in Frobenius norm, %, at p = " + ", ".join(f"{p:g}" for p in POWERS) + ".", ""]
    columns = [(shape, name, G) for shape in shapes for name, G in spectra(*shape).items()]
    lines += ["| method | " + " | ".join(f"{m}x{n} {name}" for (m, n), name, _ in columns) + " |"]
    lines += ["|---" * (len(columns) + 1) + "|"]
    exact = [[spectral_power(G, p, method="svd") for p in POWERS] for _, _, G in columns]
    for label, settings in METHODS.items():
        cells = []
        for (_, _, G), references in zip(columns, exact, strict=True):
            G32 = G.float().to(DEVICE)
            errors = (100 * error(G32, E, p, settings) for p, E in zip(POWERS, references, strict=True))
            cells.append(", ".join(f"{value:.2g}" for value in errors))
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def tables() -> list[str]:
    lines = ["Tables: largest relative error of a singular value, exact arithmetic.", ""]
    lines += ["| steps | domain, of the Schatten-4 norm | p in 0, 0.05, ..., 1 | p = 1/8 | p = -0.1 on [3 low, 1] |"]
    lines += ["|---|---|---|---|---|"]
    for steps, table in TABLES.items():
        worst = max(largest_error(i / 20, steps) for i in range(21))
        eighth, negative = largest_error(0.125, steps), largest_error(-0.1, steps)
        lines.append(
            f"| {steps} | [{table.low:g}, 1] | {100 * worst:.2f} % | {100 * eighth:.2f} % | {100 * negative:.2f} % |"
        )
    return lines


def products(settings: dict, m: int, n: int) -> str:
    """Matrix products in units of one k x k by k x k product."""
    ratio, steps = max(m, n) / min(m, n), settings.get("steps")
    if steps is None:
        return ""
    if settings["dtype"] != torch.bfloat16 and ratio >= 2.5:
        return f"{5 * ratio + 4 * steps - 6:.0f}"
    return f"{steps * (2 * ratio + 1):.0f}"


def times(shapes: list[tuple[int, int]], rounds: int) -> list[str]:
    lines = ["Time, p = 1/8; products in units of 2 k^3 operations, k the smaller side.", ""]
    lines += ["| shape | method | products | median ms | this / torch.optim.Muon |", "|---|---|---|---|---|"]

    def timed(program):
        def run():
            program()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        return run

    for m, n in shapes:
        G = torch.randn(m, n, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        basis = torch.zeros(*[min(m, n)] * 2, device=DEVICE)
        muon = "Muon's Newton-Schulz, bfloat16"
        programs = {muon: timed(lambda G=G: _zeropower_via_newtonschulz(G, (3.4445, -4.775, 2.0315), 5, 1e-7))}
        for label, settings in METHODS.items():
            if DEVICE.type == "cpu" and settings.get("dtype") == torch.float16:
                continue  # emulated
            keep = basis if settings["method"] == "stream" else None
            programs[label] = timed(lambda G=G, s=settings, b=keep: spectral_power(G, 0.125, basis=b, **s))
        seconds = alternate(programs, rounds)
        for label, values in seconds.items():
            ratio = max(m, n) / min(m, n)
            count = f"{5 * (2 * ratio + 1):.0f}" if label == muon else products(METHODS[label], m, n)
            relative = median_ratio(values, seconds[muon])
            lines.append(f"| {m}x{n} | {label} | {count} | {1e3 * statistics.median(values):.1f} | {relative:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small matrices; nothing is written")
    quick = parser.parse_args().quick
    lines = [*tables(), "", *accuracy([(64, 64), (32, 128)] if quick else [(256, 256), (256, 1024)])]
    lines += ["", *times([(64, 64)] if quick else [(768, 768), (3072, 768)], 2 if quick else 9)]
    if quick:
        print("\n".join(lines))
    else:
        name = "htmuon_kernel.md" if DEVICE.type == "cpu" else "htmuon_kernel_gpu.md"
        write(
            name, f"Device: {torch.cuda.get_device_name() if DEVICE.type == 'cuda' else 'CPU'}.\n\n" + "\n".join(lines)
        )


if __name__ == "__main__":
    main()
