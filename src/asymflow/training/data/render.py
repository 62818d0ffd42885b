"""Rasterise drawings to premultiplied RGBA."""

from __future__ import annotations

from importlib.util import find_spec

from asymflow.core.errors import FileFormatError, MissingExtra
from asymflow.models.embedded.bitmaps import Pixels, decode, premultiply

DPI = 96  # resvg's default of 0 rejects drawings with sizes in points


def render_svg(svg: str, size: int) -> Pixels:
    """Rasterise a square SVG document to premultiplied RGBA [size, size, 4].

    Raises:
        FileFormatError: the document is not valid SVG.
        MissingExtra: resvg_py is not installed.
    """
    require_renderer()
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=size, height=size, dpi=DPI, skip_system_fonts=True
        )
    except ValueError as error:
        raise FileFormatError(
            f"cannot draw the SVG document that starts {svg[:80]!r}: {error}. "
            "Fetch its package again."
        ) from error
    return premultiply(decode(bytes(png)))


def require_renderer() -> None:
    """Check that resvg_py is installed.

    Raises:
        MissingExtra: it is not.
    """
    if find_spec("resvg_py") is None:
        raise MissingExtra("resvg_py", "data")
