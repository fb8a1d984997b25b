"""``htsr report``: write the page of training runs, or of a result that was kept."""

import argparse
import sys
from collections.abc import Sequence
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
    from htsr.training import History, Runs


def add_parser(commands: "Commands") -> argparse.ArgumentParser:
    """Add the command and return its parser."""
    parser = commands.add_parser(
        "report", help="write the page of training runs that a Monitor watched, or of a saved result"
    )
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="directory of a run, which may still grow; several of them, or a directory that holds them; or a .htsr file",
    )
    formats = ", ".join(RESULT_FORMATS)
    add_output(
        parser,
        f"may repeat; the suffix picks the format ({formats}; runs have no .htsr and .md; default: report.html in the directory, "
        "or .html beside the .htsr file)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from htsr.report import check_output
    from htsr.training import History, Runs

    first: Path = options.paths[0]
    kept = is_result(first)
    outputs = options.output or [first.with_suffix(".html") if kept else _page_of(options.paths)]
    if options.open and not any(output.suffix.lower() == ".html" for output in outputs):
        raise InputError(f"--open needs a page: add -o {first.name}.html")
    result = opened(options.paths)
    for output in outputs:
        check_output(output, RESULT_FORMATS if kept else FORMATS)
    print(result if isinstance(result, History | Runs) else terminal.text(result, sys.stdout))
    for output in outputs:
        print(f"wrote {visible(result.save(output))}")
    if options.open:
        open_in_browser(next(output for output in outputs if output.suffix.lower() == ".html"))
    return 0


def is_result(path: Path) -> bool:
    """Return whether a path names a result that was kept."""
    return path.suffix.lower() == ".htsr" and not path.is_dir()


def opened(paths: Sequence[Path]) -> "Analysis | Comparison | History | Runs":
    """Return the result or the runs that the paths name."""
    from htsr.training import History

    if len(paths) == 1 and is_result(paths[0]):
        from htsr.comparison.saved import read_result

        return read_result(paths[0])
    for path in paths:
        if path.is_file():
            only = " alone" if is_result(path) else ""
            raise InputError(
                f"{path}: expected the directory of a run, or a .htsr file{only}, got "
                + (
                    "several paths"
                    if only
                    else "another file; htsr audit analyses a checkpoint, and writes its page with -o report.html"
                )
            )
    found = {path: History.load_many(path) for path in paths}
    if len(paths) == 1:
        (runs,) = found.values()
        return next(iter(runs.values())) if len(runs) == 1 else runs
    return History.load_many([history.run_dir for runs in found.values() for history in runs.values()])


def open_in_browser(page: Path) -> None:
    """Open a page in the user's browser, or say where it lies."""
    import webbrowser

    if not webbrowser.open(page.absolute().as_uri()):
        print(f"no browser found: open {visible(page)} yourself", file=sys.stderr)


def _page_of(paths: Sequence[Path]) -> Path:
    """Return where the page goes by default: into the directory, or into the current one for several."""
    return paths[0] / "report.html" if len(paths) == 1 else Path("report.html")
