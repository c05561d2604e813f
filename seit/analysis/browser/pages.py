"""Rendering of pages from the templates of this folder, with autoescaping."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from seit.numbers import human_bytes, number, percent
from seit.report import stylesheet, text

_ROOM = "seit.analysis.browser"
STATIC = {
    "browser.css": "text/css; charset=utf-8",
    "browser.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "page.css": "text/css; charset=utf-8",
}
"""Files that pages refer to, with their media types."""


@cache
def environment() -> Environment:
    """Return the templates' environment."""
    found = Environment(
        loader=PackageLoader(_ROOM),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: text(value) if isinstance(value, str) else value,
    )
    found.filters |= {"number": number, "percent": percent, "human_bytes": human_bytes}
    return found


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page or a part of one; every value is escaped unless it is markup."""
    return environment().get_template(template).render(values)


@cache
def static_file(name: str) -> str:
    """Return one of the ``STATIC`` files."""
    if name == "page.css":
        return stylesheet()
    return resources.files(_ROOM).joinpath("static", name).read_text("utf-8")
