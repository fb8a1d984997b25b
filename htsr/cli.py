"""The command line: ``htsr audit``, ``htsr compare``, ``htsr report``, ``htsr watch`` and ``htsr demo``.

Exit status: 0 fine, 1 a gate (``--fail-on``) failed, 2 bad input (one line on stderr), 130 interrupted.
"""

import argparse
import io
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args

import pandas as pd

from htsr._version import __version__
from htsr.audit.analysis import Analysis, analyze
from htsr.audit.columns import BY_NAME, COMPARISON_COLUMNS
from htsr.audit.conditions import Condition
from htsr.audit.table import details_frame
from htsr.comparison.compare import Comparison, compare
from htsr.errors import InputError
from htsr.report import FORMATS, check_output
from htsr.report.save import analysis_json, comparison_json
from htsr.tails.resampling import MIN_RESAMPLES
from htsr.weights.convolutions import Conv

Result = TypeVar("Result", Analysis, Comparison)

# Findings on a terminal; all of them are in every file that is written.
MAX_FINDINGS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the command's name; ``sys.argv`` by default.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may hold what the terminal's encoding does not
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        if sys.stdout is not None:  # it may have been closed: htsr ... >&-
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (InputError, OSError) as err:
        print(f"htsr: {_one_line(err)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "--resume goes on with the audit" if getattr(options, "output", None) else "nothing was written"
        print(f"\nhtsr: interrupted; {kept}", file=sys.stderr)
        return 130
    for verdict in options.verdicts:
        if doubts := verdict.doubts():
            print(f"htsr: {doubts}", file=sys.stderr)
        if verdict.holds:
            print(f"htsr: failed on {verdict}", file=sys.stderr)
    return int(any(verdict.holds for verdict in options.verdicts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="htsr", description="See and steer the weight spectra of neural networks.")
    parser.add_argument("--version", action="version", version=f"htsr {__version__}")
    parser.set_defaults(verdicts=())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    audit = commands.add_parser("audit", help="analyse every weight matrix of a checkpoint")
    audit.add_argument("path", help="a checkpoint file (.safetensors, .pt, .gguf, ...), a directory, or a URL")
    audit.add_argument(
        "--base", metavar="PATH", help="the model that an adapter was trained on, where PATH is a PEFT directory"
    )
    _add_common(audit, "alpha > 8")
    audit.add_argument(
        "--min-eigenvalues",
        type=_whole_number,
        default=0,
        metavar="N",
        help="leave out matrices with fewer eigenvalues",
    )
    audit.add_argument(
        "--conv", choices=get_args(Conv), default="pool", help="how convolutions are decomposed (default: pool)"
    )
    audit.add_argument("--per-head", action="store_true", help="cut attention weights into their heads")
    audit.add_argument(
        "--convention", choices=["htsr", "weightwatcher"], default="htsr", help="scaling and cut-offs (default: htsr)"
    )
    audit.add_argument(
        "--bootstrap",
        type=_resamples,
        default=0,
        metavar="N",
        help=f"resamples for intervals and goodness of fit: none, the default, or {MIN_RESAMPLES} and more",
    )
    audit.add_argument("--alternatives", action="store_true", help="compare each tail with other distributions")
    audit.add_argument("--randomize", action="store_true", help="shuffle each matrix and count correlation traps")
    audit.add_argument("--vectors", action="store_true", help="measure how localised the leading singular vectors are")
    audit.add_argument("--seed", type=_whole_number, default=0, help="seed of resamples and shuffles (default: 0)")
    audit.add_argument(
        "--n-jobs", type=_jobs, metavar="N", help="layers analysed at a time; -1 for every core (default: 1)"
    )
    audit.add_argument("--device", metavar="DEVICE", help="where to compute, cuda for instance (default: the CPU)")
    audit.add_argument(
        "--resume", action="store_true", help="go on with an audit to the same output that was interrupted"
    )
    audit.set_defaults(run=_audit)

    compared = commands.add_parser("compare", help="compare two checkpoints layer by layer")
    compared.add_argument("a", metavar="A", help="the earlier or base checkpoint, as for audit")
    compared.add_argument("b", metavar="B", help="the later one")
    compared.add_argument(
        "--rank",
        type=partial(_whole_number, least=1),
        default=10,
        help="dimension of the leading subspaces whose angles are taken (default: 10)",
    )
    _add_common(compared, "relative_change > 0.1")
    compared.set_defaults(run=_compare)

    report = commands.add_parser("report", help="write the report of a training run that a Monitor watched")
    report.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run's directory; it may still grow")
    report.add_argument(
        "-o",
        "--output",
        action="append",
        type=Path,
        metavar="FILE",
        help=f"may repeat; the suffix picks the format ({', '.join(FORMATS)}; default: RUN_DIR/report.html)",
    )
    report.set_defaults(run=_report)

    watch = commands.add_parser("watch", help="follow a training run in the terminal until it is closed")
    watch.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run's directory")
    watch.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="between looks (default: 2)")
    watch.add_argument("--once", action="store_true", help="show the last capture and end")
    watch.set_defaults(run=_watch)

    demo = commands.add_parser("demo", help="audit a trained Transformer, then train a small GPT with HTMuon")
    demo.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("htsr-demo"),
        metavar="DIR",
        help="where the pages go (default: htsr-demo)",
    )
    demo.add_argument(
        "--steps", type=partial(_whole_number, least=1), default=300, help="optimizer steps of each run (default: 300)"
    )
    demo.set_defaults(run=_demo)
    return parser


def _add_common(command: argparse.ArgumentParser, example: str) -> None:
    """What every command has that makes a table of layers."""
    command.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help=f"write the result; may repeat; the suffix picks the format ({', '.join(FORMATS)})",
    )
    command.add_argument("--json", action="store_true", help="write JSON to stdout; what is for people goes to stderr")
    command.add_argument(
        "--layers", action="append", metavar="GLOB", help="only these names, globs or layer types; may repeat"
    )
    command.add_argument("--skip", action="append", metavar="GLOB", help="leave these out; may repeat")
    command.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="CONDITION",
        help=f'exit with status 1 and name the layers where this holds, e.g. "{example}"; may repeat',
    )


def _audit(options: argparse.Namespace) -> None:
    conditions = _conditions(options, details_frame([]))
    journal = _journal(options)
    done = 0 if journal is None else len(list(journal.glob("*.npz")))
    analysis = analyze(
        options.path,
        layers=options.layers,
        skip=options.skip,
        min_eigenvalues=options.min_eigenvalues,
        conv=options.conv,
        per_head=options.per_head,
        base=options.base,
        convention=options.convention,
        bootstrap=options.bootstrap,
        alternatives=options.alternatives,
        randomize=options.randomize,
        vectors=options.vectors,
        n_jobs=options.n_jobs,
        device=options.device,
        journal=journal,
        seed=options.seed,
    )
    if done:
        print(f"{done} of {len(analysis)} layers were done", file=sys.stderr)
    if not len(analysis):
        reasons = "; ".join(
            f"{count} x {reason}" for reason, count in analysis.skipped["reason"].value_counts().items()
        )
        raise InputError(f"{options.path}: none of its {len(analysis.skipped)} tensors is a weight matrix ({reasons})")
    found = analysis.findings
    lines = [f"{name}: {finding}" for name, finding in found.head(MAX_FINDINGS).itertuples(index=False)]
    if len(found) > MAX_FINDINGS:
        lines.append(f"{len(found) - MAX_FINDINGS} more findings: write them with -o audit.html")
    _deliver(options, conditions, analysis, "\n".join([repr(analysis), *lines]), analysis_json)
    if journal is not None:
        shutil.rmtree(journal)


def _journal(options: argparse.Namespace) -> Path | None:
    """Where an audit keeps what it has done: beside its first output, until that is written."""
    if not options.output:
        if options.resume:
            raise InputError("--resume needs an output: expected the -o FILE of the audit that was interrupted")
        return None
    first: Path = options.output[0]
    journal = first.with_name(f"{first.name}.partial")
    if journal.exists() and not options.resume:
        shutil.rmtree(journal)
    return journal


def _compare(options: argparse.Namespace) -> None:
    conditions = _conditions(options, details_frame([], COMPARISON_COLUMNS))
    comparison = compare(options.a, options.b, layers=options.layers, skip=options.skip, rank=options.rank)
    _deliver(options, conditions, comparison, repr(comparison), comparison_json)


def _conditions(options: argparse.Namespace, table: pd.DataFrame) -> list[Condition]:
    """Check, before the work, what would only fail after it: the outputs, and the gates against an empty table."""
    for path in options.output:
        check_output(path)
    conditions = [Condition(text) for text in options.fail_on]
    for condition in conditions:
        condition.check_columns(table)
        for column in condition.columns:
            needed = BY_NAME[column].needs
            if needed and not getattr(options, needed, True):
                raise InputError(f"{condition.text!r}: only --{needed} computes {column}; add it")
    return conditions


def _deliver(
    options: argparse.Namespace,
    conditions: list[Condition],
    result: Result,
    text: str,
    document: Callable[[Result], str],
) -> None:
    """Print a result for people as ``text``, write it where it was asked for, and keep what the gates say of it for the end."""
    options.verdicts = [condition.check(result.details) for condition in conditions]
    people = sys.stderr if options.json else sys.stdout
    print(text, file=people)
    if options.json:
        print(document(result))
    for path in options.output:
        print(f"wrote {result.save(path)}", file=people)


def _report(options: argparse.Namespace) -> None:
    from htsr.training import History

    history = History(options.run_dir)
    outputs = options.output or [options.run_dir / "report.html"]
    for path in outputs:
        check_output(path)
    print(history)
    for path in outputs:
        print(f"wrote {history.save(path)}")


def _watch(options: argparse.Namespace) -> None:
    from htsr.training import History
    from htsr.training.live import watch

    terminal = sys.stdout.isatty()
    watch(
        History(options.run_dir),
        interval=options.interval,
        once=options.once,
        say=lambda text: print(text, flush=True),
        clear=terminal and not options.once,
        rows=max(10, shutil.get_terminal_size().lines - 10) if terminal else None,
    )


def _demo(options: argparse.Namespace) -> None:
    from htsr.demo import run_demo

    run_demo(options.output, steps=options.steps, say=lambda line: print(line, flush=True))


def _whole_number(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {text!r}")
    return int(text)


def _jobs(text: str) -> int:
    if text == "-1":
        return -1
    return _whole_number(text, least=1)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return seconds


def _resamples(text: str) -> int:
    return _whole_number(text, least=0 if text == "0" else MIN_RESAMPLES)


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split())
