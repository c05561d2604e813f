"""Pairs of works and the ratio of their CPU times."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Work:
    """Something to do, and the clock of the CPU seconds that it takes."""

    do: Callable[[], object]
    clock: Callable[[], float] = time.process_time

    def seconds(self) -> float:
        """Do it once; return its CPU seconds."""
        started = self.clock()
        self.do()
        return self.clock() - started


@dataclass
class Case:
    """Our work and the peer's, done in turns.

    Other load only adds to CPU times, by caches and cores that are shared, so the least of each
    counts. One round before the first does not.
    """

    ours: Work
    peer: Work
    rounds: int
    close: Callable[[], object] = lambda: None
    _seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def measure(self) -> float:
        """Return the peer's least CPU time over ours, of the rounds of all calls."""
        for number in range(-1, self.rounds):
            for work, found in zip((self.ours, self.peer), self._seconds, strict=True):
                seconds = work.seconds()
                if number >= 0:
                    found.append(seconds)
        ours, peer = map(min, self._seconds)
        return peer / ours


def children() -> float:
    """Return the CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
