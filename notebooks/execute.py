"""Runs the notebooks, and keeps their outputs or compares them with the kept ones.

python notebooks/execute.py                    # runs all and keeps what they show
python notebooks/execute.py --check            # runs all, changes nothing, and tells what is no longer true
python notebooks/execute.py 04_a_spectrum_is_born.ipynb
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
TIMEOUT = 900  # seconds of one cell
# By how much a number may differ from the kept one, as a share of it; a cell that trains says more in its metadata. Other
# processors add in another order.
TOLERANCE = 0.01
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
PACKAGES = re.compile(r"[^\s<>'\"]*/site-packages/")  # where this machine keeps its packages


def notebooks() -> list[Path]:
    """Return the paths of all notebooks, in the order of their numbers."""
    return sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path) -> NotebookNode:
    """Return the notebook at a path with the outputs that it has here and now."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",  # so that sums are added in the same order everywhere, whatever the number of cores
            "PYTHONWARNINGS": "ignore:IProgress not found",  # of tqdm, where no widgets are installed
            "PYTHONPATH": os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")])),
        }
        client = NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": folder}})
        client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        for output in cell.get("outputs", []):
            _forget_the_machine(output)
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def _forget_the_machine(output: NotebookNode) -> None:
    """Take the paths of this machine's packages out of an output's texts."""
    data = output.get("data", output)
    for key in ("text", "text/plain", "text/html"):
        if key in data:
            data[key] = PACKAGES.sub("", data[key])


def differences(kept: NotebookNode, fresh: NotebookNode) -> list[str]:
    """Return a sentence for each output that is not what the notebook keeps."""
    found = []
    for number, (old, new) in enumerate(zip_longest(kept.cells, fresh.cells), 1):
        if old is None or new is None or old.source != new.source:
            return [f"cell {number} has another source"]
        if old.cell_type == "code":
            tolerance = old.metadata.get("tolerance", TOLERANCE)
            found += [f"cell {number}: {text}" for text in _differences_of_cell(old, new, tolerance)]
    return found


def _differences_of_cell(old: NotebookNode, new: NotebookNode, tolerance: float) -> Iterator[str]:
    """Yield what differs between the outputs of a cell: kinds, pictures, words, and numbers beyond the tolerance."""
    was, now = [_kind(output) for output in old.outputs], [_kind(output) for output in new.outputs]
    if was != now:
        yield f"the outputs were {was} and are {now}"
        return
    for before, after in zip(old.outputs, new.outputs, strict=True):
        if "image/png" not in before.get("data", {}):
            yield from _differences_of_text(_text(before), _text(after), tolerance)


def _kind(output: NotebookNode) -> str:
    """Return what sort of output it is: its type, and picture or text."""
    return f"{output.output_type} picture" if "image/png" in output.get("data", {}) else output.output_type


def _text(output: NotebookNode) -> str:
    """Return the plain text of an output."""
    return output.get("data", {}).get("text/plain", output.get("text", ""))


def _differences_of_text(old: str, new: str, tolerance: float) -> Iterator[str]:
    """Yield the lines whose words differ, or whose numbers differ by more than the tolerance and one last digit."""
    for before, after in zip_longest(old.splitlines(), new.splitlines(), fillvalue=""):
        words_before, words_after = (" ".join(NUMBER.sub("#", line).split()) for line in (before, after))
        pairs = zip(NUMBER.findall(before), NUMBER.findall(after), strict=False)
        if words_before != words_after or not all(_close(a, b, tolerance) for a, b in pairs):
            yield f"{before.strip()!r} became {after.strip()!r}"


def _close(a: str, b: str, tolerance: float) -> bool:
    """Return whether two printed numbers agree, up to the tolerance and one unit of the last digit."""
    last_digit = 10.0 ** -len(a.partition("e")[0].partition(".")[2])
    scale = 10.0 ** int(a.partition("e")[2] or 0)
    return abs(float(a) - float(b)) <= tolerance * max(abs(float(a)), abs(float(b))) + 1.001 * last_digit * scale


def main() -> int:
    """Run the notebooks that the command line names, or all; return 1 if kept outputs are no longer true."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of notebooks; all without one")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if an output is not the kept one"
    )
    arguments = parser.parse_args()
    changed = False
    for path in [FOLDER / name for name in arguments.names] or notebooks():
        start = time.perf_counter()
        fresh = executed(path)
        found = differences(nbformat.read(path, as_version=4), fresh)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", *found, sep="\n  ")
        changed |= bool(found)
        if not arguments.check:
            nbformat.write(fresh, path)
    return int(arguments.check and changed)


if __name__ == "__main__":
    sys.exit(main())
