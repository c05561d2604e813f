"""Memory that this process can still take: of the machine, or of its container."""

import os
import re
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""Files of a container's limit, its use, and its parts, in versions 2 and 1 of control groups."""


def available_bytes() -> int | None:
    """Return the memory that processes can still take; None where the system does not tell.

    Cached files count as available, and a container's limit counts if it is lower.
    """
    found = _machine_bytes()
    rooms = [room for room in (found, *map(_room, _LIMITS)) if room is not None]
    return min(rooms) if rooms else None


def _machine_bytes() -> int | None:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", _MEMORY.read_text())
    except OSError:
        found = None
    if found:
        return 1024 * int(found[1])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (OSError, ValueError):
        return None


def _room(files: tuple[str, str, str]) -> int | None:
    """Return what a container may still take: its limit less what it cannot drop."""
    try:
        limit, used, parts = ((_GROUPS / file).read_text() for file in files)
    except OSError:
        return None
    if not limit.strip().isdigit():  # "max"
        return None
    cached = re.search(r"^inactive_file (\d+)$", parts, re.MULTILINE)
    return max(0, int(limit) - int(used) + (int(cached[1]) if cached else 0))
