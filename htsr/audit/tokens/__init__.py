"""What the leading directions of a weight, or of a change, say in tokens."""

from htsr.audit.tokens.directions import OF_CHANGE, Directions, Sources, with_directions
from htsr.audit.tokens.reload import Reload, reload_of
from htsr.audit.tokens.saved import tokens_document, with_kept
from htsr.audit.tokens.stream import Side
from htsr.audit.tokens.table import tokens_lines, tokens_markdown, tokens_table

__all__ = [
    "OF_CHANGE",
    "Directions",
    "Reload",
    "Side",
    "Sources",
    "reload_of",
    "tokens_document",
    "tokens_lines",
    "tokens_markdown",
    "tokens_table",
    "with_directions",
    "with_kept",
]
