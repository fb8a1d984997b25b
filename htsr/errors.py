"""The exception that htsr raises for data that it cannot use."""

from htsr.text import escaped


class InputError(ValueError):
    """htsr cannot use a file, a model, a condition, or other data that the user brought.

    The message says what was expected, what came, and what to do. A missing path raises ``FileNotFoundError`` instead, an
    argument of a wrong type ``TypeError``, and a setting that is out of range or unknown a plain ``ValueError``.
    """

    def __str__(self) -> str:
        return escaped(super().__str__().replace("\n", " "))  # messages quote names from files, and end on terminals
