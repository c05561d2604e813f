"""Measures of continual learning: examples by hand, loops of the formulas, and properties."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from seit.continual_learning import metrics
from seit.continual_learning.metrics import FORMULAS, as_lists, pooled, summarise, task_mean
from seit.errors import UsageError

NAN = float("nan")
R = np.array([[0.9, 0.0, 0.1], [0.6, 0.8, 0.2], [0.7, 0.5, 0.6]])
MATRICES = st.integers(1, 6).flatmap(
    lambda T: arrays(np.float64, (T, T), elements=st.floats(0, 1, allow_subnormal=False))
)


def test_by_hand():
    np.testing.assert_allclose(task_mean(R), [0.9, 0.7, 0.6], rtol=1e-12)
    expected = {
        "last_accuracy": 0.6,
        "average_accuracy": (0.9 + 0.7 + 0.6) / 3,
        "learning_accuracy": (0.9 + 0.8 + 0.6) / 3,
        "old_accuracy": 0.6,
        "new_accuracy": 0.6,
        "forgetting": ((0.9 - 0.7) + (0.8 - 0.5)) / 2,
        "forgetting_incl_last": 0.25,
        "forgetting_first": 0.25,
        "backward_transfer": -0.25,
        "forward_transfer": ((0.0 - 0.05) + (0.2 - 0.3)) / 2,
        "area_under_curve": 0.5,
        "last_accuracy_pooled": (7 + 10 + 6) / 40,
        "average_accuracy_pooled": (9 / 10 + 22 / 30 + 23 / 40) / 3,
        "task_incremental_last_accuracy": 0.8,
        "task_incremental_average_accuracy": (1.0 + 0.9 + 0.8) / 3,
    }
    found = summarise(
        R,
        hits=np.array([[9, 0, 1], [6, 16, 2], [7, 10, 6]]),
        counts=np.array([10, 20, 10]),
        initial=np.array([0.1, 0.05, 0.3]),
        task_incremental=np.array([[1.0, 0.4, 0.4], [0.9, 0.9, 0.4], [0.8, 0.8, 0.8]]),
        curve=[0.25, 0.75],
    )
    assert found == pytest.approx(expected, rel=1e-12)
    assert set(found) == set(FORMULAS) - {"accuracy_matrix"}, "each number has its formula"


def test_the_three_forgettings_differ_where_a_task_peaks_between_and_where_it_gets_better():
    peaks = np.array([[0.5, 0, 0], [0.8, 0.5, 0], [0.6, 0.7, 0.5]])
    assert metrics.forgetting_chaudhry(peaks) == pytest.approx(((0.8 - 0.6) + (0.5 - 0.7)) / 2)
    assert metrics.forgetting_incl_last(peaks) == pytest.approx(((0.8 - 0.6) + 0) / 2)
    assert metrics.forgetting_first(peaks) == pytest.approx(((0.5 - 0.6) + (0.5 - 0.7)) / 2)
    np.testing.assert_allclose(metrics.forgetting_per_task(peaks), [0.2, -0.2], rtol=1e-12)


def test_what_was_told_of_a_task_before_it_was_learnt_is_not_forgotten():
    lucky = np.array([[0.9, 0.99], [0.6, 0.8]])
    assert metrics.forgetting_chaudhry(lucky) == pytest.approx(0.3)
    assert metrics.forgetting_incl_last(np.pad(lucky, (0, 1))) == pytest.approx((0.9 + 0.8) / 2)


def test_a_single_task_has_no_past():
    found = summarise(np.array([[0.75]]), initial=np.array([0.1]))
    assert found == {
        "last_accuracy": 0.75,
        "average_accuracy": 0.75,
        "learning_accuracy": 0.75,
        "old_accuracy": None,
        "new_accuracy": 0.75,
        "forgetting": None,
        "forgetting_incl_last": None,
        "forgetting_first": None,
        "backward_transfer": None,
        "forward_transfer": None,
    }
    assert math.isnan(metrics.area_under([]))


def test_a_protocol_without_the_future_says_so_and_nothing_else_changes():
    bare = np.where(np.tri(3, dtype=bool), R, NAN)
    full, found = (summarise(one, initial=np.zeros(3)) for one in (R, bare))
    assert found.pop("forward_transfer") is None
    assert full.pop("forward_transfer") == pytest.approx(0.1)
    assert found == full
    assert json.loads(json.dumps(as_lists(bare), allow_nan=False)) == [
        [0.9, None, None],
        [0.6, 0.8, None],
        [0.7, 0.5, 0.6],
    ]


def test_pooled_is_the_task_mean_of_balanced_tasks_only():
    hits = np.rint(R * 20).astype(int)
    np.testing.assert_allclose(pooled(hits, np.array([20, 20, 20])), task_mean(R), rtol=1e-12)
    few = pooled(np.array([[1, 0], [1, 90]]), np.array([1, 100]))
    np.testing.assert_allclose(few, [1.0, 91 / 101], rtol=1e-12)


@given(MATRICES)
def test_definitions_are_what_their_formulas_say(R):
    R, T = R.tolist(), len(R)
    matrix = np.array(R)
    means = [math.fsum(R[t][i] for i in range(t + 1)) / (t + 1) for t in range(T)]
    np.testing.assert_allclose(task_mean(matrix), means, atol=1e-12)
    found = summarise(matrix)
    assert found["average_accuracy"] == pytest.approx(math.fsum(means) / T, abs=1e-12)
    if T == 1:
        return
    last = R[T - 1]

    def mean_of(forgotten):
        return math.fsum(forgotten(i) for i in range(T - 1)) / (T - 1)

    by_loop = {
        "forgetting": mean_of(lambda i: max(R[t][i] for t in range(i, T - 1)) - last[i]),
        "forgetting_incl_last": mean_of(lambda i: max(R[t][i] for t in range(i, T)) - last[i]),
        "forgetting_first": mean_of(lambda i: R[i][i] - last[i]),
        "backward_transfer": mean_of(lambda i: last[i] - R[i][i]),
        "old_accuracy": mean_of(lambda i: last[i]),
    }
    assert {name: found[name] for name in by_loop} == pytest.approx(by_loop, abs=1e-12)


@given(MATRICES)
def test_how_the_definitions_lie_to_each_other(R):
    found = summarise(R)
    if len(R) == 1:
        return
    assert found["backward_transfer"] == -found["forgetting_first"]
    assert found["forgetting_incl_last"] >= max(0, found["forgetting"])
    assert found["forgetting"] >= found["forgetting_first"] - 1e-12
    old, new, T = found["old_accuracy"], found["new_accuracy"], len(R)
    assert found["last_accuracy"] == pytest.approx((old * (T - 1) + new) / T, abs=1e-12)
    # Learning accuracy and backward transfer make up the last accuracy.
    kept = found["learning_accuracy"] + (T - 1) / T * found["backward_transfer"]
    assert found["last_accuracy"] == pytest.approx(kept, abs=1e-12)


def test_nothing_is_rounded():
    third = np.full((2, 2), 1 / 3)
    third[0, 0] = 1 / 3 + 1e-9
    assert metrics.forgetting_first(third) == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize("wrong", [np.zeros((2, 3)), np.zeros(4), np.zeros((0, 0))])
def test_matrices_that_are_none(wrong):
    with pytest.raises(UsageError, match="expected"):
        task_mean(wrong)
    with pytest.raises(UsageError, match="expected"):
        pooled(np.ones((2, 2), int), np.ones(3, int))
    with pytest.raises(UsageError, match="expected"):
        metrics.forward_transfer(np.eye(2), np.zeros(3))
