"""Linear probes from covariances: against least squares and class-wise Gaussians."""

import numpy as np
import pytest

from seit.analysis.layers.folds import make_folds
from seit.analysis.layers.moments import Moments
from seit.analysis.layers.probe import LinearMap
from seit.errors import UsageError


def covariances(x, y):
    moments = Moments(x.shape[1], y.shape[1])
    moments.add(x, y)
    return moments.covariances()


def test_ridge_is_that_of_the_normal_equations():
    generator = np.random.default_rng(0)
    x = generator.normal(2.0, 1.0, (200, 6))
    y = x @ generator.normal(size=(6, 3)) + generator.normal(size=(200, 3)) + 4.0
    found = LinearMap.ridge(covariances(x, y), penalty=0.1)
    centered = x - x.mean(0)
    scale = 0.1 * centered.var(0).mean() * 200
    weight = np.linalg.solve(
        centered.T @ centered + scale * np.eye(6), centered.T @ (y - y.mean(0))
    )
    assert np.allclose(found.weight, weight, atol=1e-10)
    new = generator.normal(2.0, 1.0, (50, 6))
    assert np.allclose(found.scores(new), (new - x.mean(0)) @ weight + y.mean(0), atol=1e-10)


def test_determination_is_that_of_predictions():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(300, 6))
    y = x @ generator.normal(size=(6, 3)) + generator.normal(size=(300, 3))
    found = LinearMap.ridge(covariances(x[:200], y[:200]), penalty=0.01)
    errors = ((y[200:] - found.scores(x[200:])) ** 2).mean(0)
    expected = 1 - errors / y[200:].var(0)
    assert np.allclose(found.determination(covariances(x[200:], y[200:])), expected, atol=1e-10)


def test_discriminant_gives_the_posterior_of_gaussians():
    generator = np.random.default_rng(2)
    labels = generator.integers(3, size=600)
    x = generator.normal(size=(3, 4))[labels] * 2 + generator.normal(size=(600, 4))
    found = LinearMap.discriminant(covariances(x, np.eye(3)[labels]), penalty=0.0)
    means = np.stack([x[labels == label].mean(0) for label in range(3)])
    residual = x - means[labels]
    inverse = np.linalg.inv(residual.T @ residual / 600)
    priors = np.bincount(labels) / 600
    distances = np.einsum("nkd,de,nke->nk", x[:, None] - means, inverse, x[:, None] - means)
    expected = -0.5 * distances + np.log(priors)
    scores = found.scores(x)
    offset = scores - expected
    assert np.allclose(offset, offset[:, :1], atol=1e-8)


@pytest.mark.parametrize("penalty", [0.0, 1e-3])
def test_features_that_say_nothing_change_no_probe(penalty):
    """Constant and repeated features leave the weights open; the scores are those without."""
    generator = np.random.default_rng(3)
    labels = generator.integers(3, size=300)
    x = generator.normal(size=(3, 4))[labels] + generator.normal(size=(300, 4))
    constant = np.full((300, 2), 7.0)
    y = np.eye(3)[labels]
    for fit in (LinearMap.ridge, LinearMap.discriminant):
        alone = fit(covariances(x, y), penalty=penalty).scores(x)
        wide = np.concatenate([x, constant], axis=1)
        more = fit(covariances(wide, y), penalty=penalty * 6 / 4).scores(wide)
        assert np.allclose(alone - alone[:, :1], more - more[:, :1], atol=1e-8)
        if not penalty:
            twice = np.concatenate([x, x], axis=1)
            again = fit(covariances(twice, y), penalty=0.0).scores(twice)
            assert np.allclose(alone - alone[:, :1], again - again[:, :1], atol=1e-8)
        found = fit(covariances(constant, y), penalty=penalty)
        assert np.allclose(found.weight, 0)


def test_folds_keep_groups_together_and_are_even():
    groups = [f"speaker-{index % 7}" for index in range(70)]
    folds = make_folds(groups, [1] * 70, num_folds=3)
    for speaker in set(groups):
        own = {fold for fold, name in zip(folds, groups, strict=True) if name == speaker}
        assert len(own) == 1
    assert sorted(np.bincount(folds)) == [20, 20, 30]
    with pytest.raises(UsageError, match="there are 7 groups"):
        make_folds(groups, [1] * 70, num_folds=8)
