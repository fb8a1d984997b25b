"""Text from strangers' files, made safe for the place where a person reads it: one function for each kind of place.

Tables, rows and JSON keep names as they are; whatever writes for people passes names through here.
"""

# Longer names are shortened in the middle, so that a table or a plot stays readable.
MAX_LENGTH = 160
# What a spreadsheet takes for the start of a formula; the last four are the full-width forms.
FORMULA_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def visible(text: object, max_length: int = MAX_LENGTH) -> str:
    """Return a text on one line for a terminal, a log or a page, with what cannot be seen escaped as in Python's ``repr``.

    That is every control character, line break, bidirectional mark and lone surrogate; and the middle of a long text is cut.
    """
    shown = escaped(str(text))
    if len(shown) <= max_length:
        return shown
    kept = (max_length - 3) // 2
    return f"{shown[:kept]}...{shown[-kept:]}"


def escaped(text: str) -> str:
    """Return the whole text with what cannot be seen escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def encodable(text: str) -> str:
    """Return the text with lone surrogates escaped, which UTF-8, and so a table of pandas, cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def csv_cell(text: str) -> str:
    """Return a text for a cell of a CSV file: on one line, and nothing that a spreadsheet runs as a formula."""
    shown = escaped(text)
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown


def plotted(text: object, max_length: int = 80) -> str:
    """Return a text that matplotlib draws as it is: a dollar begins no formula, an underscore hides no entry of a legend."""
    shown = visible(text, max_length).replace("$", "\\$")
    return f" {shown}" if shown.startswith("_") else shown
