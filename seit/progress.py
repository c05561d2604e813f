"""Progress of jobs: callbacks, rate and remaining time, and their formatting."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called with (steps done, total, latest figures by name)."""
Count = Callable[[int, int], None]
"""Called with (done, total)."""
StageProgress = Callable[[str, int, int], None]
"""Called with (stage, done, total), by jobs with several stages."""
_Item = TypeVar("_Item")
_WINDOW_SECONDS = 60.0
_MARK_SECONDS = 0.05
_MIN_MARKS = 5


class Pace:
    """Rate and remaining time of a job, by its progress in the last minute.

    A job slower than that is measured over its last few units. Units done by an earlier call are
    not counted.

    Args:
        clock: monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()
        self._total = 0

    def update(self, done: int, total: int) -> None:
        """Record that ``done`` of ``total`` units are done; a lower count starts another job."""
        if self._marks and (done < self._marks[-1][1] or total != self._total):
            self._marks.clear()
        now = self._clock()
        self._total = total
        if len(self._marks) > 1 and now - self._marks[-2][0] < _MARK_SECONDS:
            self._marks.pop()
        self._marks.append((now, done))
        while len(self._marks) > _MIN_MARKS and now - self._marks[1][0] >= _WINDOW_SECONDS:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Units per second; None before two different counts were recorded."""
        if not self._marks:
            return None
        (since, first), (now, last) = self._marks[0], self._marks[-1]
        return (last - first) / (now - since) if last > first and now > since else None

    @property
    def remaining(self) -> float | None:
        """Seconds until all units are done; None while the rate is unknown."""
        rate = self.rate
        return None if rate is None else (self._total - self._marks[-1][1]) / rate


class Pulse:
    """Log line every few seconds of a count whose end is not known.

    Args:
        say: receives the line.
        text: line with a place for the count, such as ``"listing photos: {:,} files so far"``.
        seconds: time between lines.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        text: str,
        *,
        seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._text = text
        self._seconds = seconds
        self._clock = clock
        self._last = clock()

    def beat(self, count: int) -> None:
        """Log the count if it is time."""
        now = self._clock()
        if now - self._last >= self._seconds:
            self._last = now
            self._say(self._text.format(count))

    def each(
        self, items: Iterable[_Item], *, per: Callable[[_Item], int] | None = None
    ) -> Iterator[_Item]:
        """Yield items and log how many came so far, each counting as ``per`` says."""
        count = 0
        for item in items:
            yield item
            count += 1 if per is None else per(item)
            self.beat(count)


def human_seconds(seconds: float) -> str:
    """Format a duration, such as ``1 h 02 min`` or ``34 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def human_rate(per_second: float, unit: str = "") -> str:
    """Format a rate, such as ``1,240 samples/s``, ``3.4 samples/s`` or ``0.025 samples/s``."""
    if per_second >= 9.95 or not math.isfinite(per_second):
        number = f"{per_second:,.0f}"
    elif per_second >= 0.995:
        number = f"{per_second:.1f}"
    else:
        number = f"{per_second:.2g}"
    return f"{number} {unit}/s" if unit else f"{number}/s"
