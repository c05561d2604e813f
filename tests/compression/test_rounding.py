"""GPTQ and AdaRound, compared with exhaustive searches and with nearest rounding."""

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from seit.compression.weights.adaround import AdaRound
from seit.compression.weights.clip import MinMax
from seit.compression.weights.gptq import GPTQ, inverse_factor
from seit.compression.weights.grids import fit_grid
from seit.compression.weights.moments import columns, layer_inputs, measure
from seit.compression.weights.rounding import Nearest, output_error

EXACT = 1e-9
"""A damping that changes nothing but singular matrices."""


def made(seed, *, outputs=6, inputs=12, rows=200, groups=1):
    """Return a weight, correlated inputs (g, R, I) and their gram."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    mix = torch.randn(groups, inputs, inputs, generator=generator, dtype=torch.float64)
    x = torch.randn(groups, rows, inputs, generator=generator, dtype=torch.float64) @ mix
    return weight, x, x.mT @ x / rows


def error_of(codes, weight, grid, gram):
    return output_error(grid.columns.decode(codes).double() - weight, gram)


@pytest.mark.parametrize("act_order", [False, True])
def test_gptq_of_independent_inputs_is_rounding(act_order):
    """No input can make up for another's error; the order of the inputs has no effect either."""
    weight, _, _ = made(0)
    grid = fit_grid(weight, bits=3, group=0, clip=MinMax())
    gram = torch.rand(12, dtype=torch.float64).add(0.1).diag()[None]
    codes = GPTQ(act_order=act_order).codes(weight.double(), grid, gram)
    assert torch.equal(codes, Nearest().codes(weight.double(), grid, None))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bits=st.integers(2, 5),
    group=st.sampled_from([0, 5]),
    act_order=st.booleans(),
    rows=st.sampled_from([3, 200]),
    groups=st.sampled_from([1, 2]),
)
def test_gptq_is_never_worse_than_rounding(seed, bits, group, act_order, rows, groups):
    weight, _, gram = made(seed, rows=rows, groups=groups)
    grid = fit_grid(weight, bits=bits, group=group, clip=MinMax())
    codes = GPTQ(damping=EXACT, act_order=act_order).codes(weight.double(), grid, gram)
    nearest = Nearest().codes(weight.double(), grid, None)
    assert (error_of(codes, weight, grid, gram) <= error_of(nearest, weight, grid, gram)).all()
    assert codes.min() >= 0
    assert codes.max() < 1 << bits


def test_gptq_of_two_inputs_finds_the_best_codes():
    """With two inputs, errors of the first are made up for by the second: among all codes of the
    second, its choice is the best."""
    for seed in range(20):
        weight, _, gram = made(seed, outputs=1, inputs=2)
        grid = fit_grid(weight, bits=3, group=0, clip=MinMax())
        codes = GPTQ(damping=EXACT, act_order=False).codes(weight.double(), grid, gram)
        choices = torch.tensor(list(itertools.product(range(8), repeat=2)))
        errors = torch.stack([error_of(one[None], weight, grid, gram)[0] for one in choices])
        found = error_of(codes, weight, grid, gram)[0]
        with_first = errors[choices[:, 0] == codes[0, 0]].min()
        assert found == pytest.approx(float(with_first), rel=1e-9)
        assert (
            found <= error_of(Nearest().codes(weight.double(), grid, None), weight, grid, gram)[0]
        )


def test_gptq_in_blocks_is_gptq_column_by_column():
    """The formula of the paper on the inverse Hessian itself, without factor or lazy updates."""
    weight, _, gram = made(3, outputs=4, inputs=150, rows=2000)
    grid = fit_grid(weight, bits=3, group=40, clip=MinMax())
    codes = GPTQ(damping=0.01, act_order=False).codes(weight.double(), grid, gram)
    left, inverse = (
        weight.double().clone(),
        torch.linalg.inv(
            gram[0] + 0.01 * gram[0].diagonal().mean() * torch.eye(150, dtype=torch.float64)
        ),
    )
    expected = torch.zeros_like(codes)
    for i in range(150):
        scale, zero = grid.columns.scale[:, i].double(), grid.columns.zero[:, i]
        expected[:, i] = ((left[:, i] / scale).round() + zero).clamp(0, 7)
        error = (left[:, i] - (expected[:, i] - zero) * scale) / inverse[i, i]
        left -= error[:, None] * inverse[i]
        inverse -= torch.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    assert (codes == expected).double().mean() > 0.999


def test_singular_hessians_are_damped_until_they_are_not():
    gram = torch.ones(1, 3, 3, dtype=torch.float64)
    upper = inverse_factor(gram, damping=0.0)
    assert upper.isfinite().all()
    assert torch.equal(inverse_factor(gram * 0, damping=0.0), inverse_factor(gram * 0, damping=0.0))


def test_adaround_decides_for_up_or_down_and_beats_rounding():
    weight, _, gram = made(1)
    grid = fit_grid(weight, bits=3, group=0, clip=MinMax())
    method = AdaRound()
    share = method.shares(weight.double(), grid, gram)
    assert ((share < 0.01) | (share > 0.99)).double().mean() >= 0.98
    codes = method.codes(weight.double(), grid, gram)
    nearest = Nearest().codes(weight.double(), grid, None)
    floor = (weight / grid.columns.scale).floor() + grid.columns.zero
    assert ((codes - floor).abs() <= 1).all()
    errors = error_of(codes, weight, grid, gram), error_of(nearest, weight, grid, gram)
    assert (errors[0] <= errors[1]).all()
    assert errors[0].sum() < 0.7 * errors[1].sum()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, (3, 2), groups=2, dilation=(1, 2)),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_columns_of_a_layer_give_its_outputs(layer):
    generator = torch.Generator().manual_seed(0)
    is_linear = isinstance(layer, nn.Linear)
    shape = (3, 5, 6) if is_linear else (3, 4, 9, 8)
    values = torch.randn(*shape, generator=generator)
    found = columns(layer, values)
    weight = layer.weight.flatten(1).reshape(found.shape[0], -1, found.shape[2])
    outputs = found @ weight.mT  # (g, rows, outputs of a group)
    expected = layer(values) - layer.bias.reshape(-1, *([] if is_linear else [1, 1]))
    expected = expected.flatten(0, 1) if is_linear else expected.permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.allclose(outputs.transpose(0, 1).flatten(1), expected, atol=1e-5)


def test_moments_of_a_layer_that_is_called_twice_hold_both_calls():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 2)).double().float()
    batches = [torch.randn(5, 4), torch.randn(2, 4)]
    inputs = [one for x in batches for one in layer_inputs(model, "0", x, calls=2)]
    found = measure(shared, zip(inputs, inputs, strict=True))
    seen = torch.cat([one for x in batches for one in (x, shared(x).relu())]).detach().double()
    assert torch.allclose(found.gram[0], seen.mT @ seen / len(seen), atol=1e-6)
    assert torch.allclose(found.gram, found.cross, atol=1e-6)


def test_a_layer_makes_up_for_the_errors_before_it():
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(500, 6, generator=generator, dtype=torch.float64)
    mix = torch.eye(6, dtype=torch.float64) + 0.2 * torch.randn(6, 6, generator=generator).double()
    weight = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    first, second = (nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)) for _ in range(2))
    first[0].weight.data, second[0].weight.data = torch.eye(6), mix.float()
    for one in (first, second):
        one[0].bias.data.zero_()
    pairs = [(second[0](exact.float()).detach(), first[0](exact.float()).detach())]
    found = measure(second[1], pairs).wanted(weight, damping=0.0)
    assert torch.allclose(found @ mix, weight, atol=1e-3)


@pytest.mark.parametrize("damping", [0.0, 1e-8, 1e-5])
def test_weights_stay_where_inputs_never_lie(damping):
    """With inputs in a plane, half as large in the quantized network, W' is 2 W there, and W in all
    other directions: the inverse of the moments, which are singular, amplifies no noise."""
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(48, 5, generator=generator, dtype=torch.float64)).Q
    exact = torch.randn(400, 5, generator=generator) @ plane.T.float() * 3
    layer = nn.Linear(48, 7)
    weight = torch.randn(7, 48, generator=generator, dtype=torch.float64)
    found = measure(layer, [(exact / 2, exact)]).wanted(weight, damping=damping)
    inside = plane @ plane.T
    assert torch.allclose(found, weight + weight @ inside, atol=0.03)
    still = measure(layer, [(exact, exact)]).wanted(weight, damping=damping)
    assert torch.allclose(still, weight, atol=1e-9)
    never = measure(layer, [(exact * 0, exact)]).wanted(weight, damping=damping)
    assert torch.allclose(never, weight, atol=1e-12)
