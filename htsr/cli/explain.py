"""``htsr explain``: what a number means, in five sentences."""

import argparse
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from htsr.errors import InputError

if TYPE_CHECKING:
    from htsr.cli.arguments import Commands


# What the printed table calls two columns.
IN_PRINT = {"tail": "num_pl_spikes", "spikes": "num_spikes"}


def add_parser(commands: "Commands") -> argparse.ArgumentParser:
    """Add the command and return its parser."""
    parser = commands.add_parser("explain", help="say what a number means, what is good, and when not to trust it")
    names = parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a column, a phase, or a kind of finding or of change; without one, list what there is",
    )
    names.completer = _known  # type: ignore[attr-defined]  # argcomplete asks for it
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from htsr.audit.columns import BY_NAME
    from htsr.audit.explanations import EXPLANATIONS

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    if not options.names:
        rest = [name for name in BY_NAME if name not in EXPLANATIONS]
        print(_wrapped(f"In five sentences: {', '.join(EXPLANATIONS)}.", width))
        print(_wrapped(f"In a line: {', '.join(rest)}.", width))
        return 0
    refused = None
    for name in options.names:
        try:
            print(_wrapped(f"{name}: {explained(name)}", width), end="\n\n" if name != options.names[-1] else "\n")
        except InputError as err:
            refused = err  # the other names are answered first
    if refused is not None:
        raise refused
    return 0


def _known(**_: object) -> list[str]:
    """Return every name that can be explained."""
    from htsr.audit.columns import BY_NAME
    from htsr.audit.explanations import EXPLANATIONS
    from htsr.audit.phases import MEANINGS
    from htsr.audit.step_columns import VERDICTS
    from htsr.comparison.meanings import CHANGE_MEANINGS, KIND_MEANINGS

    return list(dict.fromkeys([*EXPLANATIONS, *MEANINGS, *KIND_MEANINGS, *CHANGE_MEANINGS, *VERDICTS, *BY_NAME]))


def explained(name: str) -> str:
    """Return what there is to say of a name."""
    from htsr.audit.step_columns import VERDICTS
    from htsr.comparison.meanings import CHANGE_MEANINGS, KIND_MEANINGS

    said = [text] if (text := _of_audits(name)) else []
    if name in KIND_MEANINGS:
        said.append(f"As the kind of a comparison: {KIND_MEANINGS[name]}")
    if name in CHANGE_MEANINGS:
        said.append(f"As the change of a layer: {CHANGE_MEANINGS[name]}")
    if name in VERDICTS:
        said.append(f"As the verdict on an optimizer's step: {VERDICTS[name]}")
    if said:
        return " ".join(said)
    from htsr.audit.table import did_you_mean

    hint = did_you_mean(name, _known())
    raise InputError(
        f"{name}: expected a column, a phase, a kind of finding or of change; {hint or 'htsr explain lists them'}"
    )


def _of_audits(name: str) -> str:
    """Return what a column, a kind of finding or a phase means; an empty text for other names."""
    from htsr.audit.columns import BY_NAME
    from htsr.audit.explanations import EXPLANATIONS
    from htsr.audit.phases import MEANINGS

    name = IN_PRINT.get(name, name)
    if name in EXPLANATIONS:
        return EXPLANATIONS[name]
    if name in MEANINGS:
        return f"{MEANINGS[name]} It is one of the phases: htsr explain phase."
    if name in BY_NAME:
        column = BY_NAME[name]
        unit = f" Unit: {column.unit}." if column.unit else ""
        option = f" Only {column.needs}= computes it." if column.needs not in ("", "bulk") else ""
        return f"{column.meaning}.{unit}{option}"
    return ""


def _wrapped(text: str, width: int) -> str:
    """Return a text in lines."""
    return textwrap.fill(text, max(40, min(width, 100)), break_long_words=False, break_on_hyphens=False)
