"""CPU time of runtimes: alternating rounds, and what counts as faster."""

import numpy as np
import pytest

from seit.compression.int8.latency import Latency, measure

IDS = np.zeros((3, 2, 2), dtype=np.int64)


class Machine:
    """A clock that calls advance, and a log of them."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def call(self, name, seconds):
        def run(ids):
            self.log.append((name, len(ids)))
            self.now += seconds * len(ids)

        return run


def test_rounds_alternate_and_times_are_exact():
    machine = Machine()
    calls = {"a": machine.call("a", 0.5), "b": machine.call("b", 0.25)}
    found = measure(calls, IDS, batches=(1, 8), rounds=5, clock=lambda: machine.now)
    assert machine.log[-4:] == [("a", 1), ("b", 1), ("a", 8), ("b", 8)]
    assert len(machine.log) == 2 * 4 + 5 * 4
    assert found.p50("a", 8) == 4
    assert found.verdict("b", 8) == "faster"
    assert found.verdict("a", 8) == "slower"
    note = found.note("b")
    assert note["p50"] == {"a": {"1": 500.0, "8": 4000.0}, "b": {"1": 250.0, "8": 2000.0}}
    assert note["verdict"] == {"1": "faster", "8": "faster"}
    assert note["rounds"] == 5


def test_short_calls_are_repeated():
    machine = Machine()
    measure({"a": machine.call("a", 1e-3)}, IDS, batches=(1,), rounds=1, clock=lambda: machine.now)
    assert len(machine.log) == 2 + 10


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        ([0.90, 0.90, 0.90, 0.90, 0.90], "faster"),
        ([0.90, 0.90, 0.90, 0.90, 1.50], "faster"),
        ([0.90, 0.90, 0.90, 1.50, 1.50], "not faster"),
        ([0.99, 0.99, 0.99, 0.99, 0.99], "not faster"),
        ([1.00, 1.00, 1.00, 1.00, 1.00], "not faster"),
        ([1.01, 1.01, 1.01, 1.01, 1.01], "not faster"),
        ([1.10, 1.10, 1.10, 1.10, 0.50], "slower"),
        ([1.10, 1.10, 1.10, 0.50, 0.50], "not faster"),
    ],
)
def test_faster_is_what_wins_most_rounds_by_some_margin(own, verdict):
    other = [1.0] * 5
    assert Latency({"int8": {1: own}, "float": {1: other}}).verdict("int8", 1) == verdict


def test_faster_is_faster_than_all_others():
    found = Latency({"int8": {1: [1.0]}, "float": {1: [2.0]}, "eager": {1: [0.9]}})
    assert found.verdict("int8", 1) == "slower"
