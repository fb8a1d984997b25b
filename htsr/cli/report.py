"""``htsr report``: write the report of a training run, or of a result that was kept."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from htsr.choices import FORMATS, RESULT_FORMATS
from htsr.cli.arguments import add_output
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
    formats = ", ".join(FORMATS)
    add_output(
        parser,
        f"may repeat; the suffix picks the format ({formats}; default: report.html in the run's directory, or .html beside the "
        ".htsr file)",
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from htsr.report import check_output

    path: Path = options.path
    kept = path.suffix.lower() == ".htsr" and not path.is_dir()
    outputs = options.output or [path.with_suffix(".html") if kept else path / "report.html"]
    result: Analysis | Comparison | History
    if kept:
        from htsr.comparison.saved import read_result

        result = read_result(path)
    else:
        from htsr.training import History as Run

        result = Run(path)
    for output in outputs:
        check_output(output, RESULT_FORMATS if kept else FORMATS)
    print(result)
    for output in outputs:
        print(f"wrote {visible(result.save(output))}")
    return 0
