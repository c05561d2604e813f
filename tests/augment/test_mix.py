"""Emb-Noise, ColorAdapt, CutMix and Mixup, against loops over samples and closed forms."""

import math

import numpy as np
import pytest
import torch
from support.references import kolmogorov_smirnov

from seit.augment import (
    Op,
    SampleRandom,
    add_noise_,
    apply_cutmix,
    apply_mixup,
    beta_weights,
    channel_units,
    codebook_unit,
    color_adapt_,
    cutmix_boxes,
    noise,
)
from seit.errors import UsageError


def draws(count, *, seed=8):
    return SampleRandom(seed, 0, torch.arange(count))


def normal_batch(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_unit_is_the_rms_deviation_of_an_element():
    codebook = 3 + 0.25 * normal_batch(2000, 8) + 10 * torch.arange(8)
    centred = codebook.double().numpy() - codebook.double().numpy().mean(0)
    assert codebook_unit(codebook) == pytest.approx(math.sqrt((centred**2).mean()), rel=1e-9)
    assert codebook_unit(codebook) == pytest.approx(0.25, rel=0.02)


def test_units_are_the_deviations_of_the_channels():
    widths = torch.tensor([2.9, 1.0, 0.07, 0.0])
    codebook = 3 + widths * normal_batch(500, 4)
    units = channel_units(codebook)
    for channel, column in enumerate(codebook.double().T.tolist()):
        mean = sum(column) / len(column)
        expected = math.sqrt(sum((code - mean) ** 2 for code in column) / len(column))
        assert units[channel].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    alike = torch.cat([torch.eye(8), -torch.eye(8)])  # every channel varies as every other
    assert torch.equal(
        channel_units(alike), torch.full((8,), codebook_unit(alike), dtype=torch.float64)
    )


def test_noise_equals_a_loop():
    x, units = normal_batch(10, 4, 6, 5), torch.tensor([2.0, 0.0, 0.1, 7.0])
    y = add_noise_(x.clone(), draws(10), prob=0.5, scale=0.7, std=0.3, units=units)
    chosen = draws(10).uniform(Op.NOISE_GATE) < 0.5
    assert 0 < chosen.sum() < 10
    for b in range(10):
        expected = x[b].double().numpy()
        if chosen[b]:
            one = SampleRandom(8, 0, torch.tensor([b]))
            shift = one.normal(Op.NOISE_CHANNEL, (4,))[0].double().numpy()
            element = one.normal(Op.NOISE_ELEMENT, (4, 6, 5))[0].double().numpy()
            amount = units.double().numpy()[:, None, None]
            expected = expected + amount * (0.7 * shift[:, None, None] + 0.3 * element)
        np.testing.assert_allclose(y[b], expected, atol=1e-5)


def test_noise_has_its_amplitudes():
    zeros = torch.zeros((400, 16, 8, 8))
    y = add_noise_(
        zeros.clone(), draws(400), prob=1, scale=2, std=0.5, units=torch.full((16,), 3.0)
    ).double()
    channel_means = y.mean(dim=(2, 3))
    assert channel_means.std() == pytest.approx(math.hypot(6, 1.5 / 8), rel=0.03)
    assert (y - channel_means[..., None, None]).var() == pytest.approx(1.5**2 * 63 / 64, rel=0.02)
    half = add_noise_(zeros.clone(), draws(400), prob=0.5, scale=1, std=1, units=torch.ones(16))
    touched = half.flatten(1).any(1).double().mean()
    assert abs(touched - 0.5) < 4 * math.sqrt(0.25 / 400)


@pytest.mark.parametrize(
    "amounts", [{"prob": 0, "scale": 1, "std": 1}, {"prob": 1, "scale": 0, "std": 0}]
)
def test_no_noise(amounts):
    x = normal_batch(4, 2, 3, 3)
    assert torch.equal(add_noise_(x.clone(), draws(4), units=torch.ones(2), **amounts), x)


@pytest.mark.parametrize("prob", [0.0, 0.4, 1.0])
def test_drawing_for_all_or_for_the_chosen_is_the_same(prob):
    x, random = normal_batch(9, 16, 7, 7), draws(9)
    chosen = random.uniform(Op.NOISE_GATE) < prob
    amounts = 0.7 * torch.arange(16), 0.4 * torch.arange(16)
    few = noise._add_to_chosen(x.clone(), random, chosen, *amounts)
    assert torch.equal(few, noise._add_masked(x.clone(), random, chosen, *amounts))


@pytest.mark.parametrize("alpha", [0.02, 0.2, 0.5, 0.8, 1.0, 1.001, 1.7, 8.0, 4000.0])
def test_weights_have_the_moments_of_a_beta_distribution(alpha):
    lam = beta_weights(draws(8000), alpha=alpha).double()
    assert ((lam >= 0) & (lam <= 1)).all()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(lam.mean() - 0.5) < 4 * math.sqrt(variance / len(lam))
    assert lam.var() == pytest.approx(variance, rel=0.05)


def test_weights_have_known_distributions():
    """Beta(1, 1) is uniform, Beta(1/2, 1/2) the arcsine law; and numpy's for another alpha."""
    assert kolmogorov_smirnov(beta_weights(draws(20_000), alpha=1), lambda x: x) < 1.95
    arcsine = beta_weights(draws(20_000), alpha=0.5)
    law = lambda x: 2 / math.pi * np.arcsin(np.sqrt(x))  # noqa: E731
    assert kolmogorov_smirnov(arcsine, law) < 1.95
    theirs = np.sort(np.random.default_rng(0).beta(0.8, 0.8, 400_000))
    empirical = lambda x: np.searchsorted(theirs, x) / len(theirs)  # noqa: E731
    assert kolmogorov_smirnov(beta_weights(draws(20_000), alpha=0.8), empirical) < 2.05


def semicircle(x):
    """The distribution function of Beta(3/2, 3/2)."""
    y = 2 * x - 1
    return 0.5 + (y * np.sqrt(1 - y * y) + np.arcsin(y)) / math.pi


def beta_of_integers(alpha):
    """That of Beta(alpha, alpha): how probable at least alpha of 2 · alpha − 1 successes are."""
    n = 2 * alpha - 1
    terms = range(alpha, n + 1)
    return lambda x: sum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in terms)


@pytest.mark.parametrize(
    ("alpha", "law"),
    [(1.5, semicircle), (2, beta_of_integers(2)), (3, beta_of_integers(3)), (20.0, None)],
)
def test_weights_of_larger_alphas_have_known_distributions(alpha, law):
    lam = beta_weights(draws(8000), alpha=alpha)
    assert kolmogorov_smirnov(lam, law or beta_of_integers(int(alpha))) < 1.95
    other = beta_weights(draws(8000), alpha=alpha, op=Op.MIXUP_WEIGHT)
    assert kolmogorov_smirnov(other, law or beta_of_integers(int(alpha))) < 1.95
    assert abs(np.corrcoef(lam, other)[0, 1]) < 4 / math.sqrt(8000)


@pytest.mark.parametrize("alpha", [0, -1, math.inf, math.nan])
def test_other_alphas_are_refused(alpha):
    with pytest.raises(UsageError, match=r"alpha .*expected"):
        beta_weights(draws(1), alpha=alpha)


@pytest.mark.parametrize("size", [(28, 28), (7, 7), (14, 21)])
@pytest.mark.parametrize("partner", [None, [3, 0, 1, 2, 5, 4, 6, 7]])
def test_cutmix_equals_a_loop(size, partner):
    x = normal_batch(8, 3, *size)
    random = draws(8)
    indices = None if partner is None else torch.tensor(partner)
    mixed = apply_cutmix(x, random, prob=0.8, alpha=1.0, partner=indices)
    lam = random.uniform(Op.CUTMIX_WEIGHT)
    gate = random.uniform(Op.CUTMIX_GATE) < 0.8
    u = random.uniform(Op.CUTMIX_BOX, (2,))
    assert not gate.all()
    for b in range(8):
        other = 7 - b if partner is None else partner[b]
        expected, mask = x[b].numpy().copy(), np.zeros(size, dtype=bool)
        if gate[b]:
            bounds = []
            for axis, length in enumerate(size):
                side = int(length * math.sqrt(1 - lam[b].item()))
                start = int(u[b, axis].item() * length) - side // 2
                bounds.append(slice(max(start, 0), max(start + side, 0)))
            mask[tuple(bounds)] = True
        expected[:, mask] = x[other].numpy()[:, mask]
        np.testing.assert_array_equal(mixed.inputs[b], expected)
        assert mixed.weight[b].item() == pytest.approx(1 - mask.mean(), abs=1e-6)
        top, left, bottom, right = mixed.boxes[b].tolist()
        assert (bottom - top) * (right - left) == mask.sum()


def test_cutmix_of_nobody_and_everybody():
    x = normal_batch(300, 1, 28, 28)
    nobody = apply_cutmix(x, draws(300), prob=0, alpha=1)
    assert torch.equal(nobody.inputs, x)
    assert torch.equal(nobody.weight, torch.ones(300))
    assert not nobody.boxes.any()
    everybody = apply_cutmix(x, draws(300), prob=1, alpha=1)
    changed = (everybody.inputs != x).double().mean(dim=(1, 2, 3))
    torch.testing.assert_close(changed, 1 - everybody.weight.double(), atol=1e-6, rtol=0)
    half = apply_cutmix(x, draws(300), prob=0.5, alpha=1).boxes.any(dim=1).double().mean()
    assert abs(half - 0.5) < 4 * math.sqrt(0.25 / 300) + 0.01


def test_boxes_lie_in_the_grid_and_their_centres_everywhere():
    top, left, bottom, right = cutmix_boxes(draws(20_000), (7, 9), prob=1, alpha=1).T
    assert ((top >= 0) & (top <= bottom) & (bottom <= 7)).all()
    assert ((left >= 0) & (left <= right) & (right <= 9)).all()
    covered = torch.zeros(7, 9)
    for y in range(7):
        for x in range(9):
            covered[y, x] = ((top <= y) & (y < bottom) & (left <= x) & (x < right)).double().mean()
    assert (covered > 0.1).all()
    assert covered[3, 4] > covered[0, 0]


@pytest.mark.parametrize("partner", [None, [3, 0, 1, 2, 5, 4, 6, 7]])
def test_mixup_equals_a_loop(partner):
    x = normal_batch(8, 3, 5, 6)
    selected = torch.arange(8) % 3 != 0
    indices = None if partner is None else torch.tensor(partner)
    blended, weight = apply_mixup(x, draws(8), alpha=0.8, selected=selected, partner=indices)
    lam = beta_weights(draws(8), alpha=0.8, op=Op.MIXUP_WEIGHT).double().numpy()
    for b in range(8):
        other = 7 - b if partner is None else partner[b]
        own = lam[b] if selected[b] else 1.0
        expected = own * x[b].double().numpy() + (1 - own) * x[other].double().numpy()
        np.testing.assert_allclose(blended[b], expected, atol=1e-6)
        assert weight[b].item() == own
    assert torch.equal(blended[~selected], x[~selected])


def adapted_in_numpy(own, other, unit):
    """AdaIN of one sample (C, h, w) with the documented floor of the variance."""
    result = np.empty_like(own)
    for channel in range(len(own)):
        deviations = [
            math.sqrt(((cells - cells.mean()) ** 2).mean() + 1e-5 * unit**2)
            for cells in (own[channel], other[channel])
        ]
        centred = (own[channel] - own[channel].mean()) / deviations[0]
        result[channel] = centred * deviations[1] + other[channel].mean()
    return result


@pytest.mark.parametrize("partner", [None, [3, 0, 1, 2, 5, 4, 6, 7]])
@pytest.mark.parametrize("unit", [1.0, 0.01, 300.0])
def test_color_adapt_equals_a_loop(partner, unit):
    x = unit * (normal_batch(8, 3, 5, 6) * torch.arange(1, 9)[:, None, None, None] + 2)
    x[5, 1] = 7 * unit  # a channel that is constant
    selected = torch.arange(8) % 3 != 0
    indices = None if partner is None else torch.tensor(partner)
    adapted = color_adapt_(x.clone(), selected=selected, unit=unit, partner=indices)
    for b in range(8):
        other = 7 - b if partner is None else partner[b]
        own = x[b].double().numpy()
        expected = adapted_in_numpy(own, x[other].double().numpy(), unit) if selected[b] else own
        np.testing.assert_allclose(adapted[b], expected, atol=1e-4 * unit, rtol=1e-5)
    assert torch.equal(adapted[~selected], x[~selected])


def test_color_adapt_gives_the_partners_statistics():
    x = normal_batch(6, 4, 14, 14) * torch.arange(1, 7)[:, None, None, None] + 5
    everyone = torch.ones(6, dtype=torch.bool)
    adapted = color_adapt_(x.clone(), selected=everyone, unit=1.0)
    for statistic in (torch.mean, torch.std):
        theirs = statistic(x.flip(0), dim=(2, 3))
        torch.testing.assert_close(statistic(adapted, dim=(2, 3)), theirs, rtol=1e-4, atol=1e-4)
    own = color_adapt_(x.clone(), selected=everyone, unit=1.0, partner=torch.arange(6))
    torch.testing.assert_close(own, x)
    constant = torch.full((2, 1, 3, 3), 4.0)
    assert torch.equal(color_adapt_(constant.clone(), selected=everyone[:2], unit=0), constant)
