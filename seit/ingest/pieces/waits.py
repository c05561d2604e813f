"""Where the time of a worker goes: waiting for inputs, waiting for codes, writing."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeVar

Stage = Literal["inputs", "codes", "writing"]
_Item = TypeVar("_Item")


class Waits:
    """Seconds that one worker spends on each stage of its pieces.

    Stages overlap in other threads or on other machines; only what this thread waits for counts.
    So a long wait for inputs means that reading and decoding limit the job, and a long wait for
    codes that encoding does.
    """

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {"inputs": 0.0, "codes": 0.0, "writing": 0.0}

    @contextmanager
    def during(self, stage: Stage) -> Iterator[None]:
        """Count the time inside the ``with`` for a stage, less what is counted for others there."""
        started = time.perf_counter()
        others = sum(self.seconds.values()) - self.seconds[stage]
        own = self.seconds[stage]
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            inner = sum(self.seconds.values()) - self.seconds[stage] - others
            self.seconds[stage] = own + spent - inner

    def each(self, items: Iterator[_Item], stage: Stage) -> Iterator[_Item]:
        """Yield items, and count the time that each takes to come."""
        end = object()
        while True:
            with self.during(stage):
                item = next(items, end)
            if item is end:
                return
            yield item  # type: ignore[misc]


def say_waits(seconds: Mapping[str, float]) -> str:
    """Return the shares of the stages in words."""
    total = sum(seconds.values()) or 1.0
    words = {"inputs": "decoded inputs", "codes": "codes", "writing": "writing"}
    return ", ".join(f"{words[name]} {spent / total:.0%}" for name, spent in seconds.items())
