"""Measure how often noise is called meaningful, and how often a planted word is found, in directions named by tokens.

    python benchmarks/tokens_null.py            # writes benchmarks/results/tokens_null.md
    python benchmarks/tokens_null.py --quick    # a tenth of the draws, prints only

The embedding is that of MiniLM. A direction is meaningful if its p-value is 0.05 or less, before the correction for the number of
directions (``single``) and after it (``corrected``).
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from provenance import table, write

import htsr
from htsr.audit.tokens.alignment import DRAWS, Embedding, p_values
from htsr.demo.run import trained_transformer
from htsr.spectra.leading import leading_directions

K, D, LEVEL = 5, 384, 0.05
COSINES = (1.0, 0.5, 0.4, 0.3)
Noise = Callable[[torch.Generator], torch.Tensor]


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    matrices, words = (10, 40) if quick else (100, 400)
    source = htsr.analyze(trained_transformer(), bulk=False, layers="pooler.dense")["pooler.dense"]._directions.sources
    vocabulary = source.vocabulary()
    embedding = Embedding(vocabulary.load())
    null = embedding.null(DRAWS, 0)
    draw = torch.Generator().manual_seed(1)

    def p_of(directions: torch.Tensor) -> np.ndarray:
        return p_values(embedding.ends(directions.float()), null)

    rows = []
    for name, noise in noises(embedding).items():
        found = [p_of(torch.from_numpy(leading_directions(noise(draw), K)[1])) for _ in range(matrices)]
        p, k = np.concatenate(found), len(found[0])
        rows.append([name, k, len(p), float((p <= LEVEL).mean()), float((k * p <= LEVEL).mean())])
    lines = table(["noise", "directions of a matrix", "directions", "single", "corrected"], rows)

    named = [row for row, piece in enumerate(vocabulary.pieces) if piece.isascii() and piece.isalpha()]
    chosen = torch.tensor(named)[torch.randperm(len(named), generator=draw)[:words]]
    planted = torch.nn.functional.normalize(embedding.rows_VD[chosen].T, dim=0)
    other = torch.nn.functional.normalize(torch.randn(D, len(chosen), generator=draw), dim=0)
    rows = []
    for cosine in COSINES:
        mixed = torch.nn.functional.normalize(cosine * planted + (1 - cosine**2) ** 0.5 * other, dim=0)
        p, ends = p_of(mixed), embedding.ends(mixed)
        first = torch.where(torch.from_numpy(ends.is_first), ends.promoted[:, 0], ends.suppressed[:, 0])
        is_first = float((first == chosen).double().mean())
        rows.append([cosine, float((p <= LEVEL).mean()), float((K * p <= LEVEL).mean()), is_first])
    lines += ["", *table(["cosine of the word", "found alone", f"found among {K}", "first token is the word"], rows)]
    text = "\n".join(["# Directions named by tokens: noise and planted words", "", *lines])
    print(text) if quick else write("tokens_null.md", text)


def noises(embedding: Embedding) -> dict[str, Noise]:
    """Return kinds of noise by name; directions lie on the left."""
    covariance = embedding.rows_VD.double().T @ embedding.rows_VD.double() / len(embedding.rows_VD)
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(D, dtype=torch.float64))

    def normal(draw: torch.Generator, columns: int = D) -> torch.Tensor:
        return torch.randn(D, columns, generator=draw, dtype=torch.float64)

    def student(draw: torch.Generator) -> torch.Tensor:
        return normal(draw) / (sum(normal(draw) ** 2 for _ in range(3)) / 3).sqrt()

    return {
        "Gaussian": normal,
        "Gaussian, rank 1": lambda draw: normal(draw, 1),
        "Student's t, 3 degrees of freedom": student,
        "covariance of the embedding": lambda draw: root @ normal(draw),
        "covariance of the embedding, rank 1": lambda draw: root @ normal(draw, 1),
    }


if __name__ == "__main__":
    main()
