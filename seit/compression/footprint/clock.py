"""Times of a repeated call: of the wall and of the processor."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

MIN_REPEATS = 10
MAX_REPEATS = 20_000
WARM_UP = 3
"""Calls before the first that counts."""
_PATIENCE = 5
"""Multiple of the time allowed that `MIN_REPEATS` may take; three repeats are always taken."""
_FEW = 3


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Times of one call in milliseconds, after a warm-up.

    Attributes:
        p50: median of the wall time.
        p95: 95th percentile of the wall time.
        cpu_p50: median of the processor time of all threads of the process.
        thread_p50: median of the processor time of the calling thread.
        repeats: calls that were timed.
    """

    p50: float
    p95: float
    cpu_p50: float
    thread_p50: float
    repeats: int


def time_calls(call: Callable[[], object], *, seconds: float, warm_up: int = WARM_UP) -> Latency:
    """Time a call again and again.

    Args:
        call: takes no arguments.
        seconds: time to spend; more if `MIN_REPEATS` calls take longer.
        warm_up: calls before the first that counts.
    """
    for _ in range(warm_up):
        call()
    rows: list[list[float]] = []
    with _without_collection():
        started = time.perf_counter()
        while not _is_enough(len(rows), time.perf_counter() - started, seconds):
            before = _clocks()
            call()
            rows.append([b - a for a, b in zip(before, _clocks(), strict=True)])
    wall, cpu, thread = 1000 * np.array(rows).T
    return Latency(
        p50=float(np.median(wall)),
        p95=float(np.percentile(wall, 95)),
        cpu_p50=float(np.median(cpu)),
        thread_p50=float(np.median(thread)),
        repeats=len(rows),
    )


def _is_enough(repeats: int, elapsed: float, seconds: float) -> bool:
    if repeats >= MAX_REPEATS or (repeats >= MIN_REPEATS and elapsed >= seconds):
        return True
    return repeats >= _FEW and elapsed >= _PATIENCE * seconds


def _clocks() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), time.thread_time()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Suspend garbage collection, whose pauses are not the network's."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
