"""The progress bar: tqdm's, on terminals and in notebooks."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():  # a notebook without ipywidgets gets the plain bar; no need to warn at import
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
