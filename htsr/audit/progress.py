"""The progress bar: tqdm's, on terminals and in notebooks."""

import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.auto import tqdm as Bar


def tqdm(*args: Any, **options: Any) -> "Bar":
    """Return tqdm's bar, which takes the arguments; a notebook without ipywidgets gets the plain one, without a warning."""
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm as bar

    if sys.stderr is None:  # closed by the shell, or pythonw: there is nowhere to draw
        options["disable"] = True
    return bar(*args, **options)
