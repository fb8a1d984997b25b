"""The settings of runs in words: labels that tell runs apart in legends and headlines."""

from collections.abc import Mapping
from fractions import Fraction

LR, POWER, SEED, WEIGHT_DECAY = "lr", "power", "seed", "weight_decay"

# Powers that are fractions with a denominator up to this are written so: 1/8.
LARGEST_DENOMINATOR = 64
# Nobody types a seed this large: torch drew it.
DRAWN_SEED = 2**32

Settings = Mapping[str, object]


def setting_text(name: str, value: object) -> str:
    """Return a setting of a run and its value as in ``p = 1/8`` and ``lr = 0.02``."""
    if name == POWER and isinstance(value, int | float):
        fraction = Fraction(value).limit_denominator(LARGEST_DENOMINATOR)
        return f"p = {fraction if float(fraction) == value else f'{value:g}'}"
    return f"{'p' if name == 'power' else name} = {f'{value:.6g}' if isinstance(value, float) else value}"


def settings_text(settings: Settings) -> str:
    """Return all settings of a run in words."""
    return ", ".join(setting_text(name, value) for name, value in settings.items())


def labels(settings: Mapping[str, Settings]) -> dict[str, str]:
    """Return a distinct label for each run, by the run's name: the settings in which the runs differ.

    The name itself is the label if the settings of all runs are the same, and stands in brackets behind a label that another
    run has, too.
    """
    settings = {run: {name: _known(name, value) for name, value in one.items()} for run, one in settings.items()}
    names = list(dict.fromkeys(name for one in settings.values() for name in one))
    differing = [name for name in names if len({repr(one.get(name)) for one in settings.values()}) > 1]
    texts = {
        run: ", ".join(_text(name, one[name]) if name in one else f"no {name}" for name in differing)
        for run, one in settings.items()
    }
    often = list(texts.values())
    return {
        run: run if not text else f"{text} ({run})" if often.count(text) > 1 else text for run, text in texts.items()
    }


def _known(name: str, value: object) -> object:
    """Return a setting, or None for a seed that torch drew by itself: its number says nothing to a reader."""
    return None if name == SEED and isinstance(value, int) and value >= DRAWN_SEED else value


def _text(name: str, value: object) -> str:
    """Return a setting in words."""
    return "random seed" if name == SEED and value is None else setting_text(name, value)
