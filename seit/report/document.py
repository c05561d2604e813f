"""HTML document around the charts, and its file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from seit.files import write_atomically
from seit.report.markup import join, text


@dataclass(frozen=True)
class Section:
    """A heading, an optional text (paragraphs separated by empty lines) and fragments."""

    title: str
    body: Markup | Sequence[Markup]
    text: str = ""


def page(title: str, *, lead: str, sections: Sequence[Section], footer: str = "") -> str:
    """Return a complete HTML document without external references.

    ``title``, ``lead``, ``footer`` and the titles and texts of sections are plain text and are
    escaped. As a second safeguard, the document's Content-Security-Policy forbids scripts and
    fetches.
    """
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=lambda value: text(value) if isinstance(value, str) else value,
    )
    room = resources.files(__package__)
    template = environment.from_string(room.joinpath("page.html.j2").read_text("utf-8"))
    return template.render(
        title=title,
        lead=_paragraphs(lead),
        sections=[
            {"title": one.title, "text": _paragraphs(one.text), "body": _body(one.body)}
            for one in sections
        ],
        footer=footer,
        stylesheet=Markup(stylesheet()),  # noqa: S704  our own file
    )


def stylesheet() -> str:
    """Return the stylesheet of pages and charts, for light and dark screens."""
    return resources.files(__package__).joinpath("page.css").read_text("utf-8")


def write_page(path: Path, html: str) -> None:
    """Write a document (UTF-8) atomically, with umask permissions, creating missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, html.encode())


def _body(body: Markup | Sequence[Markup]) -> Markup:
    # Markup is a str, hence a sequence; a plain str is not a fragment and stays text.
    return text(body) if isinstance(body, str) else join(body)


def _paragraphs(plain: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", plain) if part.strip()]
