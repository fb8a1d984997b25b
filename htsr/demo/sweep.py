"""Train the same small GPT on the same bytes once for each power."""

import math
import shutil
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from htsr.audit.progress import tqdm
from htsr.demo.corpus import standard_library
from htsr.demo.gpt import GPT, tokens
from htsr.labels import POWER, setting_text
from htsr.optim import HTMuon, parameter_groups
from htsr.training import History, Monitor

# The learning rate of each p: the best of a grid whose rates lie a factor of 2 apart, tuned for this GPT at 300 steps with three
# seeds (benchmarks/studies/language.py, set-up "300 steps").
LEARNING_RATES = {-0.125: 0.04, 0.0: 0.04, 0.125: 0.02, 0.5: 0.01}
POWERS = tuple(LEARNING_RATES)
CONTEXT, BATCH = 128, 16
CAPTURES = 8
HELD_OUT_BATCHES = 8


def run_directory(output: Path, power: float) -> Path:
    """Return the directory of the run at a power."""
    return output / "runs" / f"p-{power:g}"


def train(power: float, steps: int, run_dir: Path) -> History:
    """Train with HTMuon's p at ``power`` and return the run that a Monitor wrote to ``run_dir``, in place of an earlier one."""
    if (run_dir / "run.json").exists():
        shutil.rmtree(run_dir)
    train_text, held_out_text = map(tokens, standard_library())
    torch.manual_seed(0)
    model = GPT(CONTEXT)
    optimizer = HTMuon(parameter_groups(model), lr=LEARNING_RATES[power], power=power)
    # The factor falls along a cosine from 1 to 0.1, as in the paper's scripts; matrices and AdamW's groups keep their ratio.
    schedule = LambdaLR(optimizer, lambda step: 0.55 + 0.45 * math.cos(math.pi * step / steps))
    draw = torch.Generator().manual_seed(1)
    held_out = [_batch(held_out_text, torch.Generator().manual_seed(2 + i)) for i in range(HELD_OUT_BATCHES)]

    every = max(1, steps // CAPTURES)
    with Monitor(model, optimizer, every=every, run_dir=run_dir, layers="blocks.*") as monitor:
        monitor.record(held_out_loss=_mean_loss(model, held_out))
        bar = tqdm(range(1, steps + 1), desc=f"   train {setting_text(POWER, power)}", unit="step", disable=None)
        for step in bar:
            loss = model.loss(_batch(train_text, draw))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            monitor.record(train_loss=loss.item())
            bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
            if step % every == 0 or step == steps:
                monitor.record(held_out_loss=_mean_loss(model, held_out))
    return monitor.history


def _batch(text: Tensor, draw: torch.Generator) -> Tensor:
    """Return random windows of the text, shape (BATCH, CONTEXT + 1)."""
    starts = torch.randint(len(text) - CONTEXT, (BATCH, 1), generator=draw)
    return text[starts + torch.arange(CONTEXT + 1)]


@torch.no_grad()
def _mean_loss(model: GPT, batches: list[Tensor]) -> float:
    """Return the mean loss over the batches."""
    return sum(model.loss(batch).item() for batch in batches) / len(batches)
