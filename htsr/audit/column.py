"""The record of one column of a table."""

import math
from dataclasses import dataclass

import pandas as pd

from htsr.p_values import PValue


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Name in the table.
        dtype: pandas type. Counts are nullable integers, so that a failed fit has no count rather than a wrong one.
        meaning: One line for people.
        digits: How a number is rounded for people, as a format specification such as ``.2f``.
        unit: Unit, where it has one.
        needs: The option of ``analyze`` that fills it; empty if it is always filled.
        values: Every text that can stand there, where these are few. An empty text is a missing value unless it is listed.
        axis: Label of an axis, where the name would not do.
        p_value: How it is printed, if it is a p-value.
    """

    name: str
    dtype: str
    meaning: str
    digits: str = ""
    unit: str = ""
    needs: str = ""
    values: tuple[str, ...] = ()
    axis: str = ""
    p_value: PValue | None = None

    @property
    def missing(self) -> float | str:
        """What stands in a row for a missing cell: an empty text, or NaN for a number, a count too."""
        return "" if self.dtype == "str" else math.nan

    @property
    def label(self) -> str:
        """What to write on an axis."""
        return self.axis or self.name

    def text(self, value: object) -> str:
        """The value for people: rounded, empty if it is missing."""
        if pd.isna(value):
            return ""
        if self.p_value is not None:
            return self.p_value.text(float(value))  # type: ignore[arg-type]
        return format(value, self.digits or (".4g" if self.dtype == "float64" else ""))
