"""What an analysis and a comparison have in common: layers by name and by position, and how they look in a notebook."""

import operator
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import ClassVar, Generic, Protocol, SupportsIndex, TypeVar

import pandas as pd

from htsr.audit.columns import Column
from htsr.audit.findings import Finding, ranked
from htsr.audit.layout import as_text
from htsr.audit.row import Row
from htsr.audit.shown import Shown
from htsr.audit.table import details_frame, did_you_mean, findings_frame, shortened
from htsr.audit.tokens import Directions, tokens_lines, tokens_table
from htsr.audit.verdict import Sentence


class Result(Protocol):
    """One layer's result: it has a name and a row."""

    @property
    def name(self) -> str:
        """Name of the layer."""

    @property
    def row(self) -> Row:
        """Its row of ``details``."""

    @property
    def _directions(self) -> Directions:
        """What it knows of its leading directions."""

    @property
    def findings(self) -> list[Finding]:
        """What a person should look at in it."""


R = TypeVar("R", bound=Result)


class Results(Shown, Generic[R]):
    """Layers' results in order, by name and by position.

    ``results["name"]`` and ``results[0]`` are one layer, ``keys()`` the names, ``dict(results)`` a dictionary by name. Iteration
    goes over the layers, not over their names, and ``in`` takes a name or a layer.

    Attributes:
        columns: What is known of each column of ``details``, by name.
        details: One row a layer.
    """

    columns: ClassVar[Mapping[str, Column]]
    # Columns of ``brief()`` that a narrow terminal leaves out, the last first.
    expendable: ClassVar[tuple[str, ...]] = ()

    def __init__(self, results: dict[str, R]) -> None:
        self._results = results
        self.details: pd.DataFrame = details_frame(
            [result.row for result in results.values()], list(self.columns.values())
        )

    def __getitem__(self, key: str | SupportsIndex) -> R:
        if isinstance(key, str):
            if key in self._results:
                return self._results[key]
            names = list(self._results)
            parts = (f"no layer {key!r}:", did_you_mean(key, names), self._expected())
            raise KeyError(" ".join(filter(None, parts)))
        if isinstance(key, slice) or not hasattr(key, "__index__"):
            hint = "; list(...) of it can be sliced" if isinstance(key, slice) else ""
            raise TypeError(f"expected the name of a layer or its position, got {type(key).__name__} {key!r:.50}{hint}")
        position = operator.index(key)
        if not -len(self) <= position < len(self):
            raise IndexError(f"no layer at position {position}: there are {len(self)}")
        return list(self._results.values())[position]

    def __contains__(self, item: object) -> bool:
        return item in self._results if isinstance(item, str) else any(item is result for result in self)

    def __iter__(self) -> Iterator[R]:
        return iter(self._results.values())

    def __len__(self) -> int:
        return len(self._results)

    def keys(self) -> KeysView[str]:
        """Names of the layers, in the order of ``details``."""
        return self._results.keys()

    def values(self) -> ValuesView[R]:
        """The layers, in the order of ``details``."""
        return self._results.values()

    def items(self) -> ItemsView[str, R]:
        """Name and layer of each, in the order of ``details``."""
        return self._results.items()

    @property
    def findings(self) -> pd.DataFrame:
        """What a person should look at, the worst first: name, kind, severity, finding (a sentence) and evidence."""
        return findings_frame(self.ranked_findings())

    def ranked_findings(self) -> list[Finding]:
        """The findings of all layers, the worst first."""
        return ranked(finding for result in self for finding in result.findings)

    @property
    def tokens_named(self) -> pd.DataFrame:
        """The directions that were named by tokens when the result was made, all layers'; see ``LayerAnalysis.tokens``."""
        kept = ((name, result._directions.kept) for name, result in self.items())
        return tokens_table((name, table) for name, table in kept if table is not None)

    def tokens_lines(self) -> list[str]:
        """The named directions in lines for people; none if none were asked for."""
        named = self.tokens_named
        return tokens_lines(named, self._named_first()) if any(result._directions.asked for result in self) else []

    def _named_first(self) -> list[str] | None:
        """Return names of the layers whose directions are shown first; None for those that come closest to tokens."""
        return None

    def worst_first(self) -> list[int]:
        """Positions of all layers: those with findings in the order of their worst one, then the others."""
        order = dict.fromkeys(finding.name for finding in self.ranked_findings())
        ranks = {name: rank for rank, name in enumerate(order)}
        names = list(self._results)
        return sorted(range(len(self)), key=lambda position: ranks.get(names[position], len(ranks)))

    def to_explain(self) -> list[str]:
        """What ``htsr explain`` should be asked about this result: the kinds of its findings, the worst first."""
        return list(dict.fromkeys(finding.kind for finding in self.ranked_findings()))

    @property
    def verdict(self) -> str:
        """What to think of the whole model, in at most three sentences."""
        return " ".join(self.verdict_sentences())

    def verdict_sentences(self) -> list[str]:
        """The sentences of the verdict, at most three."""
        return [sentence.text for sentence in self.sentences()]

    def sentences(self) -> list[Sentence]:
        """The sentences of the verdict, each with the kinds of findings that it speaks of."""
        raise NotImplementedError

    def note_command(self, command: str) -> None:
        """Remember the command line that made the result."""
        raise NotImplementedError

    def headline(self) -> str:
        """A few lines of text for people, the verdict among them."""
        raise NotImplementedError

    def brief(self) -> pd.DataFrame:
        """The columns of ``details`` that fit on a terminal, rounded for people, with a note beside each row."""
        raise NotImplementedError

    def __repr__(self) -> str:
        if not len(self):
            return self.headline()
        return f"{self.headline()}\n{as_text(self.brief(), self.expendable)}"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._results)

    def _expected(self) -> str:
        """Return which layers there are, for a message."""
        names = list(self._results)
        return f"expected one of the {len(names)} layers, {shortened(names)}" if names else "there are no layers"
