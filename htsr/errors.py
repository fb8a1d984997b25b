"""The exception that htsr raises for data that it cannot use."""

from htsr.text import visible

# The middle of a longer message is left out: a name from a stranger's file can have any length.
MAX_MESSAGE = 2000


class InputError(ValueError):
    """htsr cannot use a file, a model, a condition, or other data that the user brought.

    The message says what was expected, what came, and what to do. A missing path raises ``FileNotFoundError`` instead, an
    argument of a wrong type ``TypeError``, and a setting that is out of range or unknown a plain ``ValueError``.
    """

    def __str__(self) -> str:
        # messages quote names from files, and end on terminals
        return visible(super().__str__().replace("\n", " "), MAX_MESSAGE)
