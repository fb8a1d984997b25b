"""Audits one input after the other, and says what became of each; run in a process of its own by ``test_mutations``."""

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path

# Every byte of the file that no input may reach is part of this number; a row that holds it was read from there.
PLANTED = 1.2345678e30


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import warnings

    warnings.simplefilter("ignore")
    import htsr

    htsr.analyze(
        {"w": __import__("torch").randn(40, 30)}, progress=False
    )  # what is imported and drawn once counts for no input
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(outcome(htsr, json.loads(line))), file=answers, flush=True)


def outcome(htsr, job: dict) -> dict:
    """What an input comes to: ``kind`` is rows, refused or failed."""
    forget_peak()
    start = memory()
    try:
        analysis = htsr.analyze(job["source"], base=job.get("base"), progress=False)
    except (htsr.InputError, FileNotFoundError) as err:
        result = {"kind": "refused", "said": str(err)}
        if len(str(err)) < 20 or len(str(err)) > 5000:
            result = {"kind": "failed", "said": f"a message of {len(str(err))} characters"}
    except BaseException as err:
        place = "".join(traceback.format_exception(err)[-4:])
        result = {"kind": "failed", "said": place}
    else:
        result = {"kind": "rows", "said": judged(analysis, job["values_are_true"])}
        if result["said"]:
            result["kind"] = "failed"
    return result | {"grew": peak() - start}


def judged(analysis, values_are_true: bool) -> str:
    """What is wrong with an analysis; empty if nothing is."""
    details, skipped = analysis.details, analysis.skipped
    if not len(details) + len(skipped):
        return "an analysis of nothing"
    if (skipped["reason"] == "").any() or (details.loc[details["status"] == "failed", "reason"] == "").any():
        return "no row and no reason"
    norms = details["spectral_norm"].dropna()
    if values_are_true and (norms > PLANTED / 10).any():
        return "numbers from outside the checkpoint"
    repr(analysis), analysis.summary(), analysis.findings
    return ""


def memory() -> int:
    return status("VmRSS")


def peak() -> int:
    return status("VmHWM")


def status(field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
