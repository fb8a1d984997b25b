"""The one exception that htsr raises for input it cannot use."""


class InputError(ValueError):
    """Input that htsr cannot use: the message names what was expected, what came, and what to do.

    Missing files stay ``FileNotFoundError`` and wrong argument types ``TypeError``, as everywhere in Python.
    """
