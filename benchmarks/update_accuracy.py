"""How far HTMuon's default update is from U diag(s^p) V^T, on momenta of real trainings and on matrices of known spectra.

A float64 singular value decomposition gives two references for each matrix:

- "as stored": that of the matrix that the optimizer gets. Singular values below the rounding noise of its dtype count as
  zero. Rounding to unit roundoff u changes an entry g by up to u |g|, with a root mean square near u |g| / sqrt(3), and such
  noise has spectral norm u / sqrt(3) ||G||_F (1 / sqrt(m) + 1 / sqrt(n)).
- "as it was": that of the float64 matrix before it was rounded, with all its nonzero singular values. For the momenta of a
  float32 training it is the float32 momentum without what lies below its noise, and only casts to the other dtypes have it.
  No method can recover singular values that rounding has buried, so this error has a floor.

Rounding noise is not white, and momenta in float32 are sums that were rounded many times. "Any cut" therefore is the error
against the stored matrix if the singular values that count begin where it fits the update best, within ``GREY`` times the noise.
How many an optimizer leaves out stands beside it.
"""

import argparse
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from momenta import STEPS, cast, known, recorded
from provenance import table, write
from torch import Tensor, nn
from torch.optim._muon import _zeropower_via_newtonschulz
from tqdm.auto import tqdm

from htsr.optim import HTMuon, spectral_power

POWERS = (-0.25, -0.125, 0.0, 0.0625, 0.125, 0.25, 0.5, 1.0)
SCALES = ("raw", "spectral", "match_muon")
SHARES = ("below the noise", "left out")
MUON = "torch.optim.Muon"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MUON_COEFFICIENTS = (3.4445, -4.775, 2.0315)
# Where the cut may lie, in units of the rounding noise. The last few singular values of a square matrix meet only a small part
# of the noise; gradients over a batch, in float32, carried 1.3 to 20 times as much.
GREY = {torch.float32: (0.1, 32.0), torch.bfloat16: (0.1, 4.0), torch.float16: (0.1, 4.0)}
BOUND = 0.02  # for p of at least 1/16
# How many matrices of each kind are drawn, by shape.
QUICK = {(48, 32): 1}
SMALL = {(256, 128): 3, (128, 256): 3}
ALL = {**SMALL, (768, 768): 1, (3072, 768): 1}


class Decomposition(NamedTuple):
    """Singular vectors and values in float64, in descending order; the first ``rank`` values count."""

    U: Tensor
    S: Tensor
    Vh: Tensor
    rank: int

    def to(self, device: str) -> "Decomposition":
        """Return the decomposition on a device."""
        return Decomposition(self.U.to(device), self.S.to(device), self.Vh.to(device), self.rank)


class Case(NamedTuple):
    """A matrix for the optimizer, and what it was before it was rounded, if that is known."""

    kind: str
    matrix: Tensor
    original: Decomposition | None


def noise(G: Tensor) -> float:
    """Return the spectral norm of the rounding noise of the matrix's dtype."""
    m, n = G.shape
    u = torch.finfo(G.dtype).eps / 2
    return u / math.sqrt(3) * G.double().norm().item() * (1 / math.sqrt(m) + 1 / math.sqrt(n))


def decomposition(G: Tensor) -> Decomposition:
    """Return the decomposition of a matrix, in which singular values below its rounding noise do not count."""
    U, S, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    return Decomposition(U, S, Vh, max(1, int((S > noise(G)).sum())))


def cases(counts: Mapping[tuple[int, int], int], last_step: int, small: bool, device: str) -> Iterator[Case]:
    """Yield all matrices; ``small`` leaves out sides above 512 and the GPT's blocks but the first."""
    for kind, U, S, Vh in chain.from_iterable(known([shape], count) for shape, count in counts.items()):
        matrix = (U * S) @ Vh
        for dtype in DTYPES:
            G, factor = cast(matrix, dtype)
            yield Case(kind, G, Decomposition(U, S * factor, Vh, len(S)))
    for training, name, step, matrix in recorded(last_step, device):
        if small and (max(matrix.shape) > 512 or name.startswith("blocks.1.")):
            continue
        kind = f"{training}, step {step}"
        yield Case(kind, matrix, None)
        if matrix.dtype == torch.float32:
            original = decomposition(matrix)
            for dtype in DTYPES[1:]:
                G, factor = cast(matrix, dtype)
                yield Case(kind, G, original._replace(S=original.S * factor))


def errors_by_rank(Y: Tensor, exact: Decomposition, power: float, scale: str, limit: int) -> Tensor:
    """Return the relative Frobenius error of Y if the first 1, 2, ..., ``limit`` singular values count, shape (limit,)."""
    S = exact.S[:limit]
    coordinates = ((exact.U.mT[:limit] @ Y) * exact.Vh[:limit]).sum(-1)  # of Y along each u_i v_i^T
    powers = S**power
    norm = powers.square().cumsum(0)
    factor = torch.ones_like(S)
    if scale == "spectral":
        factor = 1 / powers.cummax(0).values
    elif scale == "match_muon":
        factor = (torch.arange(1, limit + 1, device=S.device) / norm).sqrt()
    squared = Y.square().sum() - 2 * factor * (powers * coordinates).cumsum(0) + factor.square() * norm
    return (squared.clamp_min(0) / (factor.square() * norm)).sqrt()


def step_update(G: Tensor, power: float, scale: str) -> tuple[Tensor, float | None]:
    """Return what a step of HTMuon with momentum G subtracts at learning rate 1, and the share that it left out."""
    p = nn.Parameter(torch.zeros_like(G))
    p.grad = G
    optimizer = HTMuon([p], lr=1.0, power=power, scale=scale, momentum=0.0, weight_decay=0.0)
    optimizer.step()
    share = next(iter(optimizer.resolution().values())) if hasattr(optimizer, "resolution") else None
    return -p.detach() / math.sqrt(max(1, G.shape[0] / G.shape[1])), None if share is None else float(share)


def rows(case: Case, powers: tuple[float, ...], device: str) -> Iterator[dict[str, object]]:
    """Yield the errors of all updates of one matrix."""
    G, stored = case.matrix.to(device), decomposition(case.matrix).to(device)
    original = case.original.to(device) if case.original else None
    k, edge = len(stored.S), noise(case.matrix)
    highest, lowest = (max(1, int((stored.S > factor * edge).sum())) for factor in GREY[G.dtype])

    def row(way: str, power: float, scale: str, Y: Tensor, share: float | None) -> dict[str, object]:
        Y = Y.double()
        errors = errors_by_rank(Y, stored, power, scale, highest)
        return {
            "kind": case.kind,
            "shape": f"{G.shape[0]}x{G.shape[1]}",
            "dtype": str(G.dtype).removeprefix("torch."),
            "p": power,
            "way": way,
            "as stored": errors[stored.rank - 1].item(),
            "any cut": errors[lowest - 1 :].min().item(),
            "as it was": (
                errors_by_rank(Y, original, power, scale, original.rank)[-1].item() if original else math.nan
            ),
            "below the noise": 1 - stored.rank / k,
            "left out": math.nan if share is None else share,
        }

    for power in powers:
        yield row("spectral_power", power, "raw", spectral_power(G, power), None)
        for scale in SCALES:
            yield row(f"HTMuon, {scale}", power, scale, *step_update(G, power, scale))
        if power == 0:
            # a clone, because it overwrites bfloat16 input
            yield row(MUON, power, "raw", _zeropower_via_newtonschulz(G.clone(), MUON_COEFFICIENTS, 5, 1e-7), None)


def measure(all_cases: list[Case], powers: tuple[float, ...] = POWERS, device: str = "cpu") -> pd.DataFrame:
    """Return the errors of all updates of all matrices, one row an update."""
    bar = tqdm(all_cases, unit="matrix", disable=None)
    return pd.DataFrame([row for case in bar for row in rows(case, powers, device)])


def median_and_worst(values: pd.Series) -> str:
    values = 100 * values.dropna()
    return f"{values.median():.2g}, {values.max():.2g}" if len(values) else ""


def report(errors: pd.DataFrame) -> list[str]:
    """Return the tables, the short ones first."""
    ours = errors[errors["way"] != MUON]
    powers = sorted(ours["p"].unique())
    header = [f"p = {power:g}" for power in powers]

    def cells(frame: pd.DataFrame, column: str) -> list[object]:
        return [median_and_worst(frame.loc[frame["p"] == power, column]) for power in powers]

    lines = [*goals(errors), "", "All cells: median, worst relative error in Frobenius norm, %."]
    for column, title in (
        ("as stored", "Against the matrix as stored, without what lies below the rounding noise of its dtype."),
        ("any cut", "Against the matrix as stored, cut where it fits best."),
        ("as it was", "Against the matrix before it was rounded."),
    ):
        lines += ["", title, ""]
        groups = errors.groupby(["way", "dtype"], sort=False)
        lines += table(["update", "dtype", *header], [[*key, *cells(group, column)] for key, group in groups])
    for column in ("any cut", "as it was"):
        lines += ["", f"By matrix, all four ways to ask for the update together; {column}.", ""]
        body: list[list[object]] = []
        for (kind, dtype), group in ours.groupby(["kind", "dtype"], sort=False):
            muon = errors[(errors["way"] == MUON) & (errors["kind"] == kind) & (errors["dtype"] == dtype)]
            shares = ["" if group[name].isna().all() else f"{100 * group[name].mean():.0f}" for name in SHARES]
            body.append([kind, dtype, *shares, *cells(group, column), median_and_worst(muon[column])])
        first = ["matrix", "dtype", "below the noise, %", "left out by HTMuon, %"]
        lines += table([*first, *header, f"p = 0, {MUON}"], body)
    return lines


def goals(errors: pd.DataFrame) -> list[str]:
    """Return what the errors say about the bounds that the default update should keep."""
    lines = []
    bounded = errors[(errors["way"] != MUON) & (errors["p"] >= 1 / 16)]
    for column in ("as stored", "any cut"):
        above = bounded[bounded[column] > BOUND]
        worst = bounded.loc[bounded[column].idxmax()]
        lines.append(
            f"- {column}: {len(above)} of {len(bounded)} updates with p of at least 1/16 are off by more than "
            f"{100 * BOUND:g} %; the worst by {100 * worst[column]:.2g} %: {worst['kind']}, {worst['shape']}, "
            f"{worst['dtype']}, p = {worst['p']:g}, {worst['way']}."
        )
    zero = errors[errors["p"] == 0]
    muon = zero[zero["way"] == MUON].reset_index(drop=True)
    for column in ("as stored", "any cut"):
        # the rows of both stand in the order of the matrices
        default = zero[zero["way"] == "spectral_power"].reset_index(drop=True)
        worse = (default[column] > muon[column]).sum()
        lines.append(
            f"- {column}: at p = 0 the default update is further off than {MUON}'s on {worse} of {len(muon)} matrices."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few small matrices; nothing is written")
    parser.add_argument("--small", action="store_true", help="sides up to 512 and fewer layers; nothing is written")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--csv", type=Path, help="also write every single error")
    options = parser.parse_args()
    brief = options.quick or options.small
    counts = QUICK if options.quick else SMALL if options.small else ALL
    last_step = 1 if options.quick else STEPS[-1]
    errors = measure(list(cases(counts, last_step, brief, options.device)), POWERS, options.device)
    if options.csv:
        errors.to_csv(options.csv, index=False)
    lines = report(errors)
    if brief:
        print("\n".join(lines))
    else:
        write("update_accuracy.md" if options.device == "cpu" else "update_accuracy_gpu.md", "\n".join(lines))


if __name__ == "__main__":
    main()
