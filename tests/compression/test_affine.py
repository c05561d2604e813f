"""Affine grids, compared with torch, ONNX Runtime and closed forms."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings, strategies as st

from seit.compression.weights.affine import (
    Affine,
    CodeRange,
    asymmetric,
    limits,
    symmetric,
)
from seit.compression.weights.clip import LeastSquares, MinMax
from seit.compression.weights.grids import fit_grid

SPECIAL = torch.tensor([math.inf, -math.inf, 0.0, -0.0, 1e30, -1e30, 1e-40])


def random_values(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grid_of(values, bits, kind):
    low, high = limits(values)
    if kind is symmetric:
        return symmetric(low, high, CodeRange.restricted(bits))
    return asymmetric(low, high, CodeRange.unsigned(bits))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", [symmetric, asymmetric])
def test_tensor_grids_equal_fake_quantization_of_torch(bits, kind):
    values = random_values(bits, 64, 33) * 3 + 0.5
    grid = grid_of(values, bits, kind)
    fed = torch.cat([values.flatten(), SPECIAL])
    expected = torch.fake_quantize_per_tensor_affine(
        fed, float(grid.scale), int(grid.zero), grid.codes.low, grid.codes.high
    )
    assert torch.equal(grid.nearest(fed)[0], expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_channel_grids_equal_fake_quantization_of_torch(bits):
    values = random_values(bits, 5, 40) * torch.arange(1, 6)[:, None]
    grid = asymmetric(*limits(values, (1,)), CodeRange.unsigned(bits))
    expected = torch.fake_quantize_per_channel_affine(
        values, grid.scale[:, 0], grid.zero[:, 0], 0, 0, grid.codes.high
    )
    assert torch.equal(grid.nearest(values), expected)


@pytest.mark.parametrize("codes", [CodeRange(low=0, high=255), CodeRange(low=-128, high=127)])
def test_ties_go_to_even_as_in_torch(codes):
    grid = Affine(torch.tensor(0.25), torch.tensor(3, dtype=torch.int32), codes)
    values = torch.arange(-400, 400) * 0.125  # every second one is a tie
    expected = torch.fake_quantize_per_tensor_affine(values, 0.25, 3, codes.low, codes.high)
    assert torch.equal(grid.nearest(values), expected)


def run_qdq(values, grid, kind):
    """Quantize and dequantize by ONNX Runtime."""
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=0),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=0),
    ]
    of = onnx.numpy_helper.from_array
    graph = onnx.helper.make_graph(
        nodes,
        "qdq",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, values.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, values.shape)],
        [
            of(grid.scale.flatten().numpy(), "s"),
            of(grid.zero.flatten().numpy().astype(kind), "z"),
        ],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": values.numpy()})[0]


@pytest.mark.parametrize(
    ("codes", "kind"),
    [(CodeRange.unsigned(8), np.uint8), (CodeRange(low=-128, high=127), np.int8)],
)
def test_channel_grids_equal_onnx_runtime(codes, kind):
    values = random_values(0, 6, 500) * 2
    values[:, :20] = torch.arange(-10, 10) * 0.5  # ties of a scale of 1
    values[:, 20:27] = SPECIAL
    grid = asymmetric(*limits(values, (1,)), codes)
    grid = Affine(torch.where(torch.arange(6)[:, None] == 2, 1.0, grid.scale), grid.zero, codes)
    assert np.array_equal(grid.nearest(values).numpy(), run_qdq(values, grid, kind))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    bits=st.integers(2, 8),
    half=st.booleans(),
)
def test_values_come_back_within_half_a_step(values, bits, half):
    values = torch.tensor(values)
    grid = asymmetric(*limits(values), CodeRange.unsigned(bits), half=half)
    back = grid.nearest(values)
    assert not grid.nearest(torch.zeros(3)).any()
    ends = grid.decode(torch.tensor([grid.codes.low, grid.codes.high]))
    inside = (values >= ends.min()) & (values <= ends.max())
    far = (back - values).abs() > grid.scale * (0.5 + 1e-4)
    assert not (far & inside).any()


@pytest.mark.parametrize("kind", [symmetric, asymmetric])
def test_degenerate_tensors_have_a_grid(kind):
    for values in (
        torch.zeros(0),
        torch.zeros(3, 0),
        torch.zeros(4),
        torch.full((4,), 2.5),
        torch.full((4,), -2.5),
        SPECIAL[:2],
        torch.full((4,), 1e-30),
        torch.full((2,), 3e38),
    ):
        for half in (False, True):
            codes = CodeRange.restricted(8) if kind is symmetric else CodeRange.unsigned(8)
            grid = kind(*limits(values), codes, half=half)
            assert 0 < float(grid.scale.flatten()[0]) < math.inf
            assert not grid.nearest(torch.zeros(2)).any()
            assert grid.nearest(values).isfinite().all()


@pytest.mark.parametrize("bits", range(2, 9))
def test_noise_of_uniform_values_is_that_of_the_closed_form(bits):
    """Each bit gives 6.02 dB; 2ᵇ − 1 steps span the range, of half a step's error at each end."""
    values = torch.rand(200_000, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    step = 2 / 2**bits
    grid = Affine(torch.tensor(step), torch.tensor(0), CodeRange(low=-(2**20), high=2**20))
    error = (grid.nearest(values) - values).square().mean()
    signal_to_noise = 10 * math.log10(float(values.square().mean() / error))
    assert signal_to_noise == pytest.approx(20 * math.log10(2) * bits, abs=0.1)


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_least_squares_clip_of_a_gaussian_is_the_best_there_is(bits):
    values = random_values(0, 40_000)[None]
    codes = CodeRange.restricted(bits)
    grid = LeastSquares().fit(values, 1, lambda low, high: symmetric(low, high, codes))
    found = float(grid.scale) * codes.high
    # Expected squared error by numerical integration, independently of the samples.
    x = np.linspace(-8, 8, 20_001)
    density = np.exp(-(x**2) / 2)
    clips = np.linspace(1, 4.5, 351)
    errors = [
        (density * (np.clip(np.round(x / s), -codes.high, codes.high) * s - x) ** 2).sum()
        for s in clips / codes.high
    ]
    assert found == pytest.approx(clips[int(np.argmin(errors))], abs=0.1)
    table = {3: 2.15, 4: 2.55, 6: 3.28}  # ACIQ: clips of 2ᵇ bins, whose outer halves lie beyond
    assert found + float(grid.scale) / 2 == pytest.approx(table[bits], abs=0.2)


def test_clipped_ranges_have_no_larger_error():
    weight = random_values(1, 8, 60)
    weight[0, 0] = 30.0
    errors = []
    for clip in (MinMax(), LeastSquares()):
        grid = fit_grid(weight, bits=3, group=16, clip=clip)
        back = grid.pack(grid.columns.encode(weight)).dense()
        errors.append((back - weight).square().reshape(8, 60).sum(1))
    assert (errors[1] <= errors[0] + 1e-6).all()


def test_stored_weights_are_those_that_were_computed():
    weight = random_values(2, 6, 3, 3, 3) * 1e-3
    grid = fit_grid(weight, bits=4, group=10, clip=MinMax())
    codes = grid.columns.encode(weight.flatten(1))
    assert torch.equal(grid.pack(codes).dense().flatten(1), grid.columns.decode(codes))
