"""See and steer the weight spectra of neural networks.

Names resolve on first use, so that ``import htsr`` loads nothing heavy. Rooms are reachable as attributes, too:
``htsr.training``, ``htsr.optim``.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from htsr._version import __version__

if TYPE_CHECKING:
    from htsr.audit.analysis import Analysis, analyze
    from htsr.audit.layer import LayerAnalysis
    from htsr.bulk import MarchenkoPasturFit, NoiseNull, fit_marchenko_pastur, noise_null, shuffle
    from htsr.comparison.compare import Comparison, compare
    from htsr.comparison.layer import LayerComparison
    from htsr.compat.crosscheck import crosscheck
    from htsr.errors import InputError
    from htsr.spectra.spectrum import Spectrum, esd
    from htsr.spectra.vectors import localization
    from htsr.tails import PowerLawFit, fit_power_law
    from htsr.training import History, Monitor

_HOMES = {
    "htsr.audit.analysis": ["Analysis", "analyze"],
    "htsr.audit.layer": ["LayerAnalysis"],
    "htsr.bulk": ["MarchenkoPasturFit", "NoiseNull", "fit_marchenko_pastur", "noise_null", "shuffle"],
    "htsr.comparison.compare": ["Comparison", "compare"],
    "htsr.comparison.layer": ["LayerComparison"],
    "htsr.compat.crosscheck": ["crosscheck"],
    "htsr.errors": ["InputError"],
    "htsr.spectra.spectrum": ["Spectrum", "esd"],
    "htsr.spectra.vectors": ["localization"],
    "htsr.tails": ["PowerLawFit", "fit_power_law"],
    "htsr.training": ["History", "Monitor"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # audit a model
    "analyze", "Analysis", "LayerAnalysis", "crosscheck",
    # compare two models
    "compare", "Comparison", "LayerComparison",
    # spectra and fits
    "esd", "Spectrum", "fit_power_law", "PowerLawFit", "fit_marchenko_pastur", "MarchenkoPasturFit",
    # what noise would look like
    "noise_null", "NoiseNull", "shuffle", "localization",
    # watch a training run
    "Monitor", "History",
    # the rest
    "InputError", "__version__",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    elif not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        value = import_module(f"{__name__}.{name}")
    else:
        from difflib import get_close_matches

        close = get_close_matches(name, __all__, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
