"""Runs of a study: a table that grows run by run, learning rates tuned on seeds of their own, and what is compared.

A study names its set-ups (*cells*) and, in each, its *arms*: what is compared. Every arm of a cell gets a learning rate of its
own, tuned on other seeds than those that are compared; its grid grows on the side on which the best rate lies until that lies
inside. A study that was stopped goes on where it was.
"""

import argparse
import logging
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.append(str(Path(__file__).parents[1]))
from provenance import RESULTS, processor

TUNING_SEEDS, SEEDS = (100, 101, 102), tuple(range(10))
TUNING, FINAL = "tuning", "final"
# Learning rates of a grid lie a factor of 2 apart, and a grid grows by this many rates on each side at most.
FACTOR, GROWTH = 2.0, 4
LR_DIGITS = 6

Settings = Mapping[str, Any]
# Train at a rate for some seeds, on a device; return one mapping of figures for each seed.
Train = Callable[[Settings, float, Sequence[int], str], list[dict[str, float]]]


class DivergedError(Exception):
    """A run diverged; its figures count as infinitely bad."""


@dataclass(frozen=True)
class Cell:
    """A set-up and the arms that are compared in it.

    Args:
        name: How tables call it.
        arms: The settings of each arm, handed to ``train`` with those of the cell.
        lrs: The learning rates to begin with, ascending; an arm may have its own under the key ``lrs``.
        baseline: The arm that the others are compared with.
        settings: What all arms share.
        tuning: How many of the study's seeds tune; all by default.
        final: How many are compared; all by default.
        also: Other arms to compare with.
    """

    name: str
    arms: Mapping[str, Settings]
    lrs: tuple[float, ...]
    baseline: str
    settings: Settings = field(default_factory=dict)
    tuning: int | None = None
    final: int | None = None
    also: tuple[str, ...] = ()

    def grid(self, arm: str) -> tuple[float, ...]:
        """Return the rates that an arm begins with."""
        return tuple(self.arms[arm].get("lrs", self.lrs))

    def of(self, arm: str) -> dict[str, Any]:
        """Return all settings of an arm."""
        return {key: value for key, value in {**self.settings, **self.arms[arm]}.items() if key != "lrs"}


@dataclass(frozen=True)
class Job:
    """Runs that differ in their seed alone."""

    cell: Cell
    arm: str
    lr: float
    stage: str
    seeds: tuple[int, ...]


@dataclass
class Study:
    """A table of runs, how to train one, and which figure decides.

    Args:
        name: The stem of its files in benchmarks/results/studies.
        train: A function at the top of a module, so that other processes can import it.
        metric: The figure that is compared.
        lowest: Whether a lower figure is better.
        options: Those of ``arguments``.
        tuned_by: The figure that tunes; ``metric`` by default.
        tuning: The seeds of the grid.
        final: The seeds that are compared.
        shared: Settings of all runs.
        overview: Whether the cells compare the same arms in the same unit, so that one table can hold them all.
    """

    name: str
    train: Train
    metric: str
    lowest: bool
    options: argparse.Namespace
    tuned_by: str = ""
    tuning: tuple[int, ...] = TUNING_SEEDS
    final: tuple[int, ...] = SEEDS
    shared: Settings = field(default_factory=dict)
    overview: bool = False

    def __post_init__(self) -> None:
        folder = Path(tempfile.mkdtemp() if self.options.quick else self.options.results)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{self.name}.csv"
        self.tuned_by = self.tuned_by or self.metric
        if self.options.quick:
            self.tuning, self.final = self.tuning[:2], self.final[:2]

    def runs(self) -> pd.DataFrame:
        """Return all runs done so far."""
        columns = dict.fromkeys(["cell", "arm", "stage", "lr", "seed", self.metric, self.tuned_by])
        return pd.read_csv(self.path) if self.path.exists() else pd.DataFrame(columns=list(columns))

    def complete(self, cells: Sequence[Cell]) -> None:
        """Do the runs that are missing, as far as the time goes; a cell that comes first is done first.

        An arm that fails stays behind and the others go on; the first error is raised at the end.
        """
        errors: list[Exception] = []
        end = time.monotonic() + 60 * self.options.minutes
        with ProcessPoolExecutor(
            self.options.workers, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            jobs = [job for cell in cells for arm in cell.arms for job in self._next(cell, arm)]
            under_way: dict[Future[list[dict[str, float]]], Job] = {}
            while jobs or under_way:
                while jobs and len(under_way) < self.options.workers and time.monotonic() < end:
                    job = jobs.pop(0)
                    settings = {**self.shared, **job.cell.of(job.arm)}
                    under_way[pool.submit(self.train, settings, job.lr, job.seeds, self.options.device)] = job
                if not under_way:
                    logging.warning("the time is over: %d jobs and what follows from them are left", len(jobs))
                    break
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    job = under_way.pop(done)
                    error = done.exception()
                    if isinstance(error, DivergedError):
                        worst = math.inf if self.lowest else -math.inf
                        self._keep(job, [{self.metric: worst, self.tuned_by: worst} for _ in job.seeds])
                    elif error is not None:
                        logging.error("%s, %s at lr %g failed: %r", job.cell.name, job.arm, job.lr, error)
                        jobs = [other for other in jobs if (other.cell, other.arm) != (job.cell, job.arm)]
                        errors.append(error)
                        continue
                    else:
                        self._keep(job, done.result())
                    others = {(other.cell.name, other.arm) for other in (*under_way.values(), *jobs)}
                    if (job.cell.name, job.arm) not in others:
                        jobs = self._next(job.cell, job.arm) + jobs
        if errors:
            raise errors[0]

    def _next(self, cell: Cell, arm: str) -> list[Job]:
        """Return the jobs that an arm needs next: its grid, a wider grid, or the runs at the best rate; none if it is done."""
        mine = self.runs()
        mine = mine[(mine["cell"] == cell.name) & (mine["arm"] == arm)]
        tuned, start = mine[mine["stage"] == TUNING], cell.grid(arm)
        tuning, final = self.tuning[: cell.tuning], self.final[: cell.final]
        missing = [(lr, _without(tuned, lr, tuning)) for lr in start]
        if any(seeds for _, seeds in missing):
            return [Job(cell, arm, lr, TUNING, seeds) for lr, seeds in missing if seeds]
        means = tuned.groupby("lr")[self.tuned_by].apply(lambda values: values.mean(skipna=False)).dropna()
        if means.empty:
            raise RuntimeError(f"every run of {cell.name}, {arm} diverged: lower its learning rates")
        best = means.idxmin() if self.lowest else means.idxmax()
        beyond = _beyond(best, tuned["lr"], start)
        if beyond is not None:
            return [Job(cell, arm, beyond, TUNING, tuning)]
        seeds = _without(mine[mine["stage"] == FINAL], best, final)
        return [Job(cell, arm, best, FINAL, seeds)] if seeds else []

    def _keep(self, job: Job, figures: list[dict[str, float]]) -> None:
        """Append the runs of a job to the table on disk."""
        rows = [
            {"cell": job.cell.name, "arm": job.arm, "stage": job.stage, "lr": job.lr, "seed": seed, **found}
            for seed, found in zip(job.seeds, figures, strict=True)
        ]
        pd.concat([self.runs(), pd.DataFrame(rows)]).to_csv(self.path, index=False, float_format="%.6g")
        mean = pd.DataFrame(rows)[self.metric].mean()
        print(f"{job.cell.name:24} {job.arm:24} {job.stage:7} lr {job.lr:<9g} {mean:.4f}", file=sys.stderr, flush=True)


def _beyond(best: float, tried: pd.Series, start: Sequence[float]) -> float | None:
    """Return the rate beyond the edge at which the best one lies; None if it lies inside or the grid may not grow."""
    reach = FACTOR ** (GROWTH + 0.5)
    for edge, lr in ((tried.max(), best * FACTOR), (tried.min(), best / FACTOR)):
        if best == edge and start[0] / reach < lr < start[-1] * reach:
            return round(lr, LR_DIGITS)
    return None


def _without(runs: pd.DataFrame, lr: float, seeds: Iterable[int]) -> tuple[int, ...]:
    """Return the seeds that have no run at a rate."""
    known = set(runs.loc[[math.isclose(lr, other) for other in runs["lr"]], "seed"])
    return tuple(seed for seed in seeds if seed not in known)


def arguments(description: str) -> argparse.ArgumentParser:
    """Return the options that all studies have."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workers", type=int, default=8 if cuda else 2, help="processes")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no run starts after so many minutes")
    parser.add_argument(
        "--cells", nargs="*", default=["*"], help="set-ups, by name or pattern such as 'small*'; all by default"
    )
    parser.add_argument("--results", default=str(RESULTS / "studies"), help="the folder of the tables")
    parser.add_argument("--quick", action="store_true", help="a few steps of a small set-up; prints only")
    parser.add_argument("--report", action="store_true", help="write the report of the runs that are there")
    return parser


def machine(device: str) -> str:
    """Return the name of what trains."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else processor()


def rates(middle: float, count: int = 5) -> tuple[float, ...]:
    """Return learning rates around a middle, a factor of 2 apart."""
    return tuple(round(middle * FACTOR ** (i - count // 2), LR_DIGITS) for i in range(count))
