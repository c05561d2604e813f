"""Texts of unknown origin, so that a terminal or a page shows them and does nothing else."""

import re

CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, half surrogates, and what reorders the text around it."""


def printable(text: object) -> str:
    r"""Return a text in one line, its control characters as ``\x1b``, ``\n`` or ``\u202e``."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], str(text))
