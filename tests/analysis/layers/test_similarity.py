"""`seit analyze cka`, interrupted: it continues within its pass, to the same values."""

import signal

import numpy as np
import pytest
from support.planted import Planted

from seit.analysis.journal import UNFINISHED_NAME
from seit.analysis.layers.maps import compare_layers
from seit.errors import DamagedError, UsageError
from seit.tensors import array_bytes


def interrupt_at(clip):
    def progress(done, total):
        if done == clip:
            signal.raise_signal(signal.SIGINT)

    return progress


def test_an_interrupted_comparison_continues_to_the_same_values(tmp_path):
    first, second = Planted(20), Planted(20, seed=5)
    whole = compare_layers(first, second)
    with pytest.raises(KeyboardInterrupt):
        compare_layers(first, second, out=tmp_path / "out", progress=interrupt_at(12))
    left = []
    found = compare_layers(
        first,
        second,
        out=tmp_path / "out",
        resume=True,
        progress=lambda done, total: left.append(done),
    )
    assert left == list(range(13, 21))
    assert found.cka == whole.cka
    assert found.samples == whole.samples
    assert not (tmp_path / "out" / UNFINISHED_NAME).exists()


def test_the_sums_of_another_comparison_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        compare_layers(Planted(9), Planted(9), out=tmp_path / "out", progress=interrupt_at(5))
    with pytest.raises(UsageError, match=r"differs in .*weights"):
        compare_layers(Planted(9, seed=3), Planted(9, seed=4), out=tmp_path / "out", resume=True)
    path = tmp_path / "out" / UNFINISHED_NAME / "sums.safetensors"
    for arrays in ({}, {"clips": np.array([2.0])}):
        path.write_bytes(array_bytes(arrays))
        with pytest.raises(DamagedError, match="start again"):
            compare_layers(Planted(9), Planted(9), out=tmp_path / "out", resume=True)
