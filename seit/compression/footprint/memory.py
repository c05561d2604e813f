"""Memory of this process: resident now, and at its peak since a reset.

On Linux both come from `/proc/self/status`. The system call `getrusage` is of no use there: a new
process inherits the peak of the one that started it.
"""

import platform
import re
import resource
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident memory of a process, in bytes.

    Attributes:
        before: before the network was loaded, with all modules imported.
        after: after the last batch.
        peak: largest from then on, by the kernel's count of pages.
    """

    before: int
    after: int
    peak: int

    @property
    def added(self) -> int:
        """Bytes that loading and running added at the peak."""
        return max(0, self.peak - self.before)


def resident_bytes() -> int:
    """Return the resident memory of this process; its peak where the system tells no more."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the largest resident memory of this process since :func:`reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Start the peak again from what is resident now, where the system allows it."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:  # not Linux, or a kernel without it: the peak is that of the whole process
        return


def _status(name: str) -> int:
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        found = None
    if found:
        return 1024 * int(found[1])
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
