"""Allocation of bits within a budget, compared with brute force and with an integer program."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from seit.compression.weights.allocation import allocate


def instance(seed, layers, choices):
    random = np.random.default_rng(seed)
    sizes = [sorted(random.integers(1, 400, choices).tolist()) for _ in range(layers)]
    costs = [sorted(random.gamma(0.5, 1.0, choices).tolist(), reverse=True) for _ in range(layers)]
    least, most = sum(min(one) for one in sizes), sum(max(one) for one in sizes)
    return sizes, costs, int(random.integers(least, most + 1))


def total(values, chosen):
    return sum(one[index] for one, index in zip(values, chosen, strict=True))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 30), layers=st.integers(1, 6), choices=st.integers(1, 4))
def test_allocation_is_the_best_of_all(seed, layers, choices):
    sizes, costs, budget = instance(seed, layers, choices)
    chosen = allocate(sizes, costs, budget=budget)
    assert total(sizes, chosen) <= budget
    best = min(
        total(costs, one)
        for one in itertools.product(range(choices), repeat=layers)
        if total(sizes, one) <= budget
    )
    assert total(costs, chosen) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_allocation_is_that_of_an_integer_program(seed):
    from scipy.optimize import LinearConstraint, milp

    layers, choices = 24, 5
    sizes, costs, budget = instance(seed, layers, choices)
    chosen = allocate(sizes, costs, budget=budget)
    one_each = np.kron(np.eye(layers), np.ones(choices))
    found = milp(
        np.ravel(costs),
        integrality=np.ones(layers * choices),
        bounds=(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.ravel(sizes)[None], ub=budget),
        ],
        options={"mip_rel_gap": 0.0},
    )
    assert total(costs, chosen) == pytest.approx(found.fun, rel=1e-6)


def test_more_budget_never_costs_more():
    sizes, costs, _ = instance(7, 10, 4)
    least, most = sum(min(one) for one in sizes), sum(max(one) for one in sizes)
    found = [
        total(costs, allocate(sizes, costs, budget=budget)) for budget in range(least, most, 37)
    ]
    assert found == sorted(found, reverse=True)


def test_a_budget_below_the_least_has_no_allocation():
    assert allocate([[3, 5], [4, 9]], [[1.0, 0.0], [1.0, 0.0]], budget=6) is None
    assert allocate([[3, 5], [4, 9]], [[1.0, 0.0], [1.0, 0.0]], budget=7) == [0, 0]
