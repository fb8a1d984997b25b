"""The command line: ``htsr audit``, ``htsr report``, ``htsr watch`` and ``htsr demo``.

Exit status: 0 fine, 2 bad input (one line on stderr), 130 interrupted.
"""

import argparse
import io
import math
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from htsr._version import __version__
from htsr.analysis import analyze
from htsr.errors import InputError
from htsr.report import FORMATS, check_output
from htsr.report.save import analysis_json
from htsr.tails.resampling import MIN_RESAMPLES

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
        print("\nhtsr: interrupted; what was written stays readable", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="htsr", description="See and steer the weight spectra of neural networks.")
    parser.add_argument("--version", action="version", version=f"htsr {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    audit = commands.add_parser("audit", help="analyse every weight matrix of a checkpoint")
    audit.add_argument("path", type=Path, help="a .safetensors file, or a directory of them")
    audit.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help=f"write the result; may repeat; the suffix picks the format ({', '.join(FORMATS)})",
    )
    audit.add_argument("--json", action="store_true", help="write JSON to stdout; what is for people goes to stderr")
    audit.add_argument(
        "--layers", action="append", metavar="GLOB", help="only these names, globs or layer types; may repeat"
    )
    audit.add_argument("--skip", action="append", metavar="GLOB", help="leave these out; may repeat")
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
    audit.set_defaults(run=_audit)

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


def _audit(options: argparse.Namespace) -> None:
    for path in options.output:
        check_output(path)
    analysis = analyze(
        options.path,
        layers=options.layers,
        skip=options.skip,
        convention=options.convention,
        bootstrap=options.bootstrap,
        alternatives=options.alternatives,
        randomize=options.randomize,
        vectors=options.vectors,
        seed=options.seed,
    )
    if not len(analysis):
        reasons = "; ".join(
            f"{count} x {reason}" for reason, count in analysis.skipped["reason"].value_counts().items()
        )
        raise InputError(f"{options.path}: none of its {len(analysis.skipped)} tensors is a weight matrix ({reasons})")
    people = sys.stderr if options.json else sys.stdout
    print(analysis, file=people)
    found = analysis.findings
    for name, finding in found.head(MAX_FINDINGS).itertuples(index=False):
        print(f"{name}: {finding}", file=people)
    if len(found) > MAX_FINDINGS:
        print(f"{len(found) - MAX_FINDINGS} more findings: write them with -o audit.html", file=people)
    if options.json:
        print(analysis_json(analysis))
    for path in options.output:
        print(f"wrote {analysis.save(path)}", file=people)


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
