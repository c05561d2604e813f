"""Scores of layers: a planted hierarchy is found, and chance is chance."""

import weakref

import numpy as np
import pytest
from support.planted import PHONES, Planted

from seit.analysis.layers.config import AnalyzeConfig
from seit.analysis.layers.folds import Division, make_folds
from seit.analysis.layers.gather import gather
from seit.analysis.layers.maps import _Side
from seit.analysis.layers.pooling import averaged, frames_of, resampled
from seit.analysis.layers.reduction import Components, fit_components
from seit.analysis.layers.scores import SCORES, Measured
from seit.analysis.layers.targets import LabelTarget, MatrixTarget, Selection, SpanTarget
from seit.analysis.subjects.base import Clip
from seit.errors import UsageError


def division(subject, target, num_folds=4):
    places = subject.places
    sizes = [target.size(row) for row in range(len(places))]
    return Division(
        make_folds([place.file for place in places], sizes, num_folds=num_folds), num_folds
    )


def phones(subject):
    return SpanTarget(
        subject.places,
        subject.alignments,
        part="middle",
        selection=Selection(fewest=5),
        name="phone",
    )


def scores(subject, target, *, score):
    parts = division(subject, target)
    sums = gather(subject, target, parts, layers=subject.layers, components={}, num_nulls=3, seed=0)
    config = AnalyzeConfig(method=score, nulls=3)
    return list(SCORES[score].of(Measured(subject, target, sums, parts, {}, config)))


@pytest.mark.parametrize("score", ["cca", "r2", "ridge", "lda"])
def test_the_planted_layer_is_found(score):
    subject = Planted()
    found = scores(subject, phones(subject), score=score)
    assert [one.name for one in found] == list(subject.layers)
    assert [one.depth for one in found] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    best = max(found, key=lambda one: one.score)
    assert best.name == "layers.2"
    assert best.score > 0.85
    chance = 1 / len(PHONES) if score in ("ridge", "lda") else 0.0
    for one in found[:2]:
        assert abs(one.score - chance) < 0.12
        assert abs(one.score - one.null_mean) < 4 * max(one.null_std, 0.02)
    assert found[3].score > found[3].null_mean + 4 * found[3].null_std


def test_training_correlations_of_noise_are_no_evidence():
    subject = Planted()
    noise = scores(subject, phones(subject), score="cca")[0]
    assert noise.train > 0.1
    assert abs(noise.score) < 0.06


def test_labels_and_matrices():
    subject = Planted()
    labels = LabelTarget(subject.places, subject.classes, Selection(fewest=5))
    assert labels.types == ("x", "y")
    assert max(abs(one.score - 0.5) for one in scores(subject, labels, score="lda")) < 0.3
    means = subject.values[3].mean(1)
    target = MatrixTarget(means @ np.ones((16, 1)), len(means), name="sums")
    found = scores(subject, target, score="r2")
    assert found[3].score > 0.99
    assert found[0].score < 0.3


def test_rare_types_are_left_out_and_frequent_ones_limited():
    types, used = Selection(fewest=3, most=4).choose(["a"] * 9 + ["b"] * 3 + ["c"] * 2)
    assert types == ("a", "b")
    assert used[:9].sum() == 4
    assert used[9:].tolist() == [True] * 3 + [False] * 2
    with pytest.raises(UsageError, match="pass a smaller --fewest"):
        Selection(fewest=4).choose(["a"] * 9 + ["b"] * 3)


def test_alignments_of_other_files_are_refused():
    subject = Planted()
    other = {f"other/{key}": spans for key, spans in subject.alignments.items()}
    with pytest.raises(UsageError, match=r"cover none of the 60 clips \(the first is 0\.wav\)"):
        SpanTarget(subject.places, other, part="whole", selection=Selection(), name="phone")


@pytest.mark.parametrize(
    ("start", "end", "part", "expected"),
    [
        (0.0, 1.0, "whole", (0, 20)),
        (0.26, 0.49, "whole", (5, 10)),
        (0.26, 0.49, "middle", (7, 8)),
        (0.0, 0.6, "middle", (4, 8)),
        (0.0, 0.04, "middle", (0, 1)),
        (0.0, 0.1, "middle", (0, 1)),
        (0.99, 1.2, "whole", (19, 20)),
    ],
)
def test_frames_of_spans(start, end, part, expected):
    assert frames_of(start, end, rate=20, num_frames=20, part=part) == expected


def test_frames_are_averaged():
    frames = np.arange(24, dtype=np.float32).reshape(12, 2)
    assert averaged(frames, 2, 4).tolist() == [5.0, 6.0]
    assert resampled(frames, 12).tolist() == frames.tolist()
    assert resampled(frames, 4).tolist() == frames.reshape(4, 3, 2).mean(1).tolist()


class Wide(Planted):
    """Clips of 40 frames of 600 features; counts those that are held at once."""

    layers = ("x", "y")
    held = most = 0

    def clips(self, rows=None):
        for row in rows:
            values = {
                layer: np.random.default_rng((row, number)).normal(5.0, 1.0, (40, 600))
                for number, layer in enumerate(self.layers)
            }
            for one in values.values():
                self.held += 1
                weakref.finalize(one, self._drop)
            self.most = max(self.most, self.held)
            yield Clip(row=row, values=values, seconds=2.0)
            del values, one

    def _drop(self):
        self.held -= 1


def test_a_pilot_holds_the_frames_that_it_uses_alone():
    subject, rows = Wide(), range(60)
    fitted = fit_components(subject, rows, ["x"], max_dim=8)
    assert subject.most <= 4, "two clips of two layers"
    share = 2048 // 60
    frames = [clip.values["x"][::1][:share] for clip in subject.clips(rows)]
    expected = Components.fit(np.concatenate(frames), 8)
    assert np.array_equal(fitted["x"].directions, expected.directions)
    assert np.array_equal(fitted["x"].mean, expected.mean)
    assert fitted["x"].variance == expected.variance
    assert fit_components(subject, rows, ["x"], max_dim=600) == {}


def test_both_sides_of_cka_hold_one_clip_at_a_time():
    subject = Wide()
    side = _Side.of(subject)
    assert subject.most <= 4
    first = next(iter(subject.clips([0])))
    assert side.frames(first, 16)["y"].shape == (16, 256)
    every = [side.frames(clip, 40)["x"].mean(0) for clip in subject.clips(range(60))]
    assert np.allclose(np.mean(every, axis=0), 0.0, atol=1e-5)


def test_components_keep_what_varies():
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(30, 3)))[0].astype(np.float32)
    frames = (5.0 + random.normal(size=(200, 3)) @ basis.T).astype(np.float32)
    fitted = Components.fit(frames, 3)
    assert fitted.variance == pytest.approx(1.0, abs=1e-6)
    back = fitted.apply(frames) @ fitted.directions.T + fitted.mean
    assert np.allclose(back, frames, atol=1e-4)
