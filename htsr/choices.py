"""Choices and limits that the command line names before it loads the modules that use them."""

from typing import Literal

# How convolutions are decomposed, and whose scaling and cut-offs an analysis uses.
Conv = Literal["pool", "slices", "unfold"]
Convention = Literal["htsr", "weightwatcher"]
# Suffixes of the files that a result can be saved to.
FORMATS = (".html", ".csv", ".json", ".parquet")
