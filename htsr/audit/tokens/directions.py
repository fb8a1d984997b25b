"""The leading directions of a layer, or of its change, named by tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import torch

from htsr.audit.arguments import check_whole_number
from htsr.audit.progress import tqdm
from htsr.audit.row import Row
from htsr.audit.tokens.alignment import Embedding, draws_for, p_values
from htsr.audit.tokens.reload import Reload
from htsr.audit.tokens.stream import Side, side_in_stream
from htsr.audit.tokens.table import LEVEL, directions_frame
from htsr.audit.tokens.vocabulary import Vocabulary, find_vocabulary
from htsr.errors import InputError
from htsr.spectra.leading import leading_directions
from htsr.spectra.spectrum import rounding_edge
from htsr.text import visible

NO_WEIGHTS = (
    "this result keeps no weights and no named directions: analyse the directory of a model, with its tokenizer, and ask there; "
    "or ask for tokens= (--tokens) when you make a result that is to be saved"
)
OF_CHANGE = "this is the spectrum of a change: ask the layer of the comparison itself, c[name].tokens()"


class Sources:
    """Where the weights of a result are: those of one source, or of A and B, whose difference is then meant."""

    def __init__(self, *sides: Reload | str) -> None:
        self._sides = sides
        self._nulls: dict[tuple[int, int], np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_nulls": {}}

    def check(self, k: int) -> None:
        """Raise ``InputError`` if k directions are asked for and cannot be named; nothing is loaded."""
        if check_whole_number("tokens", k, 0):
            self.vocabulary()

    def check_unchanged(self) -> None:
        """Raise ``InputError`` if a file changed since the analysis."""
        for side in self.sides:
            side.check_unchanged()

    @property
    def sides(self) -> list[Reload]:
        """The sources; raise ``InputError`` if the weights of one cannot be loaded again."""
        known = [side for side in self._sides if isinstance(side, Reload)]
        if len(known) < len(self._sides):
            raise InputError(next(side for side in self._sides if isinstance(side, str)))
        return known

    def vocabulary(self) -> Vocabulary:
        """Return the embedding and the tokens, those of the later source if it has both."""
        return find_vocabulary(self.sides[::-1])

    def named(
        self,
        name: str,
        k: int,
        side: Side | None,
        seed: int,
        vocabulary: Vocabulary,
        embedding: Embedding | None = None,
    ) -> pd.DataFrame:
        """Return the k leading directions of a layer, or of its change, with their tokens."""
        *_, last = self.sides
        which, stream = side_in_stream(last.layers[name], vocabulary.d_model, side)
        weight, floor = self._weight(name)
        values, left, right = leading_directions(weight, k, floor)
        if not len(values):
            return directions_frame([])
        embedding = embedding or Embedding(vocabulary.load())
        directions_DK = torch.from_numpy(np.ascontiguousarray(left if which == "out" else right)).float()
        ends = embedding.ends(directions_DK)
        null = self._null(embedding, len(values), seed)
        p = np.minimum(1.0, len(values) * p_values(ends, null))  # Bonferroni
        null_alignment, null_contrast = np.quantile(null, 0.95, axis=2).max(axis=0)
        whole = float(weight.double().square().sum())
        rows = []
        for number, value in enumerate(values):
            tokens = [
                ", ".join(vocabulary.text(int(row)) for row in rows_KT[number])
                for rows_KT in (ends.promoted, ends.suppressed)
            ]
            # The sign of a direction is arbitrary: the end that comes closer to a token stands first.
            promoted, suppressed = tokens if ends.is_first[number] else tokens[::-1]
            rows.append(
                (number + 1, value, value**2 / whole, which, stream, promoted, suppressed, ends.alignment[number],
                 null_alignment, ends.contrast[number], null_contrast, p[number], bool(p[number] > LEVEL), vocabulary.about)
            )  # fmt: skip
        return directions_frame(rows)

    def _weight(self, name: str) -> tuple[torch.Tensor, float]:
        """Return the weight and 0; or B - A in float64, and below which squared singular values it may be rounding."""
        stored = [side.load(name).cpu() for side in self.sides]
        if len(stored) == 1:
            return stored[0], 0.0
        A, B = (weight.to(torch.float64) for weight in stored)
        N, M = max(A.shape), min(A.shape)
        eps = [torch.finfo(weight.dtype).eps for weight in stored]
        return B - A, sum(rounding_edge(e, float(W.square().mean()), N, M) for e, W in zip(eps, (A, B), strict=True))

    def _null(self, embedding: Embedding, k: int, seed: int) -> np.ndarray:
        """Return the alignments of random directions, drawn once."""
        key = (draws_for(k), seed)
        if key not in self._nulls:
            self._nulls[key] = embedding.null(*key)
        return self._nulls[key]


@dataclass(frozen=True)
class Directions:
    """What a layer's result knows of its directions.

    Attributes:
        sources: Where its weights are, or why they are nowhere.
        kept: The directions that were named when the result was made; None if there are none.
        asked: How many were asked for then.
    """

    sources: Sources | str = NO_WEIGHTS
    kept: pd.DataFrame | None = None
    asked: int = 0

    def named(self, name: str, k: int, side: Side | None, seed: int) -> pd.DataFrame:
        """Return the k leading directions with their tokens; those that were kept if they are enough."""
        check_whole_number("k", k, 1)
        if self.kept is not None and k <= self.asked and seed == 0 and side in (None, *self.kept["side"]):
            return self.kept.head(k).copy()
        try:
            if isinstance(self.sources, str):
                more = (
                    f"{self.asked} directions were asked for when it was made, and it keeps no weights to name others"
                )
                raise InputError(self.sources if self.kept is None else more)
            return self.sources.named(name, k, side, seed, self.sources.vocabulary())
        except InputError as err:
            raise InputError(f"tokens of {visible(name)}: {err}") from err


class _Result(Protocol):
    @property
    def row(self) -> Row: ...


R = TypeVar("R", bound=_Result)


def with_directions(results: Mapping[str, R], sources: Sources, k: int, progress: bool | None) -> dict[str, R]:
    """Return layers' results that know their directions, k of them named where the layer lies in the residual stream."""
    kept = _named(results, sources, k, progress) if k else {}
    return {
        name: replace(result, _directions=Directions(sources, kept[name], k) if name in kept else Directions(sources))  # type: ignore[type-var]
        for name, result in results.items()
    }


def _named(results: Mapping[str, R], sources: Sources, k: int, progress: bool | None) -> dict[str, pd.DataFrame]:
    """Return the k leading directions of each layer that has some in the residual stream."""
    vocabulary = sources.vocabulary()
    embedding = Embedding(vocabulary.load())
    own = [name for name, result in results.items() if not result.row["tied_to"]]
    found = {name: directions_frame([]) for name in own if results[name].row["status"] == "unchanged"}
    own = [name for name in own if name not in found]
    for name in tqdm(own, desc="tokens", unit="layer", delay=1, disable=None if progress is None else not progress):
        sources.check_unchanged()
        try:
            found[name] = sources.named(name, k, None, 0, vocabulary, embedding)
        except InputError:  # it lies outside the residual stream, or its weight cannot be used, as its row says
            continue
    return found
