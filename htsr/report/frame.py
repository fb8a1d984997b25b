"""A page inside a cell of a notebook."""

from dataclasses import dataclass, field

from markupsafe import escape


@dataclass(frozen=True)
class Frame:
    """A page that a notebook shows in a sandboxed frame: its script cannot reach the notebook, and nothing is served.

    Attributes:
        page: The page, an HTML document.
        height: Height of the frame in pixels.
    """

    page: str = field(repr=False)
    height: int

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.page)}" sandbox="allow-scripts allow-downloads" title="htsr page" '
            f'style="width: 100%; height: {self.height}px; border: 1px solid #8888"></iframe>'
        )


def frame(page: str, height: int) -> Frame:
    """Return a page as a frame of so many pixels, at least 200."""
    if height < 200:
        raise ValueError(f"expected a height of at least 200 pixels, got {height}")
    return Frame(page, height)
