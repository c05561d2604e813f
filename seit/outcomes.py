"""Results of verbs: returned by Python calls, and printed by commands with `--json`."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

_FIELDS = "__dataclass_fields__"
_MANY = 4
"""Most entries of a list or mapping that a summary spells out."""
_LONG = 80
"""Most characters of a text in a summary."""


class Outcome:
    """Base of dataclasses that verbs return; decorate them with ``repr=False``.

    Attributes:
        recorded: names of the attributes and properties in the record; all fields by default.
    """

    recorded: ClassVar[tuple[str, ...]] = ()

    def record(self) -> dict[str, Any]:
        """Return the object that `--json` prints, as built-in values."""
        return {name: _plain(value) for name, value in self._entries()}

    def __repr__(self) -> str:
        entries = ", ".join(f"{name}={summarize(value)}" for name, value in self._entries())
        return f"{type(self).__name__}({entries})"

    def _repr_html_(self) -> str:
        from seit.report import summary_table

        rows = [(name, summarize(value)) for name, value in self._entries()]
        return summary_table(type(self).__name__, rows)

    def _entries(self) -> list[tuple[str, Any]]:
        names = self.recorded or tuple(getattr(self, _FIELDS))
        return [(name, getattr(self, name)) for name in names]


def summarize(value: object) -> str:
    """Describe a value in a few printable characters; long lists and mappings by their length."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        if len(value) > _MANY or any(map(_is_nested, value.values())):
            return f"{{{len(value):,} entries}}"
        return f"{{{', '.join(f'{key!r}: {summarize(one)}' for key, one in value.items())}}}"
    if isinstance(value, list | tuple):
        if len(value) > _MANY or any(map(_is_nested, value)):
            return f"[{len(value):,} entries]"
        return f"[{', '.join(map(summarize, value))}]"
    text = repr(str(value)) if isinstance(value, str | Path) else repr(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def _is_nested(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple) or is_dataclass(value)


def _plain(value: Any) -> Any:
    """Convert a value to JSON types: results and dataclasses to mappings, paths to strings."""
    if isinstance(value, Outcome):
        return value.record()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
