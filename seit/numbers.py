"""Numbers formatted for readers: significant digits, percentages, bytes."""

import math
from collections.abc import Callable

BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
"""Decimal: 1 kB is 1,000 bytes."""


def number(value: float) -> str:
    """Format a value in four significant digits; whole numbers in full with commas up to 1e15."""
    if not math.isfinite(value):
        return "–"
    if value == round(value) and abs(value) < 1e15:
        return minus(f"{round(value):,}")
    if 1e-4 <= abs(value) < 1e15:
        decimals = max(0, 3 - math.floor(math.log10(abs(value))))
        return minus(_trim(f"{value:,.{decimals}f}"))
    return minus(f"{value:.3g}")


def percent(fraction: float, *, decimals: int = 1) -> str:
    """Format a fraction (0–1) as a percentage, such as ``"93.4%"``."""
    return minus(f"{100.0 * fraction:.{decimals}f}%") if math.isfinite(fraction) else "–"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: ``"1 file"``, ``"2,000 files"``; ``plural`` if it has no s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def human_bytes(num_bytes: float) -> str:
    """Format a size in three significant digits: 812 → ``"812 B"``, 12,900 → ``"12.9 kB"``."""
    if not math.isfinite(num_bytes):
        return "–"
    size = abs(num_bytes)
    unit = 0
    # 999.5 would round to 1000 of this unit, which is 1 of the next.
    while size >= 999.5 and unit < len(BYTE_UNITS) - 1:
        size /= 1000.0
        unit += 1
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    sign = "−" if num_bytes < 0 else ""
    return f"{sign}{_trim(f'{size:.{decimals}f}')} {BYTE_UNITS[unit]}"


def unit_format(label: str) -> Callable[[float], str]:
    """Return the formatter of values with a label: sizes if its first word is "bytes" or "B"."""
    return human_bytes if label.split()[:1] in (["bytes"], ["Bytes"], ["B"]) else number


def minus(digits: str) -> str:
    """Return the digits with a true minus sign, but none before a value that rounds to zero."""
    if not digits.startswith("-"):
        return digits
    return "−" + digits[1:] if any(digit in "123456789" for digit in digits) else digits[1:]


def _trim(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
