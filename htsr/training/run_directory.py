"""The run directory that a Monitor works in: what describes the run, and who writes it."""

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Integral
from pathlib import Path

from torch import nn

from htsr._version import __version__
from htsr.errors import InputError
from htsr.training.ranks import Ranks
from htsr.training.store.files import SCHEMA
from htsr.training.store.history import History
from htsr.training.store.writer import NoWriter, RunWriter


@dataclass(frozen=True)
class RunDirectory:
    """An open run directory; on ranks other than 0 it has no history, and its writer writes nothing."""

    path: Path
    writer: RunWriter | NoWriter
    history: History | None
    holds_first_step: bool  # an intact capture of the step at which this run starts or is resumed


def describe_run(
    model: nn.Module, optimizer: object, every: object, budget: float | None, quantities: tuple[str, ...]
) -> dict[str, object]:
    """Return what ``run.json`` says of a run."""
    return {
        "schema": SCHEMA,
        "htsr": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": type(model).__name__,
        "num_parameters": sum(p.numel() for p in model.parameters() if not nn.parameter.is_lazy(p)),
        "optimizer": type(optimizer).__name__ if optimizer is not None else None,
        "every": int(every) if isinstance(every, Integral) else getattr(every, "__name__", every and "schedule"),
        "budget": budget,
        "capture": list(quantities),
    }


def open_run_directory(
    run_dir: str | Path | None, about: dict[str, object], first_step: int, ranks: Ranks | None
) -> RunDirectory:
    """Open a run directory on rank 0 and tell the other ranks; what is wrong with it is raised on every rank."""
    opened, problem = None, None
    if ranks is None or ranks.rank == 0:
        try:
            opened = _open(run_dir, about, first_step)
        except (InputError, OSError) as err:
            if ranks is None:
                raise
            problem = err  # the other ranks wait in share()
    if ranks is not None:
        mine = (opened.path, opened.holds_first_step) if opened is not None else None
        told, problem = ranks.share((mine, problem))[0]
        if problem is not None:
            raise problem
        if opened is None:
            path, holds_first_step = told
            opened = RunDirectory(path, NoWriter(), None, holds_first_step)
    assert opened is not None
    return opened


def _open(run_dir: str | Path | None, about: dict[str, object], first_step: int) -> RunDirectory:
    """Open a run directory for writing; without a path, a temporary one that lives as long as its history."""
    path = Path(tempfile.mkdtemp(prefix="htsr-run-") if run_dir is None else run_dir)
    writer = RunWriter(path, about, first_step)
    history = History(path)
    if run_dir is None:
        weakref.finalize(history, shutil.rmtree, path, ignore_errors=True)
    return RunDirectory(path, writer, history, writer.holds(first_step))
