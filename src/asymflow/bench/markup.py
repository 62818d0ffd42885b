"""HTML from calls: `element("p", "a < b")` is `<p>a &lt; b</p>`. Plain text is escaped."""

from __future__ import annotations

from html import escape

_EMPTY = ("img", "meta")


class Markup(str):
    """Text that is HTML and is not escaped again."""

    __slots__ = ()


def element(tag: str, *inner: str, **attributes: str) -> Markup:
    """An element around texts and elements; append `_` to attributes that are Python keywords."""
    named = (f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    begin = f"<{tag}{''.join(named)}>"
    if tag in _EMPTY:
        return Markup(begin)
    parts = (part if isinstance(part, Markup) else escape(part) for part in inner)
    return Markup(f"{begin}{''.join(parts)}</{tag}>")
