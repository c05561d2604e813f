"""Chance is that of targets rearranged over whole folds, in any order of the data."""

import numpy as np
import pytest

from seit.analysis.layers.analyze import analyze_layers
from seit.analysis.layers.config import AnalyzeConfig
from seit.analysis.layers.folds import Division
from seit.analysis.layers.rearrangement import Rearrangement
from seit.analysis.layers.targets import FramesTarget, MatrixTarget
from seit.analysis.subjects.base import Clip, Place, Subject


class Held(Subject):
    """Clips of arrays (n, T, D) by layer, and a class for each clip."""

    name = "held"

    def __init__(self, values, labels):
        self.values, self.labels = values, labels
        self.layers = tuple(values)
        self.classes = tuple(f"c{number}" for number in range(max(labels) + 1))
        self.seconds = float(next(iter(values.values())).shape[1])

    @property
    def places(self):
        return [
            Place(f"{row:05}", f"{row:05}", label, 0.0, self.seconds)
            for row, label in enumerate(self.labels)
        ]

    def clips(self, rows=None):
        for row in range(len(self.labels)) if rows is None else rows:
            values = {layer: one[row] for layer, one in self.values.items()}
            yield Clip(row=row, values=values, seconds=self.seconds)

    def random_twin(self, seed):
        raise NotImplementedError


def score(subject, **settings):
    config = AnalyzeConfig(random_twin=False, **settings)
    groups = [place.file for place in subject.places]
    return analyze_layers(subject, config, groups=groups).layers[0]


@pytest.mark.parametrize("method", ["cca", "r2"])
def test_clips_that_differ_as_a_whole_are_no_chance(method):
    random = np.random.default_rng(0)
    own = random.normal(size=(64, 1, 8))  # loudness, channel and speaker of a clip
    x = own + random.normal(size=(64, 200, 8))
    y = own @ random.normal(size=(8, 8)) + 3 * random.normal(size=(64, 200, 8))
    values = {"x": x.astype(np.float32), "y": y.astype(np.float32)}
    found = score(Held(values, [0] * 64), method=method, target="layer:y")
    assert found.score > 0.15
    assert -0.06 < found.null_mean < 0.03, "below 0 where folds differ in their means"


@pytest.mark.parametrize(("method", "chance"), [("cca", 0.0), ("ridge", 0.1), ("lda", 0.1)])
def test_sorted_data_have_the_chance_of_any_order(method, chance):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 200)
    means = random.normal(size=(10, 32))
    x = (means[labels] + 0.7 * random.normal(size=(2000, 32))).astype(np.float32)
    subject = Held({"x": x[:, None]}, labels.tolist())
    found = score(subject, method=method, nulls=6)
    assert found.score > 0.8
    assert abs(found.null_mean - chance) < (0.05 if chance else 0.02), "clusters move as a whole"


def rearranged(target, folds, sizes, **settings):
    """Return the drawn targets (P, N, K) of each fold, in the order of the clips."""
    division = Division(np.array(folds), max(folds) + 1)
    one = Rearrangement(target, division, num_nulls=3, **settings)
    parts = [one.samples(row, size) for row, size in enumerate(sizes) if size]
    rows = [fold for fold, size in zip(folds, sizes, strict=True) if size]
    return [
        np.concatenate([part for part, own in zip(parts, rows, strict=True) if own == fold], axis=1)
        for fold in range(division.num_folds)
    ]


def test_all_samples_of_a_fold_change_places():
    values = np.arange(40.0)[:, None]
    folds = [row % 2 for row in range(40)]
    target = MatrixTarget(values, 40, name="numbers")
    found = rearranged(target, folds, [1] * 40, seed=0)
    for fold, draws in enumerate(found):
        assert len({tuple(draw[:, 0]) for draw in draws}) == 3
        for draw in draws:
            assert sorted(draw[:, 0]) == values[fold::2, 0].tolist()
    other = rearranged(target, folds, [1] * 40, seed=1)
    assert not np.array_equal(found[0], other[0])


def test_frames_are_averaged_as_those_of_a_slower_layer():
    lengths = [8, 12, 6, 10]
    starts = np.cumsum([0, *lengths])
    frames = {
        row: np.arange(starts[row], starts[row + 1], dtype=np.float32)[:, None]
        for row in range(len(lengths))
    }
    target = FramesTarget(frames, dim=1, name="numbers")
    (equal,) = rearranged(target, [0] * 4, lengths, seed=0)
    for draw in equal:
        assert sorted(draw[:, 0]) == list(range(36))
    (slower,) = rearranged(target, [0] * 4, [length // 2 for length in lengths], seed=0)
    assert slower.shape == (3, 18, 1)
    assert set(slower.ravel()) <= {2 * number + 0.5 for number in range(18)}
    clip = Clip(row=1, values={"x": np.zeros((5, 2), dtype=np.float32)}, seconds=1.0)
    expected = target.samples(clip, "x").y[:, 0].tolist()
    assert {float(target.at(1, number, 5 / 12)[0]) for number in range(12)} == set(expected)
