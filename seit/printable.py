"""Sanitization of untrusted texts for terminals and pages."""

import re

CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, lone surrogates, and characters that reorder text."""


def printable(text: object) -> str:
    r"""Return a text in one line, with control characters as ``\x1b``, ``\n`` or ``\u202e``."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], str(text))
