"""User CPU time of importing htsr and of asking it for help, beside that of importing torch.

Run ``python benchmarks/import_time.py``. Each command runs in fresh interpreters, in turn with the others, and the best of the
runs counts: user CPU time, unlike wall time, does not include waiting for other programs.
"""

import argparse
import os
import subprocess
import sys

from provenance import table, write

COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import htsr": ["-c", "import htsr"],
    "from htsr.optim import HTMuon": ["-c", "from htsr.optim import HTMuon"],
    "htsr --help": ["-m", "htsr", "--help"],
    "htsr audit --help": ["-m", "htsr", "audit", "--help"],
    "htsr --version": ["-m", "htsr", "--version"],
    "import htsr; htsr.analyze": ["-c", "import htsr; htsr.analyze"],
}


def user_seconds(command: list[str]) -> float:
    """Return the user CPU time of a Python command."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run of each command, printed only")
    quick = parser.parse_args().quick
    runs = 1 if quick else 5
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, command in COMMANDS.items():
            seconds[name].append(user_seconds(command))
    best = {name: min(times) for name, times in seconds.items()}
    rows: list[list[object]] = [[name, time, time / best["import torch"]] for name, time in best.items()]
    lines = table(["command", f"user CPU seconds, best of {runs}", "times import torch"], rows)
    if quick:
        print("\n".join(lines))
    else:
        write("import_time.md", "\n".join(lines))


if __name__ == "__main__":
    main()
