"""CPU time of runtimes in one process, in alternating rounds.

Legend: B batch, H W stored grid.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from seit.compression.int8.check import Ids
from seit.models import PROGRAM_INPUT, open_session

BATCHES = (1, 64)
ROUNDS = 7
_LEAST_SECONDS = 0.01
"""CPU time of a measurement, at least: a short call is repeated."""
_WINS = 0.8
"""Share of the rounds in which a runtime must be the faster one."""
_MARGIN = 0.98
"""Ratio of median times that counts as faster."""

Call = Callable[[Ids], object]


@dataclass(frozen=True)
class Latency:
    """CPU time of one thread.

    Attributes:
        seconds: time of a batch in each round, by runtime and batch size.
    """

    seconds: Mapping[str, Mapping[int, Sequence[float]]]

    def p50(self, runtime: str, batch: int) -> float:
        """Return the median over rounds, in seconds."""
        return median(self.seconds[runtime][batch])

    def beats(self, runtime: str, other: str, batch: int) -> bool:
        """Return whether a runtime was measured to be faster than another.

        It must win four of five rounds, and two percent of the median.
        """
        own, theirs = self.seconds[runtime][batch], self.seconds[other][batch]
        wins = sum(mine < one for mine, one in zip(own, theirs, strict=True))
        return wins >= _WINS * len(own) and median(own) <= _MARGIN * median(theirs)

    def note(self, runtime: str) -> dict[str, Any]:
        """Return the entry of `run.json`, which says whether ``runtime`` is faster."""
        rounds = len(next(iter(self.seconds[runtime].values())))
        return {
            "unit": "milliseconds of CPU time, one thread, median of alternating rounds",
            "rounds": rounds,
            "p50": {
                name: {str(batch): 1e3 * self.p50(name, batch) for batch in by_batch}
                for name, by_batch in self.seconds.items()
            },
            "verdict": {str(batch): self.verdict(runtime, batch) for batch in self.batches},
        }

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes."""
        return tuple(next(iter(self.seconds.values())))

    def verdict(self, runtime: str, batch: int) -> str:
        """Return what was measured of a runtime at a batch size.

        "faster" than each of the others, "slower" than one of them, or "not faster".
        """
        others = [one for one in self.seconds if one != runtime]
        if all(self.beats(runtime, one, batch) for one in others):
            return "faster"
        return "slower" if any(self.beats(one, runtime, batch) for one in others) else "not faster"


def measure(
    calls: Mapping[str, Call],
    ids: Ids,
    *,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.thread_time,
) -> Latency:
    """Measure calls on batches, one after the other in each of several rounds.

    Args:
        calls: calls by name, each of one thread.
        ids: samples (n, H, W), repeated as needed.
        batches: batch sizes.
        rounds: number of rounds, after one to warm up.
        clock: seconds of CPU time of this thread.
    """
    seconds: dict[str, dict[int, list[float]]] = {
        name: {batch: [] for batch in batches} for name in calls
    }
    inputs = {batch: ids.repeat(-(-batch // len(ids)), axis=0)[:batch] for batch in batches}
    repeats = {
        (name, batch): _repeats(call, inputs[batch], clock)
        for name, call in calls.items()
        for batch in batches
    }
    for _ in range(rounds):
        for batch in batches:
            for name, call in calls.items():
                count = repeats[name, batch]
                seconds[name][batch].append(_timed(call, inputs[batch], count, clock))
    return Latency(seconds)


def session_call(data: bytes) -> Call:
    """Return a call of a file in ONNX Runtime, with one thread."""
    session = open_session(data, origin="the network", threads=1)
    return lambda ids: session.run(None, {PROGRAM_INPUT: ids})


def eager_call(network: nn.Module) -> Call:
    """Return a call of a network of ids in PyTorch, with one thread."""

    def call(ids: Ids) -> object:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                return network(torch.from_numpy(ids))
        finally:
            torch.set_num_threads(threads)

    return call


def _repeats(call: Call, ids: Ids, clock: Callable[[], float]) -> int:
    call(ids)  # warm up
    once = _timed(call, ids, 1, clock)
    return max(1, min(100, round(_LEAST_SECONDS / max(once, 1e-6))))


def _timed(call: Call, ids: Ids, count: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(count):
        call(ids)
    return (clock() - started) / count
