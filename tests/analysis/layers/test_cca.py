"""CCA from covariances: against QR and SVD, closed forms, invariances, and the null."""

import numpy as np
import pytest

from seit.analysis.layers.cca import (
    fit_cca,
    held_out,
    held_out_correlation,
    training_correlation,
)
from seit.analysis.layers.moments import Moments
from seit.errors import UsageError


def covariances(x, y):
    moments = Moments(x.shape[1], y.shape[1])
    moments.add(x, y)
    return moments.covariances()


def by_qr(x, y):
    """Return the canonical correlations by Björck and Golub's method."""
    bases = [np.linalg.qr(one - one.mean(0))[0] for one in (x, y)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)


def related(count, *, dim_x=12, dim_y=5, seed=0):
    """Return two views of three shared signals."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(count, 3))
    x = shared @ generator.normal(size=(3, dim_x)) + generator.normal(size=(count, dim_x))
    y = shared @ generator.normal(size=(3, dim_y)) + generator.normal(size=(count, dim_y))
    return x + 7.0, y - 3.0


def test_correlations_are_those_of_qr():
    x, y = related(500)
    fitted = fit_cca(covariances(x, y), ridge=0.0)
    assert np.allclose(fitted.correlations, by_qr(x, y), atol=1e-10)


def test_held_out_correlations_are_those_of_projected_samples():
    x, y = related(600)
    fitted = fit_cca(covariances(x[:400], y[:400]))
    left, right = x[400:] @ fitted.left, y[400:] @ fitted.right
    expected = [np.corrcoef(left[:, i], right[:, i])[0, 1] for i in range(5)]
    assert np.allclose(held_out(fitted, covariances(x[400:], y[400:])), expected, atol=1e-10)


def test_known_canonical_correlations_are_found():
    generator = np.random.default_rng(1)
    count, known = 200_000, np.array([0.9, 0.5, 0.1])
    z = generator.normal(size=(count, 3))
    x = z @ generator.normal(size=(3, 3))
    y = (known * z + np.sqrt(1 - known**2) * generator.normal(size=(count, 3))) @ generator.normal(
        size=(3, 3)
    )
    assert np.allclose(fit_cca(covariances(x, y), ridge=0.0).correlations, known, atol=0.005)


def test_summaries_are_invariant():
    x, y = related(400)
    generator = np.random.default_rng(2)
    rotation = np.linalg.qr(generator.normal(size=(12, 12)))[0]
    fitted = fit_cca(covariances(x, y), ridge=0.0)
    turned = fit_cca(covariances(3.0 * (x @ rotation) + 50.0, y), ridge=0.0)
    assert np.allclose(fitted.correlations, turned.correlations, atol=1e-9)
    shifted = fit_cca(covariances(x + 100.0, y - 20.0), ridge=0.0)
    assert np.allclose(fitted.weights, shifted.weights, atol=1e-8)
    assert training_correlation(fitted).weighted == pytest.approx(
        training_correlation(shifted).weighted, abs=1e-8
    )


def test_weights_are_those_of_the_definition():
    x, y = related(300)
    fitted = fit_cca(covariances(x, y), ridge=0.0)
    centered = x - x.mean(0)
    variates = centered @ fitted.left
    variates /= np.linalg.norm(variates, axis=0)
    sums = np.abs(variates.T @ centered).sum(1)
    assert np.allclose(fitted.weights, sums / sums.sum(), atol=1e-10)


def test_independent_labels_correlate_on_training_data_alone():
    generator = np.random.default_rng(3)
    count, dim, types = 4000, 120, 20
    x = generator.normal(size=(count, dim))
    y = np.eye(types)[generator.integers(types, size=count)]
    half = count // 2
    fitted = fit_cca(covariances(x[:half], y[:half]))
    trap = training_correlation(fitted).mean
    assert trap == pytest.approx(np.sqrt((dim - 1) / half), abs=0.05)
    found = held_out_correlation(fitted, covariances(x[half:], y[half:]))
    assert abs(found.mean) < 3 / np.sqrt(half * (types - 1))
    assert abs(found.weighted) < 3 / np.sqrt(half * (types - 1))


def test_one_hot_labels_have_a_component_less():
    generator = np.random.default_rng(4)
    labels = generator.integers(5, size=300)
    fitted = fit_cca(covariances(generator.normal(size=(300, 8)), np.eye(5)[labels]))
    assert len(fitted.correlations) == 4


def test_svcca_drops_directions_of_little_variance():
    x, y = related(500)
    x = np.concatenate([x, 1e-4 * np.random.default_rng(5).normal(size=(500, 20))], axis=1)
    assert len(fit_cca(covariances(x, y), variance=0.99).left) == 32
    kept = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    rank = int(np.searchsorted(np.cumsum(kept) / kept.sum(), 0.99)) + 1
    fitted = fit_cca(covariances(x, y), ridge=0.0, variance=0.99)
    assert np.linalg.matrix_rank(fitted.left) <= min(rank, 5)


def test_a_constant_layer_is_refused():
    with pytest.raises(UsageError, match="the layer is constant"):
        fit_cca(covariances(np.ones((10, 3)), np.random.default_rng(0).normal(size=(10, 2))))
