"""Does p pay where a network trained by Adam is tuned on few labels? MiniLM learns which package a docstring comes from.

    python benchmarks/studies/finetuning.py            # goes on where it was stopped
    python benchmarks/studies/finetuning.py --report   # tables and pictures of the runs that are there

The texts are the first paragraphs of docstrings in ten packages of Python's standard library, without the packages' names: a
few of each package to train on, others to tune on, and others to test on, drawn anew for each seed. The last two layers of the
encoder are trained; their matrices get HTMuon's update with p and weight decay 0, AdamW trains the new output layer and the rest
at 0.001. Each arm has a learning rate of its own, tuned on other seeds. The figure is the error on the test texts, in percent.
"""

import ast
import functools
import random
import re
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from report import carry_out
from study import Cell, Study, arguments, machine, rates
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from training import BASELINE, cosine, optimizers, spectra

from htsr.demo.run import trained_transformer

METRIC, TUNED_BY = "test_error", "validation_error"
PACKAGES = (
    "asyncio",
    "email",
    "http",
    "idlelib",
    "importlib",
    "logging",
    "multiprocessing",
    "tkinter",
    "unittest",
    "xml",
)
SHORTEST, LONGEST, TOKENS, BATCH = 20, 300, 48, 16
TRAINED = 2  # of the six layers
ARMS = {
    "p = 0": {"power": 0.0, "weight_decay": 0.0},
    "p = 1/8": {"power": 0.125, "weight_decay": 0.0, "lrs": (0.004, 0.008, 0.016)},
    "AdamW": {"optimizer": "adamw", "weight_decay": 0.0, "lrs": (0.0004, 0.0008, 0.0016)},
    "p = -1/8": {"power": -0.125, "weight_decay": 0.0},
    "p = 1/4": {"power": 0.25, "weight_decay": 0.0, "lrs": (0.004, 0.008, 0.016)},
}
CELLS = [
    Cell("16 texts a package", ARMS, rates(0.002), BASELINE,
         {"texts": 16, "validation": 15, "test": 30, "steps": 40}, also=("AdamW",)),
]  # fmt: skip
QUICK = Cell(
    "quick",
    {name: ARMS[name] for name in (BASELINE, "AdamW")},
    (0.001, 0.002, 0.004),
    BASELINE,
    {"texts": 2, "validation": 2, "test": 2, "steps": 1},
)

Texts = list[tuple[str, int]]


@functools.cache
def texts() -> list[list[str]]:
    """Return the texts of each package, sorted, without repetitions."""
    library = Path(sysconfig.get_path("stdlib"))
    return [sorted(set(_texts_of(library / package))) for package in PACKAGES]


def _texts_of(package: Path) -> Iterator[str]:
    """Yield the first paragraph of each docstring of functions and classes, without the name of the package."""
    for path in sorted(package.rglob("*.py")):
        if not {"test", "tests", "idle_test"} & set(path.parts):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                    if SHORTEST <= len(paragraph) <= LONGEST:
                        yield re.sub(re.escape(package.name.removesuffix("lib")), "it", paragraph, flags=re.IGNORECASE)


def split(seed: int, settings: Mapping[str, Any]) -> tuple[Texts, Texts, Texts]:
    """Return texts to train on, to tune on and to test on, with the number of their package."""
    draw = random.Random(seed)
    count, validation, test = (settings[name] for name in ("texts", "validation", "test"))
    parts: tuple[Texts, Texts, Texts] = ([], [], [])
    for label, found in enumerate(texts()):
        chosen = draw.sample(found, count + validation + test)
        for part, some in zip(parts, (chosen[:count], chosen[count:-test], chosen[-test:]), strict=True):
            part += [(text, label) for text in some]
    return parts


class Classifier(nn.Module):
    """An encoder, the mean of its outputs over the tokens, and a linear layer."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, len(PACKAGES))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits."""
        outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(outputs.dtype)
        return self.head((outputs * mask).sum(1) / mask.sum(1))


def run(settings: Mapping[str, Any], lr: float, seeds: Sequence[int], device: str) -> list[dict[str, Any]]:
    """Tune the encoder for each seed and return its figures."""
    return [_run_one(settings, lr, seed, device) for seed in seeds]


def _run_one(settings: Mapping[str, Any], lr: float, seed: int, device: str) -> dict[str, Any]:
    from transformers import AutoModel, AutoTokenizer

    start, steps = time.perf_counter(), settings["steps"]
    folder = trained_transformer().parent
    tokenizer = AutoTokenizer.from_pretrained(folder)
    train, validation, test = split(seed, settings)

    def batch(rows: Texts) -> tuple[dict[str, Tensor], Tensor]:
        found = tokenizer(
            [text for text, _ in rows], padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        return {key: found[key].to(device) for key in ("input_ids", "attention_mask")}, torch.tensor(
            [y for _, y in rows]
        ).to(device)

    torch.manual_seed(seed)
    model = Classifier(AutoModel.from_pretrained(folder)).to(device).train()
    model.encoder.requires_grad_(False)
    model.encoder.encoder.layer[-TRAINED:].requires_grad_()
    used = optimizers([model], settings, lr, steps)
    schedules = [LambdaLR(optimizer, lambda step: cosine(step, steps)) for optimizer in used]
    draw = random.Random(seed)
    for _ in range(steps):
        inputs, labels = batch(draw.sample(train, min(BATCH, len(train))))
        model.zero_grad()
        cross_entropy(model(**inputs), labels).backward()
        for optimizer, schedule in zip(used, schedules, strict=True):
            optimizer.step()
            schedule.step()
    model.eval()

    @torch.no_grad()
    def error(rows: Texts) -> float:
        wrong = 0
        for first in range(0, len(rows), 100):
            inputs, labels = batch(rows[first : first + 100])
            wrong += int((model(**inputs).argmax(-1) != labels).sum())
        return 100 * wrong / len(rows)

    return {
        METRIC: error(test),
        TUNED_BY: error(validation),
        **spectra(model.encoder.encoder.layer[-TRAINED:], "*"),
        "seconds": time.perf_counter() - start,
        "machine": machine(device),
    }


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    study = Study("finetuning", run, METRIC, True, options, tuned_by=TUNED_BY)
    carry_out(study, [QUICK] if options.quick else CELLS, __doc__)


if __name__ == "__main__":
    main()
