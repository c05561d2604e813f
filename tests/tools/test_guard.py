"""Ratios of `tools/bench/guard.py`: the least of each side, over all rounds."""

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "tools" / "bench"


@pytest.fixture
def case(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    from guard_bench import case as module

    yield module
    for name in [name for name in sys.modules if name.startswith("guard_bench")]:
        del sys.modules[name]


def test_the_least_times_of_all_calls_count_and_the_first_round_does_not(case):
    clock = [0.0]
    ours, peer = iter([1, 4, 2, 9, 8, 8]), iter([1, 6, 7, 9, 5, 9])

    def work(costs):
        return case.Work(lambda: clock.__setitem__(0, clock[0] + next(costs)), lambda: clock[0])

    pair = case.Case(work(ours), work(peer), rounds=2)
    assert pair.measure() == 6 / 2
    assert pair.measure() == 5 / 2
