"""Does alpha say which layers can be pruned? AlphaPruning's sparsities on MiniLM beside uniform, inverted and shuffled ones.

    python benchmarks/studies/pruning.py            # goes on where it was stopped; writes benchmarks/results/study_pruning.md
    python benchmarks/studies/pruning.py --quick    # four texts, two shuffles, prints only

The smallest weights of each layer of the encoder become 0; ``htsr.steering.sparsities`` says how many in each, from the paper's
alpha (``xmin="peak"``), so that all arms prune the same share of all weights. The figure is how far the embeddings of docstrings
move: the mean of 1 - cosine to the embeddings of the whole model. Nothing is trained, so the comparison is a permutation test:
*as good* is the share of arms, the measured one and the shuffled ones, whose embeddings move no more than those of the measured
one. Near 0 alpha chooses well, near 1 it chooses worse than chance.
"""

import argparse
import copy
import itertools
import random
from collections.abc import Mapping

import pandas as pd
import torch
from finetuning import TOKENS, texts
from provenance import RESULTS, table, write
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.nn.utils import prune

import htsr
from htsr.demo.run import trained_transformer
from htsr.steering import sparsities

# With a share of 0.7 and a sparsity for each layer, some shuffles would prune more than all of a layer.
CASES = ((0.5, "block"), (0.7, "block"), (0.5, "layer"), (0.6, "layer"))
TEXTS, SHUFFLES = 100, 99
KEPT = RESULTS / "studies" / "pruning.csv"
COLUMNS = ["share", "per", "arm", "seed", "distance"]


class Sentences:
    """Docstrings as tokens, and the encoder that makes an embedding of each: the mean of its outputs over the tokens."""

    def __init__(self, count: int) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = trained_transformer().parent
        found = sorted(itertools.chain.from_iterable(texts()))
        self._inputs = AutoTokenizer.from_pretrained(folder)(
            random.Random(0).sample(found, count),
            padding=True,
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
        )
        self.model = AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def embeddings(self, encoder: nn.Module) -> Tensor:
        """Return the embeddings that the model makes with this encoder in its place, shape (texts, width)."""
        kept, self.model.encoder = self.model.encoder, encoder
        outputs = self.model(**self._inputs).last_hidden_state
        self.model.encoder = kept
        mask = self._inputs["attention_mask"][..., None]
        return (outputs * mask).sum(1) / mask.sum(1)


def pruned(encoder: nn.Module, amounts: Mapping[str, float]) -> nn.Module:
    """Return a copy without the smallest weights, of which each layer loses its share."""
    copied = copy.deepcopy(encoder)
    for name, amount in amounts.items():
        module = copied.get_submodule(name)
        prune.l1_unstructured(module, "weight", amount)
        prune.remove(module, "weight")
    return copied


def report(runs: pd.DataFrame) -> list[str]:
    """Return the lines of a table: one row for each share and unit."""
    rows = []
    for (share, per), group in runs.groupby(["share", "per"], sort=False):
        alone = group.set_index("arm")["distance"]
        shuffled = group.loc[group["arm"] == "shuffled", "distance"]
        as_good = (1 + (shuffled <= alone["measured"]).sum()) / (1 + len(shuffled))
        own = [f"{alone[arm]:.4f}" for arm in ("uniform", "measured", "inverted")]
        middle = f"{shuffled.quantile(0.05):.4f} to {shuffled.quantile(0.95):.4f}"
        rows.append([f"{share:.0%}", per, *own, f"{shuffled.mean():.4f}", middle, len(shuffled), f"{as_good:.2f}"])
    return table(
        ["pruned", "unit", "uniform", "measured", "inverted", "shuffled, mean", "90 % of shuffled", "n", "as good"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four texts, two shuffles; prints only")
    quick = parser.parse_args().quick
    sentences = Sentences(4 if quick else TEXTS)
    encoder = sentences.model.encoder
    analysis = htsr.analyze(encoder, xmin="peak", bulk=False, progress=False)
    whole = sentences.embeddings(encoder)
    runs = pd.read_csv(KEPT) if KEPT.exists() and not quick else pd.DataFrame(columns=COLUMNS)
    done = set(runs[COLUMNS[:4]].itertuples(index=False, name=None))
    arms = [
        ("uniform", 0),
        ("measured", 0),
        ("inverted", 0),
        *(("shuffled", i) for i in range(2 if quick else SHUFFLES)),
    ]
    for (share, per), (arm, seed) in itertools.product(CASES[1::2] if quick else CASES, arms):
        if (share, per, arm, seed) not in done:
            amounts = sparsities(analysis, share, per=per, arm=arm, seed=seed)
            moved = sentences.embeddings(pruned(encoder, amounts))
            distance = float(1 - cosine_similarity(moved, whole).mean())
            runs.loc[len(runs)] = [share, per, arm, seed, distance]
            if not quick:
                runs.to_csv(KEPT, index=False, float_format="%.6g")
    text = "\n".join([f"# {__doc__.splitlines()[0]}", *__doc__.splitlines()[1:], "", *report(runs)])
    print(text) if quick else write("study_pruning.md", text)


if __name__ == "__main__":
    main()
