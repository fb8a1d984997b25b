"""Choices and limits that the command line names before it loads the modules that use them."""

from typing import Literal

# How convolutions are decomposed, and whose scaling and cut-offs an analysis uses.
Conv = Literal["pool", "slices", "unfold"]
Convention = Literal["htsr", "weightwatcher"]
# What noise keeps of a layer that is compared with it: nothing, its row and column scales, or these and the law of its entries.
Null = Literal["gaussian", "profile", "entries"]
# Optimizer steps of each of the demo's four runs, which take two and a half minutes on two cores.
DEMO_STEPS = 200
# Suffixes of the files that a table can be saved to, and those of an analysis and a comparison: .htsr keeps all of it.
FORMATS = (".html", ".csv", ".json", ".parquet")
RESULT_FORMATS = (".htsr", ".html", ".md", ".csv", ".json", ".parquet")
