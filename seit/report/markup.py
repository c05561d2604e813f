"""Escaped HTML and SVG elements: the only place where text becomes markup.

The output is also well-formed XML, so that any XML reader can parse a chart.
"""

import re
from collections.abc import Iterable

from markupsafe import Markup, escape

# Folder names may contain bytes that are not UTF-8 (lone surrogates), control characters that XML
# forbids, and direction overrides that disguise a name.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def text(value: object) -> Markup:
    """Return ``value`` as escaped text, safe as element content and as a quoted attribute.

    Floats are coordinates: at most three decimals. ``Markup`` passes unchanged. Characters that XML
    forbids, or that reorder the text around them, become U+FFFD.
    """
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        number = f"{value:.3f}".rstrip("0").rstrip(".")
        return Markup("0" if number == "-0" else number)  # noqa: S704  digits only
    return escape(_UNPRINTABLE.sub("\ufffd", str(value)))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return ``<tag attributes>children</tag>``, with everything but ``Markup`` escaped.

    In attribute names a trailing underscore is dropped and others become hyphens (``class_``,
    ``stroke_width``); an attribute that is None is left out. ``tag`` and the attribute names must
    be trusted.
    """
    head = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup(f"<{tag}{head}/>")  # noqa: S704  every value is escaped
    return Markup(f"<{tag}{head}>{join(children)}</{tag}>")  # noqa: S704


def join(parts: Iterable[object]) -> Markup:
    """Return the parts concatenated, each escaped unless it is ``Markup``."""
    return Markup("".join(text(part) for part in parts))  # noqa: S704  every part is escaped


def frame(*body: Markup, title: str, note: str = "", kind: str) -> Markup:
    """Return a ``<figure>`` of class ``kind`` with its title and a small note above ``body``."""
    caption = [element("strong", title)] if title else []
    if note:
        caption.append(element("span", note))
    head = element("figcaption", *caption) if caption else Markup("")
    return element("figure", head, *body, class_=kind)


def no_data(*, title: str, kind: str) -> Markup:
    """Return a placeholder figure for a chart without data."""
    return frame(element("p", "no data", class_="no-data"), title=title, kind=kind)


def percent_of(fraction: float) -> str:
    """Return a position along the chart's width (0–1) for SVG, such as ``"12.5%"``."""
    return f"{text(100.0 * fraction)}%"


def shorten(name: str, *, limit: int) -> str:
    """Return ``name`` in at most ``limit`` characters, truncated with an ellipsis."""
    return name if len(name) <= limit else name[: limit - 1].rstrip() + "…"
