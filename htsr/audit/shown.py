"""What has an interactive page, which a notebook can show in a cell."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from htsr.report.frame import Frame


class Shown:
    """A result with a page of its own."""

    def show(self, *, height: int = 760) -> "Frame":
        """Put the interactive page into a notebook's cell.

        Args:
            height: Height of the frame in pixels.

        Returns:
            What a notebook shows as the page, in a sandboxed frame; nothing is served or loaded.

        Raises:
            InputError: If there is nothing to show yet, as in a run without a capture.
            ValueError: If ``height`` is below 200.
        """
        from htsr.report.frame import frame

        return frame(self._page(), height)

    def _page(self) -> str:
        """Return the page, one HTML document."""
        raise NotImplementedError
