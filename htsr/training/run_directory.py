"""The run directory that a Monitor works in: what describes the run, and who writes it."""

import json
import logging
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from numbers import Integral
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from htsr._version import __version__
from htsr.training.optimizers import labels_of
from htsr.training.ranks import Ranks
from htsr.training.settings import settings_of
from htsr.training.store.files import ABOUT, CAPTURES, EVENTS, SCHEMA, append_line, capture_step
from htsr.training.store.history import History
from htsr.training.store.writer import NoWriter, RunWriter

logger = logging.getLogger(__name__)

# In run.json of ``x-2``, ``x-3``, ...: the name of the directory, ``x``, that somebody asked for and another run had.
FAMILY = "numbered_after"


@dataclass(frozen=True)
class RunDirectory:
    """An open run directory; on ranks other than 0 it has no history, and its writer writes nothing."""

    path: Path
    writer: RunWriter | NoWriter
    history: History | None
    holds_first_step: bool  # an intact capture of the step at which this run starts or is resumed


def describe_run(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    every: object,
    budget: float | None,
    quantities: tuple[str, ...],
    about: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return what ``run.json`` says of a run."""
    return {
        "schema": SCHEMA,
        "htsr": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": type(model).__name__,
        "num_parameters": sum(p.numel() for p in model.parameters() if not nn.parameter.is_lazy(p)),
        "optimizer": ", ".join(labels_of(optimizers)) or None,
        "every": int(every) if isinstance(every, Integral) else getattr(every, "__name__", every and "schedule"),
        "budget": budget,
        "capture": list(quantities),
        "settings": settings_of(optimizers, about),
    }


def open_run_directory(
    run_dir: str | Path | None, about: dict[str, object], first_step: int, ranks: Ranks | None
) -> RunDirectory:
    """Open a run directory on rank 0 and tell the other ranks; what is wrong with it is raised on every rank."""
    opened, problem = None, None
    if ranks is None or ranks.rank == 0:
        try:
            opened = _open(run_dir, about, first_step)
        except (ValueError, OSError) as err:
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
    if run_dir is None:
        path = Path(tempfile.mkdtemp(prefix="htsr-run-"))
        writer, history = RunWriter(path, about, first_step), History(path)
        weakref.finalize(history, shutil.rmtree, path, ignore_errors=True)
    else:
        path, writer = _own_directory(Path(run_dir), about, first_step)
        history = History(path)
    return RunDirectory(path, writer, history, writer.holds(first_step))


def _own_directory(wanted: Path, about: dict[str, object], first_step: int) -> tuple[Path, RunWriter]:
    """Open the wanted directory, or the next free one of its numbered siblings if another run has the wanted one."""
    if wanted.name in ("", ".."):
        wanted = wanted.resolve()  # its siblings need a name
    path = _last_of_family(wanted, first_step) if first_step else wanted
    try:
        return path, RunWriter(path, about, first_step)
    except ValueError as err:  # it holds another run, is in use, or is damaged
        problem = err
    fresh = _next_sibling(wanted)
    writer = RunWriter(fresh, about | {FAMILY: wanted.name}, first_step)
    writer.event(first_step, "directory", f"this run goes on in {fresh}, since {problem}")
    with suppress(OSError):
        note = {"step": _last_step(path), "kind": "directory", "message": f"another run was started here, in {fresh}"}
        append_line(path / EVENTS, note)
    logger.warning("%s; this run goes on in %s", problem, fresh)
    return fresh, writer


def _next_sibling(wanted: Path) -> Path:
    """Make and return the first of ``x-2``, ``x-3``, ... that does not exist; no other process can get the same."""
    for number in count(2):
        path = wanted.with_name(f"{wanted.name}-{number}")
        with suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError


def _last_of_family(wanted: Path, step: int) -> Path:
    """Return the last directory of a family in which a run came as far as a step; if there is none, the last one."""
    family = [wanted, *sorted(filter(partial(_is_sibling, wanted), wanted.parent.glob("*")), key=_number)]
    return next((path for path in reversed(family) if _last_step(path) >= step), family[-1])


def _is_sibling(wanted: Path, path: Path) -> bool:
    """Return whether a Monitor made this directory because another run had the wanted one."""
    if not re.fullmatch(rf"{re.escape(wanted.name)}-\d+", path.name):
        return False
    with suppress(OSError, ValueError):
        about = json.loads((path / ABOUT).read_text())
        return isinstance(about, dict) and about.get(FAMILY) == wanted.name
    return False


def _number(sibling: Path) -> int:
    return int(sibling.name.rpartition("-")[2])


def _last_step(run_dir: Path) -> int:
    """Return the step of the last capture in a directory, 0 if there is none."""
    names = (path.name for path in (run_dir / CAPTURES).glob("step-*.npz"))
    return max((capture_step(name) for name in names if re.fullmatch(r"step-\d+\.npz", name)), default=0)
