"""Selection of samples for a page, as its address says: split, class, text, order and mistakes.

Legend: n samples found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from seit.errors import UsageError

SORTS = {
    "": "order in the store",
    "key": "key",
    "class": "class",
    "bits": "bits per sample",
    "wrong": "worst mistakes of the run",
}
"""Orders of samples, with their names."""
NO_CLASS = -1
_MAX_TEXT = 500
_MAX_START = 1 << 40


@dataclass(frozen=True)
class Query:
    """Selection and order of the samples of a split.

    Attributes:
        split: name of the split; empty for the first.
        label: number of the class, −1 for samples without one; None for all.
        text: text in the key or the metadata, ignoring case.
        sort: one of ``SORTS``.
        down: whether the order is reversed.
        predicted: class that the run predicts; None for any.
        wrong: whether only samples are shown whose class the run gets wrong.
        run: number of the run that predicts; None for the first that does.
        start: number of the first sample shown, among those found.
    """

    split: str = ""
    label: int | None = None
    text: str = ""
    sort: str = ""
    down: bool = False
    predicted: int | None = None
    wrong: bool = False
    run: int | None = None
    start: int = 0

    @classmethod
    def of_address(cls, values: Mapping[str, str]) -> "Query":
        """Parse the query string of an address; unknown names are ignored.

        Raises:
            UsageError: a value is invalid.
        """
        sort = values.get("sort", "")
        if sort not in SORTS:
            raise UsageError(f"sort is {sort!r}; expected {', '.join(filter(None, SORTS))}")
        return cls(
            split=values.get("split", ""),
            label=_number(values, "class", NO_CLASS),
            text=values.get("q", "")[:_MAX_TEXT].strip(),
            sort=sort,
            down=values.get("down", "") == "1",
            predicted=_number(values, "predicted", 0),
            wrong=values.get("wrong", "") == "1",
            run=_number(values, "run", 0),
            start=_number(values, "start", 0) or 0,
        )

    def address(self, page: str = "/browse", **changes: Any) -> str:
        """Return the address of a page for this query with some values changed."""
        query = replace(self, **changes)
        values = {
            "split": query.split,
            "class": "" if query.label is None else query.label,
            "q": query.text,
            "sort": query.sort,
            "down": "1" if query.down else "",
            "predicted": "" if query.predicted is None else query.predicted,
            "wrong": "1" if query.wrong else "",
            "run": "" if query.run is None else query.run,
            "start": query.start or "",
        }
        shown = urlencode({name: value for name, value in values.items() if value != ""})
        return f"{page}?{shown}" if shown else page

    @property
    def found_by(self) -> "Query":
        """The query without its place, which does not change what is found."""
        return replace(self, start=0)

    @property
    def is_all(self) -> bool:
        """True if all samples are shown in the order of the store."""
        return replace(self, split="", run=None, start=0) == Query()


def _number(values: Mapping[str, str], name: str, least: int) -> int | None:
    text = values.get(name, "")
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= _MAX_START:
        raise UsageError(f"{name} is {text[:40]!r}; expected a number from {least} on")
    return number
