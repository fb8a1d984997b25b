"""``htsr report``: write the report of a training run, or of a result that was kept."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from htsr.choices import FORMATS, RESULT_FORMATS
from htsr.cli import terminal
from htsr.cli.arguments import add_output
from htsr.errors import InputError
from htsr.text import visible

if TYPE_CHECKING:
    from htsr.audit.analysis import Analysis
    from htsr.cli.arguments import Commands
    from htsr.comparison.compare import Comparison
    from htsr.training import History


def add_parser(commands: "Commands") -> argparse.ArgumentParser:
    """Add the command and return its parser."""
    parser = commands.add_parser(
        "report", help="write the report of a training run that a Monitor watched, or of a saved result"
    )
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="directory of a run, which may still grow, or a .htsr file"
    )
    formats = ", ".join(RESULT_FORMATS)
    add_output(
        parser,
        f"may repeat; the suffix picks the format ({formats}; a run has no .htsr and .md; default: report.html in the run's "
        "directory, or .html beside the .htsr file)",
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from htsr.report import check_output
    from htsr.training import History as Run

    path: Path = options.path
    kept = path.suffix.lower() == ".htsr" and not path.is_dir()
    outputs = options.output or [path.with_suffix(".html") if kept else path / "report.html"]
    result: Analysis | Comparison | History
    if kept:
        from htsr.comparison.saved import read_result

        result = read_result(path)
    elif path.is_file():
        raise InputError(
            f"{path}: expected the directory of a run or a .htsr file, got another file; htsr audit analyses a checkpoint, and "
            "writes its report with -o report.html"
        )
    else:
        result = Run(path)
    for output in outputs:
        check_output(output, RESULT_FORMATS if kept else FORMATS)
    print(result if isinstance(result, Run) else terminal.text(result, sys.stdout))
    for output in outputs:
        print(f"wrote {visible(result.save(output))}")
    return 0
