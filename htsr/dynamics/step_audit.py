"""The result of ``audit_steps``: a table of steps, findings, a verdict, and how they look to people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from markupsafe import escape

from htsr.audit.column import Column
from htsr.audit.columns import STEP_COLUMNS
from htsr.audit.findings import Finding, ranked
from htsr.audit.layout import as_text, findings_lines
from htsr.audit.row import Row
from htsr.audit.table import details_frame, did_you_mean, findings_frame, rounded, shortened, shown_names
from htsr.audit.verdict import named
from htsr.dynamics.verdicts import KINDS, finding_of
from htsr.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The columns that fit on a terminal, and those that a narrow one leaves out, the last first.
BRIEF = (
    "step_per_lr", "step_vs_promise", "relative_step", "update_stable_rank", "alignment", "activation_change_rms", "homogeneity",
)  # fmt: skip
EXPENDABLE = ("homogeneity", "relative_step", "activation_change_rms", "alignment", "update_stable_rank")


class StepAudit:
    """What a few steps of an optimizer did to each weight matrix, and what its rule promises.

    ``audit["name"]`` has the rows of one matrix, one a step.

    Attributes:
        columns: What is known of each column of ``details``, by name.
        details: One row for each matrix and step.
        losses: The loss before each step, as the closure returned it.
    """

    columns: ClassVar[Mapping[str, Column]] = {column.name: column for column in STEP_COLUMNS}

    def __init__(self, rows: Sequence[Row], losses: Sequence[float], model: str, optimizers: Sequence[str]) -> None:
        self.details: pd.DataFrame = details_frame(rows, STEP_COLUMNS)
        self.losses = list(losses)
        self._model, self._optimizers = model, list(optimizers)

    def __len__(self) -> int:
        return len(self.details)

    def __getitem__(self, name: str) -> pd.DataFrame:
        rows = self.details[self.details["name"] == name]
        if not len(rows):
            parts = (f"no matrix {name!r}:", did_you_mean(name, self.names), f"expected one of {shortened(self.names)}")
            raise KeyError(" ".join(filter(None, parts)))
        return rows.reset_index(drop=True)

    @property
    def names(self) -> list[str]:
        """Names of the matrices, in model order."""
        return list(dict.fromkeys(self.details["name"]))

    @property
    def last(self) -> pd.DataFrame:
        """The rows of the last step."""
        return self.details[self.details["step"] == len(self.losses)].reset_index(drop=True)

    @property
    def findings(self) -> pd.DataFrame:
        """What a person should look at, the worst first: name, kind, severity, finding (a sentence) and evidence."""
        return findings_frame(self.ranked_findings())

    def ranked_findings(self) -> list[Finding]:
        """Return the findings, the worst first: the faults of the last step.

        A step without a gradient is one only if no step had one: experts do not get tokens in every batch.

        Returns:
            The findings.
        """
        times = Counter(zip(self.details["name"], self.details["verdict"], strict=True))
        rows: list[dict[Any, Any]] = self.last.to_dict("records")
        found = (
            finding_of(row, times[row["name"], row["verdict"]], len(self.losses))
            for row in rows
            if row["verdict"] in KINDS
            and (row["verdict"] != "no gradient" or times[row["name"], "no gradient"] == len(self.losses))
        )
        return ranked(found, KINDS)

    @property
    def verdict(self) -> str:
        """What to think of the steps, in at most three sentences."""
        return " ".join(self.verdict_sentences())

    def verdict_sentences(self) -> list[str]:
        """Return the sentences of the verdict: what is wrong, what is as promised, what nobody promises.

        Returns:
            At most three sentences.
        """
        if not len(self):
            return ["There is no weight matrix."]
        by_kind: dict[str, list[Finding]] = {}
        for finding in self.ranked_findings():
            by_kind.setdefault(finding.kind, []).append(finding)
        sentences = []
        if by_kind:
            text = "; ".join(f"{kind}: {named(found)}" for kind, found in by_kind.items())
            sentences.append(f"{text[0].upper()}{text[1:]}.")
        last = self.last
        kept = last[last["verdict"] == "as promised"]["step_vs_promise"]
        if len(kept):
            all_or_some = f"All {len(last)}" if len(kept) == len(last) else f"{len(kept)} of {len(last)}"
            were = "matrices were" if len(last) > 1 else "matrix was"
            sentences.append(
                f"{all_or_some} {were} stepped as their rules promise: {kept.min():.2f} to {kept.max():.2f} times."
            )
        if free := int((last["verdict"] == "no promise").sum()):
            sentences.append(f"For {free} of {len(last)} the rule makes no promise for the size of the step.")
        return sentences

    def headline(self) -> str:
        """Return a few lines of text for people, the verdict among them.

        Returns:
            The lines.
        """
        steps = f"{len(self.losses)} step{'s' if len(self.losses) != 1 else ''}"
        optimizers = ", ".join(self._optimizers)
        loss = f"; loss {self.losses[0]:.4g} to {self.losses[-1]:.4g}" if len(self.losses) > 1 else ""
        return f"{visible(self._model)}, {steps} of {optimizers}{loss}\n{self.verdict}"

    def brief(self) -> pd.DataFrame:
        """Return the columns of the last step that fit on a terminal, rounded for people, with the verdict as the note.

        Returns:
            One row a matrix.
        """
        last = self.last
        shown = {"name": shown_names(last), **rounded(last, BRIEF)}
        return last[["name", "n_out", "n_in"]].assign(**shown, note=last["verdict"])

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """Draw what each step was, divided by what the rule promises, for each matrix.

        Args:
            ax: Axes to draw on; by default those of a new figure.

        Returns:
            The figure.
        """
        from htsr.plots.runs.steps import plot_steps
        from htsr.plots.style import figure_of

        return figure_of(plot_steps(self.details, ax=ax))

    def __repr__(self) -> str:
        if not len(self):
            return self.headline()
        lines = [self.headline(), as_text(self.brief(), EXPENDABLE), *findings_lines(self.ranked_findings())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "<br>".join(str(escape(line)) for line in self.headline().split("\n"))
        findings = "".join(f"<li>{escape(visible(f.name))}: {escape(f.text)}</li>" for f in self.ranked_findings())
        table = self.brief().to_html(index=False, border=0) if len(self) else ""
        return f"<p>{head}</p><ul>{findings}</ul>{table}" if findings else f"<p>{head}</p>{table}"

    def _ipython_key_completions_(self) -> list[str]:
        return self.names
