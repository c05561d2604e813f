"""Integers on the command line; the parser's own type rounds fractions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from cyclopts import Token


def _parse(_: object, tokens: "Sequence[Token]") -> int:
    """Return the integer of a flag's text, such as 30 or 30.0."""
    text = tokens[0].value
    try:
        if "." not in text:
            return int(text)
        if (number := float(text)).is_integer():
            return int(number)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not a whole number")


Integer = Annotated[int, Parameter(converter=_parse)]
"""Type of a flag that takes a whole number."""
