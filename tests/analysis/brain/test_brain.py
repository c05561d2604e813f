"""Brain scores on signals whose truth is known."""

import math
import tracemalloc

import numpy as np
import pytest

from seit.analysis.brain.config import BrainConfig
from seit.analysis.brain.encoding import _Ridge, correlations, encode, make_folds
from seit.analysis.brain.responses import Bins, convolved, delayed, glover
from seit.analysis.brain.significance import (
    discoveries,
    least_share,
    left_out_ceiling,
    null_scores,
    p_values,
    pairwise_ceiling,
    sign_flip,
)
from seit.analysis.brain.stimuli import run_features
from seit.analysis.subjects.base import Clip, Place, Subject
from seit.errors import UsageError


def slow(random, count, columns, memory=0.97):
    """Return autoregressive signals of variance 1."""
    values = np.empty((count, columns))
    values[0] = random.normal(size=columns)
    noise = random.normal(size=(count, columns)) * np.sqrt(1 - memory**2)
    for step in range(1, count):
        values[step] = memory * values[step - 1] + noise[step]
    return values


def test_the_response_of_blood_flow():
    times = np.arange(0, 32, 0.01)
    response = glover(times)
    assert response[0] == 0
    assert times[response.argmax()] == pytest.approx(5.1, abs=0.1)
    assert times[response.argmin()] == pytest.approx(12.0, abs=1.5)
    assert np.trapezoid(response, times) == pytest.approx(0.65, abs=0.01)


def test_convolution_is_that_of_the_integral():
    random = np.random.default_rng(0)
    frames, rate, tr = random.normal(size=(1000, 2)), 50.0, 2.0
    found = convolved(frames, rate=rate, tr=tr, num_volumes=20, onset=3.0)
    starts = np.arange(len(frames)) / rate + 3.0
    fine = np.linspace(0, 1 / rate, 21)[:-1] + 0.5 / rate / 20
    for volume in (0, 4, 9, 19):
        after = volume * tr - (starts[:, None] + fine)
        weights = glover(after).mean(1) / rate
        assert np.allclose(found[volume], weights @ frames, atol=0.01)


def test_frames_are_averaged_in_steps():
    frames = np.arange(12.0)[:, None]
    bins = Bins(4, step=1.0)
    bins.add(frames, rate=4, onset=1.0)
    assert bins.means()[:, 0].tolist() == [0.0, 1.5, 5.5, 9.5]
    bins = Bins(5, step=0.5)
    bins.add(frames[:2], rate=1)
    assert bins.means()[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]


class Windows(Subject):
    """Frames of one file of 30 seconds, in windows of some seconds."""

    name, layers, classes = "windows", ("x",), ()

    places: tuple[Place, ...] = ()

    def __init__(self, frames, seconds):
        self.windows = np.split(frames, 30 // seconds)
        self.places = tuple(
            Place(f"a.wav#{number}", "a.wav", -1, float(number * seconds), float(seconds))
            for number in range(len(self.windows))
        )

    def clips(self, rows=None):
        for row in range(len(self.places)) if rows is None else rows:
            yield Clip(row=row, values={"x": self.windows[row]}, seconds=self.places[row].seconds)

    def random_twin(self, seed):
        raise NotImplementedError


@pytest.mark.parametrize("response", ["glover", "delays"])
@pytest.mark.parametrize("rate", [6, 50])
def test_windows_of_a_file_are_averaged_as_its_whole(response, rate):
    frames = np.random.default_rng(0).normal(size=(30 * rate, 2)).astype(np.float32)
    config = BrainConfig(tr=1.5, response=response, delays=2)
    whole, fives, ones = (
        run_features(Windows(frames, seconds), {"a": 20}, config)["x"]["a"]
        for seconds in (30, 5, 1)
    )
    assert np.allclose(fives, whole, atol=1e-12)
    assert np.allclose(ones, whole, atol=1e-12)
    if response == "delays":
        steps = frames.reshape(20, -1, 2).mean(1)
        assert np.allclose(whole[:, :2], steps, atol=1e-6)


def test_delays_begin_with_zeros():
    assert delayed(np.array([[1.0], [2.0], [3.0]]), [0, 2]).tolist() == [
        [1.0, 0.0],
        [2.0, 0.0],
        [3.0, 1.0],
    ]


@pytest.mark.parametrize("ratio", [0.05, 0.5, 4.0])
def test_a_known_linear_map_is_recovered(ratio):
    random = np.random.default_rng(1)
    n, dim, targets = 2000, 50, 300
    x = random.normal(size=(n, dim))
    weights = random.normal(size=(dim, targets)) / np.sqrt(dim)
    y = np.sqrt(ratio) * (x @ weights) + random.normal(size=(n, targets))
    runs = np.array_split(np.arange(n), 5)
    found = encode([x[run] for run in runs], [y[run] for run in runs], penalties=(1e-6,)).mean()
    fit = n * 0.8
    expected = ratio / np.sqrt((ratio + dim / (fit - dim - 1)) * (ratio + 1))
    assert found == pytest.approx(expected, abs=0.01)


def test_slow_noise_predicts_nothing_and_its_null_is_wide():
    random = np.random.default_rng(2)
    x, y = slow(random, 600, 3), slow(random, 600, 40)

    def score(features):
        return encode(features, [y], num_blocks=5, gap=20)

    found = score([x])
    null = null_scores(score, [x], draws=20, least=20, seed=0)
    assert abs(found.mean()) < 0.1
    assert null.std() == pytest.approx(found.std(), rel=0.4)
    assert null.std() > 0.08
    p = p_values(found, null)
    assert (p < 0.05).mean() < 0.25
    assert not discoveries(p).any()


def test_the_layer_behind_each_voxel_is_found():
    random = np.random.default_rng(3)
    rate, tr, seconds = 20.0, 1.5, 400
    first = slow(random, int(rate * seconds), 8, 0.9)
    second = np.tanh(1.5 * first @ random.normal(size=(8, 8)))
    layers = [first, second, np.tanh(2 * second @ random.normal(size=(8, 8)))]
    volumes = int(seconds / tr)
    views = [convolved(one, rate=rate, tr=tr, num_volumes=volumes) for one in layers]
    views = [view / view.std(0) for view in views]
    right = 0
    for number, view in enumerate(views):
        signal = view @ random.normal(size=(8, 20))
        y = signal / signal.std(0) + 0.8 * random.normal(size=(volumes, 20))
        scores = np.stack([encode([one], [y], num_blocks=4, gap=12) for one in views])
        right += (scores.argmax(0) == number).sum()
    assert right >= 54


def test_ceilings():
    random = np.random.default_rng(4)
    n, targets, ratio = 3000, 200, 0.05
    signal = random.normal(size=(n, targets)) * np.sqrt(ratio)
    subjects = [signal + random.normal(size=(n, targets)) for _ in range(5)]
    true = np.sqrt(ratio / (1 + ratio))
    runs = [np.split(one, 5) for one in subjects]
    assert pairwise_ceiling(runs).mean() == pytest.approx(true, abs=0.012)
    best = [correlations(signal, one).mean() for one in subjects]
    assert np.mean(best) == pytest.approx(true, abs=0.01)
    assert left_out_ceiling(runs).mean() == pytest.approx(0.088, abs=0.012)
    levels = [[run + 3 * number for number, run in enumerate(one)] for one in runs]
    for ceiling in (pairwise_ceiling, left_out_ceiling):
        assert ceiling(levels) == pytest.approx(ceiling(runs))  # scores know no levels either
        with pytest.raises(UsageError, match="two subjects"):
            ceiling(runs[:1])


def test_few_shifts_find_targets_only_together():
    for draws, share in ((18, 1.05), (19, 1.0), (20, 0.95), (199, 0.1)):
        assert least_share(draws) == pytest.approx(share, abs=0.005)
    p = np.full(100, 1.0)
    for share, found in ((0.94, 0), (0.96, 96)):
        p[: round(100 * share)] = 1 / 21
        assert discoveries(p).sum() == found


def test_folds_are_runs_or_stretches_with_gaps():
    folds = make_folds([10, 20, 30], num_blocks=5, gap=3)
    assert [fold.test for fold in folds] == [(0, 10), (10, 30), (30, 60)]
    assert folds[1].fit == ((0, 10), (30, 60))
    folds = make_folds([100], num_blocks=5, gap=3)
    assert folds[0].fit == ((23, 100),)
    assert folds[2].test == (40, 60)
    assert folds[2].fit == ((0, 37), (63, 100))
    with pytest.raises(UsageError, match="no 5 folds"):
        make_folds([20], num_blocks=5, gap=3)
    with pytest.raises(UsageError, match="run 1 has 4 samples"):
        encode([np.zeros((5, 1)), np.zeros((4, 1))], [np.zeros((5, 1)), np.zeros((5, 1))])


def test_discoveries_are_those_of_benjamini_and_hochberg():
    p = np.array([0.001, 0.2, 0.008, 0.039, 0.041, 0.9])
    assert discoveries(p).tolist() == [True, False, True, False, False, False]
    p = np.array([0.01, 0.02, 0.03, 0.04])
    assert discoveries(p).all()


def test_signs_are_flipped_exactly():
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert sign_flip(np.array([1.0, -1.0])) == 1.0
    assert sign_flip(np.full(20, 1.0)) < 0.001


def test_sign_flips_of_many_targets_take_little_memory():
    differences = np.random.default_rng(0).normal(size=20_000)
    tracemalloc.start()
    found = sign_flip(differences, draws=1_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6, "all at once are 320 MB"
    z = abs(differences.mean()) / np.sqrt((differences**2).mean() / len(differences))
    assert found == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.06)


@pytest.mark.parametrize(("count", "dim"), [(40, 7), (20, 30)])
def test_ridge_is_that_of_the_normal_equations(count, dim):
    random = np.random.default_rng(5)
    x, y = random.normal(size=(count, dim)) + 3, random.normal(size=(count, 4))
    x[:, 1] = x[:, 0]
    standard = (x - x.mean(0)) / x.std(0)
    for penalty in (0.1, 10.0):
        inverse = np.linalg.inv(standard.T @ standard + penalty * np.eye(dim))
        expected = standard @ inverse @ standard.T @ (y - y.mean(0)) + y.mean(0)
        assert np.allclose(_Ridge(x, y).predict(x, penalty), expected, atol=1e-10)


@pytest.mark.parametrize("name", ["onset", "gap", "shift"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_times_are_finite(name, value):
    with pytest.raises(UsageError, match=f"{name} is {value}; it must be finite"):
        BrainConfig(tr=1.0, **{name: value})


@pytest.mark.parametrize("unit", [1e-15, 1e-13, 1e-7, 1.0, 1e6])
def test_correlations_do_not_depend_on_units(unit):
    first, second = np.random.default_rng(0).normal(size=(2, 50, 3))
    first[:, 2] = 0.1  # constant but for rounding, once the mean is taken off
    expected = [*(np.corrcoef(first[:, m], second[:, m])[0, 1] for m in range(2)), 0]
    assert correlations(first * unit, second * unit) == pytest.approx(expected)
