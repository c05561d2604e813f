"""Markdown from templates, with the front matter that Hugging Face reads.

Names of classes, splits, files and settings are untrusted: they are escaped in Markdown and YAML.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, select_autoescape

from seit.printable import CONTROLS, printable

_MARKUP = re.compile(
    r"([\\`*{}\[\]<>#~&|!@]|(?<!\w)_|_(?!\w)|:(?=/)|(?<=www)\.)", re.ASCII | re.IGNORECASE
)
"""Characters with a meaning in Markdown, HTML or links."""


def markdown_page(template: str, values: Mapping[str, Any]) -> str:
    """Return a page of Markdown from the text of a template.

    The template escapes each value by a filter: ``plain`` for text in a line, ``code`` for code in
    a line, ``block`` for a block of code, ``string`` for a string of Python.
    """
    return _environment().from_string(template).render(values)


def yaml_text(values: Any) -> str:
    """Return YAML of mappings, lists, tuples and scalars, with control characters escaped."""
    text = yaml.dump(
        _lists(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30
    )
    # Quote those that PyYAML considers printable, so that YAML escapes them with four digits.
    lines = text.rstrip("\n").split("\n")
    return "\n".join(CONTROLS.sub(lambda c: f"\\u{ord(c[0]):04x}", line) for line in lines)


@cache
def _environment() -> Environment:
    found = Environment(
        autoescape=select_autoescape(default_for_string=False),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    found.filters |= {"plain": _plain, "code": _code, "block": _block, "string": _string}
    return found


def _plain(value: object) -> str:
    """Return a value as plain, escaped text in a line of Markdown."""
    return _MARKUP.sub(r"\\\1", printable(value))


def _string(value: str) -> str:
    """Return a text as a string of Python in ASCII."""
    return json.dumps(value) if value.isascii() else ascii(value)


def _code(value: object) -> str:
    """Return a value as code in a line of Markdown, also in a table."""
    text = printable(value).replace("|", "\\|")
    ticks = "`" * (1 + _longest_ticks(text))
    space = " " if len(ticks) > 1 else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _block(text: str, language: str) -> str:
    """Return a block of code with a fence longer than any inside."""
    fence = "`" * max(3, 1 + _longest_ticks(text))
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


class _Dumper(yaml.SafeDumper):
    """Dumper that writes texts with control characters on one line, escaped."""

    def text(self, value: str) -> yaml.ScalarNode:
        """Represent a text."""
        style = '"' if CONTROLS.search(value) else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _Dumper.text)


def _lists(value: Any) -> Any:
    """Convert tuples to lists, for safe YAML."""
    if isinstance(value, Mapping):
        return {key: _lists(entry) for key, entry in value.items()}
    return [_lists(entry) for entry in value] if isinstance(value, list | tuple) else value
