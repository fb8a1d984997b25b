"""The progress bar: tqdm's, on terminals and in notebooks."""

import sys
import time
import warnings
from collections.abc import Container, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from htsr.audit.remaining_time import RemainingTime, expected_cost
from htsr.text import visible
from htsr.weights import Layer

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


class LayerBar:
    """A bar that shows the share of an audit's time that is over, and how many of its layers are done.

    ``before`` are the names of the layers that an earlier run has done. ``show`` is ``progress`` of ``analyze``.
    """

    def __init__(self, layers: Sequence[Layer], before: Container[str], show: bool | None) -> None:
        self._layers = {layer.name: layer for layer in layers}
        to_do = [layer for layer in layers if layer.name not in before]
        self._number = len(layers) - len(to_do)
        self._remaining = RemainingTime(to_do)
        cost = sum(map(expected_cost, layers))
        self._share_before = 1 - sum(map(expected_cost, to_do)) / cost if cost else 1.0
        # without smoothing, tqdm divides the time by the share; every layer is drawn, however small its share
        self._bar = tqdm(
            total=1.0, initial=self._share_before, desc="analyze", delay=1, smoothing=0, miniters=0,
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}", disable=None if show is None else not show,
        )  # fmt: skip
        self._start = time.monotonic()

    def __enter__(self) -> "LayerBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def done(self, name: str) -> None:
        """Show that a layer is done."""
        elapsed = time.monotonic() - self._start
        self._number += 1
        self._remaining.done(self._layers[name], elapsed)
        whole = elapsed + self._remaining.seconds()
        share = elapsed / whole if whole else 1.0
        self._bar.set_postfix_str(f"{self._number}/{len(self._layers)} layers, {visible(name)}", refresh=False)
        self._bar.update(self._share_before + (1 - self._share_before) * share - self._bar.n)
